//! `ha-stack up`.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use clap::Args;
use tokio_util::sync::CancellationToken;

use super::{PlatformArgs, SpecArgs, unless_interrupted, with_platform};
use crate::control;
use crate::platform::Platform;
use crate::progress::Progress;
use crate::settings::{Backends, PlatformName};

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
    let control = match args.platform.platform {
        PlatformName::Local => Some(control::bind(args.platform.control).await?),
        PlatformName::Swarm => None,
    };
    let platform =
        unless_interrupted(&stop, super::platform(&args.platform, SITE_PORT, &spec, &backends)).await?;
    let work = async {
        platform.start(&progress).await?;
        progress.line(format!("the site is at {}; Ctrl-C ends the stack", platform.site()));
        let serve = async {
            match control {
                Some(listener) => control::serve(listener, Arc::clone(&platform)).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            served = serve => served,
            () = show(platform.as_ref(), &progress) => Ok(()),
            () = stop.cancelled() => Ok(()),
        }
    };
    with_platform(platform.as_ref(), &progress, &stop, work).await?;
    progress.line("the stack is down");
    Ok(ExitCode::SUCCESS)
}

/// Redraws the status on a terminal; elsewhere says a line when something has changed.
async fn show(platform: &dyn Platform, progress: &Progress) {
    let terminal = std::io::stdout().is_terminal();
    let mut last = String::new();
    loop {
        match platform.status().await {
            Ok(status) if terminal => {
                let mut out = std::io::stdout().lock();
                // Home, the table, and clear what is below it; the end of output is no reason to end the stack.
                let table = super::status::table(&status).replace('\n', "\x1b[K\n");
                let _ =
                    write!(out, "\x1b[H{table}\x1b[K\n  {}   Ctrl-C ends the stack\n\x1b[J", platform.site());
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
