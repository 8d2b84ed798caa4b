//! Services, checks, and who is there.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use consul_client::{Check, Client, ServiceEntry, Standing, Status};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use crate::{
    LOCK,
    agent::{Consul, FREE_WAIT, eventually},
    shows, web,
};

#[tokio::test]
#[ignore = "needs consul: ./test.sh runs it"]
async fn a_watch_sees_services_come_and_go() {
    let consul = Consul::start().await;
    let client = consul.client();
    let mut watch = client.health().service("web").passing().watch();
    shows(&mut watch, &[]).await;
    client.agent().register(&web("web-1", 1)).await.unwrap();
    shows(&mut watch, &["web-1"]).await;
    // An identical registration changes nothing.
    client.agent().register(&web("web-1", 1)).await.unwrap();
    client.agent().register(&web("web-2", 2)).await.unwrap();
    shows(&mut watch, &["web-1", "web-2"]).await;
    let list = client.health().service("web").tag("a").list().await.unwrap().value;
    assert_eq!((list.len(), list[0].address(), list[0].service.port), (2, "127.0.0.1", 1));
    assert_eq!(list[0].service.meta["host"], "h1");
    assert!(client.health().service("web").tag("b").list().await.unwrap().value.is_empty());
    let filter = client.health().service("web").filter("Service.Port == 2").list().await.unwrap().value;
    assert_eq!(filter[0].service.id, "web-2");
    client.agent().deregister("web-1").await.unwrap();
    shows(&mut watch, &["web-2"]).await;
    client.agent().deregister("web-2").await.unwrap();
    shows(&mut watch, &[]).await;
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
    shows(&mut watch, &["web-1"]).await;
    well.store(false, Ordering::SeqCst);
    shows(&mut watch, &[]).await;
    // Registering again, as a registrar does time and again, does not make it well.
    client.agent().register(&service).await.unwrap();
    let all = client.health().service("web").list().await.unwrap().value;
    assert!(all[0].checks.iter().any(|check| check.status == Status::Critical));
    well.store(true, Ordering::SeqCst);
    shows(&mut watch, &["web-1"]).await;
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
        services.iter().any(|service| service.name == "web" && service.tags == ["a"])
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
async fn a_token_that_lacks_the_right_is_denied() {
    let rules = r#"acl { enabled = true default_policy = "deny" tokens { master = "c0ffee00-0000-0000-0000-000000000000" } }"#;
    let consul = Consul::start_with(&["-hcl", rules]).await;
    let anonymous = consul.client();
    assert!(anonymous.kv().put("a", "x").await.unwrap_err().is_denied());
    let with = |token: &str| Client::builder().address(consul.address()).token(token).build().unwrap();
    let unknown = with("dead0000-0000-0000-0000-000000000000").kv().get("a").await.unwrap_err();
    assert!(unknown.is_denied() && !unknown.is_retryable(), "{unknown}");
    let master = with("c0ffee00-0000-0000-0000-000000000000");
    eventually("the token is known", async || master.kv().put("a", "x").await.is_ok()).await;
    assert!(anonymous.lock(LOCK).acquire().await.unwrap_err().is_denied());
    master.lock(LOCK).acquire().await.unwrap().release().await.unwrap();
}

#[tokio::test]
#[ignore = "needs consul: ./test.sh runs it"]
async fn a_dead_agent_is_told_from_its_instances() {
    let server = Consul::start().await;
    let mut agent = server.start_agent_beside("a1").await;
    let client = server.client();
    let local = agent.client().agent();
    local.register(&web("web-1", 1).check(Check::ttl(Duration::from_secs(600)))).await.unwrap();
    // A result that was reported is on the agent's disk, unlike an initial status.
    local.update_ttl("service:web-1", Status::Passing, "well").await.unwrap();
    let mut watch = client.health().service("web").watch();
    let mut comes_to = async |wanted: Standing| {
        let seen = tokio::time::timeout(FREE_WAIT, async {
            while watch.next().await.unwrap().items.first().map(ServiceEntry::standing) != Some(wanted) {}
        });
        seen.await.unwrap_or_else(|_| panic!("the instance does not come to be {wanted:?}"));
    };
    comes_to(Standing::Passing).await;
    agent.kill();
    comes_to(Standing::AgentLost).await;
    let passing = client.health().service("web").passing().list().await.unwrap().value;
    assert!(passing.is_empty(), "Consul itself leaves it out, whether it lives or not");
    let mut log = client.agent().monitor("info").await.unwrap();
    agent.restart().await;
    comes_to(Standing::Passing).await;
    let line = tokio::time::timeout(FREE_WAIT, async {
        loop {
            let line = log.next().await.expect("the agent is there").unwrap();
            if line.contains("a1") {
                return line;
            }
        }
    });
    assert!(line.await.expect("the server tells of the agent's return").contains("[INFO]"));
    agent.kill();
    comes_to(Standing::AgentLost).await;
    client.agent().prune("a1").await.unwrap();
    eventually("a pruned node is no member", async || {
        client.agent().members().await.unwrap().iter().all(|member| member.name != "a1")
    })
    .await;
}
