//! Exactly one writes: leases that are lost, terms that are passed, state that is handed on.

use std::sync::Arc;
use std::time::Duration;

use autoscaler::controller::{Event, ScaleError, ScaleTarget, Term};
use autoscaler::{Observation, Policy, Reading, State, decide};
use tokio::time::sleep;

use crate::fakes::{FakeLease, Fault, Running, TICK, World, policy};

#[tokio::test(start_paused = true)]
async fn a_lease_lost_between_the_decision_and_the_write_is_not_written_under() {
    let world = World::new(2, 412.0);
    // The lease goes while the target is read: the decision is made under a lease that is no more.
    world.lock().target_faults.push_back(Fault::LoseLease);
    let lease = FakeLease::new(&world);
    let running = Running::start_with(world, lease, Arc::default(), |controller| controller);
    sleep(Duration::from_millis(10)).await;
    running.lease.lock().blocked = true;
    sleep(TICK).await;
    assert_eq!(running.world.lock().tries, 0);
    assert!(running.events().contains(&Event::LeaseLost));
    assert_eq!(running.lease.lock().released, [Term(1)]);
    running.lease.lock().blocked = false;
    sleep(TICK).await;
    let writes: Vec<Term> = running.world.lock().writes.iter().map(|&(_, _, term)| term).collect();
    assert_eq!(writes, [Term(2)], "only the new term wrote");
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_write_under_way_is_dropped_when_the_lease_goes() {
    let world = World::new(2, 412.0);
    world.lock().write_faults.push_back(Fault::Slow(Duration::from_secs(1)));
    let running = Running::start(world, |controller| controller);
    sleep(Duration::from_millis(500)).await;
    assert_eq!(running.world.lock().tries, 1);
    running.lease.lock().blocked = true;
    running.lease.lose();
    sleep(TICK * 4).await;
    assert_eq!(running.world.counts(), [0u32; 0]);
    assert_eq!(running.world.lock().tries, 1);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_slept_is_fenced_by_the_term_on_the_target() {
    let world = World::new(2, 412.0);
    let running = Running::start(world, |controller| controller);
    sleep(TICK * 2).await;
    assert_eq!(running.world.counts(), [6]);
    {
        // Another leader acts; our lease does not know yet.
        let mut inner = running.world.lock();
        inner.status.last_term = Some(Term(9));
        inner.load = Some(1_000.0);
    }
    running.lease.lock().term = 20;
    sleep(TICK * 3).await;
    assert!(running.events().contains(&Event::Fenced { by: Term(9) }));
    let terms: Vec<Term> = running.world.lock().writes.iter().map(|&(_, _, term)| term).collect();
    assert_eq!(terms, [Term(1), Term(21)]);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_higher_term_that_appears_between_read_and_write_ends_the_leadership() {
    let world = World::new(2, 412.0);
    world.lock().write_faults.push_back(Fault::Slow(Duration::from_millis(500)));
    let running = Running::start(world, |controller| controller);
    sleep(Duration::from_millis(100)).await;
    running.world.lock().status.last_term = Some(Term(5));
    sleep(Duration::from_millis(600)).await;
    assert_eq!(running.world.counts(), [0u32; 0]);
    assert!(running.events().contains(&Event::Fenced { by: Term(5) }), "{:#?}", running.sentences());
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_higher_term_ends_the_leadership_even_with_nothing_to_write() {
    let running = Running::start(World::new(4, 280.0), |controller| controller);
    sleep(TICK * 2).await;
    running.world.lock().status.last_term = Some(Term(9));
    sleep(TICK * 2).await;
    assert!(running.events().contains(&Event::Fenced { by: Term(9) }));
    assert_eq!(running.world.lock().tries, 0);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_fence_that_a_reset_lock_service_cannot_pass_says_what_to_do_and_is_no_hot_loop() {
    let world = World::new(2, 412.0);
    world.lock().status.last_term = Some(Term(70_000));
    let running = Running::start(world, |controller| controller);
    sleep(Duration::from_secs(60)).await;
    assert_eq!(running.world.lock().tries, 0);
    let sentences = running.sentences();
    assert_eq!(
        sentences[1],
        "web: term 70000 stands at the target, above this leader's, which stops; if nobody leads under term 70000, the \
         lock service was reset: remove term 70000 from the target by hand, or nothing is scaled until the terms pass \
         it [term 1]"
    );
    let asked = running.lease.lock().asked;
    assert!(asked <= 12, "{asked} leases in a minute");
    // Somebody removes it.
    running.world.lock().status.last_term = None;
    sleep(Duration::from_secs(10)).await;
    assert_eq!(running.world.counts(), [6]);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_lower_term_never_writes() {
    let world = World::new(4, 412.0);
    let now = Duration::from_secs(1);
    let seen = Observation::new(now, 4).reading("in_flight", Reading::value(412.0, now));
    let (decision, _) = decide(&Policy::balanced("in_flight", 70.0), &State::seeded(4, now), &seen);
    world.write(6, Term(3), &decision).await.unwrap();
    world.lock().status.wanted = 4;
    let refused = world.write(6, Term(2), &decision).await.unwrap_err();
    assert!(refused.is_fenced() && !refused.is_retryable());
    assert!(matches!(refused, ScaleError::Fenced { by: Term(3), .. }));
    assert_eq!(world.lock().status.wanted, 4);
}

#[tokio::test(start_paused = true)]
async fn the_lease_is_asked_for_again_with_growing_pauses() {
    let world = World::new(2, 412.0);
    let lease = FakeLease::new(&world);
    lease.lock().failures = 4;
    let running = Running::start_with(world, lease, Arc::default(), |controller| controller);
    // Pauses of 2, 4, 8 and 8 s, give or take 10 %.
    sleep(Duration::from_secs(12)).await;
    assert_eq!(running.lease.lock().asked, 3);
    assert!(running.sentences()[0].starts_with("web: no lease: creating a session failed"));
    sleep(Duration::from_secs(13)).await;
    assert_eq!(running.world.counts(), [6]);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_new_leader_goes_on_where_the_old_one_stopped() {
    let world = World::new(6, 140.0);
    let lease = FakeLease::new(&world);
    let first = Running::start_with(world.clone(), lease.clone(), Arc::default(), |controller| controller);
    sleep(Duration::from_secs(45)).await;
    let journal = first.journal.clone();
    first.stop().await;
    let second = Running::start_with(world.clone(), lease, journal, |controller| controller);
    sleep(Duration::from_secs(25)).await;
    assert_eq!(world.counts(), [2], "the window that the first one saw counts");
    second.stop().await;

    let world = World::new(6, 140.0);
    let fresh = Running::start(world.clone(), |controller| controller);
    sleep(Duration::from_secs(45)).await;
    assert_eq!(world.counts(), [0u32; 0]);
    fresh.stop().await;
}

#[tokio::test(start_paused = true)]
async fn shutdown_gives_the_lease_back() {
    let running = Running::start(World::new(2, 100.0), |controller| controller);
    sleep(TICK).await;
    let lease = running.lease.clone();
    running.stop().await;
    assert_eq!(lease.lock().released, [Term(1)]);

    let world = World::new(2, 100.0);
    let lease = FakeLease::new(&world);
    lease.lock().blocked = true;
    let waiting = Running::start_with(world, lease, Arc::default(), |controller| controller);
    sleep(TICK).await;
    waiting.stop().await;
}

#[tokio::test(start_paused = true)]
async fn of_two_that_believe_in_their_lease_the_lower_term_is_stopped() {
    let world = World::new(4, 280.0);
    let lease = FakeLease::new(&world);
    let old = Running::start_with(world.clone(), lease.clone(), Arc::default(), |controller| controller);
    sleep(TICK).await;
    let new = Running::start_with(world.clone(), lease.clone(), Arc::default(), |controller| controller);
    sleep(TICK).await;
    assert_eq!(lease.lock().term, 2, "both were given a lease, and none was lost");
    // Nobody else may lead from here on, so that the old one stays stopped.
    lease.lock().blocked = true;
    // The new one writes first; until then nothing on the target tells them apart.
    new.handle.set(policy().bounds(5, 20)).unwrap();
    sleep(Duration::from_millis(10)).await;
    assert_eq!(world.counts(), [5]);
    world.lock().load = Some(1_400.0);
    sleep(TICK * 10).await;
    assert_eq!(world.lock().status.wanted, 20);
    world.lock().load = Some(420.0);
    sleep(Duration::from_secs(300)).await;
    assert_eq!(world.lock().status.wanted, 6);
    let terms: Vec<Term> = world.lock().writes.iter().map(|&(_, _, term)| term).collect();
    assert!(terms.iter().all(|&term| term == Term(2)), "{terms:?}");
    assert!(old.events().contains(&Event::Fenced { by: Term(2) }), "{:#?}", old.sentences());
    assert!(!new.events().iter().any(|event| matches!(event, Event::Fenced { .. })));
    old.stop().await;
    new.stop().await;
}
