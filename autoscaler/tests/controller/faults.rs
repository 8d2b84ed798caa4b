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

#[tokio::test(start_paused = true)]
async fn a_short_tick_leaves_a_busy_machine_time_to_answer() {
    let slow = Fault::Slow(Duration::from_millis(900));
    let world = World::new(2, 412.0);
    {
        let mut inner = world.lock();
        inner.read_faults.push_back(slow);
        inner.target_faults.push_back(slow);
        inner.write_faults.push_back(slow);
        inner.record_faults.push_back(slow);
    }
    let running = Running::start(world, |controller| controller.tick(Duration::from_secs(1)));
    sleep(Duration::from_millis(2_000)).await;
    assert_eq!(running.world.counts(), [6]);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(running.outcomes(), [Outcome::Written { version: Some(1) }]);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_short_tick_gives_up_what_hangs_after_a_second() {
    let world = World::new(2, 412.0);
    {
        let mut inner = world.lock();
        inner.read_faults.push_back(Fault::Slow(Duration::from_secs(3_600)));
        inner.target_faults.push_back(Fault::Slow(Duration::from_secs(3_600)));
    }
    let running = Running::start(world, |controller| controller.tick(Duration::from_millis(100)));
    sleep(Duration::from_millis(1_050)).await;
    let event = &running.events()[1];
    assert!(matches!(event, Event::TargetFailed { why } if why.contains("within 1s")), "{event:?}");
    sleep(Duration::from_secs(1)).await;
    assert_eq!(running.world.counts(), [6]);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_written_decision_that_was_not_recorded_is_recorded_later() {
    for fault in [Fault::Fail, Fault::Slow(Duration::from_secs(3_600))] {
        let world = World::new(2, 412.0);
        world.lock().record_faults.extend([fault; 2]);
        let running = Running::start(world, |controller| controller);
        sleep(TICK * 4).await;
        assert_eq!(running.world.counts(), [6]);
        let written = |outcome: &&Outcome| matches!(outcome, Outcome::Written { .. });
        assert_eq!(running.outcomes().iter().filter(written).count(), 1, "{:#?}", running.sentences());
        running.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_written_decision_is_recorded_even_if_the_lease_goes_or_the_end_comes_meanwhile() {
    let written = [Outcome::Written { version: Some(1) }];
    let world = World::new(2, 412.0);
    world.lock().record_faults.push_back(Fault::Slow(Duration::from_millis(500)));
    let running = Running::start(world, |controller| controller);
    sleep(Duration::from_millis(100)).await;
    running.lease.lock().blocked = true;
    running.lease.lose();
    sleep(Duration::from_millis(100)).await;
    assert_eq!(running.outcomes(), written);
    assert_eq!(running.events().last(), Some(&Event::LeaseLost));
    running.stop().await;

    let world = World::new(2, 412.0);
    world.lock().record_faults.push_back(Fault::Slow(Duration::from_millis(500)));
    let running = Running::start(world, |controller| controller);
    sleep(Duration::from_millis(100)).await;
    let journal = running.journal.clone();
    running.stop().await;
    assert!(matches!(&journal.entries()[1].event, Event::Decided { outcome, .. } if *outcome == written[0]));
}

#[tokio::test(start_paused = true)]
async fn what_a_failing_journal_missed_is_told_when_it_is_back() {
    let world = World::new(4, 280.0);
    world.lock().journal_fails = true;
    let running = Running::start(world, |controller| controller);
    sleep(TICK * 2).await;
    assert_eq!(running.events(), []);
    running.world.lock().journal_fails = false;
    sleep(TICK * 2).await;
    assert_eq!(running.events()[0], Event::Leading);
    assert!(matches!(&running.outcomes()[0], Outcome::Held), "{:#?}", running.sentences());
    let left_out = running.journal.entries()[1].left_out;
    assert!((2..=3).contains(&left_out), "{left_out}, of those at 0, 5 and about 10 s");
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_entry_that_will_never_be_kept_keeps_no_other_out() {
    let world = World::new(2, 412.0);
    world.lock().record_faults.push_back(Fault::Refuse);
    let running = Running::start(world, |controller| controller);
    sleep(TICK * 2).await;
    assert_eq!(running.world.counts(), [6]);
    assert_eq!(running.outcomes(), [Outcome::Held], "of the two decisions only the second is there");
    running.stop().await;
}
