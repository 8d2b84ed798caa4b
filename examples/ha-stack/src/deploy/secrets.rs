//! The secrets of a stack: made at its first deploy, handed out by Swarm, never shown, and gone with the stack.
//!
//! A stack file asks for one by the variable `NAME_SECRET`, as it asks for an image by `NAME_IMAGE`; with that variable
//! set, it is a secret of somebody else's making.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, bail, ensure};
use serde_json::json;
use swarm_client::SecretSpec;

use super::{certificates, rights};
use crate::settings::Secret;

/// A secret's name without the stack's, and what it holds.
pub type Made = BTreeMap<&'static str, String>;

/// Those of Redis and its Sentinels, which belong together.
pub const REDIS: [&str; 8] = [
    "redis-users",
    "redis-replica",
    "redis-url",
    "sentinel-users",
    "sentinel-login",
    "redis-ca",
    "redis-cert",
    "redis-key",
];
/// Those of Consul.
pub const CONSUL: [&str; 5] =
    ["consul-acl", "consul-tokens", "consul-gateway", "consul-registrar", "consul-scaler"];

/// The secret that a variable asks for: `redis-url` for `REDIS_URL_SECRET`; `None` where there is no such secret.
pub fn asked_by(variable: &str) -> Option<&'static str> {
    let name = variable.strip_suffix("_SECRET")?.to_ascii_lowercase().replace('_', "-");
    REDIS.into_iter().chain(CONSUL).find(|known| *known == name)
}

/// Its name in the Swarm.
pub fn full_name(stack: &str, name: &str) -> String {
    format!("{stack}_{name}")
}

/// A person's token for Consul in the form that Consul wants.
///
/// # Errors
/// When it is no UUID.
pub fn check_token(token: &Secret) -> Result<()> {
    let groups: Vec<&str> = token.expose().split('-').collect();
    let hexadecimal = groups.iter().all(|group| group.bytes().all(|byte| byte.is_ascii_hexdigit()));
    ensure!(
        hexadecimal && groups.iter().map(|group| group.len()).eq([8, 4, 4, 4, 12]),
        "--consul-token (CONSUL_HTTP_TOKEN) is no UUID: Consul's first token must be one; `uuidgen` makes one"
    );
    Ok(())
}

/// Makes those of Redis. `draw` gives bytes that nobody can guess.
///
/// # Errors
/// When no certificate can be made.
pub fn redis(mut draw: impl FnMut() -> [u8; 32]) -> Result<Made> {
    let mut password = || rights::hex(&draw());
    let [web, replica, sentinel, peer] = std::array::from_fn(|_| password());
    let hosts = PLACES.map(|place| format!("sentinel-{place}:26379")).join(",");
    let names: Vec<String> =
        PLACES.iter().flat_map(|place| [format!("redis-{place}"), format!("sentinel-{place}")]).collect();
    let made = certificates::make(&names).context("the certificates of Redis can't be made")?;
    Ok(Made::from([
        ("redis-users", rights::redis_users(&web, &replica, &sentinel)),
        ("redis-replica", format!("masteruser replica\nmasterauth {replica}\n")),
        (
            "redis-url",
            format!(
                "rediss+sentinel://web:{web}@{hosts}/{MASTER}?sentinel-user=web&sentinel-password={web}&ca={CA}\n"
            ),
        ),
        ("sentinel-users", rights::sentinel_users(&web, &peer)),
        (
            "sentinel-login",
            format!(
                "sentinel auth-user {MASTER} sentinel\nsentinel auth-pass {MASTER} {sentinel}\n\
                 sentinel sentinel-user peer\nsentinel sentinel-pass {peer}\n"
            ),
        ),
        ("redis-ca", made.ca),
        ("redis-cert", made.cert),
        ("redis-key", made.key),
    ]))
}

/// Makes those of Consul; `management` is the token of whoever operates it, drawn as well where nobody names one.
pub fn consul(management: Option<&str>, mut draw: impl FnMut() -> [u8; 32]) -> Made {
    let mut token = || uuid(draw());
    let management = management.map_or_else(&mut token, str::to_owned);
    let roles: BTreeMap<&str, String> = rights::CONSUL.iter().map(|right| (right.role, token())).collect();
    let of = |role: &str| roles.get(role).cloned().unwrap_or_default();
    // `master` is what Consul up to 1.10 calls it; later ones take it too, and say that it has another name now.
    let tokens = json!({"master": management, "agent": of("agent")});
    let acl = json!({"acl": {
        "enabled": true,
        "default_policy": "deny",
        // A server that can't reach the others goes on with what it knows.
        "down_policy": "extend-cache",
        "tokens": tokens,
    }});
    Made::from([
        ("consul-acl", acl.to_string()),
        ("consul-tokens", json!({"management": management, "roles": roles}).to_string()),
        ("consul-gateway", of("gateway")),
        ("consul-registrar", of("registrar")),
        ("consul-scaler", of("scaler")),
    ])
}

/// What has to be made so that all that was asked for is there.
///
/// # Errors
/// When some of those that belong together are there and others are not: none of them can be read or made to fit.
pub fn missing(
    stack: &str,
    asked: &BTreeSet<&'static str>,
    there: &BTreeSet<String>,
) -> Result<Vec<&'static [&'static str]>> {
    let mut groups = Vec::new();
    for group in [&REDIS[..], &CONSUL[..]] {
        let wanted = group.iter().filter(|name| asked.contains(*name));
        let (have, lack): (Vec<String>, Vec<String>) =
            wanted.map(|name| full_name(stack, name)).partition(|name| there.contains(name));
        if lack.is_empty() {
            continue;
        }
        let left: Vec<String> =
            group.iter().map(|name| full_name(stack, name)).filter(|name| there.contains(name)).collect();
        if !left.is_empty() || !have.is_empty() {
            bail!(
                "the Swarm has the secrets {} and not {}, which belong together and hold each other's passwords: remove \
                 the stack with `ha-stack remove --name {stack}`, or those that are left with `docker secret rm`, and \
                 deploy again",
                left.join(", "),
                lack.join(", ")
            );
        }
        groups.push(group);
    }
    Ok(groups)
}

/// Writes them to the Swarm. What was written is taken back when a later one is refused.
///
/// # Errors
/// When the Swarm refuses one.
pub async fn create(swarm: &swarm_client::Client, stack: &str, made: &Made) -> Result<()> {
    let mut written = Vec::new();
    for (name, content) in made {
        let name = full_name(stack, name);
        let spec = SecretSpec::new(&name, content).label(LABEL, stack);
        if let Err(error) = swarm.secrets().create(&spec).await {
            for name in &written {
                // Whoever deploys again is told of what is left.
                let _ = swarm.secrets().remove(name).await;
            }
            return Err(error).with_context(|| format!("the secret {name} can't be created"));
        }
        written.push(name);
    }
    Ok(())
}

/// Removes what [`create`] wrote for this stack. How many there were.
///
/// # Errors
/// When the Swarm refuses, as while a service uses one.
pub async fn remove(swarm: &swarm_client::Client, stack: &str) -> Result<usize> {
    let there = swarm.secrets().list_labelled(format!("{LABEL}={stack}")).await?;
    for secret in &there {
        let removed = swarm.secrets().remove(secret.name()).await;
        removed.with_context(|| format!("the secret {} can't be removed", secret.name()))?;
    }
    Ok(there.len())
}

/// A UUID of version 4 (RFC 9562).
fn uuid(bytes: [u8; 32]) -> String {
    let mut text = String::new();
    for (at, byte) in bytes.iter().take(16).enumerate() {
        let byte = match at {
            6 => (byte & 0x0f) | 0x40,
            8 => (byte & 0x3f) | 0x80,
            _ => *byte,
        };
        if matches!(at, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        text.push_str(&format!("{byte:02x}"));
    }
    text
}

/// Whose the secret is: the stack's name. Not the label of `docker stack`, whose owner a plan would prune.
const LABEL: &str = "ha-stack.secret-of";
const PLACES: [u8; 3] = [1, 2, 3];
/// The name under which the Sentinels know the master.
const MASTER: &str = "main";
/// Where a container that uses the secret `redis-ca` sees it.
const CA: &str = "/run/secrets/redis-ca";

#[cfg(test)]
mod tests {
    use super::*;

    fn counting() -> impl FnMut() -> [u8; 32] {
        let mut n = 0;
        move || {
            n += 1;
            [n; 32]
        }
    }

    #[test]
    fn every_secret_is_made_and_asked_for_by_its_variable() {
        let redis = redis(counting()).unwrap();
        assert!(redis.keys().eq(REDIS.iter().collect::<BTreeSet<_>>()), "{:?}", redis.keys());
        let consul = consul(None, counting());
        assert!(consul.keys().eq(CONSUL.iter().collect::<BTreeSet<_>>()), "{:?}", consul.keys());
        for name in REDIS.into_iter().chain(CONSUL) {
            let variable = format!("{}_SECRET", name.to_ascii_uppercase().replace('-', "_"));
            assert_eq!(asked_by(&variable), Some(name));
        }
        assert_eq!(asked_by("DATABASE_SECRET"), None);
        // A password is in one user's hands alone.
        let password = "01".repeat(32);
        assert!(redis["redis-url"].contains(&password));
        let others = redis.iter().filter(|(name, _)| **name != "redis-url");
        assert!(others.into_iter().all(|(_, content)| !content.contains(&password)));
    }

    #[test]
    fn each_role_has_a_token_of_its_own_and_only_the_keeper_all() {
        let made = consul(Some("11111111-2222-4333-8444-555555555555"), counting());
        let all: serde_json::Value = serde_json::from_str(&made["consul-tokens"]).unwrap();
        assert_eq!(all["management"], "11111111-2222-4333-8444-555555555555");
        let mut seen = BTreeSet::new();
        for role in ["gateway", "registrar", "scaler"] {
            let token = made[format!("consul-{role}").as_str()].as_str();
            assert!(check_token(&token.into()).is_ok(), "{token}");
            assert!(all["roles"][role] == token && seen.insert(token), "{role}");
        }
        let acl: serde_json::Value = serde_json::from_str(&made["consul-acl"]).unwrap();
        assert_eq!(acl["acl"]["default_policy"], "deny");
        assert_eq!(acl["acl"]["tokens"]["agent"], all["roles"]["agent"]);
        assert!(check_token(&"hunter2".into()).unwrap_err().to_string().contains("uuidgen"));
    }

    #[test]
    fn what_belongs_together_is_made_together_or_not_at_all() {
        let asked = BTreeSet::from(["redis-url", "redis-users", "consul-gateway"]);
        let there = |names: &[&str]| names.iter().map(|name| full_name("ha", name)).collect::<BTreeSet<_>>();
        assert_eq!(missing("ha", &asked, &there(&[])).unwrap(), [&REDIS[..], &CONSUL[..]]);
        assert_eq!(missing("ha", &BTreeSet::new(), &there(&[])).unwrap(), Vec::<&[&str]>::new());
        assert_eq!(missing("ha", &asked, &there(&CONSUL)).unwrap(), [&REDIS[..]]);
        let all: Vec<&str> = REDIS.into_iter().chain(CONSUL).collect();
        assert!(missing("ha", &asked, &there(&all)).unwrap().is_empty());
        let error = missing("ha", &asked, &there(&["redis-url"])).unwrap_err().to_string();
        assert!(error.contains("ha_redis-url and not ha_redis-users"), "{error}");
    }
}
