//! swarm-client: drains and a rebalance.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use lab::{Host, Lab};
use serde_json::{Value, json};
use swarm_client::model::Placement;
use swarm_client::{Client, DrainOptions, Outcome, Service, ServiceSpec, Task, UpdateConfig};

use crate::support::docker;
use crate::swarm::{client, converge, redis};
use crate::{a_follower, told};

/// Before Docker's fix of July 2026 such an update ends the engine of the leader, then of the next one.
pub(crate) async fn a_placement_that_is_taken_away_costs_no_leader(lab: &Lab) {
    let start = Instant::now();
    let swarm = client(lab.hosts()).await;
    let services = swarm.services();
    let id = docker(&lab.hosts()[0], "GET /info", "application/json", b"")["Swarm"]["NodeID"].clone();
    bare(&lab.hosts()[0], "placed", 2);
    assert_eq!(converge(&swarm, "placed").await, Outcome::Converged { running: 2 });
    let before = ids(&live(&swarm, "placed").await);
    for placement in
        [Some(format!("node.id!={}x", id.as_str().unwrap())), None, Some("node.role==manager".to_owned())]
    {
        services
            .modify("placed", |spec| {
                spec.task_template.placement = placement
                    .clone()
                    .map(|constraint| Placement { constraints: vec![constraint], ..Placement::default() });
            })
            .await
            .unwrap();
        assert_eq!(converge(&swarm, "placed").await, Outcome::Converged { running: 2 });
    }
    // Swarm's own way back, as `docker service rollback` goes it, past the library.
    let service = services.get("placed").await.unwrap();
    let back =
        format!("POST /services/{}/update?version={}&rollback=previous", service.id, service.version.index);
    docker(&lab.hosts()[0], &back, "application/json", json!(service.spec).to_string().as_bytes());
    let outcome = converge(&swarm, "placed").await;
    assert!(matches!(outcome, Outcome::Converged { .. } | Outcome::RolledBack { .. }), "{outcome}");
    assert_eq!(ids(&live(&swarm, "placed").await), before, "no task had to move");
    services.remove("placed").await.unwrap();
    told("a placement taken away, and Swarm's own way back", start);
}

pub(crate) async fn a_drain_and_a_rebalance_cost_no_capacity(lab: &Lab) {
    let start = Instant::now();
    let swarm = client(lab.hosts()).await;
    let services = swarm.services();
    let host = a_follower(lab, |leaders| &leaders.swarm).await;
    let node = swarm.nodes().get(&host.name).await.unwrap();
    // One that stops first by its own rules; one on each node; a single task, put there, without any placement.
    services.create(&redis("moved").replicas(6).update(UpdateConfig::stop_first()).build()).await.unwrap();
    services.create(&redis("each").global().build()).await.unwrap();
    single_on(lab, &swarm, host).await;
    assert_eq!(converge(&swarm, "moved").await, Outcome::Converged { running: 6 });
    assert_eq!(converge(&swarm, "each").await, Outcome::Converged { running: 3 });
    let before = specs(&swarm).await;
    assert!(before["single"].task_template.placement.is_none());
    let (there, elsewhere): (Vec<Task>, Vec<Task>) =
        live(&swarm, "moved").await.into_iter().partition(|t| t.node_id.as_ref() == Some(&node.id));
    assert!(!there.is_empty());

    let counting = Counting::start(&swarm, &["moved", "single"]);
    let scaling = tokio::spawn(held(swarm.clone(), Arc::clone(&counting.done)));
    let options = DrainOptions::default().deadline(Duration::from_secs(90));
    let mut drained = swarm.nodes().drain(&host.name, &options).await.unwrap();
    drained.moved.sort();
    assert_eq!(
        (drained.moved, drained.stopped),
        (vec!["moved".into(), "single".into()], vec!["each".into()])
    );
    let least = counting.end().await;
    assert_eq!((least["moved"], least["single"]), (6, 1), "the fewest tasks that ran at one moment");
    assert!(scaling.await.unwrap(), "a scale was never kept off");
    let on_it = swarm.tasks().list_for_node(&node.id).await.unwrap();
    assert!(on_it.iter().all(|task| !task.is_running()), "{on_it:?}");
    let after = ids(&live(&swarm, "moved").await);
    assert!(ids(&elsewhere).is_subset(&after), "no task on another node was touched");
    // Nothing is left of the drain but an empty block, which must not be taken away.
    let mut expected = before;
    expected.get_mut("single").unwrap().task_template.placement = Some(Placement::default());
    assert_eq!(specs(&swarm).await, expected);
    told(&format!("{} drained, {least:?} tasks ran at the least", host.name), start);

    // It comes back, and nothing moves to it until asked.
    let start = Instant::now();
    swarm.nodes().activate(&host.name).await.unwrap();
    assert_eq!(converge(&swarm, "each").await, Outcome::Converged { running: 3 });
    let plan = swarm.plan_rebalance().await.unwrap();
    assert_eq!(plan.moves.len(), 1, "{plan}");
    assert_eq!((plan.moves[0].tasks, plan.moves[0].then[&host.name]), (2, 2), "{plan}");
    let before = ids(&live(&swarm, "moved").await);
    let counting = Counting::start(&swarm, &["moved", "single", "each"]);
    swarm.apply_rebalance(&plan, Duration::from_secs(60)).await.unwrap();
    let least = counting.end().await;
    assert_eq!((least["moved"], least["single"], least["each"]), (6, 1, 3));
    let after = live(&swarm, "moved").await;
    assert_eq!(after.iter().filter(|task| task.node_id.as_ref() == Some(&node.id)).count(), 2);
    assert_eq!(ids(&after).intersection(&before).count(), 4, "only what had to move was moved");
    assert!(specs(&swarm).await["moved"].labels.keys().all(|key| !key.contains("hold")));
    assert!(swarm.plan_rebalance().await.unwrap().moves.is_empty());
    told(&format!("rebalanced: {plan}"), start);

    a_drain_without_room_is_taken_back(&swarm, host).await;
    for name in ["moved", "each", "single"] {
        services.remove(name).await.unwrap();
    }
}

/// Neither where each other node is full, nor where a constraint names the node: the reason is told, and nothing is lost.
async fn a_drain_without_room_is_taken_back(swarm: &Client, host: &Host) {
    let services = swarm.services();
    for (spec, reason) in [
        (redis("full").replicas(3).max_replicas_per_node(1).build(), "limit of tasks per node"),
        (
            redis("bound").replicas(2).constraint(format!("node.hostname=={}", host.name)).build(),
            "constraint",
        ),
    ] {
        let start = Instant::now();
        let name = spec.name.clone();
        services.create(&spec).await.unwrap();
        assert!(converge(swarm, &name).await.is_success());
        let before = specs(swarm).await;
        let tasks = ids(&live(swarm, &name).await);
        let counting = Counting::start(swarm, &["moved", "each", "single", &name]);
        let error = swarm.nodes().drain(&host.name, &DrainOptions::default()).await.unwrap_err().to_string();
        assert!(
            error.contains("unschedulable") && error.contains(reason) && error.contains(&name),
            "{error}"
        );
        let replicas = tasks.len();
        assert_eq!(converge(swarm, &name).await, Outcome::Converged { running: replicas as u64 });
        let least = counting.end().await;
        assert_eq!((least["moved"], least["each"], least["single"], least[&name]), (6, 3, 1, replicas));
        assert_eq!(ids(&live(swarm, &name).await), tasks, "the very same tasks");
        assert_eq!(specs(swarm).await, before);
        assert_eq!(swarm.nodes().get(&host.name).await.unwrap().availability().as_str(), "active");
        services.remove(&name).await.unwrap();
        told(&format!("a drain without room: {error}"), start);
    }
}

/// A service of one task on this host, as a program makes it that leaves out what it does not need.
async fn single_on(lab: &Lab, swarm: &Client, host: &Host) {
    let others: Vec<&Host> = lab.hosts().iter().filter(|other| other.name != host.name).collect();
    for other in &others {
        swarm.nodes().pause(&other.name).await.unwrap();
    }
    bare(&lab.hosts()[0], "single", 1);
    assert_eq!(converge(swarm, "single").await, Outcome::Converged { running: 1 });
    for other in &others {
        swarm.nodes().activate(&other.name).await.unwrap();
    }
}

fn bare(host: &Host, name: &str, replicas: u64) {
    let mut spec: Value = json!(redis(name).replicas(replicas).build());
    for block in ["UpdateConfig", "RollbackConfig"] {
        spec.as_object_mut().unwrap().remove(block);
    }
    spec["TaskTemplate"].as_object_mut().unwrap().remove("Placement");
    docker(host, "POST /services/create", "application/json", spec.to_string().as_bytes());
}

async fn specs(swarm: &Client) -> BTreeMap<String, ServiceSpec> {
    let services: Vec<Service> = swarm.services().list().await.unwrap();
    services.into_iter().map(|service| (service.name().to_owned(), service.spec)).collect()
}

async fn live(swarm: &Client, name: &str) -> Vec<Task> {
    let mut tasks = swarm.services().tasks(name).await.unwrap();
    tasks.retain(Task::is_running);
    tasks
}

fn ids(tasks: &[Task]) -> HashSet<String> {
    tasks.iter().map(|task| task.id.to_string()).collect()
}

/// The fewest tasks of each service that ran at any look, by their own state: one that is told to stop runs until it has
/// stopped.
struct Counting {
    done: Arc<AtomicBool>,
    counts: tokio::task::JoinHandle<BTreeMap<String, usize>>,
}

impl Counting {
    fn start(swarm: &Client, names: &[&str]) -> Self {
        let done = Arc::new(AtomicBool::new(false));
        let (swarm, over) = (swarm.clone(), Arc::clone(&done));
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let counts = tokio::spawn(async move {
            let mut least = BTreeMap::new();
            while !over.load(Ordering::Relaxed) {
                for name in &names {
                    let count = live(&swarm, name).await.len();
                    least
                        .entry(name.clone())
                        .and_modify(|least: &mut usize| *least = count.min(*least))
                        .or_insert(count);
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            least
        });
        Self { done, counts }
    }

    async fn end(self) -> BTreeMap<String, usize> {
        self.done.store(true, Ordering::Relaxed);
        self.counts.await.unwrap()
    }
}

/// Whether the hold kept a scale off.
async fn held(swarm: Client, done: Arc<AtomicBool>) -> bool {
    while !done.load(Ordering::Relaxed) {
        match swarm.services().scale("moved", 6).await {
            Err(error) if error.is_held() => return true,
            other => drop(other.unwrap()),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    false
}
