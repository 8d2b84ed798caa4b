//! `ha-stack status`.

use std::fmt::Write as _;
use std::process::ExitCode;

use anyhow::{Result, ensure};
use clap::Args;

use super::PlatformArgs;
use crate::control;
use crate::platform::Status;
use crate::settings::{Backends, PlatformName};

/// Flags of `status`.
#[derive(Args, Debug)]
pub struct StatusArgs {
    #[command(flatten)]
    platform: PlatformArgs,
    /// The service that users see [default: the one in the Swarm; web on plain engines]
    #[arg(long, value_name = "NAME")]
    service: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Prints the status.
///
/// # Errors
/// When the stack can't be reached.
pub async fn run(args: StatusArgs, backends: Backends) -> Result<ExitCode> {
    let status = match args.platform.platform {
        PlatformName::Local => {
            let client = control::Client::new(args.platform.control, args.platform.token.as_ref())?;
            let status = client.status().await?;
            let other = args.service.filter(|service| *service != status.service);
            ensure!(
                other.is_none(),
                "there is no service {}; the stack runs {}",
                other.unwrap_or_default(),
                status.service
            );
            status
        }
        _ => super::running(&args.platform, args.service, &backends).await?.status().await?,
    };
    if args.json {
        println!("{}", serde_json::to_string(&status)?);
    } else {
        print!("{}", table(&status));
    }
    Ok(ExitCode::SUCCESS)
}

/// The status for people: what `status` prints once and `up` keeps showing.
pub fn table(status: &Status) -> String {
    let mut out = String::new();
    let usable = status.replicas.iter().filter(|r| r.usable).count();
    // Writing to a string can't fail.
    let _ = writeln!(
        out,
        "{} on {}: {usable} of {} replicas in use",
        status.service, status.platform, status.wanted
    );
    if let Some(hold) = &status.hold {
        let _ = writeln!(out, "  held: {hold}");
    }
    if let Some(decision) = &status.decision {
        let _ = writeln!(out, "  scaler: {decision}");
    }
    let _ = writeln!(out, "\n  {:<10} {:<18} {:<6} LEADS", "HOST", "ADDRESS", "POWER");
    for host in &status.hosts {
        let power = if host.up { "up" } else { "DOWN" };
        let _ =
            writeln!(out, "  {:<10} {:<18} {power:<6} {}", host.name, host.address, host.leads.join(", "));
    }
    let _ = writeln!(out, "\n  {:<34} {:<10} {:<22} {:>9}  STATE", "REPLICA", "HOST", "ADDRESS", "IN FLIGHT");
    for r in &status.replicas {
        let _ = writeln!(
            out,
            "  {:<34} {:<10} {:<22} {:>9}  {}",
            r.instance, r.host, r.address, r.in_flight, r.state
        );
    }
    let _ = writeln!(
        out,
        "\n  {:<10} {:<30} {:>9} {:>10} {:>10}",
        "GATEWAY", "ADDRESS", "IN FLIGHT", "PER SECOND", "P95 MS"
    );
    for g in &status.gateways {
        match &g.error {
            Some(error) => {
                let _ = writeln!(out, "  {:<10} {:<30} {error}", g.name, g.address);
            }
            None => {
                let _ = writeln!(
                    out,
                    "  {:<10} {:<30} {:>9} {:>10.1} {:>10.1}",
                    g.name, g.address, g.in_flight, g.rate, g.p95_ms
                );
            }
        }
    }
    out
}
