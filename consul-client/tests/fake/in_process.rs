//! The fake of the feature `testing`: the same scenarios as against a real server, and the faults that only it can do.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use consul_client::{
    Client, Error, WatchState,
    testing::{FakeConsul, Fault},
};

use crate::scenarios;

#[tokio::test]
async fn the_fake_does_what_a_real_server_does() {
    scenarios::run_all(FakeConsul::start, FakeConsul::client).await;
}

#[tokio::test]
async fn lost_answers_and_refusals_are_told_apart() {
    let consul = FakeConsul::start().await;
    let kv = consul.client().kv();
    consul.fail_next([Fault::LoseAnswer]);
    assert!(kv.cas_marked("a", "1", 0).await.unwrap(), "the write happened, and reading says so");
    consul.fail_next([Fault::LoseAnswer]);
    let unknown = kv.cas("e", "1", 0).await.unwrap_err();
    assert!(unknown.maybe_applied(), "it happened, but another could have written the same: {unknown}");
    consul.fail_next([Fault::Close]);
    assert!(kv.cas("b", "1", 0).await.unwrap(), "the write did not happen, and is tried again");
    consul.fail_next([Fault::Status(403, "Permission denied".into())]);
    assert!(kv.put("a", "2").await.unwrap_err().is_denied());
    consul.fail_next([Fault::LoseAnswer]);
    let index = kv.get("a").await.unwrap().value.unwrap().modify_index;
    consul.fail_next([Fault::LoseAnswer]);
    assert!(kv.delete_cas("a", index).await.unwrap(), "an absent key counts as deleted");
    assert!(kv.get("a").await.unwrap().value.is_none());
}

/// The leader that died is still among the addresses: callers that come by it wait no longer for that.
#[tokio::test]
async fn a_dead_address_delays_nobody_once_there_is_a_leader_again() {
    let consul = FakeConsul::start().await;
    let client = Client::builder().address("http://127.0.0.1:1").address(consul.address()).build().unwrap();
    consul.set_leader(false);
    let writers: Vec<_> = (0..16)
        .map(|writer| {
            let kv = client.kv();
            tokio::spawn(async move {
                kv.put(&format!("w/{writer}"), "1").await.expect("a write waits the election out");
                Instant::now()
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_secs(3)).await;
    let elected = Instant::now();
    consul.set_leader(true);
    for writer in writers {
        let waited = writer.await.unwrap().saturating_duration_since(elected);
        assert!(waited < Duration::from_millis(500), "{waited:?}");
    }
}

#[tokio::test]
async fn another_writers_equal_value_is_not_taken_for_ones_own() {
    let consul = FakeConsul::start().await;
    let (one, two) = (consul.client().kv(), consul.client().kv());
    for key in ["count", "a//odd"] {
        one.put(key, "6").await.unwrap();
        // Both read 6 and count to 7; the other is faster, and what one sends is lost on the way.
        let index = one.get(key).await.unwrap().value.unwrap().modify_index;
        assert!(two.cas_marked(key, "7", index).await.unwrap());
        consul.fail_next([Fault::Close]);
        let plain = one.cas(key, "7", index).await.unwrap_err();
        consul.fail_next([Fault::Close]);
        let marked = one.cas_marked(key, "7", index).await.unwrap_err();
        assert!(plain.maybe_applied() && marked.maybe_applied(), "{plain}; {marked}");
        let refused = one.cas(key, "7", index).await.unwrap();
        assert!(!refused, "with an answer there is no doubt");
    }
    // Whose lock it is, the session tells, whatever the value.
    let sessions = consul.client().sessions();
    let options = consul_client::SessionOptions::default().lock_delay(Duration::ZERO);
    let (mine, theirs) = (sessions.create(&options).await.unwrap(), sessions.create(&options).await.unwrap());
    assert!(two.acquire("l", "x", &theirs).await.unwrap());
    for fault in [Fault::Close, Fault::LoseAnswer] {
        consul.fail_next([fault]);
        assert!(!one.acquire("l", "x", &mine).await.unwrap());
    }
    assert!(two.release("l", "x", &theirs).await.unwrap());
    consul.fail_next([Fault::LoseAnswer]);
    assert!(one.acquire("l", "x", &mine).await.unwrap());
}

/// Eight count together while a quarter of their requests or answers are lost: what is said to have been counted was counted.
#[tokio::test]
async fn no_step_of_a_counter_is_lost_or_invented() {
    let consul = Arc::new(FakeConsul::start().await);
    let tasks = (0..8_u64).map(|task| {
        let consul = Arc::clone(&consul);
        tokio::spawn(async move {
            let kv = consul.client().kv();
            let (mut done, mut unknown) = (0_u64, 0_u64);
            for step in 0..12_u64 {
                if (task + step) % 4 == 0 {
                    consul.fail_next([if step % 2 == 0 { Fault::Close } else { Fault::LoseAnswer }]);
                }
                let pair = kv.get("count").await.unwrap().value;
                let (now, index) = pair.map_or((0, 0), |pair| {
                    (String::from_utf8_lossy(&pair.value).parse::<u64>().unwrap(), pair.modify_index)
                });
                match kv.cas_marked("count", (now + 1).to_string(), index).await {
                    Ok(written) => done += u64::from(written),
                    Err(error) if error.maybe_applied() => unknown += 1,
                    Err(error) => panic!("{error}"),
                }
            }
            (done, unknown)
        })
    });
    let (mut done, mut unknown) = (0, 0);
    for task in tasks.collect::<Vec<_>>() {
        let (more_done, more_unknown) = task.await.unwrap();
        (done, unknown) = (done + more_done, unknown + more_unknown);
    }
    let pair = consul.client().kv().get("count").await.unwrap().value.unwrap();
    let count: u64 = String::from_utf8_lossy(&pair.value).parse().unwrap();
    assert!((done..=done + unknown).contains(&count), "{count} counted, {done} said so, {unknown} unknown");
}

#[tokio::test]
async fn an_election_is_waited_out_and_a_watch_goes_on() {
    let consul = FakeConsul::start().await;
    let client = consul.client();
    client.kv().put("a", "1").await.unwrap();
    let mut watch = client.kv().watch("a");
    watch.next().await.unwrap();
    consul.set_leader(false);
    assert!(tokio::time::timeout(Duration::from_millis(200), watch.next()).await.is_err());
    assert!(matches!(watch.state(), WatchState::Failing { .. }), "{:?}", watch.state());
    let writing = tokio::spawn(async move { client.kv().put("a", "2").await });
    tokio::time::sleep(Duration::from_secs(1)).await;
    consul.set_leader(true);
    let back = Instant::now();
    writing.await.unwrap().unwrap();
    assert_eq!(&watch.next().await.unwrap().items[0].value[..], b"2");
    assert!(back.elapsed() < Duration::from_millis(500), "{:?}", back.elapsed());
}

#[tokio::test]
async fn a_lock_is_refused_afar_and_an_agent_that_starts_is_waited_for() {
    let consul = FakeConsul::start().await;
    let afar = consul.client().with_datacenter("dc2");
    let soon = Duration::from_secs(10);
    let lock = tokio::time::timeout(soon, afar.lock("l").acquire()).await.expect("no endless wait");
    let slot = tokio::time::timeout(soon, afar.semaphore("s", 1).acquire()).await.expect("no endless wait");
    let key = tokio::time::timeout(soon, afar.ephemeral("e").hold()).await.expect("no endless wait");
    for error in [lock.unwrap_err(), slot.unwrap_err(), key.unwrap_err()] {
        let text = error.to_string();
        assert!(
            matches!(error, Error::Invalid { .. }) && text.contains("dc1") && text.contains("dc2"),
            "{text}"
        );
    }
    // An agent that has just started: its node is not in the catalog yet.
    let starting = || Fault::Status(500, "rpc error making call: Missing node registration".into());
    let as_usual = || Fault::Delay(Duration::ZERO);
    let home = consul.client().with_datacenter("dc1");
    consul.fail_next([as_usual(), as_usual(), starting(), starting()]);
    home.lock("l").acquire().await.unwrap().release().await.unwrap();
}

#[tokio::test]
async fn an_agent_that_the_others_do_not_reach_takes_its_instances_out() {
    let consul = FakeConsul::start().await;
    let client = consul.client();
    client.agent().register(&consul_client::ServiceRegistration::new("web", "web-1")).await.unwrap();
    let mut watch = client.health().service("web").passing().watch();
    assert_eq!(watch.next().await.unwrap().items.len(), 1);
    consul.set_agent(false);
    let lost = client.health().service("web").list().await.unwrap().value;
    assert_eq!(lost[0].standing(), consul_client::Standing::AgentLost);
    assert!(watch.next().await.unwrap().items.is_empty());
    consul.set_agent(true);
    assert_eq!(watch.next().await.unwrap().items[0].standing(), consul_client::Standing::Passing);
}

#[tokio::test]
async fn sessions_that_end_and_services_that_are_forgotten() {
    let consul = FakeConsul::start().await;
    let client = consul.client();
    let lock = client.lock("l").ttl(Duration::from_secs(10)).acquire().await.unwrap();
    consul.end_sessions();
    let lost = tokio::time::timeout(Duration::from_secs(5), lock.lost()).await.unwrap();
    assert_eq!(lost, consul_client::Lost::Taken);
    let check = consul_client::Check::ttl(Duration::from_secs(1));
    let web = consul_client::ServiceRegistration::new("web", "web-1").check(check);
    let kept = client.agent().keep_registered(web).await.unwrap();
    let mut watch = client.health().service("web").passing().watch();
    assert_eq!(watch.next().await.unwrap().items.len(), 1);
    consul.forget_services();
    for count in [0, 1] {
        let seen = tokio::time::timeout(Duration::from_secs(5), async {
            while watch.next().await.unwrap().items.len() != count {}
        });
        seen.await.unwrap();
    }
    kept.deregister().await.unwrap();
}

#[tokio::test]
async fn a_watch_takes_one_connection_however_many_look() {
    let consul = FakeConsul::start().await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = Client::builder().address(listener.local_addr().unwrap().to_string()).build().unwrap();
    let (target, connections) = (consul.address(), Arc::new(AtomicUsize::new(0)));
    let count = Arc::clone(&connections);
    tokio::spawn(async move {
        while let Ok((mut from, _)) = listener.accept().await {
            count.fetch_add(1, Ordering::SeqCst);
            let mut to = tokio::net::TcpStream::connect(&target).await.unwrap();
            tokio::spawn(async move { tokio::io::copy_bidirectional(&mut from, &mut to).await });
        }
    });
    let shared = proxy.health().service("web").passing().watch().share();
    let mut subscribers: Vec<_> = (0..100).map(|_| shared.subscribe()).collect();
    for subscriber in &mut subscribers {
        assert!(
            subscriber.next().await.unwrap().items.is_empty(),
            "an empty set, which a quorum has confirmed"
        );
    }
    consul.client().agent().register(&consul_client::ServiceRegistration::new("web", "web-1")).await.unwrap();
    for subscriber in &mut subscribers {
        assert_eq!(subscriber.next().await.unwrap().items.len(), 1);
    }
    assert_eq!(connections.load(Ordering::SeqCst), 1);
}
