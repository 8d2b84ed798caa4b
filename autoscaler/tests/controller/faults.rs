//! Bad luck: sources, targets and journals that fail, hang or disagree.

use std::time::Duration;

use autoscaler::controller::{Event, Outcome};
use tokio::time::sleep;

use crate::fakes::{Fault, Running, TICK, World};

#[tokio::test(start_paused = true)]
async fn a_source_that_fails_removes_nothing() {
    let world = World::new(6, 70.0);
    world.lock().read_faults.extend([Fault::Fail; 40]);
    let running = Running::start(world, |controller| controller);
    sleep(Duration::from_secs(150)).await;
    assert_eq!(running.world.lock().tries, 0);
    let sentence = &running.sentences()[1];
    assert!(sentence.starts_with("web: hold 6: in_flight unknown so far (the call failed"), "{sentence}");
    assert!(sentence.contains("nothing is removed while a signal is unknown"), "{sentence}");
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_source_that_hangs_is_unknown_within_the_tick() {
    let world = World::new(6, 70.0);
    world.lock().read_faults.extend([Fault::Slow(Duration::from_secs(3_600)); 3]);
    let running = Running::start(world, |controller| controller);
    sleep(TICK / 2).await;
    let sentence = &running.sentences()[1];
    assert!(
        sentence.contains("in_flight unknown so far (the source had no answer within 1.66"),
        "{sentence}"
    );
    sleep(TICK * 4).await;
    assert!(running.world.lock().reads > 0, "it is asked again");
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_target_that_cannot_be_read_decides_nothing_and_is_asked_less_often() {
    let world = World::new(2, 412.0);
    world.lock().target_faults.extend([Fault::Fail, Fault::Slow(Duration::from_secs(60)), Fault::Fail]);
    let running = Running::start(world, |controller| controller);
    // Passes at 0 s, about 10 s, 32 s and 72 s.
    sleep(Duration::from_secs(60)).await;
    assert_eq!(running.world.lock().tries, 0);
    assert!(
        matches!(&running.events()[1], Event::TargetFailed { why } if why.contains("connection refused"))
    );
    sleep(Duration::from_secs(25)).await;
    assert_eq!(running.world.counts(), [6]);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_conflict_is_decided_anew_at_once() {
    let world = World::new(2, 412.0);
    world.lock().write_faults.extend([Fault::Conflict; 2]);
    let running = Running::start(world, |controller| controller);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(running.world.counts(), [6]);
    assert_eq!(running.world.lock().reads, 3, "read anew each time");
    assert_eq!(running.outcomes(), [Outcome::Written { version: Some(1) }]);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn conflicts_without_end_wait_for_the_next_tick() {
    let world = World::new(2, 412.0);
    world.lock().write_faults.extend([Fault::Conflict; 4]);
    let running = Running::start(world, |controller| controller);
    sleep(TICK / 2).await;
    assert_eq!(running.world.lock().tries, 3);
    assert!(matches!(&running.outcomes()[0], Outcome::Failed { why } if why.contains("somebody else wrote")));
    sleep(TICK * 3).await;
    assert_eq!(running.world.counts(), [6]);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn conflicts_of_a_slow_target_leave_the_rest_of_the_tick_alone() {
    let world = World::new(2, 412.0);
    world.lock().target_faults.extend([Fault::Slow(Duration::from_millis(1_400)); 3]);
    world.lock().write_faults.extend([Fault::Conflict; 3]);
    let running = Running::start(world, |controller| controller);
    sleep(TICK - Duration::from_millis(100)).await;
    assert_eq!(running.world.lock().tries, 2, "the second try ended in the second half of the tick");
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_write_against_a_count_that_changed_is_decided_anew_from_the_new_count() {
    let world = World::new(2, 412.0);
    world.lock().write_faults.push_back(Fault::Slow(Duration::from_secs(1)));
    let running = Running::start(world, |controller| controller);
    sleep(Duration::from_millis(500)).await;
    // A person scales by hand while the write is under way; the person's number stands.
    running.world.lock().status.wanted = 8;
    sleep(TICK * 4).await;
    assert_eq!(running.world.counts(), [0u32; 0]);
    assert_eq!(running.world.lock().status.wanted, 8);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_write_that_hangs_is_given_up_within_the_tick_and_tried_again() {
    let world = World::new(2, 412.0);
    world.lock().write_faults.push_back(Fault::Slow(Duration::from_secs(3_600)));
    let running = Running::start(world, |controller| controller);
    sleep(TICK).await;
    assert!(
        matches!(&running.outcomes()[0], Outcome::Failed { why } if why.contains("had no answer within"))
    );
    sleep(TICK * 3).await;
    assert_eq!(running.world.counts(), [6]);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_journal_that_fails_stops_no_decision() {
    let world = World::new(2, 412.0);
    world.lock().journal_fails = true;
    let running = Running::start(world, |controller| controller);
    sleep(TICK).await;
    assert_eq!(running.world.counts(), [6]);
    running.stop().await;
}
