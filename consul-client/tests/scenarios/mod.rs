//! What the fake and a real server must do alike. Each scenario takes a client of a fresh server.

use std::time::{Duration, Instant};

use consul_client::{
    Behavior, Check, Client, Consistency, Error, ServiceRegistration, SessionOptions, Snapshot, Status,
    Watch, WatchState,
};

/// All of them, by name; a fresh server each.
pub(crate) async fn run_all<S>(mut start: impl AsyncFnMut() -> S, client: impl Fn(&S) -> Client) {
    macro_rules! run {
        ($($scenario:ident),* $(,)?) => {$(
            let server = start().await;
            println!(concat!("scenario ", stringify!($scenario)));
            $scenario(client(&server)).await;
        )*};
    }
    run!(
        conditions,
        indexes_of_keys,
        transactions,
        sessions_and_locks,
        lock_delay,
        lists_of_keys,
        services_and_checks,
        what_is_refused,
        waiting,
        recipes,
        events,
    );
}

async fn next<T>(watch: &mut Watch<T>) -> Snapshot<T> {
    tokio::time::timeout(Duration::from_secs(20), watch.next()).await.expect("a snapshot in time").unwrap()
}

async fn index(client: &Client, key: &str) -> u64 {
    client.kv().get(key).await.unwrap().meta.index.unwrap()
}

fn short() -> SessionOptions {
    SessionOptions::default().ttl(Duration::from_secs(10)).lock_delay(Duration::ZERO)
}

async fn conditions(client: Client) {
    let kv = client.kv();
    assert!(kv.cas("a", "1", 0).await.unwrap());
    assert!(!kv.cas("a", "2", 0).await.unwrap());
    let first = kv.get("a").await.unwrap().value.unwrap();
    assert!(!kv.cas("a", "2", first.modify_index + 1).await.unwrap());
    assert!(kv.cas_with_flags("a", "2", first.modify_index, 9).await.unwrap());
    let second = kv.get("a").await.unwrap().value.unwrap();
    assert_eq!((second.flags, second.create_index), (9, first.create_index));
    assert!(second.modify_index > first.modify_index);
    assert!(!kv.delete_cas("a", 0).await.unwrap());
    assert!(!kv.delete_cas("a", first.modify_index).await.unwrap());
    assert!(kv.delete_cas("a", second.modify_index).await.unwrap());
    assert!(kv.delete_cas("a", 7).await.unwrap(), "an absent key counts as deleted");
    kv.delete("a").await.unwrap();
}

async fn indexes_of_keys(client: Client) {
    let kv = client.kv();
    kv.put("a", "1").await.unwrap();
    let first = index(&client, "a").await;
    kv.put("a", "1").await.unwrap();
    assert_eq!(index(&client, "a").await, first, "an identical write changes nothing");
    kv.put("b", "1").await.unwrap();
    assert_eq!(index(&client, "a").await, first, "another key's write is not this one's");
    assert!(index(&client, "none").await > first, "an absent key has the table's index");
    let prefix = async |prefix: &str| kv.list(prefix).await.unwrap().meta.index.unwrap();
    kv.put("p/a", "1").await.unwrap();
    kv.put("p/b", "1").await.unwrap();
    let before = prefix("p/").await;
    kv.delete("p/a").await.unwrap();
    assert!(prefix("p/").await > before, "a deletion counts");
}

async fn transactions(client: Client) {
    let done = client.txn().set("a", "1").get("a").commit().await.unwrap();
    let pairs: Vec<_> = done.pairs().collect();
    assert_eq!((pairs.len(), pairs[0].value.len(), &pairs[1].value[..]), (2, 0, &b"1"[..]));
    let index = pairs[0].modify_index;
    let refused = client.txn().set("b", "x").cas("a", "2", index + 7).get("none").commit().await.unwrap();
    let refusals: Vec<_> = refused.refusals().unwrap().iter().map(|refusal| refusal.operation).collect();
    assert_eq!(refusals, [1, 2]);
    assert_eq!(client.kv().get("b").await.unwrap().value, None, "nothing of it happened");
    assert!(client.txn().check_index("a", index).set("a", "2").commit().await.unwrap().is_done());
    assert!(client.txn().check_not_exists("a").commit().await.unwrap().refusals().is_some());
    assert!(client.txn().check_not_exists("c").set("c", "x").commit().await.unwrap().is_done());
    assert!(
        client.txn().get_tree("none/").commit().await.unwrap().is_done(),
        "no keys under a prefix are no refusal"
    );
    assert!(client.txn().delete("none").delete_tree("a").commit().await.unwrap().is_done());
    assert!(client.txn().delete_cas("c", 1).commit().await.unwrap().refusals().is_some());
    let many = (0..65).fold(client.txn(), |txn, i| txn.set(format!("many/{i}"), "x"));
    assert!(matches!(many.commit().await.unwrap_err(), Error::TooLarge(_)));
    for key in ["/a", "a//b", "a/../b", "a\0b"] {
        client.kv().put(key, "odd").await.unwrap();
        assert_eq!(&client.kv().get(key).await.unwrap().value.unwrap().value[..], b"odd", "{key:?}");
    }
}

async fn sessions_and_locks(client: Client) {
    let (sessions, kv) = (client.sessions(), client.kv());
    let (one, two) =
        (sessions.create(&short()).await.unwrap(), sessions.create(&short().name("two")).await.unwrap());
    assert!(kv.acquire("l", "1", &one).await.unwrap());
    assert!(!kv.acquire("l", "2", &two).await.unwrap());
    assert!(kv.acquire("l", "3", &one).await.unwrap(), "a session may lock what it holds");
    let held = kv.get("l").await.unwrap().value.unwrap();
    assert_eq!(
        (held.session.as_deref(), &held.value[..], held.lock_index),
        (Some(one.as_str()), &b"3"[..], 1)
    );
    // Anybody may write: the holder stays, the lock index starts anew.
    kv.put("l", "4").await.unwrap();
    let written = kv.get("l").await.unwrap().value.unwrap();
    assert_eq!((written.session.as_deref(), written.lock_index), (Some(one.as_str()), 0));
    assert!(!kv.release("l", "x", &two).await.unwrap());
    assert!(kv.release("l", "5", &one).await.unwrap());
    let free = kv.get("l").await.unwrap().value.unwrap();
    assert_eq!((free.session, &free.value[..]), (None, &b"5"[..]));
    assert!(free.modify_index > written.modify_index);
    assert!(kv.acquire("l", "6", &two).await.unwrap());
    let refused = client.txn().lock("l", "7", &one).commit().await.unwrap();
    assert!(refused.refusals().unwrap()[0].why.contains("already held"));
    assert_eq!(sessions.renew(&two).await.unwrap().name, "two");
    sessions.destroy(&two).await.unwrap();
    sessions.destroy(&two).await.unwrap();
    assert_eq!(kv.get("l").await.unwrap().value.unwrap().session, None);
    assert!(sessions.renew(&two).await.unwrap_err().is_not_found());
    assert_eq!(sessions.info(&two).await.unwrap(), None);
    let unknown = kv.acquire("l", "x", &two).await.unwrap_err();
    assert!(matches!(unknown, Error::Rejected(_)), "{unknown}");
    let deleting = sessions.create(&short().behavior(Behavior::Delete)).await.unwrap();
    assert!(kv.acquire("gone", "x", &deleting).await.unwrap());
    sessions.destroy(&deleting).await.unwrap();
    assert_eq!(kv.get("gone").await.unwrap().value, None);
    for ttl in [Duration::from_secs(9), Duration::from_secs(86_401)] {
        let error = sessions.create(&SessionOptions::default().ttl(ttl)).await.unwrap_err();
        assert!(matches!(error, Error::Rejected(_)), "{error}");
    }
    let standard = sessions.create(&SessionOptions::default()).await.unwrap();
    assert_eq!(sessions.info(&standard).await.unwrap().unwrap().lock_delay, Duration::from_secs(15));
    assert_eq!(sessions.list().await.unwrap().value.len(), 2);
}

async fn lock_delay(client: Client) {
    let (sessions, kv) = (client.sessions(), client.kv());
    let delay = Duration::from_secs(1);
    let one = sessions.create(&short().lock_delay(delay)).await.unwrap();
    let two = sessions.create(&short()).await.unwrap();
    assert!(kv.acquire("l", "1", &one).await.unwrap());
    assert!(kv.release("l", "1", &one).await.unwrap());
    assert!(kv.acquire("l", "2", &two).await.unwrap(), "a release is not delayed");
    assert!(kv.release("l", "2", &two).await.unwrap() && kv.acquire("l", "3", &one).await.unwrap());
    sessions.destroy(&one).await.unwrap();
    let destroyed = Instant::now();
    assert!(!kv.acquire("l", "4", &two).await.unwrap());
    let refused = client.txn().lock("l", "4", &two).commit().await.unwrap();
    assert!(refused.refusals().unwrap()[0].is_lock_delay(), "{refused:?}");
    while !kv.acquire("l", "5", &two).await.unwrap() {
        assert!(destroyed.elapsed() < Duration::from_secs(5));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(destroyed.elapsed() > delay * 8 / 10, "{:?}", destroyed.elapsed());
}

async fn lists_of_keys(client: Client) {
    let kv = client.kv();
    for key in ["a", "d/1", "d/2", "d/e/3", "z ?#%2F"] {
        kv.put(key, key.to_owned()).await.unwrap();
    }
    assert_eq!(kv.keys("").await.unwrap().value.len(), 5);
    assert_eq!(kv.keys_up_to("d/", "/").await.unwrap().value, ["d/1", "d/2", "d/e/"]);
    assert_eq!(kv.keys_up_to("", "/").await.unwrap().value, ["a", "d/", "z ?#%2F"]);
    assert_eq!(&kv.get("z ?#%2F").await.unwrap().value.unwrap().value[..], b"z ?#%2F");
    assert_eq!(kv.list("d/").await.unwrap().value.len(), 3);
    assert!(kv.list("none").await.unwrap().value.is_empty());
    kv.delete_tree("d/").await.unwrap();
    assert_eq!(kv.keys("").await.unwrap().value, ["a", "z ?#%2F"]);
}

async fn services_and_checks(client: Client) {
    let agent = client.agent();
    let web = |id: &str, port| ServiceRegistration::new("web", id).port(port).tag("a");
    // Longer than a busy machine's agent needs to tell its servers.
    let ttl = || Check::ttl(Duration::from_secs(5));
    let list = async || client.health().service("web").await.unwrap();
    let passing = async || client.health().service("web").passing().await.unwrap().value.len();
    let register_other = async |name: &str| {
        agent.register(&ServiceRegistration::new(name, name)).await.unwrap();
        settle("it is in the catalogue", async || {
            let services = client.catalog().services().await.unwrap().value;
            services.iter().any(|service| service.name == name)
        })
        .await;
    };
    assert!(list().await.value.is_empty());
    // A service without instances has the index of the table: another's registration moves it.
    let empty = list().await.meta.index.unwrap();
    register_other("other").await;
    assert!(list().await.meta.index.unwrap() > empty);
    agent.register(&web("web-1", 1).check(ttl())).await.unwrap();
    settle("it is listed", async || list().await.value.len() == 1).await;
    assert_eq!(passing().await, 0, "critical until its first result");
    agent.update_ttl("service:web-1", Status::Passing, "well").await.unwrap();
    settle("it passes", async || passing().await == 1).await;
    let before = list().await;
    // The same registration again keeps the check's result.
    agent.register(&web("web-1", 1).check(ttl())).await.unwrap();
    assert_eq!(list().await.value[0].service, before.value[0].service);
    assert_eq!(passing().await, 1);
    settle("its time to live ends", async || passing().await == 0).await;
    let expired = agent.checks().await.unwrap()["service:web-1"].clone();
    assert_eq!(expired.status, Status::Critical);
    agent.register(&web("web-2", 2).tag("b")).await.unwrap();
    settle("both are listed", async || list().await.value.len() == 2).await;
    assert_eq!(client.health().service("web").tag("b").await.unwrap().value.len(), 1);
    let services = client.catalog().services().await.unwrap().value;
    let tags = &services.iter().find(|service| service.name == "web").unwrap().tags;
    assert_eq!(tags.len(), 2);
    assert_eq!(agent.services().await.unwrap().len(), 3);
    let unknown = agent.update_ttl("none", Status::Passing, "").await.unwrap_err();
    assert!(matches!(unknown, Error::Rejected(_)), "{unknown}");
    let field = agent.register(&web("web-3", 3).field("Nonsense", 1)).await.unwrap_err();
    assert!(matches!(field, Error::Rejected(_)) && field.status() == Some(400), "{field}");
    agent.deregister("none").await.unwrap();
    agent.deregister("web-1").await.unwrap();
    agent.deregister("web-2").await.unwrap();
    settle("none is listed", async || list().await.value.is_empty()).await;
    // From now on a service without instances has the index of the last such end, whoever else comes.
    let empty = list().await.meta.index.unwrap();
    register_other("third").await;
    assert_eq!(list().await.meta.index.unwrap(), empty);
}

/// An agent tells its servers in the background.
async fn settle(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let began = Instant::now();
    while !is_so().await {
        assert!(began.elapsed() < Duration::from_secs(20), "never so: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn what_is_refused(client: Client) {
    let kv = client.kv();
    kv.put("large", vec![7; 512 * 1024]).await.unwrap();
    assert!(matches!(kv.put("large", vec![7; 512 * 1024 + 1]).await.unwrap_err(), Error::TooLarge(_)));
    let raw = async |method: &str, path: &str, query: &[(&str, &str)]| {
        client.raw(method.parse().unwrap(), path, query, None).await
    };
    assert!(raw("GET", "/v1/none", &[]).await.unwrap_err().is_not_found());
    let both = raw("GET", "/v1/kv/large", &[("stale", ""), ("consistent", "")]).await.unwrap_err();
    assert_eq!(both.status(), Some(400));
    assert_eq!(raw("PUT", "/v1/kv/a", &[("cas", "x")]).await.unwrap_err().status(), Some(500));
    assert!(raw("GET", "/v1/kv/none", &[]).await.unwrap_err().is_not_found());
    // Presence is enough.
    kv.put("large/b", "x").await.unwrap();
    let list = raw("GET", "/v1/kv/large/", &[("keys", "false")]).await.unwrap();
    assert!(String::from_utf8_lossy(&list.body).contains("large/b"));
    let elsewhere = client.with_datacenter("nowhere").kv().get("a").await.unwrap_err();
    assert!(matches!(elsewhere, Error::Rejected(_)), "{elsewhere}");
}

async fn waiting(client: Client) {
    let kv = client.kv();
    kv.put("a", "1").await.unwrap();
    let (mut one, mut all) = (kv.watch("a"), kv.watch_prefix("p/"));
    assert_eq!(&next(&mut one).await.items[0].value[..], b"1");
    assert!(next(&mut all).await.items.is_empty());
    kv.put("p/x", "1").await.unwrap();
    assert_eq!(next(&mut all).await.items.len(), 1);
    kv.put("a", "1").await.unwrap();
    kv.put("b", "1").await.unwrap();
    let quiet = tokio::time::timeout(Duration::from_millis(300), one.next()).await;
    assert!(quiet.is_err(), "neither an identical write nor another key's is news");
    kv.delete("a").await.unwrap();
    assert!(next(&mut one).await.items.is_empty());
    kv.delete("p/x").await.unwrap();
    assert!(next(&mut all).await.items.is_empty());
    assert!(one.state().is_live());
    // A wait that runs out gives the present state.
    let present = index(&client, "b").await;
    let began = Instant::now();
    let index = present.to_string();
    let waited = client
        .raw(http::Method::GET, "/v1/kv/b", &[("index", &index), ("wait", "300ms")], None)
        .await
        .unwrap();
    assert_eq!(waited.meta.index, Some(present));
    assert!(
        (Duration::from_millis(250)..Duration::from_secs(2)).contains(&began.elapsed()),
        "{:?}",
        began.elapsed()
    );
    let stale = kv.get_with("b", Consistency::Stale).await.unwrap();
    assert!(stale.meta.known_leader != Some(false));
}

async fn recipes(client: Client) {
    let lock = |name: &str| {
        client
            .lock("lock")
            .ttl(Duration::from_secs(10))
            .lock_delay(Duration::from_millis(500))
            .value(name.to_owned())
    };
    let one = lock("one").acquire().await.unwrap();
    assert!(lock("two").try_acquire().await.unwrap().is_none());
    assert!(one.txn().set("work", "1").commit().await.unwrap().is_done());
    let waiting = tokio::spawn(lock("two").acquire());
    tokio::time::sleep(Duration::from_millis(100)).await;
    let fence = one.fence();
    one.release().await.unwrap();
    let two = tokio::time::timeout(Duration::from_secs(5), waiting).await.unwrap().unwrap().unwrap();
    assert!(two.fence() > fence);
    // The session ends: told by the watch of the key.
    let session = client.kv().get("lock").await.unwrap().value.unwrap().session.unwrap();
    client.sessions().destroy(&session).await.unwrap();
    assert_eq!(
        tokio::time::timeout(Duration::from_secs(5), two.lost()).await.unwrap(),
        consul_client::Lost::Taken
    );
    let three = tokio::time::timeout(Duration::from_secs(5), lock("three").acquire()).await.unwrap().unwrap();
    assert!(three.fence() > two.fence());
    let permit = client.semaphore("slots", 1).ttl(Duration::from_secs(10)).acquire().await.unwrap();
    let other = client.semaphore("slots", 1).ttl(Duration::from_secs(10)).try_acquire().await.unwrap();
    assert!(other.is_none());
    permit.release().await.unwrap();
    let here = client.ephemeral("here").ttl(Duration::from_secs(10)).value("x").hold().await.unwrap();
    assert!(client.kv().get("here").await.unwrap().value.is_some());
    here.release().await.unwrap();
    assert!(client.kv().get("here").await.unwrap().value.is_none());
}

async fn events(client: Client) {
    let events = client.events();
    events.fire("before", "x").send().await.unwrap();
    settle("the event is listed", async || !events.list().await.unwrap().value.is_empty()).await;
    let mut watch = events.watch_all();
    let mut state = watch.subscribe_state();
    let fire = async {
        state.wait_for(WatchState::is_live).await.map(drop).unwrap();
        events.fire("deploy", "1").send().await.unwrap();
    };
    let (seen, ()) = tokio::join!(tokio::time::timeout(Duration::from_secs(10), watch.next()), fire);
    assert_eq!(&seen.unwrap().unwrap().payload[..], b"1");
}
