//! Drains and a rebalance, in a small Swarm that keeps the managers' rules.

use swarm_client::{DrainOptions, Hold};

use super::world::World;
use super::*;

fn options() -> DrainOptions {
    DrainOptions::default().deadline(Duration::from_secs(60)).stable_for(Duration::from_millis(50))
}

#[tokio::test]
async fn a_drain_and_a_rebalance_cost_no_capacity() {
    let (world, engine) = World::start(3, 6).await;
    let swarm = engine.client().await;
    let before = world.spec();
    assert_eq!(world.spread(), [2, 2, 2]);
    let drained = swarm.nodes().drain("h1", &options()).await.unwrap();
    assert_eq!((drained.moved, drained.stopped), (vec!["web".to_owned()], vec![]));
    assert_eq!((world.spread(), world.least()), (vec![0, 3, 3], 6));
    assert_eq!(world.availability(1), "drain");
    // Nothing is left of it but a placement block, which must not be taken away.
    let mut expected = before;
    expected["TaskTemplate"]["Placement"] = json!({});
    assert_eq!(world.spec(), expected);
    let held = |asked: &support::Asked| asked.body["Labels"]["swarm-client.hold"].as_str().map(str::to_owned);
    let holds: Vec<String> = engine.posted().iter().filter_map(held).collect();
    assert!(!holds.is_empty());
    for hold in holds {
        assert_eq!(Hold::parse(&hold).unwrap().by, "drain of h1");
    }

    swarm.nodes().activate("h1").await.unwrap();
    let (kept, plan) = (world.running(), swarm.plan_rebalance().await.unwrap());
    assert_eq!(plan.to_string(), "web: move 2 of 6 tasks, h1 0 -> 2, h2 3 -> 2, h3 3 -> 2");
    swarm.apply_rebalance(&plan, Duration::from_secs(60)).await.unwrap();
    assert_eq!((world.spread(), world.least()), (vec![2, 2, 2], 6));
    assert_eq!(world.running().iter().filter(|task| kept.contains(task)).count(), 4);
    assert_eq!(world.spec()["Labels"].get("swarm-client.hold"), None);
    assert!(swarm.plan_rebalance().await.unwrap().moves.is_empty());
}

#[tokio::test]
async fn a_drain_without_room_is_taken_back() {
    let (world, engine) = World::start(2, 2).await;
    let swarm = engine.client().await;
    swarm.nodes().pause("h2").await.unwrap();
    let (before, tasks) = (world.spec(), world.running());
    let error = swarm.nodes().drain("h1", &options()).await.unwrap_err().to_string();
    assert!(error.contains("unschedulable") && error.contains("constraint"), "{error}");
    let mut expected = before;
    expected["TaskTemplate"]["Placement"] = json!({});
    assert_eq!((world.spec(), world.least()), (expected, 2));
    assert_eq!((world.running(), world.availability(1).as_str()), (tasks, "active"));
}

#[tokio::test]
async fn a_service_that_is_held_is_neither_drained_nor_scaled() {
    let (world, engine) = World::start(2, 2).await;
    let swarm = engine.client().await;
    let until = u64::MAX.to_string();
    let label = format!("{until} rebalance");
    swarm
        .services()
        .modify("web", |spec| drop(spec.labels.insert("swarm-client.hold".into(), label.clone())))
        .await
        .unwrap();
    for refused in [
        swarm.services().scale("web", 3).await.map(drop),
        swarm.nodes().drain("h1", &options()).await.map(drop),
    ] {
        let error = refused.unwrap_err();
        assert!(error.is_held() && error.to_string().contains("rebalance"), "{error}");
    }
    assert_eq!((world.running().len(), world.availability(1).as_str()), (2, "active"));
    assert_eq!(world.spec()["Labels"]["swarm-client.hold"], label);
}
