//! swarm-client: a stack, from a compose file.

use std::io;
use std::time::{Duration, Instant};

use lab::Lab;
use swarm_client::Client;
use swarm_client::stack::compose::Context;
use swarm_client::stack::{Action, NAMESPACE_LABEL, PlanOptions, Stack};

use crate::swarm::client;
use crate::told;

const FILE: &str = r#"
version: "3.9"
services:
  store:
    image: lab-test:${TAG}
    command: redis-server --port 7000 --save ""
    environment: {LEVEL: "${LEVEL}"}
    stop_grace_period: 1s
    healthcheck: {test: [CMD, redis-cli, -p, "7000", ping], interval: 500ms, retries: 20}
    cap_add: [NET_ADMIN]
    ulimits: {nofile: {soft: 1234, hard: 2345}}
    networks: [back]
    secrets: [pw]
    configs: [page]
    deploy:
      replicas: 2
      endpoint_mode: dnsrr
      labels: {swarm-client.autoscaled: "true"}
      resources: {limits: {memory: 64M}}
      update_config: {order: start-first, monitor: 1s}
  agent:
    image: lab-test:${TAG}
    command: redis-server --port 7001 --save ""
    stop_grace_period: 1s
    networks: [back]
    deploy: {mode: global, endpoint_mode: dnsrr}
networks: {back: {driver: overlay}}
secrets: {pw: {file: pw}}
configs: {page: {content: "${LEVEL}"}}
"#;

pub(crate) async fn a_stack_is_planned_applied_and_pruned(lab: &Lab) {
    let start = Instant::now();
    let swarm = client(lab.hosts()).await;
    let limit = Duration::from_secs(60);
    let options = PlanOptions::default();
    let plan = stack("low").plan(&swarm, &options).await.unwrap();
    assert!(plan.steps().iter().all(|step| step.action == Action::Create), "{plan}");
    assert_eq!(plan.steps().len(), 5, "{plan}");
    plan.apply(&swarm, limit).await.unwrap();
    // The engine writes out much that was not asked for; none of it is a difference.
    let again = stack("low").plan(&swarm, &options).await.unwrap();
    assert!(again.is_empty(), "{again}");
    // A scaler's replicas are not the stack's.
    swarm.services().scale("shop_store", 3).await.unwrap();
    assert!(stack("low").plan(&swarm, &options).await.unwrap().is_empty());

    let plan = stack("high").plan(&swarm, &options).await.unwrap();
    let text = plan.to_string();
    assert!(text.contains("update service shop_store\n"), "{text}");
    assert!(text.contains("TaskTemplate.ContainerSpec.Env.LEVEL: (not shown) -> (not shown)"), "{text}");
    assert!(!text.contains("agent") && !text.contains("high"), "{text}");
    plan.apply(&swarm, limit).await.unwrap();
    plan.prune(&swarm, limit).await.unwrap();
    assert_eq!(swarm.services().get("shop_store").await.unwrap().replicas(), Some(3));
    let configs = swarm.configs().list_labelled(format!("{NAMESPACE_LABEL}=shop")).await.unwrap();
    assert_eq!(configs.len(), 1, "the config of before was pruned");

    // Docker's own command line knows it. It counts what still runs of the spec before, too.
    let host = &lab.hosts()[0];
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        let listed = lab.exec(&host.name, &["docker", "stack", "services", "shop"]).await.unwrap();
        let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
        let store = listed.lines().find(|line| line.contains("shop_store"));
        if store.is_some_and(|line| line.split_whitespace().any(|word| word == "3/3")) {
            break;
        }
        assert!(Instant::now() < until, "{listed}");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }

    let gone = Stack::new("shop").plan(&swarm, &options).await.unwrap();
    gone.prune(&swarm, limit).await.unwrap();
    assert!(nothing_left(&swarm).await);
    assert!(Stack::new("shop").plan(&swarm, &options).await.unwrap().steps().is_empty());
    told("a stack planned, applied, changed, pruned", start);
}

async fn nothing_left(swarm: &Client) -> bool {
    let label = format!("{NAMESPACE_LABEL}=shop");
    swarm.services().list_labelled(&label).await.unwrap().is_empty()
        && swarm.networks().list_labelled(&label).await.unwrap().is_empty()
        && swarm.secrets().list_labelled(&label).await.unwrap().is_empty()
        && swarm.configs().list_labelled(&label).await.unwrap().is_empty()
}

fn stack(level: &'static str) -> Stack {
    let variable = move |name: &str| match name {
        "TAG" => Some("1".to_owned()),
        "LEVEL" => Some(level.to_owned()),
        _ => None,
    };
    let file = |path: &str| match path {
        "pw" => Ok(b"hunter2".to_vec()),
        _ => Err(io::Error::from(io::ErrorKind::NotFound)),
    };
    Stack::from_compose("shop", FILE, &Context { variable: &variable, file: &file }).unwrap()
}
