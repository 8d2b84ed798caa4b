//! `ha-stack scale`.

use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Result, ensure};
use clap::Args;

use super::PlatformArgs;
use crate::control;
use crate::platform::StackSpec;
use crate::settings::{Backends, PlatformName};

/// Flags of `scale`.
#[derive(Args, Debug)]
pub struct ScaleArgs {
    #[command(flatten)]
    platform: PlatformArgs,
    /// The service
    service: String,
    /// How many replicas, or `auto` to hand the number back to the scaler
    replicas: Replicas,
    /// How long the scaler keeps off
    #[arg(long, default_value_t = 300, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(..=MAX_HOLD))]
    hold: u64,
}

#[derive(Clone, Copy, Debug)]
enum Replicas {
    Count(u32),
    Auto,
}

impl FromStr for Replicas {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "auto" {
            return Ok(Self::Auto);
        }
        let count = text.parse().ok().filter(|count| (0..=1000).contains(count));
        count.map(Self::Count).ok_or_else(|| "give a number from 0 to 1000, or auto".into())
    }
}

/// Scales by hand, or hands back.
///
/// # Errors
/// When the stack can't be reached, or has no such service.
pub async fn run(args: ScaleArgs, backends: Backends) -> Result<ExitCode> {
    let hold = Duration::from_secs(args.hold);
    let spec = StackSpec { service: args.service.clone(), ..StackSpec::default() };
    match (args.platform.platform, args.replicas) {
        (PlatformName::Local, replicas) => {
            let client = control::Client::new(args.platform.control, args.platform.token.as_ref())?;
            let service = client.status().await?.service;
            ensure!(
                service == args.service,
                "there is no service {}; the stack runs {service}",
                args.service
            );
            match replicas {
                Replicas::Count(count) => client.scale(count, hold).await?,
                Replicas::Auto => client.release().await?,
            }
        }
        (_, replicas) => {
            let platform = super::platform(&args.platform, 0, &spec, &backends).await?;
            match replicas {
                Replicas::Count(count) => platform.scale(count, hold).await?,
                Replicas::Auto => platform.release().await?,
            }
        }
    }
    match args.replicas {
        Replicas::Count(count) => {
            println!(
                "{} is to have {count} replicas; the scaler keeps off for {} s",
                args.service, args.hold
            );
        }
        Replicas::Auto => println!("{} is the scaler's again", args.service),
    }
    Ok(ExitCode::SUCCESS)
}

/// A week: a hold that is meant for ever is `--min` and `--max`.
const MAX_HOLD: u64 = 7 * 24 * 3600;
