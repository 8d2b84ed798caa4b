//! One server: what the store costs, and what it does with restarts, damage and replicas.

use crate::{add, create, key_of_nobody, servers::*};
#[cfg(feature = "encryption")]
use session_store::StoreOptions;
use session_store::{
    CommitId, Durability, Gone, Op, Outcome, Patch, RedisStore, SessionId, SessionStore, conformance,
    lifetime::unix_now,
};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs redis-server: ./test.sh runs it"]
async fn redis_conforms() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::redis(folder.path(), None);
    let store = session_store::connect(&format!("127.0.0.1:{}", server.port)).await.unwrap();
    conformance::run(store.clone()).await;
    store.health().await.unwrap();
    #[cfg(feature = "encryption")]
    {
        let options = StoreOptions::new().keys(session_store::Keyring::new(1, &[1; 32]));
        let store = options.connect(&format!("redis://127.0.0.1:{}", server.port)).await.unwrap();
        conformance::run(store).await;
    }
}

/// 64 tasks add 1 to one session 1,000 times each; then two instances do so at once: none is lost, none is doubled.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs redis-server: ./test.sh runs it"]
async fn every_view_is_counted() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::redis(folder.path(), None);
    let url = format!("redis://127.0.0.1:{}", server.port);
    let open = async || session_store::connect(&url).await.unwrap();
    conformance::restarts_lose_nothing(open).await;
    conformance::adds_add_up(&[open().await], 64, 1_000).await;
    conformance::adds_add_up(&[open().await, open().await], 64, 50).await;
}

/// What a request costs: a read is one GET; a change after it one script, and so are a rotation and a renewal.
#[tokio::test]
#[ignore = "needs redis-server: ./test.sh runs it"]
async fn round_trips_are_counted() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::redis(folder.path(), None);
    let store = RedisStore::open(&format!("redis://127.0.0.1:{}", server.port)).unwrap();
    let key = create(&store).await;
    let seen = store.load(&key).await.unwrap().unwrap();
    let first = Patch::new().add("views", 1).commit();
    store.apply_from(&key, &seen, first, Durability::Primary).await.unwrap(); // loads the script
    let [reads, scripts] = calls(server.port).await;
    store.find(&key, unix_now()).await.unwrap();
    assert_eq!(calls(server.port).await, [reads + 1, scripts], "a load is one GET");
    let mut record = store.load(&key).await.unwrap().unwrap();
    for number in 1..=3 {
        let op = Patch::new().add("views", 1).commit();
        let applied = store.apply_from(&key, &record, op, Durability::Primary).await.unwrap();
        assert!(applied.outcome.is_done());
        record = applied.record.unwrap();
        assert_eq!(calls(server.port).await, [reads + 2, scripts + number], "a commit is one script");
    }
    store.apply_from(&key, &record, Op::Touch, Durability::Primary).await.unwrap();
    let (stale, to) = (record, SessionId::random().key());
    let seen = store.load(&key).await.unwrap().unwrap();
    assert_eq!(calls(server.port).await, [reads + 3, scripts + 4], "a renewal is one script");
    let rotate = |to| Op::Rotate {
        to,
        principal: Some("ada".into()),
        patch: Patch::new().add("views", 1),
        grace: Duration::ZERO,
        id: Some(CommitId::random()),
    };
    let applied = store.apply_from(&key, &seen, rotate(to), Durability::Primary).await.unwrap();
    assert_eq!(calls(server.port).await, [reads + 3, scripts + 5], "a rotation is one script");
    assert_eq!(applied.record.as_ref().and_then(|record| record.counter("views")), Some(5));
    let late = store.apply_from(&key, &stale, rotate(key_of_nobody()), Durability::Primary).await.unwrap();
    assert_eq!(late.outcome, Outcome::Gone(Gone::Rotated), "an old record was believed");

    // A blind change from another process costs the loser one script more, and nothing is lost.
    let seen = applied.record.unwrap();
    let other = RedisStore::open(&format!("redis://127.0.0.1:{}", server.port)).unwrap();
    add(&other, &to).await;
    let [reads, scripts] = calls(server.port).await;
    let op = Patch::new().add("views", 1).commit();
    let applied = store.apply_from(&to, &seen, op, Durability::Primary).await.unwrap();
    assert_eq!(applied.record.and_then(|record| record.counter("views")), Some(7));
    let after = calls(server.port).await;
    assert_eq!(
        after,
        [reads + 1, scripts + 2],
        "a conflict brings the newer record along, read by the script"
    );
}

/// Reads that come together share a command, and each gets its own session or the news that there is none.
#[tokio::test]
#[ignore = "needs redis-server: ./test.sh runs it"]
async fn reads_at_once_share_a_command() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::redis(folder.path(), None);
    let store = Arc::new(RedisStore::open(&format!("redis://127.0.0.1:{}", server.port)).unwrap());
    let mut keys = Vec::new();
    for number in 0..64 {
        let key = create(&*store).await;
        let views = Patch::new().add("views", number).commit();
        store.apply(&key, views, Durability::Primary).await.unwrap();
        keys.push(key);
    }
    store.delete(&keys[5]).await.unwrap();
    keys[6] = key_of_nobody();
    let before = reads(server.port).await;
    let mut loads = tokio::task::JoinSet::new();
    for (number, key) in keys.into_iter().enumerate() {
        let store = store.clone();
        loads.spawn(async move { (number, store.load(&key).await.unwrap()) });
    }
    for (number, record) in loads.join_all().await {
        let views = record.as_ref().and_then(|record| record.counter("views"));
        match number {
            5 => assert_eq!(record.unwrap().gone(unix_now()), Some(Gone::Deleted)),
            6 => assert!(record.is_none()),
            _ => assert_eq!(views, i64::try_from(number).ok(), "one got another's session"),
        }
    }
    let commands = reads(server.port).await - before;
    assert!(commands <= 16, "64 reads at once were {commands} commands");
}

/// Changes that come together share a script, and each is answered by itself: what one of them cannot do stops no other.
#[tokio::test]
#[ignore = "needs redis-server: ./test.sh runs it"]
async fn changes_at_once_share_a_script() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::redis(folder.path(), None);
    let store = Arc::new(RedisStore::open(&format!("redis://127.0.0.1:{}", server.port)).unwrap());
    let mut seen = Vec::new();
    for _ in 0..64 {
        let key = create(&*store).await;
        seen.push((key, store.load(&key).await.unwrap().unwrap()));
    }
    let mut raw = raw(server.port).await.unwrap();
    // Foreign data where one session was, another process's change of the next, and a server that has forgotten its scripts.
    let foreign = format!("session:{}", seen[7].0.to_text());
    let () = redis::cmd("DEL").arg(&foreign).query_async(&mut raw).await.unwrap();
    let () = redis::cmd("LPUSH").arg(&foreign).arg("x").query_async(&mut raw).await.unwrap();
    let other = RedisStore::open(&format!("redis://127.0.0.1:{}", server.port)).unwrap();
    add(&other, &seen[8].0).await;
    let () = redis::cmd("SCRIPT").arg("FLUSH").query_async(&mut raw).await.unwrap();
    let [_, before] = calls(server.port).await;
    let mut changes = tokio::task::JoinSet::new();
    for (number, (key, record)) in seen.clone().into_iter().enumerate() {
        let store = store.clone();
        changes.spawn(async move {
            let op = Patch::new().add("views", 1).commit();
            (number, store.apply_from(&key, &record, op, Durability::Primary).await)
        });
    }
    while let Some(change) = changes.join_next().await {
        let (number, answer) = change.unwrap();
        match (number, answer) {
            (7, answer) => {
                let error = answer.unwrap_err();
                assert!(error.to_string().contains("WRONGTYPE"), "{error}");
            }
            (_, answer) => assert!(answer.unwrap().outcome.is_done(), "{number}"),
        }
    }
    let [_, after] = calls(server.port).await;
    assert!(after - before < 32, "64 changes took {} scripts", after - before);
    for (number, (key, _)) in seen.iter().enumerate().filter(|(number, _)| *number != 7) {
        let record = store.load(key).await.unwrap().unwrap();
        assert_eq!(record.counter("views"), Some(if number == 8 { 2 } else { 1 }), "{number}");
    }
    assert!(store.load(&seen[7].0).await.is_err(), "foreign data was taken for no session");
}

#[tokio::test]
#[ignore = "needs redis-server: ./test.sh runs it"]
async fn a_restart_is_survived_and_damage_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::redis(folder.path(), None);
    let store = RedisStore::open(&format!("redis://127.0.0.1:{}", server.port)).unwrap();
    let key = create(&store).await;
    let mut raw = raw(server.port).await.unwrap();
    let names: Vec<String> = redis::cmd("KEYS").arg("session:*").query_async(&mut raw).await.unwrap();
    let name = names.into_iter().next().unwrap();
    let () = redis::cmd("SETRANGE").arg(&name).arg(30).arg("x").query_async(&mut raw).await.unwrap();
    let error = store.load(&key).await.unwrap_err();
    assert!(!error.is_retryable() && error.to_string().contains("damaged"), "{error}");
    store.apply(&key, Patch::new().add("views", 1).commit(), Durability::Primary).await.unwrap_err();

    let (port, started) = (server.port, Instant::now());
    drop(server);
    let quick =
        RedisStore::open(&format!("redis://127.0.0.1:{port}")).unwrap().deadline(Duration::from_millis(500));
    let error = quick.load(&key).await.unwrap_err();
    assert!(error.is_retryable() && started.elapsed() < Duration::from_secs(2), "{error}");
    assert!(store.health().await.is_err());
    let arguments = ["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", ""].map(String::from);
    let _server = Server::start("redis-server", port, folder.path(), &arguments);
    let key = create(&store).await; // the script has to be loaded anew
    add(&store, &key).await;
}

/// Redis Cluster is not offered, and a node of one is not taken for a single server.
#[tokio::test]
#[ignore = "needs redis-server: ./test.sh runs it"]
async fn a_cluster_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let port = free_port();
    let arguments = ["--port", &port.to_string(), "--bind", "127.0.0.1", "--cluster-enabled", "yes"];
    let _node = Server::start("redis-server", port, folder.path(), &arguments.map(String::from));
    let store = session_store::connect(&format!("redis://127.0.0.1:{port}")).await.unwrap();
    let begin = Instant::now();
    let error = store.load(&key_of_nobody()).await.unwrap_err();
    assert!(
        error.to_string().contains("Redis Cluster") && begin.elapsed() < Duration::from_secs(2),
        "{error}"
    );
    let error = session_store::connect("redis+cluster://h").await.unwrap_err();
    assert!(error.is_config() && error.to_string().contains("Redis Cluster is not offered"), "{error}");
}

/// A replica is no place for sessions, and says so instead of serving old ones.
#[tokio::test]
#[ignore = "needs redis-server: ./test.sh runs it"]
async fn a_replica_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let master = Server::redis(folder.path(), None);
    let replica = Server::redis(folder.path(), Some(master.port));
    let url = format!("redis://127.0.0.1:{}", replica.port);
    let store = RedisStore::open(&url).unwrap().deadline(Duration::from_millis(300));
    let error = store.load(&SessionId::random().key()).await.unwrap_err();
    assert!(error.to_string().contains("replica"), "{error}");
}
