//! Two data centres, a server each, joined over WAN.

use std::time::Duration;

use consul_client::{
    PreparedQuery, SessionOptions, Status,
    dns::{Dns, Name},
};

use crate::{
    agent::{Consul, eventually},
    shows, web,
};

#[tokio::test]
#[ignore = "needs consul: ./test.sh runs it"]
async fn calls_watches_and_queries_reach_the_other_data_centre() {
    let (servers, dns) = Consul::start_two_datacenters().await;
    let (here, there) = (servers[0].client(), servers[1].client());
    eventually("both know each other", async || {
        let known = here.catalog().datacenters().await.is_ok_and(|all| all.len() == 2);
        known && there.catalog().datacenters().await.is_ok_and(|all| all.len() == 2)
    })
    .await;
    let afar = here.with_datacenter("dc2");
    eventually("calls are passed on", async || afar.kv().put("a", "far").await.is_ok()).await;
    assert_eq!(&there.kv().get("a").await.unwrap().value.unwrap().value[..], b"far");
    assert_eq!(here.kv().get("a").await.unwrap().value, None);
    assert!(afar.txn().set("b", "x").commit().await.unwrap().is_done());
    assert_eq!(afar.catalog().nodes().await.unwrap().value[0].node, "n2");

    // The agent's node is registered in its own data centre alone, so a lock afar can only be had through a node of that one.
    let lock = tokio::time::timeout(Duration::from_secs(10), afar.lock("l").acquire()).await;
    let error = lock.expect("an answer, not an endless wait").unwrap_err().to_string();
    assert!(error.contains("dc1") && error.contains("dc2"), "{error}");
    let lock = here.with_datacenter("dc1").lock("l").acquire().await.unwrap();
    lock.release().await.unwrap();
    // An agent of that one locks there, and what it holds is seen from here: the key, its holder, the fence that guards a write.
    let lock = there.lock("l").value("n2").acquire().await.unwrap();
    let pair = afar.kv().get("l").await.unwrap().value.unwrap();
    assert!(&pair.value[..] == b"n2" && pair.session.is_some());
    assert_eq!(here.kv().get("l").await.unwrap().value.unwrap().session, None, "another key of that name");
    let guarded = || there.with_datacenter("dc2").txn().check_fence("l", lock.fence()).set("progress", "1");
    assert!(guarded().commit().await.unwrap().is_done());
    let fence = lock.fence();
    lock.release().await.unwrap();
    let next = there.lock("l").acquire().await.unwrap();
    assert!(next.fence() > fence);
    let late = afar.txn().check_fence("l", fence).set("progress", "2").commit().await.unwrap();
    assert!(!late.is_done(), "{late:?}");
    next.release().await.unwrap();
    for error in [
        afar.semaphore("s", 1).acquire().await.err().map(|error| error.to_string()),
        afar.ephemeral("e").hold().await.err().map(|error| error.to_string()),
    ] {
        let text = error.expect("refused");
        assert!(text.contains("dc1") && text.contains("dc2"), "{text}");
    }
    let tied = SessionOptions::default().node("n2").checks(Vec::<String>::new()).ttl(Duration::from_secs(10));
    let session = afar.sessions().create(&tied).await.unwrap();
    assert!(afar.kv().acquire("l", "held", &session).await.unwrap());
    afar.sessions().destroy(&session).await.unwrap();

    let mut watch = afar.health().service("web").passing().watch();
    shows(&mut watch, &[]).await;
    there.agent().register(&web("web-1", 1)).await.unwrap();
    shows(&mut watch, &["web-1"]).await;

    let query = PreparedQuery::new("find-web", "web").failover(0, ["dc2"]);
    here.prepared_queries().create(&query).await.unwrap();
    let found = here.prepared_queries().execute("find-web").await.unwrap().value;
    assert_eq!((found.datacenter.as_str(), found.failovers, found.nodes.len()), ("dc2", 1, 1));
    let resolver = Dns::new(format!("127.0.0.1:{}", dns[0]).parse().unwrap()).unwrap();
    for name in [Name::service("web").datacenter("dc2"), Name::query("find-web")] {
        assert_eq!(resolver.targets(&name).await.unwrap()[0].port, 1, "{name:?}");
    }
    here.agent().register(&web("web-9", 9)).await.unwrap();
    eventually("the near one is taken when it is there", async || {
        here.prepared_queries().execute("find-web").await.unwrap().value.datacenter == "dc1"
    })
    .await;

    let mut coordinates = Vec::new();
    eventually("both have coordinates", async || {
        coordinates = here.coordinates().datacenters().await.unwrap();
        coordinates.iter().filter(|one| !one.coordinates.is_empty()).count() == 2
    })
    .await;
    let of = |name: &str| {
        let one = coordinates.iter().find(|one| one.datacenter == name).unwrap();
        one.coordinates[0].coord.clone()
    };
    let distance = of("dc1").distance(&of("dc2")).unwrap();
    assert!(distance < Duration::from_secs(1), "{distance:?}");
    let checks = afar.health().state(Status::Passing).await.unwrap().value;
    assert!(checks.iter().all(|check| check.node == "n2"));
}
