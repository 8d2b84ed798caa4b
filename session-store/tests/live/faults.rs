//! Failovers: a real master, two replicas, three Sentinels.

use crate::{add, create, find, servers::*};
use session_store::{Loaded, RedisStore, SessionStore, StoreError, StoreKey, lifetime::unix_now};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{sync::watch, task::JoinHandle};

/// The master is killed under load: nothing is doubled, acknowledged log-outs stay, and writes go on as soon as another one is elected.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs redis-server: ./test.sh runs it"]
async fn a_killed_master_is_replaced() {
    let mut cluster = Cluster::start().await;
    let store: Arc<dyn SessionStore> = session_store::connect(&cluster.url()).await.unwrap();
    let load = Load::start(&store).await;
    replicated(cluster.servers[0].port).await;
    let (watched, old) = (cluster.watch(0).await, cluster.servers[0].port);
    tokio::time::sleep(Duration::from_millis(500)).await;
    drop(cluster.servers.remove(0));
    let elected = election(watched, old).await;
    load.finish(&store, elected).await;
}

/// At night nobody calls, and only probes, which have little time, find a master that hangs: they must get away from it too.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs redis-server: ./test.sh runs it"]
async fn probes_alone_leave_a_hung_master() {
    let cluster = Cluster::start().await;
    let store = session_store::connect(&cluster.url()).await.unwrap();
    store.health().await.unwrap();
    let (watched, old) = (cluster.watch(1).await, cluster.servers[0].port);
    let host = [&cluster.servers[0], &cluster.sentinels[0]];
    host.iter().for_each(|server| server.signal("-STOP"));
    election(watched, old).await;
    let start = Instant::now();
    while let Err(error) = store.health().await {
        assert!(start.elapsed() < Duration::from_secs(10), "{error}");
    }
    host.iter().for_each(|server| server.signal("-CONT"));
}

/// Two of three Sentinels hang: each check of the master waits for them as long as it may, and no call waits for the check.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs redis-server: ./test.sh runs it"]
async fn silent_sentinels_hold_up_no_call() {
    let cluster = Cluster::start().await;
    let store = session_store::connect(&cluster.url()).await.unwrap();
    let key = create(&*store).await;
    let hung = &cluster.sentinels[1..];
    hung.iter().for_each(|sentinel| sentinel.signal("-STOP"));
    let (start, mut slow) = (Instant::now(), Vec::new());
    while start.elapsed() < Duration::from_secs(5) {
        let begun = Instant::now();
        assert!(store.load(&key).await.unwrap().is_some());
        slow.extend(Some(begun.elapsed()).filter(|took| *took > Duration::from_millis(150)));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    hung.iter().for_each(|sentinel| sentinel.signal("-CONT"));
    // A busy machine may hold up one; a check in the way holds up one each second.
    assert!(slow.len() < 3, "{slow:?}");
}

/// A host hangs, master and Sentinel on it, until another master is elected; it comes back with old ideas. The kernel still accepts connections for
/// it, so every answer has to be waited for in vain.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs redis-server: ./test.sh runs it"]
async fn a_hung_master_is_left() {
    let cluster = Cluster::start().await;
    let store: Arc<dyn SessionStore> = session_store::connect(&cluster.url()).await.unwrap();
    let idle: Arc<dyn SessionStore> = session_store::connect(&cluster.url()).await.unwrap();
    let mut last = Vec::new();
    for _ in 0..200 {
        last.push(create(&*idle).await); // the connection stays open, and unused until the old master is back
    }
    let load = Load::start(&store).await;
    replicated(cluster.servers[0].port).await;
    let (watched, old) = (cluster.watch(1).await, cluster.servers[0].port);
    tokio::time::sleep(Duration::from_millis(500)).await;
    let host = [&cluster.servers[0], &cluster.sentinels[0]];
    host.iter().for_each(|server| server.signal("-STOP"));
    let stranger = session_store::connect(&cluster.url()).await.unwrap(); // an instance that starts just now
    let joined = tokio::spawn(async move { add(&*stranger, &create(&*stranger).await).await });
    let elected = election(watched, old).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    host.iter().for_each(|server| server.signal("-CONT"));
    // Who comes back to the old master leaves it; who knows no other gets no confirmation from it.
    let [lost, kept] = [last[0], last[1]];
    let leave = async |keys: &[StoreKey]| {
        for key in keys {
            idle.delete(key).await.unwrap();
        }
    };
    let (taken, refused, ()) =
        tokio::join!(log_out_at(old, 0, &lost), log_out_at(old, 1, &kept), leave(&last[2..]));
    let error = refused.expect_err("a master without replicas confirmed a log-out");
    assert!(error.is_retryable(), "{error}");
    if taken.is_ok() {
        // What it takes for itself alone comes to nothing: this is what waiting for a replica is for.
        assert_eq!(find(&*store, &lost).await, "live");
    }
    leave(&[lost, kept]).await;
    joined.await.unwrap();
    load.finish(&store, elected).await;
    for key in &last {
        assert_ne!(
            find(&*store, key).await,
            "live",
            "the old master took a log-out that nobody else knows of"
        );
    }
}

/// A log-out by somebody who knows this server only.
async fn log_out_at(port: u16, replicas: u8, key: &StoreKey) -> Result<(), StoreError> {
    let url = format!("redis://127.0.0.1:{port}?replicas={replicas}");
    let store = RedisStore::open(&url)?.deadline(Duration::from_millis(1_500));
    store.delete(key).await.map(drop)
}

/// Tasks that add to their sessions, and tasks that log sessions out, until told to finish.
struct Load {
    writers: Vec<JoinHandle<Written>>,
    leavers: Vec<JoinHandle<Left>>,
    stop: watch::Sender<bool>,
}

struct Written {
    key: StoreKey,
    acknowledged: i64,
    worst: Duration,
    /// When each call ended.
    ends: Vec<Instant>,
}

struct Left {
    /// Acknowledged log-outs.
    gone: Vec<StoreKey>,
    worst: Duration,
    refused: Vec<StoreError>,
}

impl Load {
    async fn start(store: &Arc<dyn SessionStore>) -> Self {
        let (stop, stopped) = watch::channel(false);
        let (mut writers, mut leavers) = (Vec::new(), Vec::new());
        for _ in 0..8 {
            let (store, stopped, key) = (store.clone(), stopped.clone(), create(&**store).await);
            writers.push(tokio::spawn(async move {
                let mut done = Written { key, acknowledged: 0, worst: Duration::ZERO, ends: Vec::new() };
                while !*stopped.borrow() {
                    let start = Instant::now();
                    add(&*store, &key).await;
                    done.acknowledged += 1;
                    done.worst = done.worst.max(start.elapsed());
                    done.ends.push(Instant::now());
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
                done
            }));
        }
        for _ in 0..4 {
            let mut keys = Vec::new();
            for _ in 0..1500 {
                keys.push(create(&**store).await);
            }
            let (store, stopped) = (store.clone(), stopped.clone());
            leavers.push(tokio::spawn(async move {
                let mut left = Left { gone: Vec::new(), worst: Duration::ZERO, refused: Vec::new() };
                for key in keys {
                    if *stopped.borrow() {
                        break;
                    }
                    let start = Instant::now();
                    match store.delete(&key).await {
                        Ok(_) => left.gone.push(key),
                        Err(error) => left.refused.push(error), // promises nothing
                    }
                    left.worst = left.worst.max(start.elapsed());
                    tokio::time::sleep(Duration::from_millis(3)).await;
                }
                left
            }));
        }
        Self { writers, leavers, stop }
    }

    /// Lets it go on for a while after the election, then compares what was acknowledged with what is there.
    async fn finish(self, store: &Arc<dyn SessionStore>, elected: Instant) {
        tokio::time::sleep_until((elected + Duration::from_secs(3)).into()).await;
        self.stop.send(true).unwrap();
        let (mut ended, mut refused, mut slowest, mut first) =
            (0, Vec::new(), Duration::ZERO, None::<Instant>);
        for task in self.leavers {
            let left = task.await.expect("a log-out panicked");
            refused.extend(left.refused);
            slowest = slowest.max(left.worst);
            for key in left.gone {
                ended += 1;
                assert_ne!(find(&**store, &key).await, "live", "an acknowledged log-out was undone");
            }
        }
        let (mut worst, mut lost) = (Duration::ZERO, Vec::new());
        for task in self.writers {
            let done = task.await.expect("a writer failed");
            let Loaded::Live { record, .. } = store.find(&done.key, unix_now()).await.unwrap() else {
                panic!("session lost")
            };
            let counted = record.counter("views").unwrap_or_default();
            let acknowledged = done.acknowledged;
            assert!(counted <= acknowledged, "{} writes were doubled", counted - acknowledged);
            // `Durability::Primary` promises no more: what a master acknowledged may be lost with it.
            lost.push(acknowledged - counted);
            worst = worst.max(done.worst);
            first = first.into_iter().chain(done.ends.into_iter().filter(|end| *end > elected)).min();
        }
        let back = first.expect("no write after the election") - elected;
        println!(
            "written {back:?} after the election; slowest write {worst:?}; {ended} log-outs, slowest {slowest:?}, refused {}; plain writes lost {lost:?}",
            refused.len()
        );
        assert!(ended > 200, "only {ended} log-outs were acknowledged");
        assert!(back < Duration::from_secs(1), "writable only {back:?} after the election");
        assert!(refused.is_empty(), "log-outs were refused though the failover took no 8 s: {refused:?}");
        let worst = worst.max(slowest);
        assert!(worst < Duration::from_secs(8), "a call took {worst:?}");
    }
}
