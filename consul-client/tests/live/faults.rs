//! Restarts and elections.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use consul_client::{CatalogRegistration, Client, Consistency, ExternalService};

use crate::{
    LOCK,
    agent::{Consul, FREE_WAIT, eventually},
    ids, shows, web,
};

/// All servers' addresses in one client.
fn client_of(servers: &[Consul]) -> consul_client::ClientBuilder {
    servers.iter().fold(Client::builder(), |all, one| all.address(one.address()))
}

/// The leader first.
async fn leader_first(servers: &mut [Consul; 3]) {
    let peers = servers[0].client().operator().raft_peers().await.unwrap();
    let leader = peers.into_iter().find(|peer| peer.leader).unwrap().node;
    servers.sort_by_key(|server| server.name() != leader);
}

#[tokio::test]
#[ignore = "needs consul: ./test.sh runs it"]
async fn a_restart_ends_no_watch_and_empties_none() {
    let mut consul = Consul::start().await;
    let client = consul.client();
    client.agent().register(&web("web-1", 1)).await.unwrap();
    let mut watch = client.health().service("web").passing().watch();
    shows(&mut watch, &["web-1"]).await;
    let lock = client.lock(LOCK).ttl(Duration::from_secs(20)).acquire().await.unwrap();
    let watching = tokio::spawn(async move {
        let state = watch.subscribe_state();
        loop {
            let seen = ids(&mut watch).await;
            assert!(!seen.is_empty(), "the outage was passed on as an empty set");
            if seen.len() == 2 {
                return (watch, state);
            }
        }
    });
    consul.kill();
    tokio::time::sleep(Duration::from_secs(1)).await;
    consul.restart().await;
    // The call waits out the election.
    client.agent().register(&web("web-2", 2)).await.unwrap();
    let (watch, _) = tokio::time::timeout(FREE_WAIT, watching).await.expect("the watch goes on").unwrap();
    assert!(watch.state().is_live());
    assert!(lock.is_held(), "an outage shorter than the lease does not cost the lock");
    lock.release().await.unwrap();
}

/// When each writer's work was acknowledged, to be compared with when there was a leader again.
#[derive(Default)]
struct Acknowledged(Mutex<Vec<Vec<Instant>>>);

impl Acknowledged {
    fn note(&self, writer: usize) {
        self.0.lock().unwrap()[writer].push(Instant::now());
    }

    /// Each writer's first acknowledgement after `moment`, the soonest first.
    fn first_after(&self, moment: Instant) -> Vec<Duration> {
        let all = self.0.lock().unwrap();
        let first = |writer: &Vec<Instant>| *writer.iter().find(|at| **at >= moment).expect("work resumed");
        let mut waited: Vec<_> = all.iter().map(|writer| first(writer) - moment).collect();
        waited.sort_unstable();
        waited
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs consul: ./test.sh runs it"]
async fn a_leader_that_is_killed_costs_no_watch_no_write_and_no_lock() {
    elect(1, Duration::from_secs(20)).await;
    if std::env::var_os("HA_STACK_LONG").is_some() {
        elect(5, Duration::from_secs(45)).await;
    }
}

/// 32 writers and 50 watchers, while the leader is killed.
async fn elect(multiplier: u32, limit: Duration) {
    let mut servers = Consul::start_three_at(multiplier).await;
    leader_first(&mut servers).await;
    let client = client_of(&servers).deadline(Duration::from_secs(30)).build().unwrap();
    let survivor = servers[1].client();
    survivor.agent().register(&web("web-1", 1)).await.unwrap();
    // The session must not hang on the node that is about to die.
    let lock = survivor.lock(LOCK).ttl(Duration::from_secs(30)).acquire().await.unwrap();

    let done = Arc::new(AtomicBool::new(false));
    let acknowledged = Arc::new(Acknowledged::default());
    acknowledged.0.lock().unwrap().resize(WRITERS, Vec::new());
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let (kv, done, acknowledged) = (client.kv(), Arc::clone(&done), Arc::clone(&acknowledged));
            tokio::spawn(async move {
                let (mut written, key) = (0_u64, format!("w/{writer:02}"));
                while !done.load(Ordering::SeqCst) {
                    kv.put(&key, written.to_string())
                        .await
                        .expect("a write that may happen twice waits it out");
                    acknowledged.note(writer);
                    let read = kv
                        .get(&key)
                        .await
                        .expect("so does a read")
                        .value
                        .expect("what was acknowledged is there");
                    assert_eq!(read.value, written.to_string());
                    written += 1;
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                written
            })
        })
        .collect();
    let counters: Vec<_> =
        (0..COUNTERS).map(|_| tokio::spawn(count(client.kv(), Arc::clone(&done)))).collect();
    // Half of the watchers look at a service, half at a key that counts up.
    let watchers: Vec<_> = (0..WATCHERS)
        .map(|watcher| {
            let (client, done) = (client.clone(), Arc::clone(&done));
            tokio::spawn(async move {
                if watcher % 2 == 0 {
                    let mut watch = client.health().service("web").passing().watch();
                    let mut last: Vec<_> = Vec::new();
                    loop {
                        let Some(snapshot) = next_or_done(&mut watch, &done).await else {
                            return last.len() == 2;
                        };
                        assert!(!snapshot.items.is_empty(), "the election emptied the watch");
                        assert_ne!(snapshot.items, last, "repeated");
                        last = snapshot.items;
                    }
                } else {
                    let mut watch = client.kv().watch(&format!("w/{:02}", watcher % WRITERS));
                    let mut last = None;
                    loop {
                        let Some(mut snapshot) = next_or_done(&mut watch, &done).await else {
                            return last.is_some();
                        };
                        let Some(pair) = snapshot.items.pop() else { continue };
                        let now: u64 = String::from_utf8_lossy(&pair.value).parse().unwrap();
                        assert!(
                            last.is_none_or(|last| last < now),
                            "{last:?} then {now}: repeated or from the past"
                        );
                        last = Some(now);
                    }
                }
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let killed = Instant::now();
    servers[0].kill();
    // The first moment at which a survivor carries out a write, asked without any patience: there is a leader.
    let impatient =
        Client::builder().address(servers[1].address()).deadline(Duration::from_millis(300)).build().unwrap();
    while impatient.kv().get_with("w/00", Consistency::Consistent).await.is_err() {
        assert!(killed.elapsed() < limit, "no new leader");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let elected = Instant::now();
    survivor.agent().register(&web("web-2", 2)).await.unwrap();
    tokio::time::sleep(Duration::from_secs(3)).await;
    done.store(true, Ordering::SeqCst);
    for writer in writers {
        assert!(writer.await.unwrap() > 0);
    }
    let (mut counted, mut unknown) = (0, 0);
    for counter in counters {
        let (more, doubtful) = counter.await.unwrap();
        (counted, unknown) = (counted + more, unknown + doubtful);
    }
    let pair = client.kv().get("count").await.unwrap().value.unwrap();
    let count: u64 = String::from_utf8_lossy(&pair.value).parse().unwrap();
    println!("{count} counted by {COUNTERS}, who know of {counted} and are in doubt of {unknown}");
    assert!((counted..=counted + unknown).contains(&count), "{count}: {counted} and at most {unknown} more");
    for watcher in watchers {
        let complete = tokio::time::timeout(FREE_WAIT, watcher).await.expect("no watch hangs").unwrap();
        assert!(complete, "a watch missed what came after the election");
    }
    let resumed = acknowledged.first_after(elected);
    let (median, slowest) = (resumed[WRITERS / 2], resumed[WRITERS - 1]);
    println!(
        "multiplier {multiplier}: leader after {:?}; after that the median of {WRITERS} writers {median:?}, the slowest {slowest:?}",
        elected - killed
    );
    assert!(median < RESUMED, "work resumed {median:?} after the new leader");
    assert!(slowest < RESUMED + SERVER_PAUSE, "one writer's work resumed {slowest:?} after the new leader");
    assert!(lock.is_held(), "a lock whose TTL exceeds the election is not lost");
    lock.release().await.unwrap();
}

const RESUMED: Duration = Duration::from_millis(500);
/// While a server knows no leader it holds a call and looks again after a random pause, at most a sixteenth of its
/// `rpc_hold_timeout` of 7 s (`agent/consul/rpc.go` of Consul 1.8, `JitterFraction`). The client can't end such a pause: a second
/// try of a write beside one that is still held could be followed by it.
const SERVER_PAUSE: Duration = Duration::from_micros(437_500);
const WRITERS: usize = 32;
const WATCHERS: usize = 50;
const COUNTERS: usize = 4;

/// Counts a key up with others: how often it certainly did, and how often nobody knows.
async fn count(kv: consul_client::Kv, done: Arc<AtomicBool>) -> (u64, u64) {
    let (mut counted, mut unknown) = (0, 0);
    while !done.load(Ordering::SeqCst) {
        let pair = kv.get("count").await.expect("a read waits it out").value;
        let (now, index) = pair.map_or((0, 0), |pair| {
            (String::from_utf8_lossy(&pair.value).parse::<u64>().unwrap(), pair.modify_index)
        });
        match kv.cas_marked("count", (now + 1).to_string(), index).await {
            Ok(written) => counted += u64::from(written),
            Err(error) if error.maybe_applied() => unknown += 1,
            Err(error) => panic!("{error}"),
        }
        // Seldom enough not to be in the writers' way, whose time is measured.
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    (counted, unknown)
}

async fn next_or_done<T>(
    watch: &mut consul_client::Watch<T>,
    done: &AtomicBool,
) -> Option<consul_client::Snapshot<T>> {
    loop {
        match tokio::time::timeout(Duration::from_millis(500), watch.next()).await {
            Ok(snapshot) => return Some(snapshot.expect("a watch never ends")),
            Err(_) if done.load(Ordering::SeqCst) => return None,
            Err(_) => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs consul: ./test.sh runs it"]
async fn a_leader_that_hangs_holds_no_call_beyond_its_deadline() {
    let mut servers = Consul::start_three().await;
    leader_first(&mut servers).await;
    let (deadline, margin) = (Duration::from_secs(6), Duration::from_secs(1));
    let followers = servers[1..].iter().fold(Client::builder(), |all, one| all.address(one.address()));
    let client = followers.deadline(deadline).request_timeout(Duration::from_secs(2)).build().unwrap();
    let survivor = servers[1].client();
    survivor.agent().register(&web("web-1", 1)).await.unwrap();
    let mut watch = client.health().service("web").passing().watch();
    shows(&mut watch, &["web-1"]).await;
    let done = Arc::new(AtomicBool::new(false));
    let callers: Vec<_> = (0..8)
        .map(|i| {
            let (kv, done) = (client.kv(), Arc::clone(&done));
            tokio::spawn(async move {
                let (mut good, mut longest) = (0, Duration::ZERO);
                while !done.load(Ordering::SeqCst) {
                    let began = Instant::now();
                    let outcome = match i % 2 {
                        0 => kv.put(&format!("h/{i}"), good.to_string()).await,
                        _ => kv.get(&format!("h/{i}")).await.map(drop),
                    };
                    longest = longest.max(began.elapsed());
                    good += u32::from(outcome.is_ok());
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                (good, longest)
            })
        })
        .collect();
    let leader = survivor.status().leader().await.unwrap();
    servers[0].signal("STOP");
    let hung = Instant::now();
    eventually("the others elect a new leader", async || {
        survivor.status().leader().await.is_ok_and(|now| now.is_some() && now != leader)
    })
    .await;
    let elected = hung.elapsed();
    // Written straight into the catalog: the agents' own reports hang inside Consul for longer than this test.
    let entry = CatalogRegistration::new("ext", "10.0.0.9").service(ExternalService::new("web", "web-2"));
    while client.catalog().register(&entry).await.is_err() {
        assert!(hung.elapsed() < FREE_WAIT, "writes do not resume");
    }
    let written = hung.elapsed();
    while ids(&mut watch).await.len() != 2 {}
    let seen = hung.elapsed();
    println!(
        "leader hung: another elected after {elected:?}, the first write after {written:?}, watched after {seen:?}"
    );
    assert!(seen - written < Duration::from_secs(2), "the watch goes on by a stale read");
    servers[0].signal("CONT");
    eventually("everything works again", async || survivor.kv().put("h/after", "x").await.is_ok()).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    done.store(true, Ordering::SeqCst);
    for caller in callers {
        let (good, longest) = caller.await.unwrap();
        assert!(good > 0 && longest < deadline + margin, "{good} calls, the longest {longest:?}");
    }
    assert!(watch.state().is_live(), "{:?}", watch.state());
}
