//! What waits for replicas, and what happens when there are too few.

use crate::{create, find, servers::*};
use session_store::{CommitId, Durability, Op, Outcome, Patch, RedisStore, SessionId, SessionStore};
use std::time::{Duration, Instant};

fn login(to: session_store::StoreKey) -> Op {
    let (principal, id) = (Some("ada".into()), Some(CommitId::random()));
    Op::Rotate { to, principal, patch: Patch::new(), grace: Duration::ZERO, id }
}

/// Too few replicas are an error that says so, and no log-out is taken back by it. Repeating it when a replica is there makes it durable.
#[tokio::test]
#[ignore = "needs redis-server: ./test.sh runs it"]
async fn a_log_out_that_no_replica_has_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let master = Server::redis(folder.path(), None);
    let url = format!("redis://127.0.0.1:{}", master.port);
    let store = RedisStore::open(&format!("{url}?replicas=1")).unwrap().deadline(Duration::from_millis(1500));
    let (gone, kept) = (create(&store).await, create(&store).await);
    for _ in 0..2 {
        let start = Instant::now();
        let error = store.delete(&gone).await.unwrap_err();
        assert!(error.is_not_durable() && error.is_retryable(), "{error}");
        assert!(error.to_string().contains("0 of 1 replicas"), "{error}");
        assert!(start.elapsed() < Duration::from_secs(4), "the deadline was passed by far");
        assert_eq!(find(&store, &gone).await, "over");
    }
    let refused = store.apply(&kept, login(SessionId::random().key()), store.durability()).await;
    assert!(refused.unwrap_err().is_not_durable());
    let error = store.revoke_all("ada", None).await.unwrap_err();
    assert!(error.is_not_durable(), "{error}");
    assert!(
        store.revoke_all("ada", None).await.unwrap_err().is_not_durable(),
        "nothing left to end is no proof"
    );
    let plain = RedisStore::open(&url).unwrap();
    plain.delete(&create(&plain).await).await.unwrap(); // one server by itself is enough where nobody asked for more

    let replica = Server::redis(folder.path(), Some(master.port));
    poll("the replica follows", async || {
        info(master.port, "replication").await.is_some_and(|text| text.contains("state=online"))
    })
    .await;
    let fresh = create(&store).await;
    let (seen, before) = (store.load(&fresh).await.unwrap().unwrap(), calls(master.port).await);
    let to = SessionId::random().key();
    let applied = store.apply_from(&fresh, &seen, login(to), Durability::replicas(1)).await.unwrap();
    assert!(applied.outcome.is_done());
    assert_eq!(
        calls(master.port).await,
        [before[0], before[1] + 1],
        "a durable rotation is one script, with its WAIT behind it"
    );
    assert!(has(replica.port, &to).await, "an acknowledged log-in is not on the replica");
    let outcome = store.delete(&gone).await.unwrap();
    assert!(!outcome.is_done(), "a repeated log-out ends nothing: {outcome:?}");
    assert!(has(replica.port, &gone).await, "an acknowledged log-out is not on the replica");
}

/// Of three hosts any one may be gone: people log in and out.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs redis-server: ./test.sh runs it"]
async fn two_hosts_of_three_log_in_and_out() {
    for host in [2, 0] {
        let mut cluster = Cluster::start().await;
        let store = session_store::connect(&cluster.url()).await.unwrap();
        assert_eq!(store.durability(), Durability::replicas(1));
        let anonymous = create(&*store).await;
        replicated(cluster.servers[0].port).await;
        drop((cluster.servers.remove(host), cluster.sentinels.remove(host)));
        let to = SessionId::random().key();
        let applied = store.apply(&anonymous, login(to), store.durability()).await.unwrap();
        assert!(applied.outcome.is_done(), "{:?}", applied.outcome);
        let outcome = store.delete(&to).await.unwrap();
        assert!(matches!(outcome, Outcome::Saved { .. } | Outcome::Gone(_)), "{outcome:?}");
        assert_eq!(find(&*store, &to).await, "over");
    }
}
