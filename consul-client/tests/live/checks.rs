//! This agent: its services and its checks, of every kind.

use std::time::Duration;

use consul_client::{Check, Status};

use crate::{
    agent::{Consul, eventually},
    soon, web,
};

#[tokio::test]
#[ignore = "needs consul: ./test.sh runs it"]
async fn an_agent_and_its_checks() {
    let consul = Consul::start().await;
    let agent = consul.client().agent();
    let mut own = agent.watch_service("web-1");
    assert!(soon(own.next()).await.items.is_empty());
    assert_eq!(agent.service("web-1").await.unwrap(), None);
    assert_eq!(agent.health_by_id("web-1").await.unwrap(), None);
    assert!(agent.health_by_name("web").await.unwrap().is_empty());
    let ttl = Check::ttl(Duration::from_secs(60)).id("alive");
    agent.register(&web("web-1", 1).check(ttl).weights(3, 1).enable_tag_override()).await.unwrap();
    assert_eq!(soon(own.next()).await.items[0].weights.passing, 3);
    for (status, wanted) in [
        (Status::Passing, Status::Passing),
        (Status::Warning, Status::Warning),
        (Status::Critical, Status::Critical),
    ] {
        agent.update_ttl("alive", status, "x").await.unwrap();
        assert_eq!(agent.health_by_id("web-1").await.unwrap().unwrap().aggregated_status, wanted);
        assert_eq!(agent.health_by_name("web").await.unwrap()[0].aggregated_status, wanted);
    }
    assert_eq!(agent.services_where("Service == web").await.unwrap().len(), 1);
    agent.register(&web("web-1", 2)).await.unwrap();
    assert_eq!(soon(own.next()).await.items[0].port, 2);
    agent.service_maintenance("web-1", Some("moving")).await.unwrap();
    assert_eq!(agent.health_by_id("web-1").await.unwrap().unwrap().aggregated_status, Status::Maintenance);
    agent.service_maintenance("web-1", None).await.unwrap();
    assert!(agent.service_maintenance("none", None).await.is_err());
    agent.node_maintenance(Some("moving")).await.unwrap();
    assert!(agent.checks().await.unwrap().contains_key("_node_maintenance"));
    agent.node_maintenance(None).await.unwrap();
    let hour = Duration::from_secs(3600);
    for check in [
        Check::ttl(hour),
        Check::http("http://127.0.0.1:1/").method("HEAD").header("a", "b").thresholds(2, 2).interval(hour),
        Check::tcp("127.0.0.1:1").interval(hour).timeout(Duration::from_secs(1)),
        Check::grpc("127.0.0.1:1", false).interval(hour),
        Check::alias_service("web-1"),
        Check::alias_node("n1"),
    ] {
        agent.register_check("extra", check.clone(), Some("web-1")).await.unwrap();
        assert_eq!(agent.checks().await.unwrap()["extra"].service_id, "web-1", "{check:?}");
        agent.deregister_check("extra").await.unwrap();
    }
    let script = agent.register_check("s", Check::script(["true"]).interval(hour), None).await.unwrap_err();
    assert!(script.to_string().contains("disabled"), "{script}");
    agent.deregister_check("none").await.ok();
    // What the agent shows is of the last ten seconds, the first of which are empty.
    eventually("it tells of its runtime", async || {
        agent.metrics().await.unwrap().gauges.iter().any(|gauge| gauge.name.contains("runtime"))
    })
    .await;
    agent.reload().await.unwrap();
    assert!(agent.join("127.0.0.1:1").await.is_err());
}

#[tokio::test]
#[ignore = "needs consul: ./test.sh runs it"]
async fn each_kind_of_check_is_carried_out() {
    let consul = Consul::start_with(&["-hcl", "enable_local_script_checks = true"]).await;
    let dir = tempfile::tempdir().unwrap();
    let script = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let (good, warns) = (script("good", "echo fine"), script("warns", "echo so-so; exit 1"));
    // An agent takes scripts over HTTP only when it is told to trust whoever asks, and from its own files at once.
    let refused = consul.client().agent();
    let often = |check: Check| check.interval(Duration::from_secs(1)).timeout(Duration::from_secs(1));
    let error = refused.register_check("s", often(Check::script(["sh", &good])), None).await.unwrap_err();
    assert!(error.to_string().contains("disabled"), "{error}");

    let consul = Consul::start_with(&["-hcl", "enable_script_checks = true"]).await;
    let agent = consul.client().agent();
    let here = consul.address();
    let checks = [
        ("http", Check::http(format!("http://{here}/v1/status/leader")), Status::Passing, "200"),
        ("http-no", Check::http(format!("http://{here}/v1/none")), Status::Critical, "404"),
        ("tcp", Check::tcp(&here), Status::Passing, "Success"),
        ("grpc", Check::grpc(&here, false), Status::Critical, ""),
        ("script", Check::script(["sh", &good]), Status::Passing, "fine"),
        ("script-warns", Check::script(["sh", &warns]), Status::Warning, "so-so"),
        ("script-no", Check::script(["sh", "-c", "echo broken; exit 2"]), Status::Critical, "broken"),
        ("docker", Check::docker("no-such-container", "sh", ["true"]), Status::Critical, ""),
    ];
    for (id, check, ..) in &checks {
        agent.register_check(id, often(check.clone()), None).await.unwrap();
    }
    for (id, _, status, output) in checks {
        eventually(id, async || {
            let found = agent.checks().await.unwrap();
            let check = &found[id];
            check.status == status && !check.output.is_empty() && check.output.contains(output)
        })
        .await;
    }
}
