//! Elections, semaphores, ephemeral keys, registrations that stay, shared watches.

use std::time::Duration;

use consul_client::{
    Behavior, Check, Client, Election, ElectionState, EphemeralState, Lost, RegistrationState,
    SessionOptions, Status,
};

use crate::{
    agent::{Consul, FREE_WAIT, eventually, signal},
    web,
};

const TTL: Duration = Duration::from_secs(10);

async fn until(election: &mut Election, what: &str, is_so: impl Fn(&ElectionState) -> bool) -> ElectionState {
    let seen = tokio::time::timeout(FREE_WAIT, async {
        loop {
            let state = election.next().await.unwrap();
            if is_so(&state) {
                return state;
            }
        }
    });
    seen.await.unwrap_or_else(|_| panic!("{what}; it is {:?}", election.state()))
}

fn campaign(client: &Client, name: &'static str) -> Election {
    let delay = Duration::from_secs(1);
    client.election("el/leader").ttl(TTL).lock_delay(delay).value(name).campaign().unwrap()
}

fn led_by(name: &'static str) -> impl Fn(&ElectionState) -> bool {
    move |state| matches!(state, ElectionState::Follower { leader: Some(leader) } if leader == name)
}

#[tokio::test]
#[ignore = "needs consul: ./test.sh runs it"]
async fn one_candidate_leads_and_the_next_takes_over() {
    let consul = Consul::start().await;
    let client = consul.client();
    let mut one = campaign(&client, "one");
    until(&mut one, "one leads", ElectionState::is_leader).await;
    let first = one.leadership().unwrap();
    assert!(first.txn().set("el/work", "1").commit().await.unwrap().is_done());
    let mut two = campaign(&client, "two");
    until(&mut two, "two sees one", led_by("one")).await;
    assert!(two.leadership().is_none());
    // An operator ends the session: one is told, and both stand again.
    let session = client.kv().get("el/leader").await.unwrap().value.unwrap().session.unwrap();
    client.sessions().destroy(&session).await.unwrap();
    assert_eq!(first.lost().await, Lost::Taken);
    let write = first.txn().set("el/work", "2").commit().await.unwrap();
    assert!(!write.is_done(), "a former leader writes nothing");
    eventually("somebody leads again", async || one.leadership().is_some() || two.leadership().is_some())
        .await;
    let (leader, mut other) = if one.leadership().is_some() { (one, two) } else { (two, one) };
    let fence = leader.leadership().unwrap().fence();
    assert!(fence > first.fence());
    leader.resign().await.unwrap();
    let state = until(&mut other, "the other takes over", ElectionState::is_leader).await;
    let ElectionState::Leader(last) = state else { unreachable!() };
    assert!(last.fence() > fence);
    drop(other);
    eventually("a dropped candidate gives way", async || {
        client.kv().get("el/leader").await.unwrap().value.is_some_and(|pair| pair.session.is_none())
    })
    .await;
    client.kv().put("el/other", "precious").await.unwrap();
    let mut wrong = client.election("el/other").campaign().unwrap();
    until(
        &mut wrong,
        "it says why it cannot stand",
        |state| matches!(state, ElectionState::Failing { error } if error.is_conflict()),
    )
    .await;
    assert!(client.election("a//b").campaign().is_err());
}

#[tokio::test]
#[ignore = "needs consul: ./test.sh runs it"]
async fn a_semaphore_has_so_many_slots_and_no_more() {
    let consul = Consul::start().await;
    let client = consul.client();
    let semaphore = || client.semaphore("jobs", 2).ttl(TTL).value("x");
    let one = semaphore().acquire().await.unwrap();
    let two = semaphore().acquire().await.unwrap();
    assert!(semaphore().try_acquire().await.unwrap().is_none());
    let other = client.semaphore("jobs", 3).try_acquire().await.unwrap_err();
    assert!(other.is_conflict() && other.to_string().contains("2 slots"), "{other}");
    let waiting = tokio::spawn(semaphore().acquire());
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!waiting.is_finished());
    one.release().await.unwrap();
    let three = tokio::time::timeout(FREE_WAIT, waiting).await.unwrap().unwrap().unwrap();
    // A holder whose session ends is told, and its slot is free at once.
    let contenders = client.sessions().list().await.unwrap().value;
    let lost = [two.lost(), three.lost()];
    client.sessions().destroy(&contenders[0].id).await.unwrap();
    let (why, ..) = futures_util::future::select_all(lost.map(Box::pin)).await;
    assert_eq!(why, Lost::Taken);
    let four = tokio::time::timeout(FREE_WAIT, semaphore().acquire()).await.unwrap().unwrap();
    drop((two, three, four));
    eventually("dropped slots are given back, no session stays", async || {
        client.sessions().list().await.unwrap().value.is_empty()
    })
    .await;
    assert!(client.semaphore("jobs", 0).acquire().await.is_err());

    // Ten contenders at once for three slots.
    let running = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let contenders = (0..10).map(|_| {
        let (client, running) = (client.clone(), std::sync::Arc::clone(&running));
        tokio::spawn(async move {
            let permit = client.semaphore("many", 3).ttl(TTL).acquire().await.unwrap();
            let now = running.fetch_add(1, std::sync::atomic::Ordering::SeqCst) + 1;
            assert!(now <= 3, "{now} at once");
            tokio::time::sleep(Duration::from_millis(50)).await;
            running.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
            permit.release().await.unwrap();
        })
    });
    for contender in contenders.collect::<Vec<_>>() {
        tokio::time::timeout(FREE_WAIT, contender).await.unwrap().unwrap();
    }
}

#[tokio::test]
#[ignore = "needs consul: ./test.sh runs it"]
async fn consuls_own_semaphore_and_this_one_share_the_slots() {
    let consul = Consul::start().await;
    let client = consul.client();
    let ours = client.semaphore("jobs", 2).ttl(TTL).acquire().await.unwrap();
    let mut theirs = consul.command().args(["lock", "-n", "2", "jobs", "sleep 60"]).spawn().unwrap();
    eventually("the tool takes the second slot", async || {
        client.semaphore("jobs", 2).ttl(TTL).try_acquire().await.unwrap().is_none()
    })
    .await;
    assert!(ours.is_held(), "the tool leaves our slot alone");
    let refused = consul.command().args(["lock", "-n", "2", "-try", "1s", "jobs", "true"]).status().unwrap();
    assert!(!refused.success());
    signal(theirs.id(), "INT");
    theirs.wait().unwrap();
    let granted = consul.command().args(["lock", "-n", "2", "-try", "5s", "jobs", "true"]).status().unwrap();
    assert!(granted.success());
    let second = tokio::time::timeout(FREE_WAIT, client.semaphore("jobs", 2).ttl(TTL).acquire()).await;
    second.unwrap().unwrap().release().await.unwrap();
    ours.release().await.unwrap();
}

#[tokio::test]
#[ignore = "needs consul: ./test.sh runs it"]
async fn an_ephemeral_key_lives_with_its_owner() {
    let consul = Consul::start().await;
    let client = consul.client();
    let kv = client.kv();
    let value = async || kv.get("hosts/h1").await.unwrap().value.map(|pair| pair.value.to_vec());
    let here = client.ephemeral("hosts/h1").ttl(TTL).value("a").hold().await.unwrap();
    assert_eq!(value().await.unwrap(), b"a");
    here.set("b");
    eventually("the new value is written", async || value().await.is_some_and(|value| value == b"b")).await;
    // The session is lost: the key goes with it, and comes back.
    let session = kv.get("hosts/h1").await.unwrap().value.unwrap().session.unwrap();
    client.sessions().destroy(&session).await.unwrap();
    eventually("it is written again", async || {
        let pair = kv.get("hosts/h1").await.unwrap().value;
        pair.is_some_and(|pair| pair.session.is_some_and(|now| now != session))
    })
    .await;
    eventually("and says so", async || matches!(here.state(), EphemeralState::Present)).await;
    here.release().await.unwrap();
    assert_eq!(value().await, None);
    // The remains of an owner that vanished are waited out.
    let remains =
        client.sessions().create(&SessionOptions::default().behavior(Behavior::Delete)).await.unwrap();
    assert!(kv.acquire("hosts/h1", "old", &remains).await.unwrap());
    let waiting = tokio::spawn(client.ephemeral("hosts/h1").ttl(TTL).value("new").hold());
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(value().await.unwrap(), b"old");
    client.sessions().destroy(&remains).await.unwrap();
    // Consul's own lock delay of 15 s bars the key.
    let again = tokio::time::timeout(FREE_WAIT, waiting).await.unwrap().unwrap().unwrap();
    assert_eq!(value().await.unwrap(), b"new");
    drop(again);
    eventually("a dropped one is deleted", async || value().await.is_none()).await;
}

#[tokio::test]
#[ignore = "needs consul: ./test.sh runs it"]
async fn a_registration_stays_although_the_agent_forgets_it() {
    let mut consul = Consul::start().await;
    let client = consul.client();
    let agent = client.agent();
    let ttl = Check::ttl(Duration::from_secs(3));
    let kept = agent.keep_registered(web("web-1", 1).check(ttl)).await.unwrap();
    let plain = agent.keep_registered(web("web-2", 2)).await.unwrap();
    let passing = async || client.health().service("web").passing().await.map(|list| list.value.len());
    eventually("both pass", async || passing().await.is_ok_and(|n| n == 2)).await;
    kept.report(Status::Warning, "ailing");
    eventually("the report arrives", async || {
        agent.health_by_id("web-1").await.unwrap().is_some_and(|one| one.aggregated_status == Status::Warning)
    })
    .await;
    kept.report(Status::Passing, "");
    agent.deregister("web-1").await.unwrap();
    eventually("it is registered again", async || agent.service("web-1").await.unwrap().is_some()).await;
    // The agent loses its data.
    consul.kill();
    let mut state = kept.subscribe_state();
    state.wait_for(|state| matches!(state, RegistrationState::Failing { .. })).await.map(drop).unwrap();
    consul.forget();
    consul.restart().await;
    eventually("both are back", async || {
        agent.services().await.is_ok_and(|all| all.contains_key("web-1") && all.contains_key("web-2"))
    })
    .await;
    state.wait_for(|state| matches!(state, RegistrationState::Registered)).await.map(drop).unwrap();
    // Longer than the TTL.
    tokio::time::sleep(Duration::from_secs(4)).await;
    let health = agent.health_by_id("web-1").await.unwrap().unwrap();
    assert_eq!(health.aggregated_status, Status::Passing, "{health:?}");
    kept.deregister().await.unwrap();
    assert_eq!(agent.service("web-1").await.unwrap(), None);
    drop(plain);
    eventually("a dropped one is removed", async || agent.service("web-2").await.unwrap().is_none()).await;
}

#[tokio::test]
#[ignore = "needs consul: ./test.sh runs it"]
async fn a_thousand_subscribers_are_one_query() {
    let consul = Consul::start().await;
    let client = Client::builder().address(consul.address()).max_connections(4, 1).build().unwrap();
    client.agent().register(&web("web-1", 1)).await.unwrap();
    let shared = client.health().service("web").passing().watch().share();
    let subscribers: Vec<_> = (0..1000)
        .map(|_| {
            let mut subscriber = shared.subscribe();
            tokio::spawn(async move {
                loop {
                    let snapshot = subscriber.next().await.unwrap();
                    if snapshot.items.len() == 2 {
                        return;
                    }
                }
            })
        })
        .collect();
    client.agent().register(&web("web-2", 2)).await.unwrap();
    for subscriber in subscribers {
        // There is one blocking connection: a second query would have to wait for the first.
        tokio::time::timeout(FREE_WAIT, subscriber).await.unwrap().unwrap();
    }
    assert_eq!(shared.latest().unwrap().items.len(), 2);
    let late = shared.subscribe().next().await.unwrap();
    assert_eq!(late.items.len(), 2, "one who comes late sees what is known");
}
