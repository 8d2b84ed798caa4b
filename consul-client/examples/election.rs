//! Two candidates, one leader, and a writer that is refused because its term is over.
//!
//! `cargo run -p consul-client --example election` asks the agent of `CONSUL_HTTP_ADDR`, or that on 127.0.0.1:8500.

use consul_client::{Client, Election, ElectionState, Leadership};

#[tokio::main(flavor = "current_thread")]
async fn main() -> consul_client::Result<()> {
    let consul = Client::from_env()?;
    let mut first = consul.election("example/leader").value("first").campaign()?;
    let old = leads(&mut first).await;
    println!("the first leads; fence {}", old.fence());
    let written = old.txn().set("example/progress", "17").commit().await?;
    println!("it writes: {}", written.is_done());

    let mut second = consul.election("example/leader").value("second").campaign()?;
    // Without it the lock would be free once its lease has run out: a crash costs the TTL, a resignation nothing.
    first.resign().await?;
    let new = leads(&mut second).await;
    println!("the second leads; fence {}, a larger one: {}", new.fence(), new.fence() > old.fence());

    // The first may have been asleep and not know it yet. Consul does.
    let written = old.txn().set("example/progress", "18").commit().await?;
    println!("the first writes again: {}", written.is_done());
    second.resign().await
}

/// Waits until this candidate leads.
async fn leads(election: &mut Election) -> Leadership {
    loop {
        match election.next().await {
            Some(ElectionState::Leader(leadership)) => return leadership,
            Some(other) => println!("not yet: {other:?}"),
            None => unreachable!("an election goes on for as long as its runtime"),
        }
    }
}
