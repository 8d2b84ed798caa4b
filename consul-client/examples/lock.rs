//! A job that only one of many hosts may do at a time, and that stops when its lock is lost.
//!
//! `cargo run -p consul-client --example lock` asks the agent of `CONSUL_HTTP_ADDR`, or that on 127.0.0.1:8500.

use std::time::Duration;

use consul_client::{Client, Fence, Lock};

#[tokio::main(flavor = "current_thread")]
async fn main() -> consul_client::Result<()> {
    let consul = Client::from_env()?;
    // Waits for its turn, through elections and outages.
    let lock = consul.lock("example/nightly/leader").value("host-1").acquire().await?;
    println!("host-1 works with fence {}", lock.fence());

    let other = consul.lock("example/nightly/leader").value("host-2");
    println!("host-2 gets it meanwhile: {}", other.clone().try_acquire().await?.is_some());

    tokio::select! {
        // At the latest when the lease runs out, whatever the network does.
        why = lock.lost() => println!("stopped: {why}"),
        done = work(&lock) => println!("done with fence {}", done?),
    }
    lock.release().await?;

    let lock = other.acquire().await?;
    println!("host-2 works with fence {}", lock.fence());
    lock.release().await
}

/// Each step is written only if the lock is still held when it arrives.
async fn work(lock: &Lock) -> consul_client::Result<Fence> {
    for step in 1..=3 {
        let written = lock.txn().set("example/nightly/progress", step.to_string()).commit().await?;
        println!("step {step}: {}", written.is_done());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(lock.fence())
}
