//! `ha-stack dashboard`: the page of a stack that runs already, as a deployed one does.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Args;
use tokio_util::sync::CancellationToken;

use super::{PlatformArgs, unless_interrupted};
use crate::control;
use crate::dashboard::sampler::Sampler;
use crate::dashboard::source::PlatformSource;
use crate::platform::StackSpec;
use crate::settings::{Backends, PlatformName};

/// Flags of `dashboard`.
#[derive(Args, Debug)]
pub struct DashboardArgs {
    #[command(flatten)]
    platform: PlatformArgs,
    /// The service that users see [default: the one in the Swarm; web on plain engines]
    #[arg(long, value_name = "NAME")]
    service: Option<String>,
    /// The scaler's target, which the load curve is drawn beside: requests in flight for each replica
    #[arg(long, value_name = "N", default_value_t = StackSpec::default().target_in_flight)]
    target: f64,
}

/// Shows the stack until a signal; starts and ends nothing of it.
///
/// # Errors
/// When the address can't be listened on, the token is too short, or the stack can't be reached.
pub async fn run(args: DashboardArgs, backends: Backends, stop: CancellationToken) -> Result<ExitCode> {
    ensure!(
        args.platform.platform != PlatformName::Local,
        "the platform local lives within `ha-stack up`, which shows its dashboard itself (--control); use --platform swarm or \
         engines"
    );
    let (listener, guard) =
        control::bind("--control", args.platform.control, args.platform.token.as_ref()).await?;
    let address = listener.local_addr().context("the control address can't be read")?;
    let platform = unless_interrupted(&stop, super::running(&args.platform, args.service, &backends)).await?;
    // Told before it is shown: a page of a stack that can't be seen helps nobody.
    unless_interrupted(&stop, platform.status()).await.context("the stack can't be seen")?;
    let may = if guard.has_token() { "with the token it drains, scales and pauses" } else { "it only shows" };
    println!("the dashboard is at http://{address}; {may}");
    let sampler = Sampler::new(PlatformSource::new(Arc::clone(&platform), args.target), LOOKS);
    let routes = control::routes(platform, sampler.clone(), guard);
    tokio::select! {
        served = control::serve(listener, routes) => served?,
        () = sampler.run(stop.clone()) => {}
        () = stop.cancelled() => {}
    }
    Ok(ExitCode::SUCCESS)
}

const LOOKS: Duration = Duration::from_secs(1);
