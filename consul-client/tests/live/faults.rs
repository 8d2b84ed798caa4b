//! Restarts and elections.

use std::time::{Duration, Instant};

use consul_client::Client;

use crate::{
    LOCK,
    agent::{Consul, FREE_WAIT},
    ids, shows, web,
};

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

#[tokio::test]
#[ignore = "needs consul: ./test.sh runs it"]
async fn an_election_costs_no_watch_no_write_and_no_lock() {
    let mut servers = Consul::start_three().await;
    let peers = servers[0].client().operator().raft_peers().await.unwrap();
    let leader = peers.into_iter().find(|peer| peer.leader).unwrap().node;
    // The leader first, so that its loss costs connections too.
    servers.sort_by_key(|server| server.name() != leader);
    let client =
        servers.iter().fold(Client::builder(), |all, one| all.address(one.address())).build().unwrap();
    let survivor = servers[1].client();

    survivor.agent().register(&web("web-1", 1)).await.unwrap();
    let mut watch = client.health().service("web").passing().watch();
    shows(&mut watch, &["web-1"]).await;
    // The session must not hang on the node that is about to die.
    let lock = survivor.lock(LOCK).ttl(Duration::from_secs(20)).acquire().await.unwrap();
    let watching = tokio::spawn(async move {
        loop {
            let seen = ids(&mut watch).await;
            assert!(seen.contains(&"web-1".to_owned()), "the election emptied the watch: {seen:?}");
            if seen.len() == 2 {
                return watch;
            }
        }
    });
    let writers = (0..8).map(|writer| {
        let kv = client.kv();
        tokio::spawn(async move {
            let began = Instant::now();
            let mut written = 0_u32;
            while began.elapsed() < Duration::from_secs(8) {
                let (key, value) = (format!("w/{writer}"), written.to_string());
                kv.put(&key, value.clone())
                    .await
                    .expect("a write that may happen twice waits the election out");
                let read = kv
                    .get(&key)
                    .await
                    .expect("so does a read")
                    .value
                    .expect("what was acknowledged is there");
                assert_eq!(read.value, value);
                written += 1;
            }
            written
        })
    });
    let writers: Vec<_> = writers.collect();
    tokio::time::sleep(Duration::from_secs(1)).await;
    servers[0].kill();
    survivor.agent().register(&web("web-2", 2)).await.unwrap();
    for writer in writers {
        assert!(writer.await.unwrap() > 0);
    }
    let watch = tokio::time::timeout(FREE_WAIT, watching).await.expect("the watch goes on").unwrap();
    assert!(watch.state().is_live(), "{:?}", watch.state());
    assert!(lock.is_held(), "the lock outlived the election");
    lock.release().await.unwrap();
}
