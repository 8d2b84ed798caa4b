//! `ha-stack load`.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, ensure};
use clap::Args;
use tokio_util::sync::CancellationToken;

use crate::load::{Load, LoadPlan};
use crate::progress::Progress;

/// Flags of `load`.
#[derive(Args, Debug)]
pub struct LoadArgs {
    /// Where each request goes
    #[arg(long, default_value = "http://127.0.0.1:8080/work?ms=100")]
    url: String,
    /// Requests in flight at once
    #[arg(long, default_value_t = 20)]
    workers: usize,
    /// How long
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// Send POST in place of GET: what a gateway may not send a second time, so that a request that is cut shows
    #[arg(long)]
    post: bool,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

/// Sends the load.
///
/// # Errors
/// When the numbers make no sense, or no request was answered at all.
pub async fn run(args: LoadArgs, stop: CancellationToken) -> Result<ExitCode> {
    ensure!((1..=10_000).contains(&args.workers), "--workers is {}; it must be 1 to 10000", args.workers);
    ensure!((1..=3600).contains(&args.seconds), "--seconds is {}; it must be 1 to 3600", args.seconds);
    let plan = LoadPlan {
        url: args.url,
        workers: args.workers,
        pause: Duration::ZERO,
        timeout: Duration::from_secs(30),
        post: args.post,
    };
    let step = Progress::new().step(format!("{} requests in flight at {}", plan.workers, plan.url));
    let url = plan.url.clone();
    let load = Load::start(plan)?;
    tokio::select! {
        () = tokio::time::sleep(Duration::from_secs(args.seconds)) => {}
        () = stop.cancelled() => {}
    }
    // What is under way is waited for, but not after a signal.
    let report = match stop.is_cancelled() {
        true => load.abandon(),
        false => load.stop().await,
    };
    step.done(format!("{} requests, {} failed", report.requests, report.failures()));
    if args.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        println!(
            "requests {:>8}   a second {:>8.1}",
            report.requests,
            report.requests as f64 / report.seconds
        );
        let [p50, p95, p99] = report.latency_ms;
        println!("median {p50:>7.1} ms   p95 {p95:>7.1} ms   p99 {p99:>7.1} ms");
        for (instance, count) in &report.instances {
            println!("  {instance:<24} {count:>8}");
        }
        for (kind, count) in &report.failed {
            println!("  failed: {kind:<15} {count:>8}");
        }
    }
    ensure!(report.requests > report.failures(), "--url is {url}: not one request was answered well");
    Ok(if report.failures() == 0 { ExitCode::SUCCESS } else { ExitCode::from(1) })
}
