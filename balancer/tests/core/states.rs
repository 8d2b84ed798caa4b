//! States: what takes an endpoint out, what brings it back, who leaves and how.

use balancer::{
    Config, Endpoint, EventKind, LeastPending, Outcome, PickRequest, Pool, ProbeOutcome, Probes, Reason,
    RoundRobin, State, Update, Verdict,
};

use crate::support::*;

#[test]
fn two_failed_connections_eject_even_the_last_and_a_trial_brings_it_back() {
    let pool = pool(Config::default(), 1);
    fail(&pool, 0, 2, Outcome::ConnectFailed, ms(5));
    assert_eq!(state(&pool, 0), Some((State::Ejected, Reason::ConnectFailures(2))));
    let error = pool.pick(&PickRequest::default(), ms(6)).unwrap_err();
    assert_eq!(error.to_string(), "no endpoint can take the request: 1 ejected");
    // The first pause is 250 ms, give or take a tenth.
    let trial = pool.pick(&PickRequest::default(), ms(281)).unwrap();
    assert!(trial.is_trial());
    assert!(pool.pick(&PickRequest::default(), ms(281)).is_err(), "one request at a time tries");
    trial.finish(Outcome::ConnectFailed, ms(290));
    assert!(pool.pick(&PickRequest::default(), ms(700)).is_err(), "the second pause is longer");
    pool.pick(&PickRequest::default(), ms(900)).unwrap().finish(Outcome::Success, ms(901));
    assert_eq!(state(&pool, 0), Some((State::Ready, Reason::Recovered)));
    let told: Vec<_> = pool.drain_events().into_iter().map(|event| event.to_string()).collect();
    assert_eq!(told[0], "web.0 added");
    assert!(
        told[1].starts_with("web.0 ejected for 0.2") && told[1].ends_with("2 failed connections in a row")
    );
    assert_eq!(told[2], "web.0 is tried with one request");
    assert!(told.last().unwrap().starts_with("web.0 recovered after"), "{told:?}");
}

#[test]
fn a_trial_is_no_request_that_cannot_be_repeated_while_others_are_ready() {
    let pool = pool(Config::default(), 2);
    fail(&pool, 0, 2, Outcome::ConnectFailed, ms(5));
    let once = PickRequest::default().may_try(false);
    for at in 300..400 {
        let lease = pool.pick(&once, ms(at)).unwrap();
        assert!(!lease.is_trial() && lease.endpoint().id == id(1));
        lease.finish(Outcome::Success, ms(at));
    }
    // A service without other requests gets its endpoint back too, later.
    let trial = pool.pick(&once, ms(6000)).unwrap();
    assert!(trial.is_trial());
    trial.finish(Outcome::Cancelled, ms(6001));
    assert!(pool.pick(&PickRequest::default(), ms(6002)).unwrap().is_trial());
    // Where nobody else is ready it tries at once.
    let alone = self::pool(Config::default(), 1);
    fail(&alone, 0, 2, Outcome::ConnectFailed, ms(5));
    assert!(alone.pick(&once, ms(300)).unwrap().is_trial());
}

#[test]
fn a_success_in_between_or_a_long_gap_ends_the_row() {
    let pool = pool(Config::default(), 1);
    let once = |outcome, at| pool.pick(&PickRequest::default(), ms(at)).unwrap().finish(outcome, ms(at));
    once(Outcome::Reset, 0);
    once(Outcome::Success, 1);
    once(Outcome::ConnectFailed, 2);
    once(Outcome::ConnectFailed, 20_000);
    assert_eq!(state(&pool, 0).unwrap().0, State::Ready);
    once(Outcome::ConnectFailed, 20_001);
    assert_eq!(state(&pool, 0).unwrap().0, State::Ejected);
}

#[test]
fn server_errors_eject_within_the_cap_and_never_the_last() {
    let pool = pool(Config::default(), 2);
    fail(&pool, 0, 5, Outcome::Status(500), ms(1));
    assert_eq!(state(&pool, 0), Some((State::Ejected, Reason::ServerErrors(5))));
    fail(&pool, 1, 50, Outcome::Status(500), ms(2));
    assert_eq!(state(&pool, 1).unwrap().0, State::Ready);
    // Now the good one dies: what fails is better than nothing.
    fail(&pool, 1, 2, Outcome::ConnectFailed, ms(3));
    assert_eq!(state(&pool, 0), Some((State::Ready, Reason::Needed)));
}

#[test]
fn a_late_failure_does_not_count_against_a_recovered_endpoint() {
    let pool = pool(Config::default(), 1);
    let late: Vec<_> = (0..4).map(|_| pool.pick(&PickRequest::default(), ms(0)).unwrap()).collect();
    fail(&pool, 0, 2, Outcome::ConnectFailed, ms(1));
    pool.pick(&PickRequest::default(), ms(300)).unwrap().finish(Outcome::Success, ms(301));
    for lease in late {
        lease.finish(Outcome::Timeout, ms(400));
    }
    assert_eq!(state(&pool, 0).unwrap().0, State::Ready);
}

#[test]
fn probes_warm_eject_and_bring_back() {
    let pool = pool(Config::default().probes(Probes::default()), 1);
    assert_eq!(state(&pool, 0).unwrap().0, State::Warming);
    assert!(pool.pick(&PickRequest::default(), ms(0)).is_err());
    assert_eq!(pool.probes_due(ms(100)).len(), 1);
    assert_eq!(pool.probes_due(ms(101)).len(), 0);
    pool.probe_result(&id(0), ProbeOutcome::from_status(404), ms(101));
    assert_eq!(state(&pool, 0), Some((State::Warming, Reason::ProbeStatus(404))));
    pool.probe_result(&id(0), ProbeOutcome::Passed, ms(102));
    assert_eq!(state(&pool, 0).unwrap().0, State::Ready);
    pool.probe_result(&id(0), ProbeOutcome::Timeout, ms(1000));
    assert_eq!(state(&pool, 0).unwrap().0, State::Ready);
    pool.probe_result(&id(0), ProbeOutcome::Failed, ms(1500));
    assert_eq!(state(&pool, 0), Some((State::Ejected, Reason::ProbesFailed(2))));
    assert_eq!(pool.probes_due(ms(1800)).len(), 1, "probed again soon");
    pool.probe_result(&id(0), ProbeOutcome::Passed, ms(1801));
    assert_eq!(state(&pool, 0).unwrap().0, State::Ready);
    pool.probe_result(&id(0), ProbeOutcome::NotReady, ms(1900));
    assert_eq!(state(&pool, 0), Some((State::Ejected, Reason::NotReady)));
    pool.probe_result(&id(0), ProbeOutcome::Failed, ms(2400));
    assert_eq!(state(&pool, 0).unwrap().1, Reason::ProbesFailed(2), "not ready, then gone");
}

#[test]
fn not_ready_outweighs_failing() {
    let pool = pool(Config::default().probes(Probes::default()), 2);
    (0..2).for_each(|n| pool.probe_result(&id(n), ProbeOutcome::Passed, ms(1)));
    fail(&pool, 0, 5, Outcome::Status(500), ms(2));
    pool.probe_result(&id(0), ProbeOutcome::NotReady, ms(3));
    assert_eq!(state(&pool, 0), Some((State::Ejected, Reason::NotReady)));
    // Neither the end of a pause nor the loss of the others brings it back, only a probe.
    fail(&pool, 1, 2, Outcome::ConnectFailed, ms(4));
    pool.tick(ms(10_000));
    assert!(pool.pick(&PickRequest::default(), ms(10_000)).is_err());
    pool.probe_result(&id(0), ProbeOutcome::Passed, ms(10_001));
    assert_eq!(state(&pool, 0).unwrap().0, State::Ready);
}

#[test]
fn a_failure_hastens_the_next_probe() {
    let pool = pool(Config::default().probes(Probes::default()), 1);
    assert_eq!(pool.probes_due(ms(100)).len(), 1);
    pool.probe_result(&id(0), ProbeOutcome::Passed, ms(101));
    fail(&pool, 0, 1, Outcome::ConnectFailed, ms(110));
    assert_eq!(pool.probes_due(ms(199)).len(), 0);
    assert_eq!(pool.probes_due(ms(200)).len(), 1);
    pool.probe_result(&id(0), ProbeOutcome::Failed, ms(201));
    assert_eq!(pool.probes_due(ms(300)).len(), 1);
    pool.probe_result(&id(0), ProbeOutcome::Failed, ms(301));
    assert_eq!(state(&pool, 0), Some((State::Ejected, Reason::ProbesFailed(2))));
    // Out, it is probed at the pace of the pause.
    assert_eq!(pool.probes_due(ms(450)).len(), 0);
    assert_eq!(pool.probes_due(ms(600)).len(), 1);
}

#[test]
fn slow_probes_of_a_busy_endpoint_tell_of_load_only() {
    let pool = pool(Config::default().probes(Probes::default()), 1);
    pool.probe_result(&id(0), ProbeOutcome::Passed, ms(0));
    for at in (500..5000).step_by(500) {
        let lease = pool.pick(&PickRequest::default(), ms(at - 300)).unwrap();
        lease.finish(Outcome::Success, ms(at - 100));
        pool.probe_result(&id(0), ProbeOutcome::Timeout, ms(at));
    }
    assert_eq!(state(&pool, 0).unwrap().0, State::Ready);
}

#[test]
fn leaving_drains_and_new_data_keeps_health() {
    let pool = pool(Config::default(), 2);
    fail(&pool, 0, 2, Outcome::ConnectFailed, ms(1));
    let moved = Endpoint::new("web.0", "127.0.0.9:1".parse().unwrap()).weight(3).host("h9");
    let busy = pool.pick(&PickRequest::default(), ms(2)).unwrap();
    assert_eq!(busy.endpoint().id, id(1));
    pool.apply(Update::reset([moved]), ms(3));
    assert_eq!(state(&pool, 0).unwrap().0, State::Ejected, "a new address does not heal");
    assert_eq!(state(&pool, 1), Some((State::Draining, Reason::Absent)));
    busy.finish(Outcome::Success, ms(4));
    assert_eq!(state(&pool, 1), None);
    let removed = pool.drain_events().into_iter().filter(|event| event.kind == EventKind::Removed);
    assert_eq!(removed.count(), 1);
}

#[test]
fn who_dies_while_draining_is_found_out_and_who_only_stops_is_not() {
    let pool = pool(Config::default().probes(Probes::default()), 2);
    (0..2).for_each(|n| pool.probe_result(&id(n), ProbeOutcome::Passed, ms(1)));
    let probed = |now| pool.probes_due(now).into_iter().filter(|(who, _)| *who == id(0)).count();
    pool.apply(Update::Drain(id(0)), ms(2));
    assert_eq!(probed(ms(1000)), 0, "it has nothing in flight");
    pool.apply(Update::Add(endpoint(0)), ms(1001));
    pool.probe_result(&id(0), ProbeOutcome::Passed, ms(1002));
    let others = [id(1)];
    let busy = pool.pick(&PickRequest::excluding(&others), ms(1003)).unwrap();
    pool.apply(Update::Drain(id(0)), ms(1004));
    assert_eq!(probed(ms(2000)), 1);
    // It closed its listener, finishes what it has, and says that it takes no more.
    for outcome in [ProbeOutcome::Failed, ProbeOutcome::Failed, ProbeOutcome::NotReady, ProbeOutcome::Timeout]
    {
        pool.probe_result(&id(0), outcome, ms(2001));
        assert_eq!(state(&pool, 0), Some((State::Draining, Reason::DrainRequested)));
    }
    pool.probe_result(&id(0), ProbeOutcome::Timeout, ms(2002));
    assert_eq!(state(&pool, 0), Some((State::Draining, Reason::ProbesFailed(2))));
    // It still drains, for a passed probe and for a stale reset.
    pool.probe_result(&id(0), ProbeOutcome::Passed, ms(2003));
    pool.apply(Update::reset((0..2).map(endpoint)), ms(2004));
    assert_eq!(state(&pool, 0).unwrap().0, State::Draining);
    busy.finish(Outcome::Cancelled, ms(2005));
    assert_eq!(probed(ms(9000)), 0);
}

#[test]
fn a_requested_drain_survives_a_stale_reset() {
    let pool = pool(Config::default(), 2);
    pool.apply(Update::Drain(id(0)), ms(1));
    pool.apply(Update::reset((0..2).map(endpoint)), ms(2));
    assert_eq!(state(&pool, 0), Some((State::Draining, Reason::DrainRequested)));
    pool.apply(Update::reset([endpoint(1)]), ms(3));
    assert_eq!(state(&pool, 0), None);
    pool.apply(Update::reset((0..2).map(endpoint)), ms(4));
    assert_eq!(state(&pool, 0).unwrap().0, State::Ready);
}

#[test]
fn an_empty_reset_is_applied_unless_refused() {
    let news = pool(Config::default(), 2);
    news.apply(Update::reset([]), ms(1));
    assert!(news.snapshot().is_empty());
    let kept = pool(Config::default().refuse_empty_reset(true), 2);
    kept.apply(Update::reset([]), ms(1));
    assert_eq!(kept.snapshot().len(), 2);
    assert_eq!(kept.drain_events().last().unwrap().kind, EventKind::EmptyResetRefused);
}

#[test]
fn round_robin_follows_weights_smoothly() {
    let pool = Pool::new(Config::default().policy(RoundRobin::default()), 1).unwrap();
    let weights = [5, 1, 1];
    pool.apply(Update::reset(weights.iter().enumerate().map(|(n, w)| endpoint(n).weight(*w))), ms(0));
    let picks: Vec<_> = (0..7)
        .map(|_| pool.pick(&PickRequest::default(), ms(0)).unwrap().endpoint().id.to_string())
        .collect();
    assert_eq!(picks, ["web.0", "web.0", "web.1", "web.0", "web.2", "web.0", "web.0"]);
}

#[test]
fn least_pending_fills_evenly_by_weight() {
    let pool = Pool::new(Config::default().policy(LeastPending::default()), 1).unwrap();
    pool.apply(Update::reset([endpoint(0).weight(2), endpoint(1)]), ms(0));
    let leases: Vec<_> = (0..9).map(|_| pool.pick(&PickRequest::default(), ms(0)).unwrap()).collect();
    assert_eq!(leases.iter().filter(|lease| lease.endpoint().id == id(0)).count(), 6);
}

#[test]
fn the_default_policy_alternates_when_idle_and_learns_who_is_slow_or_fails() {
    let pool = pool(Config::default(), 2);
    let mut last = None;
    for at in 0..20 {
        let lease = pool.pick(&PickRequest::default(), ms(at * 10)).unwrap();
        assert_ne!(last.replace(lease.endpoint().id.clone()), Some(lease.endpoint().id.clone()));
        lease.finish(Outcome::Success, ms(at * 10 + 3));
    }
    let mut slow = 0;
    for at in 0..200 {
        let lease = pool.pick(&PickRequest::default(), ms(1000 + at * 10)).unwrap();
        let is_slow = lease.endpoint().id == id(1);
        slow += usize::from(is_slow);
        lease.finish(Outcome::Success, ms(1000 + at * 10 + if is_slow { 500 } else { 3 }));
    }
    assert!(slow <= 2, "the slow one got {slow} of 200");
    let failing = self::pool(Config::default(), 2);
    let mut failed = 0;
    for at in 0..200 {
        let lease = failing.pick(&PickRequest::default(), ms(at * 10)).unwrap();
        let fails = lease.endpoint().id == id(1);
        failed += usize::from(fails);
        lease.finish(Outcome::Status(if fails { 500 } else { 200 }), ms(at * 10 + 1));
    }
    assert!(failed <= 5, "the one that fails fast got {failed} of 200");
}

#[test]
fn a_pick_explains_itself() {
    let pool = pool(Config::default(), 3);
    pool.apply(Update::Drain(id(2)), ms(1));
    let exclude = [id(0)];
    let (lease, why) = pool.pick_explained(&PickRequest::excluding(&exclude), ms(2));
    assert_eq!(why.picked, Some(lease.unwrap().endpoint().id.clone()));
    assert_eq!(why.candidates[0].verdict, Verdict::Excluded);
    assert_eq!(why.candidates[1].verdict, Verdict::Picked);
    assert_eq!(
        why.to_string(),
        "web.1 picked by p2c_peak_ewma; web.0 excluded by the request (0 in flight); web.1 picked (0 in flight); \
         web.2 draining: told to drain"
    );
    let all: Vec<_> = (0..3).map(id).collect();
    let (none, why) = pool.pick_explained(&PickRequest::excluding(&all), ms(3));
    assert!(none.unwrap_err().is_excluded());
    assert!(
        why.to_string()
            .starts_with("no endpoint can take the request: 2 excluded by the request, 1 draining")
    );
}

#[test]
fn many_threads_leave_nothing_in_flight() {
    let pool = pool(Config::default(), 4);
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let pool = &pool;
            scope.spawn(move || {
                for round in 0..2000u64 {
                    let now = ms(round);
                    if let Ok(lease) = pool.pick(&PickRequest::default(), now) {
                        lease
                            .finish(if round % 7 == thread { Outcome::Reset } else { Outcome::Success }, now);
                    }
                    if round % 100 == 0 {
                        pool.apply(Update::reset((0..1 + (round as usize / 100) % 4).map(endpoint)), now);
                    }
                }
            });
        }
    });
    pool.tick(ms(3000));
    assert_eq!(pool.load().in_flight, 0);
    assert_eq!(pool.load().draining, 0);
}
