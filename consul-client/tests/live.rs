//! Against a real agent, one per test, on loopback with ports of its own. `CONSUL_BIN` or `PATH` says where it is.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod agent;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use agent::{Consul, FREE_WAIT, eventually};
use consul_client::{
    Check, Client, Consistency, Error, Lost, ServiceEntry, ServiceRegistration, SessionOptions, Status, Watch,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

/// The next snapshot's instance ids.
async fn ids(watch: &mut Watch<ServiceEntry>) -> Vec<String> {
    let snapshot = tokio::time::timeout(FREE_WAIT, watch.next()).await.expect("a snapshot in time").unwrap();
    snapshot.items.into_iter().map(|entry| entry.service.id).collect()
}

fn web(id: &str, port: u16) -> ServiceRegistration {
    ServiceRegistration::new("web", id).address("127.0.0.1").port(port).tag("a").meta("host", "h1")
}

#[tokio::test]
#[ignore = "needs consul: ./test.sh runs it"]
async fn keys_and_values() {
    let consul = Consul::start().await;
    let kv = consul.client().kv();
    assert_eq!(kv.get("a").await.unwrap().value, None);
    let odd = "dir/with space?#ä%2F&=+";
    for key in ["a", "ab", "a/b", odd] {
        kv.put(key, vec![0, 255, 1]).await.unwrap();
    }
    let pair = kv.get_with(odd, Consistency::Consistent).await.unwrap().value.unwrap();
    assert_eq!((pair.key.as_str(), &pair.value[..], pair.flags), (odd, &[0, 255, 1][..], 0));
    assert_eq!(kv.keys("a").await.unwrap().value, ["a", "a/b", "ab"]);
    assert_eq!(kv.keys("").await.unwrap().value.len(), 4);
    kv.delete("a").await.unwrap();
    assert_eq!(kv.keys("a").await.unwrap().value, ["a/b", "ab"], "a delete takes one key");
    kv.delete("a").await.unwrap();
    kv.delete_tree("a").await.unwrap();
    assert_eq!(kv.list("a").await.unwrap().value, []);
    assert_eq!(kv.list("").await.unwrap().value.len(), 1);
    assert!(kv.delete_tree("").await.is_err());
    kv.put("empty", "").await.unwrap();
    assert!(kv.get("empty").await.unwrap().value.unwrap().value.is_empty());
    kv.put("large", vec![7; 512 * 1024]).await.unwrap();
    assert_eq!(kv.get("large").await.unwrap().value.unwrap().value.len(), 512 * 1024);
    let error = kv.put("large", vec![7; 512 * 1024 + 1]).await.unwrap_err();
    assert!(matches!(error, Error::TooLarge(_)), "{error}");
}

#[tokio::test]
#[ignore = "needs consul: ./test.sh runs it"]
async fn compare_and_set() {
    let consul = Consul::start().await;
    let kv = consul.client().kv();
    assert!(kv.cas("a", "1", 0).await.unwrap());
    assert!(!kv.cas("a", "2", 0).await.unwrap());
    let index = kv.get("a").await.unwrap().value.unwrap().modify_index;
    assert!(kv.cas("a", "3", index).await.unwrap());
    assert!(!kv.cas("a", "4", index).await.unwrap());
    assert!(!kv.delete_cas("a", index).await.unwrap());
    let pair = kv.get("a").await.unwrap().value.unwrap();
    assert_eq!(&pair.value[..], b"3");
    assert!(kv.delete_cas("a", pair.modify_index).await.unwrap());
    assert_eq!(kv.get("a").await.unwrap().value, None);
}

#[tokio::test]
#[ignore = "needs consul: ./test.sh runs it"]
async fn keys_are_watched() {
    let consul = Consul::start().await;
    let kv = consul.client().kv();
    let (mut one, mut all) = (kv.watch("w/a"), kv.watch_prefix("w/"));
    assert!(one.next().await.unwrap().items.is_empty());
    assert!(all.next().await.unwrap().items.is_empty());
    kv.put("w/b", "b").await.unwrap();
    kv.put("w/a", "1").await.unwrap();
    assert_eq!(&one.next().await.unwrap().items[0].value[..], b"1");
    kv.delete("w/a").await.unwrap();
    assert!(one.next().await.unwrap().items.is_empty());
    eventually("the prefix shows b alone", async || {
        let snapshot = all.next().await.unwrap();
        snapshot.items.len() == 1 && snapshot.items[0].key == "w/b"
    })
    .await;
}

#[tokio::test]
#[ignore = "needs consul: ./test.sh runs it"]
async fn a_watch_sees_services_come_and_go() {
    let consul = Consul::start().await;
    let client = consul.client();
    let mut watch = client.health().service("web").passing().watch();
    assert_eq!(ids(&mut watch).await, [""; 0]);
    client.agent().register(&web("web-1", 1)).await.unwrap();
    assert_eq!(ids(&mut watch).await, ["web-1"]);
    // An identical registration changes nothing.
    client.agent().register(&web("web-1", 1)).await.unwrap();
    client.agent().register(&web("web-2", 2)).await.unwrap();
    assert_eq!(ids(&mut watch).await, ["web-1", "web-2"]);
    let list = client.health().service("web").tag("a").list().await.unwrap().value;
    assert_eq!((list.len(), list[0].address(), list[0].service.port), (2, "127.0.0.1", 1));
    assert_eq!(list[0].service.meta["host"], "h1");
    assert!(client.health().service("web").tag("b").list().await.unwrap().value.is_empty());
    let filter = client.health().service("web").filter("Service.Port == 2").list().await.unwrap().value;
    assert_eq!(filter[0].service.id, "web-2");
    client.agent().deregister("web-1").await.unwrap();
    assert_eq!(ids(&mut watch).await, ["web-2"]);
    client.agent().deregister("web-2").await.unwrap();
    assert_eq!(ids(&mut watch).await, [""; 0]);
    client.agent().deregister("web-2").await.unwrap();
    assert!(watch.state().is_live());
}

#[tokio::test]
#[ignore = "needs consul: ./test.sh runs it"]
async fn a_failing_check_takes_the_instance_out() {
    let consul = Consul::start().await;
    let client = consul.client();
    let well = Arc::new(AtomicBool::new(true));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/healthz", listener.local_addr().unwrap());
    let answer = Arc::clone(&well);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.read(&mut [0; 1024]).await;
            let status = if answer.load(Ordering::SeqCst) { "200 OK" } else { "503 Service Unavailable" };
            let head = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            let _ = stream.write_all(head.as_bytes()).await;
        }
    });
    let check = Check::http(url)
        .interval(Duration::from_millis(200))
        .timeout(Duration::from_secs(1))
        .deregister_critical_after(Duration::from_secs(60))
        .initial_status(Status::Passing);
    let service = web("web-1", 1).check(check);
    client.agent().register(&service).await.unwrap();
    let mut watch = client.health().service("web").passing().watch();
    assert_eq!(ids(&mut watch).await, ["web-1"]);
    well.store(false, Ordering::SeqCst);
    assert_eq!(ids(&mut watch).await, [""; 0]);
    // Registering again, as a registrar does time and again, does not make it well.
    client.agent().register(&service).await.unwrap();
    let all = client.health().service("web").list().await.unwrap().value;
    assert!(all[0].checks.iter().any(|check| check.status == Status::Critical));
    well.store(true, Ordering::SeqCst);
    assert_eq!(ids(&mut watch).await, ["web-1"]);
}

#[tokio::test]
#[ignore = "needs consul: ./test.sh runs it"]
async fn a_ttl_check_is_reported() {
    let consul = Consul::start().await;
    let agent = consul.client().agent();
    agent.register(&web("web-1", 1).check(Check::ttl(Duration::from_secs(30)).id("alive"))).await.unwrap();
    assert_eq!(agent.checks().await.unwrap()["alive"].status, Status::Critical);
    agent.update_ttl("alive", Status::Passing, "well").await.unwrap();
    let check = agent.checks().await.unwrap()["alive"].clone();
    assert_eq!(
        (check.status, check.output.as_str(), check.service_id.as_str()),
        (Status::Passing, "well", "web-1")
    );
    let error = agent.update_ttl("unknown", Status::Passing, "").await.unwrap_err();
    assert!(!error.is_retryable(), "{error}");
}

#[tokio::test]
#[ignore = "needs consul: ./test.sh runs it"]
async fn who_is_there() {
    let consul = Consul::start().await;
    let client = consul.client();
    let leader = client.status().leader().await.unwrap().unwrap();
    assert_eq!(client.status().peers().await.unwrap(), std::slice::from_ref(&leader));
    let peers = client.operator().raft_peers().await.unwrap();
    assert_eq!((peers.len(), peers[0].leader, peers[0].voter, &peers[0].address), (1, true, true, &leader));
    let info = client.agent().self_info().await.unwrap();
    assert!(info.server && info.node_name == peers[0].node);
    let members = client.agent().members().await.unwrap();
    assert_eq!((members.len(), members[0].status), (1, consul_client::MemberStatus::Alive));
    client.agent().register(&web("web-1", 5)).await.unwrap();
    assert_eq!(client.agent().services().await.unwrap()["web-1"].port, 5);
    eventually("the catalog knows it", async || {
        let services = client.catalog().services().await.unwrap().value;
        services.get("web").is_some_and(|tags| tags == &["a"])
    })
    .await;
    assert_eq!(client.catalog().service("web").await.unwrap().value[0].service_port, 5);
    assert_eq!(client.catalog().nodes().await.unwrap().value[0].node, info.node_name);
    let raw = client.raw(http::Method::GET, "/v1/catalog/datacenters", &[], None).await.unwrap();
    assert_eq!(&raw.body[..], b"[\"dc1\"]".as_slice(), "{:?}", raw.body);
    let error = client.raw(http::Method::GET, "/v1/no-such-thing", &[], None).await.unwrap_err();
    assert!(error.is_not_found(), "{error}");
}

#[tokio::test]
#[ignore = "needs consul: ./test.sh runs it"]
async fn sessions_live_and_end() {
    let consul = Consul::start().await;
    let sessions = consul.client().sessions();
    let options = SessionOptions::default().name("s").ttl(Duration::from_secs(10)).lock_delay(Duration::ZERO);
    let id = sessions.create(&options).await.unwrap();
    assert_eq!(sessions.renew(&id).await.unwrap().name, "s");
    assert_eq!(sessions.info(&id).await.unwrap().unwrap().ttl, "10000ms");
    sessions.destroy(&id).await.unwrap();
    assert_eq!(sessions.info(&id).await.unwrap(), None);
    let error = sessions.renew(&id).await.unwrap_err();
    assert!(error.is_not_found() && !format!("{error} {error:?}").contains(&id), "{error}");
    sessions.destroy(&id).await.unwrap();
    let error = sessions.create(&SessionOptions::default().ttl(Duration::from_secs(9))).await.unwrap_err();
    assert!(matches!(error, Error::Rejected(_)), "{error}");
}

const LOCK: &str = "ha-stack/scaler/leader";

/// The session that holds the lock's key.
async fn holder(client: &Client) -> Option<String> {
    client.kv().get_with(LOCK, Consistency::Consistent).await.unwrap().value.and_then(|pair| pair.session)
}

#[tokio::test]
#[ignore = "needs consul: ./test.sh runs it"]
async fn a_lock_passes_on_with_a_larger_fence() {
    let consul = Consul::start().await;
    let client = consul.client();
    let first = client.lock(LOCK).ttl(Duration::from_secs(10)).value("one").acquire().await.unwrap();
    assert!(first.is_held() && first.lease_deadline() > Instant::now() + Duration::from_secs(7));
    let pair = client.kv().get(LOCK).await.unwrap().value.unwrap();
    assert_eq!(
        (&pair.value[..], pair.flags, pair.modify_index),
        (&b"one"[..], 0x2ddccbc058a50c18, first.fence().0)
    );
    assert!(client.lock(LOCK).try_acquire().await.unwrap().is_none());

    let waiting = tokio::spawn(client.lock(LOCK).ttl(Duration::from_secs(10)).value("two").acquire());
    let given_up = tokio::time::timeout(Duration::from_millis(300), client.lock(LOCK).acquire()).await;
    assert!(given_up.is_err() && !waiting.is_finished());
    let (fence, lost, released) = (first.fence(), first.lost(), Instant::now());
    first.release().await.unwrap();
    assert_eq!(lost.await, Lost::Released);
    let second = tokio::time::timeout(FREE_WAIT, waiting).await.unwrap().unwrap().unwrap();
    assert!(second.fence() > fence, "{} > {fence}", second.fence());
    assert!(
        released.elapsed() < Duration::from_secs(2),
        "a release is not delayed: {:?}",
        released.elapsed()
    );

    drop(second);
    eventually("a dropped lock is released", async || holder(&client).await.is_none()).await;
    let third = client.lock(LOCK).acquire().await.unwrap();
    third.release().await.unwrap();
    let left = client.raw(http::Method::GET, "/v1/session/list", &[], None).await.unwrap();
    assert_eq!(left.body.trim_ascii(), b"[]", "no session stays behind");
}

#[tokio::test]
#[ignore = "needs consul: ./test.sh runs it"]
async fn a_lock_is_lost_with_its_session() {
    let consul = Consul::start().await;
    let client = consul.client();
    let delay = Duration::from_secs(1);
    let lock = client.lock(LOCK).lock_delay(delay).acquire().await.unwrap();
    let lost = tokio::spawn(lock.lost());
    client.sessions().destroy(&holder(&client).await.unwrap()).await.unwrap();
    let destroyed = Instant::now();
    // Told by the watch of the key, long before the next renewal (10 s) would fail.
    assert_eq!(tokio::time::timeout(Duration::from_secs(3), lost).await.unwrap().unwrap(), Lost::Taken);
    assert!(!lock.is_held());
    assert!(client.lock(LOCK).try_acquire().await.unwrap().is_none(), "barred by the lock delay");
    let next = client.lock(LOCK).acquire().await.unwrap();
    assert!(destroyed.elapsed() >= delay - Duration::from_millis(200), "{:?}", destroyed.elapsed());
    assert!(next.fence() > lock.fence());
    // The late release of one that lost it takes nothing from the next holder.
    lock.release().await.unwrap();
    assert!(next.is_held() && holder(&client).await.is_some());
}

#[tokio::test]
#[ignore = "needs consul: ./test.sh runs it"]
async fn a_lock_is_lost_at_the_deadline_when_consul_is_silent_and_not_before() {
    let mut consul = Consul::start().await;
    let client = consul.client();
    let lock = client.lock(LOCK).ttl(Duration::from_secs(10)).acquire().await.unwrap();
    consul.kill();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(lock.is_held(), "an outage shorter than the lease costs nothing");
    let (lost, deadline) = (lock.lost(), lock.lease_deadline());
    assert_eq!(lost.await, Lost::Deadline);
    let late = Instant::now().saturating_duration_since(deadline);
    assert!(Instant::now() >= deadline && late < Duration::from_millis(500), "{late:?} late");
    assert!(!lock.is_held());
}

#[tokio::test]
#[ignore = "needs consul: ./test.sh runs it"]
async fn a_key_of_another_kind_is_not_locked() {
    let consul = Consul::start().await;
    let client = consul.client();
    client.kv().put(LOCK, "precious").await.unwrap();
    let error = client.lock(LOCK).acquire().await.unwrap_err();
    assert!(error.is_conflict(), "{error}");
    assert_eq!(&client.kv().get(LOCK).await.unwrap().value.unwrap().value[..], b"precious");
}

#[tokio::test]
#[ignore = "needs consul: ./test.sh runs it"]
async fn a_restart_ends_no_watch_and_empties_none() {
    let mut consul = Consul::start().await;
    let client = consul.client();
    client.agent().register(&web("web-1", 1)).await.unwrap();
    let mut watch = client.health().service("web").passing().watch();
    assert_eq!(ids(&mut watch).await, ["web-1"]);
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
