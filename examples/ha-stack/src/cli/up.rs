//! `ha-stack up`.

use std::io::{IsTerminal, Write};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use tokio_util::sync::CancellationToken;

use super::{PlatformArgs, SpecArgs, unless_interrupted, with_platform};
use crate::control;
use crate::dashboard::sampler::Sampler;
use crate::dashboard::source::PlatformSource;
use crate::platform::Platform;
use crate::progress::Progress;
use crate::settings::Backends;

/// Flags of `up`.
#[derive(Args, Debug)]
pub struct UpArgs {
    #[command(flatten)]
    platform: PlatformArgs,
    #[command(flatten)]
    spec: SpecArgs,
}

/// Starts the stack, shows it, and ends it at a signal.
///
/// # Errors
/// When the stack can't be started.
pub async fn run(args: UpArgs, backends: Backends, stop: CancellationToken) -> Result<ExitCode> {
    let spec = args.spec.spec()?;
    let progress = Progress::new();
    // Taken before anything is started: a second `up` ends here.
    let (listener, guard) =
        control::bind("--control", args.platform.control, args.platform.token.as_ref()).await?;
    let dashboard = listener.local_addr().context("the control address can't be read")?;
    let platform =
        unless_interrupted(&stop, super::platform(&args.platform, SITE_PORT, &spec, &backends)).await?;
    let work = async {
        platform.start(&progress).await?;
        progress.line(format!("the dashboard is at http://{dashboard}"));
        progress.line(format!("the site is at {}; Ctrl-C ends the stack", platform.site()));
        let source = PlatformSource::new(Arc::clone(&platform), spec.target_in_flight);
        let sampler = Sampler::new(source, REFRESH);
        let routes = control::routes(Arc::clone(&platform), sampler.clone(), guard);
        tokio::select! {
            served = control::serve(listener, routes) => served,
            () = sampler.run(stop.clone()) => Ok(()),
            () = show(platform.as_ref(), &progress, dashboard) => Ok(()),
            () = stop.cancelled() => Ok(()),
        }
    };
    with_platform(platform.as_ref(), &progress, &stop, work).await?;
    progress.line("the stack is down");
    Ok(ExitCode::SUCCESS)
}

/// Redraws the status on a terminal; elsewhere says a line when something has changed.
async fn show(platform: &dyn Platform, progress: &Progress, dashboard: SocketAddr) {
    let terminal = std::io::stdout().is_terminal();
    let mut last = String::new();
    loop {
        match platform.status().await {
            Ok(status) if terminal => {
                let mut out = std::io::stdout().lock();
                // Home, the table, and clear what is below it; the end of output is no reason to end the stack.
                let table = super::status::table(&status).replace('\n', "\x1b[K\n");
                let site = platform.site();
                let _ = write!(
                    out,
                    "\x1b[H{table}\x1b[K\n  {site}   dashboard http://{dashboard}   Ctrl-C ends the stack\n\x1b[J"
                );
                let _ = out.flush();
            }
            Ok(status) => {
                let now: Vec<String> = status
                    .replicas
                    .iter()
                    .map(|r| format!("{} on {} {}", r.instance, r.host, r.state))
                    .collect();
                let line = format!("{} of {} wanted: {}", now.len(), status.wanted, now.join("; "));
                if line != last {
                    progress.line(&line);
                    last = line;
                }
            }
            Err(error) => progress.line(format!("the status can't be read: {error:#}")),
        }
        tokio::time::sleep(REFRESH).await;
    }
}

const REFRESH: Duration = Duration::from_secs(1);
const SITE_PORT: u16 = 8080;
