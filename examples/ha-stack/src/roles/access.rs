//! The keeper of Consul's access: sees to it that the policies of the reference deployment and the tokens of its roles are
//! there, with exactly the rights that are written down here.
//!
//! It is the only role with a token that may do everything, and it does nothing else. Roles ask until their tokens are there.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use consul_client::{Acl, NewToken, Policy};
use serde::Deserialize;

use crate::cli::shutdown_signal;
use crate::deploy::rights::{CONSUL, Right};
use crate::settings::Backends;

/// Flags of `access`.
#[derive(Args, Clone, Debug)]
pub struct AccessArgs {
    /// A JSON object with `management`, a token that may do everything, and `roles`, the token of each role
    #[arg(long, value_name = "FILE", default_value = "/run/secrets/consul-tokens")]
    tokens: PathBuf,
    /// How often it is looked at again
    #[arg(long, default_value_t = 30, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    interval: u64,
}

/// The tokens that are wanted. Debug would show them, so there is none.
#[derive(Deserialize)]
pub struct Tokens {
    management: String,
    roles: BTreeMap<String, String>,
}

impl Tokens {
    /// Reads the file.
    ///
    /// # Errors
    /// When it can't be read or is not of that form; its content is not told.
    pub fn read(file: &Path) -> Result<Self> {
        let text =
            std::fs::read_to_string(file).with_context(|| format!("--tokens is {}", file.display()))?;
        serde_json::from_str(&text).map_err(|error| {
            let (line, column) = (error.line(), error.column());
            anyhow::anyhow!(
                "--tokens is {}, and not of the form {{\"management\": \"..\", \"roles\": {{\"gateway\": \"..\"}}}} at line \
                 {line}, column {column}",
                file.display()
            )
        })
    }
}

/// Keeps the access until told to stop.
///
/// # Errors
/// When the settings are wrong. A Consul that does not answer is waited for.
pub async fn run(args: AccessArgs, backends: &Backends) -> Result<ExitCode> {
    let tokens = Tokens::read(&args.tokens)?;
    let consul = backends.consul()?;
    let work = async {
        let mut told = String::new();
        loop {
            let pause = match ensure(&consul, &tokens).await {
                Ok(done) => {
                    done.iter().for_each(|what| tracing::info!("{what}"));
                    told.clear();
                    Duration::from_secs(args.interval)
                }
                Err(error) => {
                    // Once for each reason: it is asked again every second.
                    let error = format!("{error:#}");
                    if error != told {
                        tracing::warn!(error, "Consul's access can't be seen to yet");
                        told = error;
                    }
                    RETRY
                }
            };
            tokio::time::sleep(pause).await;
        }
    };
    let stop = shutdown_signal()?;
    tokio::select! {
        () = work => {}
        () = stop => {}
    }
    Ok(ExitCode::SUCCESS)
}

/// Makes what is missing and corrects what differs. What was done, as sentences.
///
/// # Errors
/// When Consul does not answer or refuses.
pub async fn ensure(consul: &consul_client::Client, tokens: &Tokens) -> Result<Vec<String>> {
    let acl = consul.with_token(&tokens.management)?.acl();
    let mut done = Vec::new();
    let there = acl.policies().await.context("the policies can't be listed")?.value;
    for right in &CONSUL {
        let name = right.policy();
        let known = there.iter().find(|policy| policy.name == name);
        let policy = match known {
            // A list tells no rules.
            Some(known) => Some(acl.policy(&known.id).await.with_context(|| format!("the policy {name}"))?),
            None => None,
        };
        match policy {
            Some(policy) if policy.rules == right.rules => {}
            Some(mut policy) => {
                policy.rules = right.rules.to_owned();
                acl.update_policy(&policy).await.with_context(|| format!("the policy {name}"))?;
                done.push(format!("policy {name}: corrected"));
            }
            None => {
                let policy = Policy::new(&name, right.rules);
                acl.create_policy(&policy).await.with_context(|| format!("the policy {name}"))?;
                done.push(format!("policy {name}: made"));
            }
        }
        if let Some(token) = tokens.roles.get(right.role)
            && make_token(consul, &acl, right, token).await?
        {
            done.push(format!("token of {}: made", right.role));
        }
    }
    Ok(done)
}

/// Whether the token had to be made.
async fn make_token(consul: &consul_client::Client, acl: &Acl, right: &Right, token: &str) -> Result<bool> {
    let role = right.role;
    match consul.with_token(token)?.acl().token_self().await {
        Ok(_) => return Ok(false),
        Err(error) if error.is_denied() => {}
        Err(error) => return Err(error).with_context(|| format!("the token of {role} can't be looked at")),
    }
    let new =
        NewToken::default().description(format!("ha-stack {role}")).policy(right.policy()).secret(token);
    acl.create_token(&new).await.with_context(|| format!("the token of {role} can't be made"))?;
    Ok(true)
}

const RETRY: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_file_is_told_without_its_content() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("tokens");
        let read = |text: &str| {
            std::fs::write(&file, text).unwrap();
            Tokens::read(&file).map(drop)
        };
        read(r#"{"management": "a", "roles": {"gateway": "b"}}"#).unwrap();
        for bad in
            [r#"{"management": "hunter2"}"#, r#"{"management": 1, "roles": {"x": "hunter2"}}"#, "hunter2"]
        {
            let error = format!("{:#}", read(bad).unwrap_err());
            assert!(error.contains("--tokens") && !error.contains("hunter2"), "{error}");
        }
    }
}
