//! The plain course: decide, write, tell, and be changed while running.

use std::time::Duration;

use autoscaler::controller::{AlwaysLeader, Controller, Event, MemoryJournal, Mode, Outcome};
use autoscaler::{Action, Hold, Reason};
use tokio::time::sleep;

use crate::fakes::{Running, TICK, World, policy};

#[tokio::test(start_paused = true)]
async fn load_is_followed_up_and_down() {
    let running = Running::start(World::new(2, 412.0), |controller| controller);
    sleep(TICK * 8).await;
    assert_eq!(running.world.counts(), [6]);
    running.world.lock().load = Some(70.0);
    sleep(Duration::from_secs(240)).await;
    assert_eq!(running.world.counts(), [6, 2]);
    let entries = running.sentences();
    assert_eq!(entries[0], "web: leading [term 1]");
    assert_eq!(entries[1], "web: 2 -> 6: 412 in flight over a target of 70 each [term 1]");
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn repeated_holds_are_told_once_a_minute() {
    let running = Running::start(World::new(4, 280.0), |controller| controller);
    sleep(Duration::from_secs(170)).await;
    let holds = running.journal.entries();
    assert_eq!(holds.len(), 1 + 3, "{:#?}", running.sentences());
    assert!(holds[2].left_out >= 10, "{}", holds[2].left_out);
    assert!(running.world.lock().reads > 30);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_live_stream_tells_each_entry() {
    let journal = std::sync::Arc::new(MemoryJournal::new(2));
    let mut live = journal.subscribe();
    let world = World::new(2, 412.0);
    let lease = crate::fakes::FakeLease::new(&world);
    let running = Running::start_with(world, lease, journal, |controller| controller);
    assert_eq!(live.recv().await.unwrap().event, Event::Leading);
    let Event::Decided { decision, outcome } = live.recv().await.unwrap().event else {
        panic!("the second entry is a decision");
    };
    assert_eq!(decision.action, Action::ScaleTo(6));
    assert_eq!(outcome, Outcome::Written { version: Some(1) });
    sleep(TICK * 40).await;
    assert_eq!(running.journal.entries().len(), 2, "the ring keeps its bound");
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn shadow_decides_and_does_not_write_and_paused_does_nothing() {
    let running = Running::start(World::new(2, 412.0), |controller| controller.mode(Mode::Shadow));
    sleep(TICK * 3).await;
    assert_eq!(running.outcomes(), [Outcome::Shadow]);
    assert!(running.sentences()[1].contains("(shadow mode: not written)"));
    running.handle.set_mode(Mode::Paused);
    sleep(Duration::from_millis(50)).await;
    let reads = running.world.lock().reads;
    sleep(TICK * 10).await;
    assert_eq!(running.world.lock().reads, reads);
    assert!(running.events().contains(&Event::Paused));
    assert_eq!(running.world.lock().tries, 0);
    running.handle.set_mode(Mode::Active);
    sleep(Duration::from_millis(50)).await;
    assert_eq!(running.world.counts(), [6], "a change of mode does not wait for the tick");
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_policy_is_changed_live_and_a_bad_one_refused() {
    let running = Running::start(World::new(4, 280.0), |controller| controller);
    sleep(TICK * 2).await;
    let refused = running.handle.set(policy().bounds(9, 8)).unwrap_err();
    assert_eq!(refused.iter().next().unwrap().field, "min");
    assert_eq!(running.handle.get(), policy());
    running.handle.set(policy().bounds(5, 20)).unwrap();
    sleep(Duration::from_millis(50)).await;
    assert_eq!(running.world.counts(), [5], "a change of policy does not wait for the tick");
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_tick_without_end_is_an_hour() {
    let running = Running::start(World::new(2, 412.0), |controller| controller.tick(Duration::MAX));
    sleep(Duration::from_secs(60)).await;
    assert_eq!(running.world.counts(), [6]);
    running.world.lock().load = Some(700.0);
    sleep(Duration::from_secs(3_600 * 2)).await;
    assert_eq!(running.world.counts(), [6, 10]);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_bad_policy_is_refused_at_construction() {
    let world = World::new(4, 280.0);
    let controller = Controller::new(
        "web",
        policy().bounds(9, 8),
        world.clone(),
        world.clone(),
        AlwaysLeader::new(),
        MemoryJournal::default(),
    );
    assert!(controller.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_hold_and_a_running_update_are_respected() {
    let world = World::new(4, 412.0);
    world.lock().status.hold = Some(Hold::new("scaled by hand by ada"));
    let running = Running::start(world, |controller| controller);
    sleep(TICK * 3).await;
    running.world.lock().status.hold = None;
    running.world.lock().status.update_in_progress = true;
    sleep(TICK * 3).await;
    assert_eq!(running.world.lock().tries, 0);
    let reasons: Vec<Reason> = running
        .events()
        .into_iter()
        .filter_map(|event| match event {
            Event::Decided { decision, .. } => Some(decision.reason),
            _ => None,
        })
        .collect();
    assert_eq!(reasons[0], Reason::Held { reason: "scaled by hand by ada".into(), until: None });
    assert_eq!(reasons[1], Reason::Updating);
    running.world.lock().status.update_in_progress = false;
    sleep(TICK * 2).await;
    assert_eq!(running.world.counts(), [6]);
    running.stop().await;
}
