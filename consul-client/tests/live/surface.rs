//! Each family of calls once, against a real agent.

use std::time::Duration;

use consul_client::{
    Action, BindingRule, CatalogRegistration, Change, Client, ConfigEntry, Consistency, Deregister, Error,
    ExternalService, Intention, NewToken, Policy, PreparedQuery, Role, Side, Status, TxnResult,
};
use futures_util::StreamExt as _;
use secrecy::ExposeSecret as _;

use crate::{
    agent::{Consul, eventually},
    soon, web,
};

const ROOT: &str = "c0ffee00-0000-0000-0000-000000000000";

#[tokio::test]
#[ignore = "needs consul: ./test.sh runs it"]
async fn transactions_happen_or_do_not() {
    let consul = Consul::start().await;
    let client = consul.client();
    let done = client.txn().set("a", "1").set_with_flags("b", [0, 255], 7).get("a").commit().await.unwrap();
    let pairs: Vec<_> = done.pairs().collect();
    assert_eq!((pairs.len(), pairs[1].flags, &pairs[2].value[..]), (3, 7, &b"1"[..]));
    let index = pairs[0].modify_index;
    let refused = client.txn().check_index("a", index + 9).set("a", "2").get("none").commit().await.unwrap();
    let refusals = refused.refusals().unwrap();
    assert!(refusals.iter().any(|refusal| refusal.operation == 0), "{refusals:?}");
    assert_eq!(&client.kv().get("a").await.unwrap().value.unwrap().value[..], b"1", "nothing of it happened");
    let moved =
        client.txn().cas("a", "3", index).check_not_exists("c").delete("b").get_tree("a").commit().await;
    let moved = moved.unwrap();
    assert!(moved.is_done(), "{moved:?}");
    assert!(client.txn().delete_cas("a", 1).commit().await.unwrap().refusals().is_some());
    let read = client.txn().get_tree("a").commit().await.unwrap();
    assert_eq!(&read.pairs().next().unwrap().value[..], b"3");
    assert!(
        client.txn().delete_tree("").commit().await.is_err(),
        "the empty key is refused before it is sent"
    );

    let session = client.sessions().create(&Default::default()).await.unwrap();
    assert!(client.txn().lock("l", "x", &session).commit().await.unwrap().is_done());
    assert!(client.txn().check_session("l", &session).set("guarded", "x").commit().await.unwrap().is_done());
    let stranger = client.sessions().create(&Default::default()).await.unwrap();
    let refused = client.txn().check_session("l", &stranger).set("guarded", "y").commit().await.unwrap();
    assert!(!format!("{refused:?}").contains(&session), "a session id is in no message");
    assert!(client.txn().unlock("l", "x", &session).commit().await.unwrap().is_done());

    let many = (0..65).fold(client.txn(), |txn, i| txn.set(format!("many/{i}"), "x"));
    assert!(matches!(many.commit().await.unwrap_err(), Error::TooLarge(_)));

    let node = client
        .txn()
        .node_set("ext", "10.0.0.9")
        .service_set("ext", ExternalService::new("db", "db-1").port(1));
    let node = node.check_set("ext", "alive", Status::Passing, Some("db-1"));
    assert!(node.commit().await.unwrap().is_done());
    let seen = client
        .txn()
        .node_get("ext")
        .service_get("ext", "db", "db-1")
        .check_get("ext", "alive")
        .commit()
        .await;
    let seen = seen.unwrap();
    let [TxnResult::Node(node), TxnResult::Service(service), TxnResult::Check(check)] =
        seen.results().unwrap()
    else {
        panic!("{seen:?}")
    };
    assert_eq!(
        (node.value.address.as_str(), service.value.port, check.value.status),
        ("10.0.0.9", 1, Status::Passing)
    );
    let stale = client.txn().node_cas("ext", "10.0.0.10", node.modify_index + 5).commit().await.unwrap();
    assert!(!stale.is_done());
    let fresh = client.txn().node_cas("ext", "10.0.0.10", node.modify_index).commit().await.unwrap();
    assert!(fresh.is_done());
    let moved =
        client.txn().service_cas("ext", ExternalService::new("db", "db-1").port(2), service.modify_index);
    let moved = moved.check_cas("ext", "alive", Status::Warning, Some("db-1"), check.modify_index);
    assert!(moved.commit().await.unwrap().is_done());
    let gone =
        client.txn().check_delete("ext", "alive").service_delete("ext", "db", "db-1").node_delete("ext");
    assert!(gone.commit().await.unwrap().is_done());
}

#[tokio::test]
#[ignore = "needs consul: ./test.sh runs it"]
async fn the_catalog_without_an_agent() {
    let consul = Consul::start().await;
    let client = consul.client();
    let mut changes = client.health().service("db").watch().changes();
    let mut nodes = client.catalog().nodes().watch();
    let mut services = client.catalog().services().watch();
    let mut checks = client.health().checks("db").watch();
    assert!(soon(changes.next()).await.is_empty());
    assert!(soon(checks.next()).await.items.is_empty());
    let entry = CatalogRegistration::new("ext", "10.0.0.9")
        .node_meta("external-node", "true")
        .service(ExternalService::new("db", "db-1").port(5432).tag("main").meta("k", "v"))
        .check("alive", Status::Passing, Some("db-1"));
    client.catalog().register(&entry).await.unwrap();
    let added = soon(changes.next()).await;
    assert!(matches!(&added[..], [Change::Added(entry)] if entry.service.port == 5432), "{added:?}");
    eventually("both lists show it", async || {
        let there = soon(nodes.next()).await.items.iter().any(|node| node.node == "ext");
        there && soon(services.next()).await.items.iter().any(|service| service.name == "db")
    })
    .await;
    assert_eq!(soon(checks.next()).await.items[0].check_id, "alive");
    let node = client.catalog().node("ext").await.unwrap().value.unwrap();
    assert_eq!((node.node.meta["external-node"].as_str(), node.services["db-1"].port), ("true", 5432));
    assert!(client.catalog().node("none").await.unwrap().value.is_none());
    let found =
        client.catalog().service("db").filter("ServiceMeta.k == v").near("_agent").await.unwrap().value;
    assert_eq!((found.len(), found[0].service_tags[0].as_str()), (1, "main"));
    assert!(client.catalog().connect("db").await.unwrap().value.is_empty());
    assert!(client.catalog().gateway_services("none").await.unwrap().value.is_empty());
    assert_eq!(client.catalog().datacenters().await.unwrap(), ["dc1"]);
    let health = client.health();
    assert_eq!(health.checks("db").await.unwrap().value[0].check_id, "alive");
    assert_eq!(health.node("ext").await.unwrap().value.len(), 1);
    assert!(health.state(Status::Passing).await.unwrap().value.iter().any(|check| check.check_id == "alive"));
    assert!(health.all().await.unwrap().value.len() >= 2);
    assert!(health.connect("db").await.unwrap().value.is_empty());
    let failing = CatalogRegistration::new("ext", "10.0.0.9").skip_node_update();
    client.catalog().register(&failing.check("alive", Status::Critical, Some("db-1"))).await.unwrap();
    let changed = soon(changes.next()).await;
    assert!(matches!(&changed[..], [Change::Changed { .. }]), "{changed:?}");
    assert!(health.service("db").passing().await.unwrap().value.is_empty());
    client.catalog().deregister("ext", Deregister::Check("alive")).await.unwrap();
    client.catalog().deregister("ext", Deregister::Service("db-1")).await.unwrap();
    client.catalog().deregister("ext", Deregister::Node).await.unwrap();
    eventually("it is gone", async || {
        let last = soon(changes.next()).await;
        matches!(&last[..], [Change::Removed(_)])
    })
    .await;
    let cached = Consistency::Cached { max_age: Some(Duration::from_secs(30)), stale_if_error: None };
    let query = health.service("consul").consistency(cached);
    query.list().await.unwrap();
    assert_eq!(query.list().await.unwrap().meta.cache_hit, Some(true));
    let there = client.with_datacenter("nowhere").catalog().nodes().await.unwrap_err();
    assert!(matches!(there, Error::Rejected(_)), "{there:?}");
    assert_eq!(
        client.with_consistency(Consistency::Consistent).catalog().nodes().await.unwrap().value.len(),
        1
    );
}

#[tokio::test]
#[ignore = "needs consul: ./test.sh runs it"]
async fn events_come_once() {
    let consul = Consul::start().await;
    let events = consul.client().events();
    events.fire("deploy", "before").send().await.unwrap();
    eventually("it is remembered", async || events.list().name("deploy").await.unwrap().value.len() == 1)
        .await;
    let mut watch = events.watch("deploy");
    let mut state = watch.subscribe_state();
    let fired = tokio::spawn(async move {
        state.wait_for(consul_client::WatchState::is_live).await.map(drop).unwrap();
        events.fire("other", "x").send().await.unwrap();
        events.fire("deploy", vec![0, 255]).node(".*").send().await.unwrap();
        events.fire("deploy", "three").send().await.unwrap();
    });
    let mut seen = [soon(watch.next()).await, soon(watch.next()).await].map(|event| event.payload.to_vec());
    fired.await.unwrap();
    // Gossip has no order.
    seen.sort();
    assert_eq!(seen, [vec![0, 255], b"three".to_vec()]);
    let more = tokio::time::timeout(Duration::from_millis(500), watch.next()).await;
    assert!(more.is_err(), "{more:?}");
}

#[tokio::test]
#[ignore = "needs consul: ./test.sh runs it"]
async fn prepared_queries_are_kept_and_run() {
    let consul = Consul::start().await;
    let client = consul.client();
    let queries = client.prepared_queries();
    client.agent().register(&web("web-1", 1)).await.unwrap();
    let query =
        PreparedQuery::new("find-web", "web").only_passing().tag("a").near("_agent").failover(1, ["dc2"]);
    let id = queries.create(&query).await.unwrap();
    assert_eq!(queries.get(&id).await.unwrap().unwrap().service, query.service);
    assert_eq!(queries.all().await.unwrap().value.len(), 1);
    eventually("it finds the instance", async || {
        queries
            .execute("find-web")
            .await
            .unwrap()
            .value
            .nodes
            .first()
            .is_some_and(|one| one.service.port == 1)
    })
    .await;
    assert_eq!(queries.explain("find-web").await.unwrap().id, id);
    queries.update(&id, &PreparedQuery::new("find-web", "nothing")).await.unwrap();
    assert!(queries.execute(&id).await.unwrap().value.nodes.is_empty());
    queries.delete(&id).await.unwrap();
    assert_eq!(queries.get(&id).await.unwrap(), None);
    assert!(queries.execute("find-web").await.unwrap_err().is_not_found());
}

#[tokio::test]
#[ignore = "needs consul: ./test.sh runs it"]
async fn access_control() {
    let rules = format!(r#"acl {{ enabled = true default_policy = "deny" tokens {{ master = "{ROOT}" }} }}"#);
    let consul = Consul::start_with(&["-hcl", &rules]).await;
    let root = Client::builder().address(consul.address()).token(ROOT).build().unwrap();
    let acl = root.acl();
    eventually("the token is known", async || acl.token_self().await.is_ok()).await;
    assert!(acl.bootstrap().await.unwrap_err().is_denied());
    assert!(!acl.replication().await.unwrap().enabled);
    let policy = Policy::new("reader", r#"key_prefix "" { policy = "read" }"#);
    let mut policy = acl.create_policy(&policy).await.unwrap();
    policy.description = "reads".into();
    assert_eq!(acl.update_policy(&policy).await.unwrap().description, "reads");
    assert_eq!(acl.policy(&policy.id).await.unwrap().rules, policy.rules);
    let role = acl.create_role(&Role::new("readers", ["reader"])).await.unwrap();
    assert_eq!(acl.update_role(&role).await.unwrap().policies, role.policies);
    assert_eq!(acl.role(&role.id).await.unwrap().name, "readers");
    assert_eq!(acl.role_by_name("readers").await.unwrap().id, role.id);
    let token =
        NewToken::default().description("t").role("readers").local().expires_after(Duration::from_secs(3600));
    let mut token = acl.create_token(&token).await.unwrap();
    let secret = token.secret().unwrap();
    assert!(token.expiration_time().is_some() && !format!("{token:?}").contains(secret.expose_secret()));
    let reader = root.with_token(secret.expose_secret()).unwrap();
    assert_eq!(reader.kv().get("a").await.unwrap().value, None);
    assert!(reader.kv().put("a", "x").await.unwrap_err().is_denied());
    assert!(reader.txn().set("a", "x").commit().await.unwrap_err().is_denied());
    token.description = "changed".into();
    assert_eq!(acl.update_token(&token).await.unwrap().description, "changed");
    let copy = acl.clone_token(&token.accessor_id, "copy").await.unwrap();
    assert!(acl.tokens().await.unwrap().value.iter().any(|one| one.accessor_id == copy.accessor_id));
    assert_eq!(acl.token(&token.accessor_id).await.unwrap().roles, token.roles);
    acl.delete_token(&copy.accessor_id).await.unwrap();
    acl.delete_token(&token.accessor_id).await.unwrap();
    acl.delete_role(&role.id).await.unwrap();
    acl.delete_policy(&policy.id).await.unwrap();
    assert!(acl.policy(&policy.id).await.is_err());
    assert_eq!(acl.policies().await.unwrap().value.len(), 1);
    assert!(acl.roles().await.unwrap().value.is_empty());
    assert!(acl.auth_methods().await.unwrap().value.is_empty());
    assert!(acl.binding_rules().await.unwrap().value.is_empty());
    assert!(acl.create_binding_rule(&BindingRule::new("none", "role", "readers")).await.is_err());
    let bearer = secrecy::SecretString::from("x");
    assert!(acl.login("none", &bearer).await.is_err());
    assert!(acl.translate_rules(r#"agent "" { policy = "read" }"#).await.unwrap().contains("agent_prefix"));
}

#[tokio::test]
#[ignore = "needs consul: ./test.sh runs it"]
async fn the_mesh_and_its_configuration() {
    let consul = Consul::start_with(&["-hcl", "connect { enabled = true }"]).await;
    let client = consul.client();
    let (config, connect) = (client.config_entries(), client.connect());
    let mut watch = config.watch("service-defaults", "web");
    assert!(soon(watch.next()).await.items.is_empty());
    config.set(&ConfigEntry::new("service-defaults", "web").field("Protocol", "http")).await.unwrap();
    let seen = soon(watch.next()).await.items.pop().unwrap();
    assert_eq!(seen.fields["Protocol"], "http");
    assert!(config.cas(&seen.clone().field("Protocol", "grpc")).await.unwrap());
    assert!(!config.cas(&seen.field("Protocol", "tcp")).await.unwrap());
    assert_eq!(config.list("service-defaults").await.unwrap().value.len(), 1);
    let wrong = config.set(&ConfigEntry::new("service-defaults", "web").field("Nope", 1)).await.unwrap_err();
    assert!(matches!(wrong, Error::Rejected(_)), "{wrong}");
    assert_eq!(connect.discovery_chain("web").await.unwrap().value.protocol, "grpc");
    config.delete("service-defaults", "web").await.unwrap();
    assert_eq!(config.get("service-defaults", "web").await.unwrap().value, None);

    let id = connect.create_intention(&Intention::new("a", "b", Action::Deny)).await.unwrap();
    assert!(!connect.check_intention("a", "b").await.unwrap());
    let mut found = connect.match_intentions(Side::Source, "a").await.unwrap().value;
    assert_eq!((found.len(), found[0].id == id), (1, true));
    let mut own = found.pop().unwrap();
    own.action = Action::Allow;
    connect.update_intention(&own).await.unwrap();
    assert!(connect.check_intention("a", "b").await.unwrap());
    assert_eq!(connect.intentions().await.unwrap().value.len(), 1);
    assert!(connect.authorize("b", "spiffe://x/ns/default/dc/dc1/svc/a", "1").await.is_ok());
    connect.delete_intention(&id).await.unwrap();
    assert_eq!(connect.intention(&id).await.unwrap(), None);
    let roots = connect.ca_roots().await.unwrap().value;
    assert!(roots.roots.iter().any(|root| root.active && root.root_cert.contains("CERTIFICATE")));
    let config = connect.ca_config().await.unwrap();
    assert_eq!(config.provider, "consul");
    connect.set_ca_config(&config).await.unwrap();
    assert_eq!(connect.ca_config().await.unwrap().provider, config.provider);
    let leaf = connect.leaf("web").await.unwrap();
    assert!(leaf.private_key_pem.expose_secret().contains("KEY") && !format!("{leaf:?}").contains("PRIVATE"));
}

#[tokio::test]
#[ignore = "needs consul: ./test.sh runs it"]
async fn the_operators_tools_and_snapshots() {
    // Twice sixteen bytes in base64.
    let (old, new) = ("MDEyMzQ1Njc4OWFiY2RlZg==", "ZmVkY2JhOTg3NjU0MzIxMA==");
    let consul = Consul::start_with(&["-encrypt", old]).await;
    let client = consul.client();
    let operator = client.operator();
    let config = operator.autopilot().await.unwrap();
    let mut changed = config.clone();
    changed.cleanup_dead_servers = false;
    assert!(operator.set_autopilot(&changed).await.unwrap());
    assert!(!operator.set_autopilot(&config).await.unwrap(), "somebody was faster");
    assert!(!operator.autopilot().await.unwrap().cleanup_dead_servers);
    eventually("autopilot finds it healthy", async || {
        operator.autopilot_health().await.is_ok_and(|health| health.healthy && health.servers.len() == 1)
    })
    .await;
    assert!(operator.raft_remove_peer("127.0.0.1:1").await.is_err());
    let key = secrecy::SecretString::from(new);
    operator.keyring_install(&key).await.unwrap();
    operator.keyring_use(&key).await.unwrap();
    operator.keyring_remove(&secrecy::SecretString::from(old)).await.unwrap();
    let rings = operator.keyring().await.unwrap();
    let keys: Vec<_> =
        rings.iter().flat_map(|ring| ring.keys()).map(|(key, _)| key.expose_secret().to_owned()).collect();
    assert!(keys.iter().all(|key| key == new) && !format!("{rings:?}").contains(new), "{rings:?}");

    let kv = client.kv();
    kv.put("kept", "before").await.unwrap();
    let mut snapshot = client.snapshot().save().await.unwrap();
    assert!(snapshot.meta().index.is_some());
    let mut archive = Vec::new();
    while let Some(chunk) = snapshot.next().await {
        archive.push(chunk.unwrap());
    }
    kv.put("kept", "after").await.unwrap();
    kv.put("new", "x").await.unwrap();
    let mut watch = kv.watch("kept");
    assert_eq!(&soon(watch.next()).await.items[0].value[..], b"after");
    let pieces = futures_util::stream::iter(archive.clone()).map(Ok::<_, std::io::Error>);
    client.snapshot().restore(pieces).await.unwrap();
    assert_eq!(&kv.get("kept").await.unwrap().value.unwrap().value[..], b"before");
    assert_eq!(kv.get("new").await.unwrap().value, None);
    // The index went back, and the watch tells the past once.
    assert_eq!(&soon(watch.next()).await.items[0].value[..], b"before");
    assert!(tokio::time::timeout(Duration::from_millis(700), watch.next()).await.is_err(), "told twice");
    let cut = archive.into_iter().map(|chunk| chunk.slice(..chunk.len() / 2));
    let broken = futures_util::stream::iter(cut).map(Ok::<_, std::io::Error>);
    assert!(client.snapshot().restore(broken).await.is_err());
    assert_eq!(&kv.get("kept").await.unwrap().value.unwrap().value[..], b"before");

    client.coordinates().node("n1").await.unwrap();
    client.coordinates().nodes().await.unwrap();
    assert_eq!(client.sessions().list().await.unwrap().value, []);
    let id = client
        .sessions()
        .create(&consul_client::SessionOptions::default().ttl(Duration::from_secs(15)))
        .await
        .unwrap();
    let of_node = client.sessions().of_node("n1").await.unwrap().value;
    assert_eq!(of_node[0].ttl_duration(), Some(Duration::from_secs(15)));
    assert_eq!(of_node[0].lock_delay, Duration::from_secs(15));
    assert!(kv.acquire("l", "x", &id).await.unwrap() && kv.release("l", "y", &id).await.unwrap());
    assert!(!kv.release("l", "y", &id).await.unwrap());
}

#[tokio::test]
#[ignore = "needs consul: ./test.sh runs it"]
async fn odd_keys_are_written_as_they_are_and_no_others() {
    let consul = Consul::start().await;
    let kv = consul.client().kv();
    let long = "k".repeat(8192);
    let odd =
        ["/a", "a//b", "a/../b", "..", "a/.", "a\0b", "a\nb", "?", "#", "a%2Fb", "ä ß", &long, "a/b", "b"];
    for (i, key) in odd.iter().enumerate() {
        let value = i.to_string();
        assert!(kv.cas(key, value.clone(), 0).await.unwrap(), "{key:?}");
        assert!(!kv.cas(key, "other", 0).await.unwrap(), "{key:?}");
        let pair = kv.get(key).await.unwrap().value.unwrap();
        assert_eq!((pair.key.as_str(), &pair.value[..]), (*key, value.as_bytes()));
        kv.put_with_flags(key, value, 3).await.unwrap();
        assert_eq!(kv.get(key).await.unwrap().value.unwrap().flags, 3, "{key:?}");
    }
    assert_eq!(kv.keys("").await.unwrap().value.len(), odd.len());
    assert_eq!(kv.keys("a//").await.unwrap().value, ["a//b"]);
    assert_eq!(
        kv.keys_up_to("", "/").await.unwrap().value.iter().filter(|key| key.starts_with("a/")).count(),
        1
    );
    for (i, key) in odd.iter().enumerate() {
        kv.delete(key).await.unwrap();
        assert_eq!(kv.keys("").await.unwrap().value.len(), odd.len() - 1 - i, "{key:?} alone is gone");
    }
    let too_long = "k".repeat(8193);
    assert!(matches!(kv.put(&too_long, "x").await.unwrap_err(), Error::Invalid { .. }));
}
