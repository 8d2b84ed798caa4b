//! Scales a service and follows it until its tasks run, or says why they do not.
//!
//! `cargo run -p swarm-client --example rollout -- web 5`

use std::error::Error;
use std::process::ExitCode;
use std::time::Duration;

use futures_util::StreamExt;
use swarm_client::{Client, RolloutProgress};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<ExitCode, Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let service = args.next().ok_or("give the name of a service")?;
    let replicas = args.next().ok_or("give a number of replicas")?.parse()?;

    let swarm = Client::from_env().await?; // DOCKER_HOST, or the local socket
    swarm.services().scale(&service, replicas).await?; // nothing else of the service changes
    let mut progress = swarm.services().rollout(&service).progress();
    let followed = async {
        while let Some(step) = progress.next().await {
            let step = step?;
            println!("{step}");
            if let RolloutProgress::Ended(outcome) = step {
                return Ok(outcome.is_success());
            }
        }
        Ok::<bool, swarm_client::Error>(false)
    };
    // A rollout can take for ever; who waits for it says how long.
    let well = tokio::time::timeout(Duration::from_secs(120), followed).await??;
    Ok(if well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
