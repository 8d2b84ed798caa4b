//! Takes a node out of service: what runs there starts elsewhere first, so that nothing is missing at any time.
//!
//! `cargo run -p swarm-client --example drain -- h1`, and when it is to be used again: `-- h1 back`

use std::error::Error;
use std::time::Duration;

use swarm_client::{Client, DrainOptions};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let node = args.next().ok_or("give the name of a node")?;
    let swarm = Client::from_env().await?; // DOCKER_HOST, or the local socket

    if args.next().as_deref() == Some("back") {
        swarm.nodes().activate(&node).await?;
        // Swarm moves nothing back by itself. First what would be moved, then the moves.
        let plan = swarm.plan_rebalance().await?;
        println!("{plan}");
        swarm.apply_rebalance(&plan, Duration::from_secs(120)).await?;
        return Ok(());
    }
    // Without room elsewhere all is taken back, and the error says what stood in the way.
    let options = DrainOptions::default().deadline(Duration::from_secs(300));
    let drained = swarm.nodes().drain(&node, &options).await?;
    println!("{node} is empty; moved: {}", drained.moved.join(", "));
    if !drained.stopped.is_empty() {
        println!("stopped there, for they run once on each node or are jobs: {}", drained.stopped.join(", "));
    }
    Ok(())
}
