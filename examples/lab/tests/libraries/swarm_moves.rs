//! swarm-client: a drain and a rebalance.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use lab::Lab;
use swarm_client::{Client, DrainOptions, Outcome, Task};

use crate::swarm::{client, converge, redis};
use crate::{a_follower, told};

pub(crate) async fn a_drain_and_a_rebalance_cost_no_capacity(lab: &Lab) {
    let start = Instant::now();
    let swarm = client(lab.hosts()).await;
    let services = swarm.services();
    let host = a_follower(lab, |leaders| &leaders.swarm).await;
    // One that stops first by its own rules, and one on each node.
    let stopping = swarm_client::UpdateConfig::stop_first();
    services.create(&redis("moved").replicas(6).update(stopping.clone()).build()).await.unwrap();
    services.create(&redis("each").global().build()).await.unwrap();
    assert_eq!(converge(&swarm, "moved").await, Outcome::Converged { running: 6 });
    let before = services.get("moved").await.unwrap().spec;
    let node = swarm.nodes().get(&host.name).await.unwrap();
    let (there, elsewhere): (Vec<Task>, Vec<Task>) =
        live(&swarm).await.into_iter().partition(|t| t.node_id.as_ref() == Some(&node.id));
    assert_eq!(there.len(), 2);

    let done = Arc::new(AtomicBool::new(false));
    let counting = tokio::spawn(fewest(swarm.clone(), Arc::clone(&done)));
    let scaling = tokio::spawn(held(swarm.clone(), Arc::clone(&done)));
    let drained = swarm
        .nodes()
        .drain(&host.name, &DrainOptions::default().deadline(Duration::from_secs(90)))
        .await
        .unwrap();
    assert_eq!(
        (&drained.moved[..], &drained.stopped[..]),
        (&["moved".to_owned()][..], &["each".to_owned()][..])
    );
    done.store(true, Ordering::Relaxed);
    let least = counting.await.unwrap();
    assert!(least >= 6, "only {least} of 6 ran at one moment");
    assert!(scaling.await.unwrap(), "a scale was never kept off");
    let on_it = swarm.tasks().list_for_node(&node.id).await.unwrap();
    assert!(on_it.iter().all(|task| !task.is_running()), "{on_it:?}");
    let after = ids(&live(&swarm).await);
    assert!(ids(&elsewhere).is_subset(&after), "no task on another node was touched");
    assert_eq!(services.get("moved").await.unwrap().spec, before, "nothing is left of the drain");
    told(&format!("{} drained, {least} tasks ran at the least", host.name), start);

    // It comes back, and nothing moves to it until asked.
    let start = Instant::now();
    swarm.nodes().activate(&host.name).await.unwrap();
    let plan = swarm.plan_rebalance().await.unwrap();
    assert_eq!(plan.moves.len(), 1, "{plan}");
    assert_eq!((plan.moves[0].tasks, plan.moves[0].then[&host.name]), (2, 2), "{plan}");
    let before = ids(&live(&swarm).await);
    let done = Arc::new(AtomicBool::new(false));
    let counting = tokio::spawn(fewest(swarm.clone(), Arc::clone(&done)));
    swarm.apply_rebalance(&plan, Duration::from_secs(60)).await.unwrap();
    done.store(true, Ordering::Relaxed);
    let least = counting.await.unwrap();
    assert!(least >= 6, "only {least} of 6 ran at one moment");
    let after = live(&swarm).await;
    assert_eq!(after.iter().filter(|task| task.node_id.as_ref() == Some(&node.id)).count(), 2);
    assert_eq!(ids(&after).intersection(&before).count(), 4, "only what had to move was moved");
    assert!(services.get("moved").await.unwrap().spec.labels.keys().all(|key| !key.contains("hold")));
    assert!(swarm.plan_rebalance().await.unwrap().moves.is_empty());
    told(&format!("rebalanced: {plan}"), start);

    // A drain that finds no room is taken back.
    let start = Instant::now();
    let full = redis("full").replicas(3).max_replicas_per_node(1).build();
    services.create(&full).await.unwrap();
    assert!(converge(&swarm, "full").await.is_success());
    let before = services.get("full").await.unwrap().spec;
    let error = swarm.nodes().drain(&host.name, &DrainOptions::default()).await.unwrap_err().to_string();
    assert!(error.contains("unschedulable"), "{error}");
    assert_eq!(services.get("full").await.unwrap().spec, before);
    assert_eq!(swarm.nodes().get(&host.name).await.unwrap().availability().as_str(), "active");
    for name in ["moved", "each", "full"] {
        services.remove(name).await.unwrap();
    }
    told(&format!("a drain without room: {error}"), start);
}

async fn live(swarm: &Client) -> Vec<Task> {
    let mut tasks = swarm.services().tasks("moved").await.unwrap();
    tasks.retain(Task::is_running);
    tasks
}

fn ids(tasks: &[Task]) -> HashSet<String> {
    tasks.iter().map(|task| task.id.to_string()).collect()
}

/// The fewest tasks that ran at any look, by their own state: one that is told to stop runs until it has stopped.
async fn fewest(swarm: Client, done: Arc<AtomicBool>) -> usize {
    let mut least = usize::MAX;
    while !done.load(Ordering::Relaxed) {
        least = least.min(live(&swarm).await.len());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    least
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
