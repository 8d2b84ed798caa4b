//! swarm-client.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use lab::{Host, Lab};
use serde_json::{Value, json};
use swarm_client::{Client, Error, Outcome, ServiceSpec};

use crate::support::docker;
use crate::{a_follower, pause, power_on, told};

/// The fields are written as the engine writes them, most of them unknown to the crate's models.
pub(crate) async fn a_service_of_raw_fields_keeps_them_all_when_it_is_scaled(lab: &Lab) {
    let start = Instant::now();
    let swarm = client(lab.hosts()).await;
    let wanted = raw();
    let spec: ServiceSpec = serde_json::from_value(wanted.clone()).unwrap();
    swarm.services().create(&spec).await.unwrap();
    let outcome = converge(&swarm, "raw").await;
    assert_eq!(outcome, Outcome::Converged { running: 2 }, "{outcome}");

    // What the engine holds, and what it did with it, read past the library.
    let leader = &lab.hosts()[0];
    let mut before = inspect(leader);
    assert!(holds(&before["Spec"], &wanted), "asked for {wanted:#}, got {:#}", before["Spec"]);
    let tasks = swarm.services().tasks("raw").await.unwrap();
    for task in &tasks {
        let node = swarm.nodes().get(task.node_id.as_ref().unwrap()).await.unwrap();
        let host = lab.host(node.hostname()).unwrap();
        let id = task.status.container_status.as_ref().unwrap().container_id.as_str();
        let container = docker(host, &format!("GET /containers/{id}/json"), "application/json", b"");
        assert_eq!(container["State"]["Health"]["Status"], "healthy");
        assert_eq!(container["HostConfig"]["CapAdd"], json!(["CAP_NET_ADMIN"]));
        let limits = json!([{ "Name": "nofile", "Hard": 2345, "Soft": 1234 }]);
        assert_eq!(container["HostConfig"]["Ulimits"], limits);
    }

    assert!(swarm.services().scale("raw", 3).await.unwrap().written);
    let outcome = converge(&swarm, "raw").await;
    assert_eq!(outcome, Outcome::Converged { running: 3 }, "{outcome}");
    let mut after = inspect(leader);
    for service in [&mut before, &mut after] {
        let fields = service.as_object_mut().unwrap();
        for moves in ["Version", "UpdatedAt", "PreviousSpec", "UpdateStatus"] {
            fields.remove(moves);
        }
    }
    before["Spec"]["Mode"]["Replicated"]["Replicas"] = json!(3);
    assert_eq!(before, after);
    let still: HashSet<_> = running(&swarm, "raw").await;
    assert!(tasks.iter().all(|task| still.contains(task.id.as_str())), "no task was replaced");
    assert!(!swarm.services().scale("raw", 3).await.unwrap().written, "nothing to change, nothing written");
    swarm.services().remove("raw").await.unwrap();
    told("a service of raw fields, scaled", start);
}

pub(crate) async fn changes_by_many_writers_at_once_all_land(lab: &Lab) {
    const WRITERS: usize = 8;
    const CHANGES: usize = 25;
    let start = Instant::now();
    let spec = ServiceSpec::builder("busy", "lab-test:1").replicas(0).label("count", "0").build();
    let swarm = client(lab.hosts()).await;
    swarm.services().create(&spec).await.unwrap();
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        // Each through a manager of its own, followers too: the leader alone decides who came first.
        let mut hosts = lab.hosts().to_vec();
        hosts.rotate_left(writer % lab.hosts().len());
        writers.spawn(async move {
            let swarm = client(&hosts).await;
            let services = swarm.services();
            let mut attempts = 0;
            for change in 0..CHANGES {
                let done = services.modify("busy", |spec| {
                    let count: usize = spec.labels["count"].parse().unwrap();
                    spec.labels.insert("count".to_owned(), (count + 1).to_string());
                    spec.labels.insert(format!("{writer}-{change}"), String::new());
                });
                attempts += done.await.unwrap().attempts;
            }
            attempts
        });
    }
    let attempts: u32 = writers.join_all().await.into_iter().sum();
    let labels = swarm.services().get("busy").await.unwrap().spec.labels;
    assert_eq!(labels["count"], (WRITERS * CHANGES).to_string());
    assert_eq!(labels.len(), WRITERS * CHANGES + 1);
    swarm.services().remove("busy").await.unwrap();
    told(&format!("{} changes by {WRITERS} writers took {attempts} attempts", WRITERS * CHANGES), start);
}

pub(crate) async fn a_client_of_three_managers_outlives_the_one_it_used(lab: &Lab) {
    let victim = a_follower(lab, |leaders| &leaders.swarm).await;
    let mut hosts = lab.hosts().to_vec();
    hosts.sort_by_key(|host| host != victim);
    let swarm = client(&hosts).await;
    let spec = redis("api").global().publish_host(7000, None).build();
    swarm.services().create(&spec).await.unwrap();
    let outcome = converge(&swarm, "api").await;
    assert_eq!(outcome, Outcome::Converged { running: 3 }, "{outcome}");
    let endpoints = swarm.services().endpoints("api").await.unwrap();
    let on: HashSet<_> = endpoints.iter().map(|endpoint| endpoint.node_name.clone()).collect();
    assert_eq!((endpoints.len(), on.len()), (3, 3), "{endpoints:?}");
    assert!(swarm.endpoint().to_string().contains(&victim.addr.to_string()), "{}", swarm.endpoint());

    let done = Arc::new(AtomicBool::new(false));
    let work = tokio::spawn(read_and_write(swarm.clone(), Arc::clone(&done)));
    tokio::time::sleep(Duration::from_millis(500)).await;
    let start = Instant::now();
    lab.power_off(&victim.name).await.unwrap();
    loop {
        let down = swarm.nodes().get(&victim.name).await.unwrap().is_down();
        let endpoints = swarm.services().endpoints("api").await.unwrap();
        let names: Vec<&str> = endpoints.iter().map(|endpoint| endpoint.node_name.as_str()).collect();
        let alive = names.iter().filter(|name| **name != victim.name).count();
        assert_eq!(alive, 2, "the others' tasks are offered all the time, not {names:?}");
        if down {
            assert!(!names.contains(&victim.name.as_str()), "{names:?} while {} is down", victim.name);
            break;
        }
        assert!(start.elapsed() < Duration::from_secs(20), "the Swarm does not call {} down", victim.name);
        pause().await;
    }
    told(&format!("{} called down, its tasks no longer offered", victim.name), start);
    done.store(true, Ordering::Relaxed);
    let (calls, slowest, unknown) = work.await.unwrap();
    // At the least one before and one after; how many there are is the machine's affair.
    assert!(calls >= 4, "{calls} calls");
    assert!(unknown <= 1, "only the write that was under way may be unknown, not {unknown}");
    // The wait for a connection, once; then the client stays with who answered.
    assert!(slowest < CONNECT + REQUEST + Duration::from_secs(2), "{slowest:?}");
    println!("          {calls} calls, slowest {slowest:.1?}, unknown {unknown}");
    assert!(!swarm.endpoint().to_string().contains(&victim.addr.to_string()));
    swarm.services().remove("api").await.unwrap();
    power_on(lab, victim).await;
}

/// Reads and writes in turn: how many calls, the slowest of them, and writes whose outcome nobody knows. Anything else fails.
async fn read_and_write(swarm: Client, done: Arc<AtomicBool>) -> (u32, Duration, u32) {
    let services = swarm.services();
    let (mut calls, mut slowest, mut unknown) = (0, Duration::ZERO, 0);
    while !done.load(Ordering::Relaxed) {
        let start = Instant::now();
        services.get("api").await.unwrap();
        slowest = slowest.max(start.elapsed());
        let start = Instant::now();
        let write = services.modify("api", |spec| {
            spec.labels.insert("calls".to_owned(), calls.to_string());
        });
        match write.await {
            Ok(_) => {}
            Err(error) if error.is_outcome_unknown() => unknown += 1,
            Err(error) => panic!("{error}"),
        }
        slowest = slowest.max(start.elapsed());
        calls += 2;
        pause().await;
    }
    (calls, slowest, unknown)
}

fn raw() -> Value {
    json!({
        "Name": "raw",
        "Labels": { "team": "a" },
        "TaskTemplate": {
            "ContainerSpec": {
                "Image": "lab-test:1",
                "Command": ["redis-server", "--port", "7100", "--save", ""],
                "Labels": { "made-by": "hand" },
                "Healthcheck": {
                    "Test": ["CMD", "redis-cli", "-p", "7100", "ping"],
                    "Interval": 500_000_000, "Timeout": 2_000_000_000_u64, "Retries": 20,
                },
                "CapabilityAdd": ["CAP_NET_ADMIN"],
                "Ulimits": [{ "Name": "nofile", "Soft": 1234, "Hard": 2345 }],
                "Hosts": ["198.18.0.1 machine"],
                "DNSConfig": { "Nameservers": ["127.0.0.1"] },
                "Isolation": "default",
            },
            "Resources": { "Limits": { "Pids": 100 } },
            "Placement": { "Preferences": [{ "Spread": { "SpreadDescriptor": "node.labels.zone" } }] },
            "LogDriver": { "Name": "json-file", "Options": { "max-size": "1m" } },
        },
        "Mode": { "Replicated": { "Replicas": 2 } },
        "UpdateConfig": { "Parallelism": 1, "MaxFailureRatio": 0.5, "Order": "start-first" },
        "EndpointSpec": {
            "Mode": "dnsrr",
            "Ports": [{ "Protocol": "tcp", "TargetPort": 7100, "PublishMode": "host" }],
        },
    })
}

/// Whether `value` has all that `wanted` has.
fn holds(value: &Value, wanted: &Value) -> bool {
    match (value, wanted) {
        (Value::Object(value), Value::Object(wanted)) => {
            wanted.iter().all(|(key, wanted)| value.get(key).is_some_and(|value| holds(value, wanted)))
        }
        (Value::Array(values), Value::Array(wanted)) => {
            values.len() == wanted.len() && values.iter().zip(wanted).all(|(v, w)| holds(v, w))
        }
        _ => value == wanted,
    }
}

fn inspect(host: &Host) -> Value {
    docker(host, "GET /services/raw", "application/json", b"")
}

pub(crate) async fn running(swarm: &Client, name: &str) -> HashSet<String> {
    let tasks = swarm.services().tasks(name).await.unwrap();
    tasks.iter().filter(|task| task.is_running()).map(|task| task.id.as_str().to_owned()).collect()
}

pub(crate) async fn converge(swarm: &Client, name: &str) -> Outcome {
    let rollout = swarm.services().rollout(name).stable_for(Duration::from_secs(1));
    rollout.wait(Duration::from_secs(40)).await.unwrap()
}

/// A client of all these managers, the first of them first.
pub(crate) async fn client(hosts: &[Host]) -> Client {
    let builder = Client::builder().connect_timeout(CONNECT).request_timeout(REQUEST);
    let builder = hosts.iter().fold(builder, |builder, host| builder.endpoint(host.docker_endpoint()));
    builder.connect().await.unwrap_or_else(|error: Error| panic!("{error}"))
}

pub(crate) fn redis(name: &str) -> swarm_client::ServiceSpecBuilder {
    let command = ["redis-server", "--port", "7000", "--save", ""];
    ServiceSpec::builder(name, "lab-test:1").command(command).stop_grace(Duration::from_secs(1))
}

const CONNECT: Duration = Duration::from_secs(1);
const REQUEST: Duration = Duration::from_secs(5);
