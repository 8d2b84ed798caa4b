//! `ha-stack faults`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Args;
use tokio_util::sync::CancellationToken;

use super::{PlatformArgs, unless_interrupted, with_platform};
use crate::faults::run::{Plan, Suite};
use crate::faults::strike::World;
use crate::faults::{Fault, Report};
use crate::platform::swarm::SwarmPlatform;
use crate::platform::{Faults as _, Platform, StackSpec};
use crate::progress::Progress;
use crate::roles::coordination::Discovery;
use crate::settings::{Backends, PlatformName};

/// Flags of `faults`.
#[derive(Args, Debug)]
pub struct FaultsArgs {
    #[command(flatten)]
    platform: PlatformArgs,
    /// Only these faults, in this order
    #[arg(long, value_name = "NAME,...", value_delimiter = ',')]
    only: Vec<Fault>,
    /// Each fault lasts only as long as it must, and promises of time are three times as long
    #[arg(long)]
    short: bool,
    /// Draw faults at random instead of playing each once
    #[arg(long, conflicts_with = "only", requires = "minutes")]
    random: bool,
    /// With --random: for how long
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=24 * 60))]
    minutes: Option<u64>,
    /// With --random: the same seed draws the same faults [default: drawn, and told]
    #[arg(long, value_name = "S")]
    seed: Option<u64>,
    /// Print the report as one JSON object on the last line of standard output
    #[arg(long)]
    json: bool,
    /// Write the report as a page
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// List the faults and what is promised, and do nothing
    #[arg(long)]
    list: bool,
}

/// Plays the faults.
///
/// # Errors
/// When the stack can't be started, or does not come back after a fault.
pub async fn run(args: FaultsArgs, backends: Backends, stop: CancellationToken) -> Result<ExitCode> {
    if args.list {
        for fault in Fault::ALL {
            let within = fault.redundancy(args.short);
            let within = within.map_or_else(String::new, |s| format!(", whole within {s:.0} s"));
            println!("{:<22}{:?} GETs may fail{within}", fault.name(), fault.promise());
        }
        return Ok(ExitCode::SUCCESS);
    }
    ensure!(
        args.platform.platform == PlatformName::Swarm,
        "--platform is {:?}: faults are real ones, on the hosts of a lab; use --platform swarm",
        args.platform.platform
    );
    ensure!(
        args.platform.discovery == Discovery::Consul,
        "--discovery is swarm: some faults are Consul's own; leave it out"
    );
    let progress = Progress::new();
    let spec = StackSpec { min: REPLICAS, faults: true, ..StackSpec::default() };
    let connect = SwarmPlatform::connect(spec, backends.clone(), args.platform.discovery);
    let platform = unless_interrupted(&stop, connect).await?;
    let lab = platform.lab()?.clone();
    platform.check()?;
    ensure!(
        backends.front()?.is_some(),
        "--front (HA_STACK_FRONT) is not set: the users of this command come through the lab's virtual address; \
         eval \"$(lab env)\" sets it"
    );
    let mut report = Report { platform: platform.name().into(), ..Report::default() };
    let seed = args.random.then(|| args.seed.unwrap_or_else(rand::random));
    report.seed = seed;
    let work = async {
        platform.start(&progress).await?;
        // The scaler keeps off: the number of replicas is part of what is measured.
        platform.scale(REPLICAS, HOLD).await?;
        let world = World { platform: &platform, lab, replicas: REPLICAS };
        let suite = Suite { world, plan: Plan { short: args.short, ..Plan::default() }, progress: &progress };
        match seed {
            Some(seed) => {
                progress.line(format!("faults at random; --seed {seed} draws the same ones again"));
                let lasts = Duration::from_secs(60 * args.minutes.unwrap_or(1));
                suite.random(seed, lasts, &mut report).await
            }
            None if args.only.is_empty() => suite.each(&Fault::ALL, &mut report).await,
            None => suite.each(&args.only, &mut report).await,
        }
    };
    let ended = with_platform(&platform, &progress, &stop, Box::pin(work)).await;
    report.close();
    report.ok &= ended.is_ok();
    if let Some(file) = &args.html {
        std::fs::write(file, report.html()).with_context(|| format!("--html {}", file.display()))?;
    }
    if args.json {
        eprintln!("\n{report}");
        println!("{}", report.json());
    } else {
        println!("\n{report}");
    }
    ended?;
    Ok(if report.ok { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

/// One on each host.
const REPLICAS: u32 = 3;
/// Longer than a full run.
const HOLD: Duration = Duration::from_secs(24 * 3600);
