//! How soon a change is seen: a watch of consul-client, and the loop that one would write by hand with reqwest.

use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use crate::{clients::Reqwest, median};

pub struct Compared {
    /// Medians, in seconds.
    pub ours: f64,
    pub reqwest: f64,
}

const CHANGES: usize = 150;
/// Above the watch's own spacing of 100 ms, or its limit would be measured.
const SPACING: Duration = Duration::from_millis(60);

/// Both watch a key of their own at the same time; the writes take turns.
pub async fn compare(address: &str) -> Compared {
    let client = consul_client::Client::builder().address(address).build().expect("a good address");
    let kv = client.kv();
    for key in ["bench/w/ours", "bench/w/reqwest"] {
        kv.put(key, "start").await.expect("a write");
    }
    let (seen, mut ours) = mpsc::unbounded_channel();
    let mut watch = kv.watch("bench/w/ours");
    tokio::spawn(async move {
        while let Some(snapshot) = watch.next().await {
            assert_eq!(snapshot.items.len(), 1);
            if seen.send(Instant::now()).is_err() {
                return;
            }
        }
    });
    let (seen, mut theirs) = mpsc::unbounded_channel();
    let http = Reqwest::new(address);
    let by_hand = tokio::spawn(async move {
        let mut index = 0;
        loop {
            let pairs = http.read("bench/w/reqwest", &format!("?index={index}&wait=15s")).await;
            index = pairs.first().expect("the key is there").modify_index;
            if seen.send(Instant::now()).is_err() {
                return;
            }
        }
    });
    let (mut first, mut second) = (Vec::new(), Vec::new());
    ours.recv().await.expect("the first snapshot");
    theirs.recv().await.expect("the first answer");
    for i in 0..CHANGES {
        tokio::time::sleep(SPACING).await;
        let began = Instant::now();
        kv.put("bench/w/ours", i.to_string()).await.expect("a write");
        first.push((ours.recv().await.expect("a snapshot") - began).as_secs_f64());
        tokio::time::sleep(SPACING).await;
        let began = Instant::now();
        kv.put("bench/w/reqwest", i.to_string()).await.expect("a write");
        second.push((theirs.recv().await.expect("an answer") - began).as_secs_f64());
    }
    // It knows no failure, and the agent is about to end.
    by_hand.abort();
    Compared { ours: median(first.into_iter()), reqwest: median(second.into_iter()) }
}
