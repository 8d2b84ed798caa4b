//! Where a service is reached, and when it has become what was wanted.

use super::*;

fn running(id: &str, slot: u64, node: &str) -> Value {
    json!({"ID": id, "ServiceID": "sid", "Slot": slot, "NodeID": node, "DesiredState": "running",
           "Status": {"State": "running", "PortStatus": {"Ports": [{"Protocol": "tcp", "TargetPort": 80, "PublishedPort": 32000 + slot, "PublishMode": "host"}]}}})
}

#[tokio::test]
async fn endpoints_are_where_live_tasks_listen() {
    let engine = Engine::start(|asked| match asked.line().as_str() {
        "GET /services/web" => Reply::ok(json!({"ID": "sid", "Spec": {"Name": "web"}})),
        "GET /tasks" => {
            let mut stranger = running("t9", 9, "n1");
            stranger["ServiceID"] = json!("other");
            Reply::ok(json!([running("t1", 1, "n1"), running("t2", 2, "n2"), stranger]))
        }
        "GET /nodes" => Reply::ok(json!([
            {"ID": "n1", "Description": {"Hostname": "h1"}, "Status": {"State": "ready", "Addr": "0.0.0.0"},
             "ManagerStatus": {"Leader": true, "Addr": "198.18.0.11:2377"}},
            {"ID": "n2", "Description": {"Hostname": "h2"}, "Status": {"State": "down", "Addr": "198.18.0.12"}},
        ])),
        _ => Reply::refuse(500, "unexpected"),
    })
    .await;
    let found = engine.client().await.services().endpoints("web").await.unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(
        (found[0].addr.to_string().as_str(), found[0].node_name.as_str()),
        ("198.18.0.11:32001", "h1")
    );
    assert!(engine.asked().iter().any(|a| a.query == "filters=%7B%22service%22%3A%5B%22sid%22%5D%7D"));
}

/// An engine whose service converges after some looks; `service` makes the answer to look number n.
async fn rolling(service: impl Fn(usize) -> Reply + Send + Sync + 'static) -> Engine {
    let looks = AtomicUsize::new(0);
    Engine::start(move |asked| match asked.line().as_str() {
        "GET /services/web" | "GET /services/sid" => service(looks.fetch_add(1, Ordering::Relaxed)),
        "GET /tasks" => {
            assert!(asked.query.contains("_up-to-date"), "{}", asked.query);
            Reply::ok(json!([running("t1", 1, "n1")]))
        }
        _ => Reply::ok(json!([{"ID": "n1", "Status": {"State": "ready"}}])),
    })
    .await
}

fn wanted(replicas: u64) -> Reply {
    Reply::ok(json!({"ID": "sid", "Spec": {"Name": "web", "Mode": {"Replicated": {"Replicas": replicas}}}}))
}

async fn wait(engine: &Engine, deadline: Duration) -> Result<Outcome, Error> {
    let client = engine.builder().request_timeout(Duration::from_millis(500)).connect().await.unwrap();
    let poll = Duration::from_millis(20);
    client
        .services()
        .rollout("web")
        .stable_for(Duration::from_millis(50))
        .poll_every(poll)
        .wait(deadline)
        .await
}

#[tokio::test]
async fn a_rollout_is_waited_for_through_an_election() {
    let engine = rolling(|look| match look {
        0 => wanted(2),
        1..=3 => Reply::refuse(500, NO_LEADER),
        4 => Reply::Close,
        _ => wanted(1),
    })
    .await;
    assert_eq!(wait(&engine, Duration::from_secs(20)).await.unwrap().to_string(), "converged: 1 running");
}

#[tokio::test]
async fn a_rollout_tells_what_it_lacks_whenever_that_changes() {
    let engine = rolling(|look| wanted(if look < 4 { 2 } else { 1 })).await;
    let rollout = engine.client().await.services().rollout("web").stable_for(Duration::from_millis(50));
    let mut told = Vec::new();
    let outcome = rollout
        .poll_every(Duration::from_millis(20))
        .wait_telling(Duration::from_secs(20), |lacks| {
            told.push((lacks.running, lacks.wanted, lacks.settling));
        })
        .await;
    assert!(outcome.unwrap().is_success());
    assert_eq!(told, [(1, Some(2), false), (1, Some(1), true)]);
}

#[tokio::test]
async fn a_rollout_that_takes_too_long_is_diagnosed() {
    let engine = rolling(|_| wanted(3)).await;
    let started = Instant::now();
    let outcome = wait(&engine, Duration::from_millis(300)).await.unwrap();
    assert!(started.elapsed() < Duration::from_secs(3));
    assert!(!outcome.is_success());
    assert_eq!(outcome.to_string(), "timed out: 1 of 3 running");
}

#[tokio::test]
async fn a_rollout_ends_when_its_service_goes() {
    let engine =
        rolling(|look| if look < 2 { wanted(2) } else { Reply::refuse(404, "service sid not found") }).await;
    assert_eq!(wait(&engine, Duration::from_secs(20)).await.unwrap(), Outcome::Removed);
    let never = rolling(|_| Reply::refuse(404, "service web not found")).await;
    assert!(wait(&never, Duration::from_secs(20)).await.unwrap_err().is_not_found());
    let silent = rolling(|_| Reply::Silence).await;
    assert!(wait(&silent, Duration::from_millis(200)).await.unwrap_err().is_timeout());
}
