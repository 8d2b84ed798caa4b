//! `ha-stack deploy` and `ha-stack remove`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Args;
use swarm_client::stack::{Applied, Plan, Stack};

use crate::deploy::engine_tls::{self, RoleCertificates};
use crate::deploy::{self, Deployment, secrets};
use crate::images::engines;
use crate::progress::{self, Progress};
use crate::settings::{Backends, Secret, shown};

/// Flags of `deploy`.
#[derive(Args, Debug)]
pub struct DeployArgs {
    /// The stack file, in compose's form [default: the reference deployment, which brings Consul and Redis along]
    #[arg(long, short, value_name = "FILE")]
    file: Option<PathBuf>,
    /// The stack's name
    #[arg(long, default_value = "ha", value_name = "NAME")]
    name: String,
    /// Say what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// Leave what the file no longer has
    #[arg(long)]
    no_prune: bool,
    /// A folder with ca.pem, cert.pem and key.pem: services that mount the engine's socket get these instead, and reach the
    /// engine of their host by TLS at 127.0.0.1:2376
    #[arg(long, value_name = "DIR")]
    role_certs: Option<PathBuf>,
    /// How long each service may take until its tasks run
    #[arg(long, default_value_t = 120, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=3600))]
    deadline: u64,
}

/// Flags of `remove`.
#[derive(Args, Debug)]
pub struct RemoveArgs {
    /// The stack's name
    #[arg(long, default_value = "ha", value_name = "NAME")]
    name: String,
    /// How long its tasks may take to end
    #[arg(long, default_value_t = 120, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=3600))]
    deadline: u64,
}

/// Makes the Swarm what the stack file says.
///
/// # Errors
/// When the file can't be used, an image can't be made, or a service does not come up.
pub async fn deploy(args: DeployArgs, backends: &Backends) -> Result<ExitCode> {
    let progress = Progress::new();
    let deadline = Duration::from_secs(args.deadline);
    let text = match &args.file {
        Some(file) => {
            std::fs::read_to_string(file).with_context(|| format!("--file is {}", file.display()))?
        }
        None => deploy::OWN_FILE.to_owned(),
    };
    let folder = args.file.as_deref().and_then(Path::parent).unwrap_or(Path::new(""));
    let role_certs = args.role_certs.as_deref().map(RoleCertificates::read).transpose()?;
    let swarm = Box::pin(connect(backends)).await?;
    let members = deploy::members(&swarm.nodes().list().await?)?;
    if let Some(advice) = deploy::slow_to_notice(&swarm.swarm().get().await?.spec) {
        progress.line(advice);
    }
    let environment = |name: &str| {
        let set = std::env::var(name).ok().filter(|value| !value.is_empty());
        // Who opens no socket need not be in docker's group.
        set.or_else(|| (name == "DOCKER_USER" && role_certs.is_some()).then(|| engine_tls::USER.to_owned()))
    };
    let Deployment { mut stack, builds, secrets: asked } =
        deploy::read(&args.name, &text, folder, &members, &environment)?;
    if let Some(certificates) = role_certs {
        stack = engine_tls::instead_of_the_socket(stack, certificates)?;
    }

    let missing = missing_secrets(&swarm, &args.name, &asked).await?;
    if args.dry_run {
        // They are not there yet: what the plan would be with them, under names that it makes up.
        stack = missing.iter().copied().flatten().fold(stack, |stack, name| stack.secret(*name, ""));
    } else {
        make_secrets(&swarm, &args.name, &missing, backends, &progress).await?;
    }
    let plan = Box::pin(stack.plan(&swarm, &deploy::plan_options())).await?;
    println!("{plan}");
    if args.dry_run || plan.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    if !builds.is_empty() {
        let engines = backends.engines()?;
        ensure!(
            engines.len() >= members.len(),
            "the Swarm has {} nodes, and --engines (HA_STACK_ENGINES) names {} of their engines: each needs the images",
            members.len(),
            engines.len()
        );
        engines::load(&builds, &engines, &progress).await?;
    }
    Box::pin(apply(&plan, &swarm, deadline, &progress)).await?;
    if !args.no_prune {
        Box::pin(plan.prune(&swarm, deadline))
            .await
            .context("what the file no longer has can't be removed")?;
    }
    progress.line(format!("the stack {} is what the file says", args.name));
    Ok(ExitCode::SUCCESS)
}

/// Removes all that has the stack's name, with the secrets that [`deploy()`] made, but not its volumes, which hold users'
/// sessions.
///
/// # Errors
/// When the Swarm can't be reached, there is no such stack, or its tasks don't end.
pub async fn remove(args: RemoveArgs, backends: &Backends) -> Result<ExitCode> {
    let progress = Progress::new();
    let swarm = Box::pin(connect(backends)).await?;
    let plan = Box::pin(Stack::new(&args.name).plan(&swarm, &deploy::plan_options())).await?;
    if plan.is_empty() && secrets::remove(&swarm, &args.name).await? > 0 {
        progress.line("its secrets were left, and are gone");
        return Ok(ExitCode::SUCCESS);
    }
    ensure!(
        !plan.is_empty(),
        "the Swarm has no stack {} (--name): `docker stack ls` lists those that it has",
        args.name
    );
    println!("{plan}");
    let step = progress.step(format!("removing the stack {}", args.name));
    Box::pin(plan.prune(&swarm, Duration::from_secs(args.deadline))).await?;
    secrets::remove(&swarm, &args.name).await?;
    step.done("gone; its volumes stay: `docker volume ls` on each host lists them");
    Ok(ExitCode::SUCCESS)
}

async fn missing_secrets(
    swarm: &swarm_client::Client,
    stack: &str,
    asked: &BTreeSet<&'static str>,
) -> Result<Vec<&'static [&'static str]>> {
    if asked.is_empty() {
        return Ok(Vec::new());
    }
    let there = swarm.secrets().list().await?;
    secrets::missing(stack, asked, &there.iter().map(|secret| secret.name().to_owned()).collect())
}

/// Makes them from this machine's source of randomness, and writes them nowhere but to the Swarm.
async fn make_secrets(
    swarm: &swarm_client::Client,
    stack: &str,
    groups: &[&'static [&'static str]],
    backends: &Backends,
    progress: &Progress,
) -> Result<()> {
    for group in groups {
        let made = if *group == secrets::REDIS {
            secrets::redis(rand::random)?
        } else {
            let token = backends.consul_token();
            token.map_or(Ok(()), secrets::check_token)?;
            secrets::consul(token.map(Secret::expose), rand::random)
        };
        secrets::create(swarm, stack, &made).await?;
        progress.line(format!(
            "{} secrets made: {}",
            made.len(),
            made.into_keys().collect::<Vec<_>>().join(", ")
        ));
    }
    Ok(())
}

async fn connect(backends: &Backends) -> Result<swarm_client::Client> {
    let swarm = backends.swarm().await?;
    let info = swarm.info().await?;
    ensure!(
        info.swarm.control_available,
        "the engine at {} (--docker-host, DOCKER_HOST) is not a Swarm manager: run `docker swarm init` there, or name a \
         manager",
        shown(&swarm.endpoint().to_string())
    );
    Ok(swarm)
}

async fn apply(
    plan: &Plan,
    swarm: &swarm_client::Client,
    deadline: Duration,
    progress: &Progress,
) -> Result<()> {
    let mut under_way: Option<progress::Step> = None;
    let applied = plan.apply_telling(swarm, deadline, |applied| match applied {
        Applied::Done(step) => progress.line(format!("{} {}: there", step.kind, step.name)),
        Applied::Written(step) => progress.line(format!("{} {}: starts ...", step.kind, step.name)),
        Applied::Waiting(step, lacks) => {
            let begun =
                || progress.counted(format!("{} {}", step.kind, step.name), lacks.wanted.unwrap_or(0));
            under_way.get_or_insert_with(begun).lacks(lacks);
        }
        Applied::RolledOut(step, outcome) => match under_way.take() {
            Some(under_way) => under_way.done(outcome),
            None => progress.line(format!("{} {}: {outcome}", step.kind, step.name)),
        },
        _ => {}
    });
    applied.await.context(
        "the stack is not what the file says yet; `docker service ps --no-trunc NAME` and `docker service logs NAME` say \
         more, and the same command goes on where it stopped",
    )
}
