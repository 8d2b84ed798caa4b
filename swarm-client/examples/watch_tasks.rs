//! Tells what becomes of a service's tasks, as it happens, until Ctrl-C. It goes on when a manager dies.
//!
//! `cargo run -p swarm-client --example watch_tasks -- web`

use std::error::Error;

use futures_util::StreamExt;
use swarm_client::watch::{WatchConfig, WatchEvent, watcher};
use swarm_client::{Client, Task};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let service = std::env::args().nth(1).ok_or("give the name of a service")?;
    let swarm = Client::from_env().await?; // DOCKER_HOST, or the local socket
    let mut tasks = watcher::<Task>(&swarm, WatchConfig::default().service(&service));
    while let Some(event) = tasks.next().await {
        match event {
            Ok(WatchEvent::Init(all)) => {
                let running = all.iter().filter(|task| task.is_running()).count();
                println!("{service}: {running} tasks run");
            }
            Ok(WatchEvent::Apply(task)) => {
                let node = task.node_id.as_ref().map_or("no node", |node| node.as_str());
                println!("{} on {node} is {}{}", task.id, task.state(), why(&task));
            }
            Ok(WatchEvent::Delete(task)) => println!("{} is forgotten", task.id),
            Err(error) => eprintln!("{error}"), // what was known is kept, and the stream goes on
        }
    }
    Ok(())
}

fn why(task: &Task) -> String {
    task.error().map(|error| format!(": {error}")).unwrap_or_default()
}
