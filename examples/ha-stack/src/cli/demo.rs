//! `ha-stack demo`.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use clap::Args;
use tokio_util::sync::CancellationToken;

use super::{PlatformArgs, unless_interrupted, with_platform};
use crate::control;
use crate::dashboard::sampler::Sampler;
use crate::dashboard::source::PlatformSource;
use crate::demo::{Pace, Story, faults};
use crate::platform::{Platform, StackSpec};
use crate::progress::Progress;
use crate::render::fronted::{FrontProxy, Fronted};
use crate::roles::coordination::Discovery;
use crate::settings::{Backends, PlatformName};

/// Flags of `demo`.
#[derive(Args, Debug)]
pub struct DemoArgs {
    #[command(flatten)]
    platform: PlatformArgs,
    /// Print the verdict as one JSON object on the last line of standard output
    #[arg(long)]
    json: bool,
    /// Leave the power-offs out; the verdict says so
    #[arg(long)]
    no_faults: bool,
    /// Let the idle site go to zero replicas too, and come back with its first request (platform swarm)
    #[arg(long)]
    zero: bool,
    /// Show the dashboard there while the story is told: 127.0.0.1:7070
    #[arg(long, value_name = "ADDR")]
    dashboard: Option<SocketAddr>,
    /// What stands between the users and the replicas; with nginx or haproxy, from their packages, the verdict shows what is lost
    #[arg(long, value_enum, default_value = "own")]
    gateway: FrontProxy,
}

/// Plays the story.
///
/// # Errors
/// When the stack can't be started, or does not do what a step waits for.
pub async fn run(args: DemoArgs, mut backends: Backends, stop: CancellationToken) -> Result<ExitCode> {
    let progress = Progress::new();
    // The story goes through one host's gateway, and takes no power from that host; `faults` does.
    backends.front = None;
    // The same stack as `up` starts, only less patient: a story is listened to.
    let spec = StackSpec { calm: CALM, down_percent_a_minute: 100, ..StackSpec::default() };
    let scale_out_promise = match args.platform.platform {
        PlatformName::Local => 15.0,
        PlatformName::Swarm | PlatformName::Engines => 30.0,
    };
    let (faults, zero, front) = (!args.no_faults, args.zero, args.gateway.foreign());
    let pace = Pace { faults, zero, front, scale_out_promise, ..Pace::default() };
    ensure!(
        !args.zero || args.platform.platform == PlatformName::Swarm,
        "--zero is for --platform swarm: elsewhere a site has no labels by which it could go to zero"
    );
    // A free port, so that a running stack is not in the way.
    let own = unless_interrupted(&stop, super::platform(&args.platform, 0, &spec, &backends)).await?;
    let platform: Arc<dyn Platform> = match args.gateway {
        FrontProxy::Own => own,
        proxy => {
            ensure!(
                args.platform.platform != PlatformName::Local,
                "--gateway follows Consul, which the platform local does without: use --platform engines or swarm"
            );
            ensure!(
                args.platform.discovery == Discovery::Consul,
                "--gateway follows Consul, which --discovery swarm does without: leave one of them out"
            );
            Arc::new(Fronted::new(own, proxy, spec.clone(), backends.consul()?)?)
        }
    };
    if pace.faults {
        faults::check(platform.as_ref())?;
    }
    if let Some(address) = args.dashboard {
        let (listener, guard) = control::bind("--dashboard", address, args.platform.token.as_ref()).await?;
        progress.line(format!("the dashboard is at http://{}", listener.local_addr()?));
        let source = PlatformSource::new(Arc::clone(&platform), spec.target_in_flight);
        let sampler = Sampler::new(source, Duration::from_secs(1));
        tokio::spawn(control::serve(
            listener,
            control::routes(Arc::clone(&platform), sampler.clone(), guard),
        ));
        tokio::spawn(sampler.run(stop.clone()));
    }
    let story = async {
        progress.heading(format!("The stack starts on the platform {}", platform.name()));
        platform.start(&progress).await?;
        Story::tell(platform.as_ref(), &spec, &pace, &progress).await
    };
    let verdict = with_platform(platform.as_ref(), &progress, &stop, story).await?;
    if args.json {
        eprintln!("{verdict}");
        println!("{}", verdict.json());
    } else {
        println!("{verdict}");
    }
    Ok(if verdict.ok { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

const CALM: Duration = Duration::from_secs(15);
