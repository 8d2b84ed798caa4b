//! Eight tasks count up the same key, and no step is lost: compare-and-set, with a mark that tells whose write it was, should an
//! answer be lost: two who count write the same number.
//!
//! `cargo run -p consul-client --example counter` asks the agent of `CONSUL_HTTP_ADDR`, or that on 127.0.0.1:8500.

use consul_client::{Client, Kv};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let kv = Client::from_env()?.kv();
    kv.delete("example/counter").await?;
    let tasks: Vec<_> = (0..8).map(|_| tokio::spawn(count(kv.clone()))).collect();
    let mut refused = 0;
    for task in tasks {
        refused += task.await??;
    }
    let pair = kv.get("example/counter").await?.value.ok_or("the counter is gone")?;
    println!(
        "counted to {}; {refused} writes came second and were tried again",
        String::from_utf8_lossy(&pair.value)
    );
    Ok(())
}

/// One step; how often somebody else was faster.
async fn count(kv: Kv) -> consul_client::Result<u32> {
    for refused in 0.. {
        let found = kv.get("example/counter").await?.value;
        // Index 0 means: only if there is none.
        let (now, index) = found.map_or((0, 0), |pair| (number(&pair.value), pair.modify_index));
        if kv.cas_marked("example/counter", (now + 1).to_string(), index).await? {
            return Ok(refused);
        }
    }
    unreachable!("one of those who compete is always first")
}

fn number(value: &[u8]) -> u64 {
    String::from_utf8_lossy(value).parse().unwrap_or_default()
}
