//! What the policies of others do, and the rules that ours has from them or on top.

use std::time::Duration;

use autoscaler::{
    Action, Ballot, Calm, Decision, Drain, Fallback, FallbackReplicas, FlapBudget, Forecast, ForecastMode,
    Instance, Observation, Pause, Policy, Reading, Reason, ScheduleWindow, SignalPolicy, State, Step, Surge,
    Target, Threshold, Zero, decide,
};

fn at(seconds: u64) -> Duration {
    Duration::from_secs(1_000_000 + seconds)
}

fn seen(now: u64, current: u32, load: f64) -> Observation {
    Observation::new(at(now), current).reading("load", Reading::value(load, at(now)))
}

fn plain(target: Target) -> Policy {
    Policy::default().bounds(1, 100).signal(SignalPolicy::new("load", target))
}

fn each(target: f64) -> Policy {
    plain(Target::AveragePerInstance(target))
}

/// A service that does at once what is decided.
struct Loop {
    policy: Policy,
    state: State,
    now: u64,
    count: u32,
}

impl Loop {
    fn new(policy: Policy, count: u32) -> Self {
        Self { policy, state: State::seeded(count, at(0)), now: 0, count }
    }

    fn see(&mut self, after: u64, change: impl FnOnce(Observation) -> Observation) -> Decision {
        self.now += after;
        let seen = change(Observation::new(at(self.now), self.count));
        let (decision, next) = decide(&self.policy, &self.state, &seen);
        (self.state, self.count) = (next, decision.replicas());
        decision
    }

    fn load(&mut self, after: u64, load: f64) -> Decision {
        let now = at(self.now + after);
        self.see(after, |seen| seen.reading("load", Reading::value(load, now)).buffer(Some(true)))
    }
}

#[test]
fn the_hpa_waits_five_minutes_and_then_goes_all_the_way() {
    let hpa = Policy::hpa(SignalPolicy::new("load", Target::AveragePerInstance(70.0))).bounds(1, 100);
    let mut service = Loop::new(hpa, 20);
    for _ in 0..19 {
        assert_eq!(service.load(15, 100.0).reason, Reason::DownStabilized);
    }
    assert_eq!(service.load(15, 100.0).action, Action::ScaleTo(2));
}

#[test]
fn knatives_panic_looks_at_six_seconds_and_is_left_after_sixty() {
    let mut service = Loop::new(Policy::kpa("load", 70.0).bounds(1, 100), 4);
    for _ in 0..40 {
        service.load(2, 280.0);
    }
    assert_eq!(service.count, 4);
    // The mean over 6 s is 520, that over 60 s 304: 8 are twice the 4 that serve.
    let panic = service.load(2, 1000.0);
    assert_eq!(service.count, 8, "{panic}");
    assert!(panic.spare.unwrap() < 0.0, "the buffer belongs into the path");
    service.load(2, 1000.0);
    service.load(2, 1000.0);
    assert_eq!(service.count, 15, "the mean over 6 s counts in a panic");
    for _ in 0..27 {
        assert_eq!(service.load(2, 280.0).reason, Reason::Burst);
    }
    // The panic's last moment is a minute old: the mean of the last minute counts, and halves at most.
    service.load(2, 280.0);
    service.load(2, 280.0);
    assert!((4..=8).contains(&service.count), "{}", service.count);
}

#[test]
fn knative_holds_what_it_finds_for_a_window() {
    let policy = Policy::kpa("load", 70.0).bounds(1, 100);
    let (decision, _) = decide(&policy, &State::default(), &seen(0, 9, 70.0));
    assert_eq!((decision.action, decision.reason), (Action::Hold, Reason::Burst));
}

#[test]
fn zero_is_reached_in_stages_and_left_at_once() {
    let zero = Zero::after(Duration::from_secs(60)).grace(Duration::from_secs(30)).activation_replicas(3);
    let mut service = Loop::new(each(10.0).bounds(2, 20).zero(Some(zero)), 2);
    let without = |seen: Observation| {
        let now = seen.now;
        seen.reading("load", Reading::value(0.0, now))
    };
    let waiting = service.see(10, without);
    assert_eq!(
        waiting.to_string(),
        "hold 2: 0 load under a target of 10 each; held above 0 by the idle time, for another 60 s"
    );
    assert_eq!(service.see(60, without).reason, Reason::NoBuffer);
    let grace = service.load(5, 0.0);
    assert!(grace.to_string().ends_with("by the grace of what holds requests, for another 30 s"), "{grace}");
    let gone = service.load(30, 0.0);
    assert_eq!((gone.action, gone.reason), (Action::ScaleTo(0), Reason::Load));
    assert_eq!(service.load(5, 0.0).action, Action::Hold);
    let unknown = service.see(5, |seen| seen.reading("load", Reading::NoData));
    assert_eq!((unknown.action, unknown.reason), (Action::Hold, Reason::Unknown));
    assert_eq!(service.load(5, 0.5).action, Action::ScaleTo(3), "any load wakes it");
    // An unknown signal is no idleness: the clock begins anew.
    for _ in 0..5 {
        service.load(10, 0.0);
    }
    service.see(5, |seen| seen.reading("load", Reading::NoData).buffer(Some(true)));
    assert_eq!(service.load(30, 0.0).reason, Reason::Idling);
}

#[test]
fn keda_is_active_strictly_above_its_threshold_and_idles_below_the_minimum() {
    let signal = SignalPolicy::new("load", Target::AveragePerInstance(10.0)).activation(5.0);
    let zero = Zero::after(Duration::from_secs(30)).idle_replicas(1).needs_buffer(false);
    let policy = Policy::default().bounds(3, 20).signal(signal).zero(Some(zero));
    let mut service = Loop::new(policy, 3);
    service.load(5, 5.0);
    assert_eq!(service.load(30, 5.0).action, Action::ScaleTo(1), "5 is not above 5");
    assert_eq!(service.load(5, 5.0).action, Action::Hold);
    let woken = service.load(5, 5.1);
    assert_eq!((woken.action, woken.reason), (Action::ScaleTo(3), Reason::AtMin));
}

#[test]
fn a_fallback_stands_in_after_so_many_failures_and_only_adds() {
    let fallback = |replicas, may_remove| Fallback { failures: 2, replicas, may_remove };
    let cases = [
        (fallback(FallbackReplicas::Static(6), false), 6),
        (fallback(FallbackReplicas::Static(2), false), 4),
        (fallback(FallbackReplicas::Static(2), true), 2),
        (fallback(FallbackReplicas::Current, false), 4),
        (fallback(FallbackReplicas::CurrentIfHigher(3), true), 4),
        (fallback(FallbackReplicas::CurrentIfLower(3), true), 3),
    ];
    for (fallback, expected) in cases {
        let mut service = Loop::new(each(10.0).fallback(Some(fallback)), 4);
        for _ in 0..2 {
            let failed = service.see(5, |seen| seen.reading("load", Reading::error("down")));
            assert_eq!((failed.action, failed.reason), (Action::Hold, Reason::Unknown));
        }
        let third = service.see(5, |seen| seen.reading("load", Reading::error("down")));
        assert!(matches!(third.votes[0].ballot, Ballot::FallsBack { .. }));
        assert_eq!(third.replicas(), expected, "{fallback:?}: {third}");
    }
}

#[test]
fn pauses_hold_all_or_one_direction() {
    let decide_one = |pause, current, load| {
        let policy = each(10.0).bounds(2, 20).pause(Some(pause));
        decide(&policy, &State::seeded(current, at(0)), &seen(5, current, load)).0
    };
    assert_eq!(decide_one(Pause::All, 30, 500.0).to_string(), "hold 30: scaling is paused by the policy");
    assert_eq!(decide_one(Pause::At(3), 8, 500.0).action, Action::ScaleTo(3));
    assert_eq!(decide_one(Pause::ScaleIn, 8, 30.0).reason, Reason::Paused);
    assert_eq!(decide_one(Pause::ScaleIn, 8, 120.0).action, Action::ScaleTo(12));
    assert_eq!(decide_one(Pause::ScaleOut, 8, 120.0).reason, Reason::Paused);
    assert_eq!(decide_one(Pause::ScaleOut, 8, 30.0).action, Action::ScaleTo(3));
}

#[test]
fn a_schedule_moves_the_bounds() {
    // 12 January 1970, 13:46:40, a Monday.
    let window = |start: &str, end: &str, min, max| ScheduleWindow {
        start: start.parse().unwrap(),
        end: end.parse().unwrap(),
        utc_offset_minutes: 0,
        min,
        max,
    };
    let policy = each(10.0).window(window("0 9 * * mon", "0 17 * * mon", Some(6), None));
    let open = decide(&policy, &State::seeded(2, at(0)), &seen(5, 2, 10.0)).0;
    assert_eq!(open.to_string(), "2 -> 6: 2 is below the minimum of 6");
    let closed = each(10.0).window(window("0 9 * * tue", "0 17 * * tue", Some(6), None));
    assert_eq!(decide(&closed, &State::seeded(2, at(0)), &seen(5, 2, 20.0)).0.action, Action::Hold);
    let capped = policy.window(window("0 13 * * *", "0 14 * * *", None, Some(4)));
    let both = decide(&capped, &State::seeded(2, at(0)), &seen(5, 2, 500.0)).0;
    assert_eq!(both.action, Action::ScaleTo(4), "the lowest maximum wins");
}

#[test]
fn an_hour_that_wants_instances_is_activity_as_kedas_cron_trigger_is() {
    // From 13:48:00 to 13:50:00, which are 80 and 200 seconds after the first look.
    let window = ScheduleWindow {
        start: "48 13 * * mon".parse().unwrap(),
        end: "50 13 * * mon".parse().unwrap(),
        utc_offset_minutes: 0,
        min: Some(3),
        max: None,
    };
    let zero = Zero::after(Duration::from_secs(30)).needs_buffer(false);
    let mut service = Loop::new(each(10.0).bounds(1, 20).zero(Some(zero)).window(window), 1);
    let counts: Vec<u32> = (0..30)
        .map(|tick| {
            // In the window nothing is known for a while: an hour needs no reading.
            let known = !(7..=9).contains(&tick);
            service.see(10, |seen| {
                let reading = if known { Reading::value(0.0, seen.now) } else { Reading::NoData };
                seen.reading("load", reading)
            });
            service.count
        })
        .collect();
    let (before, open, after) = (&counts[..7], &counts[7..19], &counts[19..]);
    assert!(before.ends_with(&[0]) && before.is_sorted_by(|a, b| a >= b), "idle before: {counts:?}");
    assert!(open.iter().all(|count| *count == 3), "three while it is open: {counts:?}");
    // The time of idleness begins when it closes, as KEDA's cool-down does; the load alone asks for one meanwhile.
    assert_eq!((after[0], after[1], after[10]), (1, 1, 0), "{counts:?}");
}

#[test]
fn nomads_target_value_multiplies_the_count_and_cools_down() {
    let mut service = Loop::new(Policy::nomad_target_value("load", 100.0).bounds(0, 100), 4);
    assert_eq!(service.load(10, 100.9).action, Action::Hold, "inside of 1 %");
    assert_eq!(service.load(10, 150.0).action, Action::ScaleTo(6));
    let cooling = service.load(10, 150.0);
    assert_eq!(
        cooling.to_string(),
        "hold 6: 150 load over a target of 100 in all; held below 9 by a change 10 s ago"
    );
    assert_eq!(service.load(290, 150.0).action, Action::ScaleTo(9));
}

#[test]
fn nomads_threshold_counts_samples_and_abstains_outside_of_its_band() {
    let band = Threshold::new(80.0, Some(200.0), Step::Percent(50)).after(3, Duration::from_secs(60));
    let mut service = Loop::new(plain(Target::Threshold(band)), 3);
    assert_eq!(service.load(10, 80.0).action, Action::Hold, "one");
    assert_eq!(service.load(10, 200.0).action, Action::Hold, "the upper end is outside");
    assert_eq!(service.load(10, 199.0).action, Action::Hold, "two");
    let third = service.load(10, 90.0);
    assert_eq!(third.to_string(), "3 -> 5: 90 load is in its band");
    assert_eq!(service.load(90, 90.0).action, Action::Hold, "the others are too old");
    // Up beats down, and one that abstains beats nobody.
    let less = Threshold::new(0.0, Some(50.0), Step::Delta(-1)).after(1, Duration::from_secs(60));
    let more = Threshold::new(80.0, None, Step::Delta(2)).after(1, Duration::from_secs(60));
    let both = plain(Target::Threshold(more))
        .signal(SignalPolicy::new("low", Target::Threshold(less)).reading("load"));
    let one = |load| decide(&both, &State::seeded(5, at(0)), &seen(5, 5, load)).0;
    assert_eq!(one(90.0).action, Action::ScaleTo(7));
    assert_eq!(one(60.0).to_string(), "hold 5: no signal asks for a change");
    assert_eq!(one(10.0).action, Action::ScaleTo(4));
}

#[test]
fn a_count_passes_through_and_a_fixed_one_needs_no_reading() {
    let pass = plain(Target::Count);
    let one = |policy: &Policy, seen: Observation| decide(policy, &State::seeded(5, at(0)), &seen).0;
    assert_eq!(one(&pass, seen(5, 5, 6.2)).to_string(), "5 -> 7: load says 6.20");
    let fixed = plain(Target::Fixed(8));
    assert_eq!(one(&fixed, Observation::new(at(5), 5)).to_string(), "5 -> 8: 8 are fixed by load");
}

#[test]
fn a_guard_keeps_what_is_there_and_never_adds() {
    let policy = each(10.0).guard("p95_ms", 250.0);
    let one = |load, p95: Reading| {
        let seen = seen(5, 8, load).reading("p95_ms", p95);
        decide(&policy, &State::seeded(8, at(0)), &seen).0
    };
    let slow = one(30.0, Reading::value(251.0, at(5)));
    assert_eq!(slow.reason, Reason::Guarded);
    assert_eq!(
        slow.to_string(),
        "hold 8: 30 load under a target of 10 each; held above 3 by p95 ms above its limit"
    );
    assert_eq!(one(30.0, Reading::value(250.0, at(5))).action, Action::ScaleTo(3));
    assert_eq!(one(80.0, Reading::value(900.0, at(5))).action, Action::Hold);
    assert_eq!(one(30.0, Reading::NoData).reason, Reason::Unknown, "not known is not well");
}

#[test]
fn a_spent_flap_budget_keeps_what_is_there_and_adds_on() {
    let budget = FlapBudget { turns: 2, period: Duration::from_secs(600) };
    let mut service = Loop::new(each(10.0).flap_budget(Some(budget)), 4);
    for (load, count) in [(80.0, 8), (40.0, 4), (80.0, 8)] {
        service.load(10, load);
        assert_eq!(service.count, count);
    }
    let spent = service.load(10, 40.0);
    assert_eq!(spent.reason, Reason::FlapBudget);
    assert!(spent.to_string().ends_with("by 2 turns within 600 s, which is the budget"), "{spent}");
    assert_eq!(service.load(10, 120.0).action, Action::ScaleTo(12));
    for _ in 0..10 {
        service.load(55, 120.0);
    }
    assert_eq!(service.load(60, 40.0).action, Action::ScaleTo(4), "the turns are ten minutes old");
}

#[test]
fn the_calm_window_grows_with_each_regret() {
    let calm = Calm { longest: Duration::from_secs(50), ..Calm::default() };
    let policy = each(10.0).down_window(Duration::from_secs(20)).calm(Some(calm));
    let mut service = Loop::new(policy, 4);
    let mut waits = Vec::new();
    for _ in 0..4 {
        service.load(5, 80.0);
        assert_eq!(service.count, 8);
        let mut waited = 0;
        while service.count == 8 {
            service.load(5, 40.0);
            waited += 5;
        }
        waits.push(waited);
    }
    // After no regret 20 s; after one it were 60, of which 50 are allowed.
    assert_eq!(waits, [20, 50, 50, 50]);
}

#[test]
fn growth_that_nothing_comes_of_is_stopped() {
    let policy = each(10.0).surge(Some(Surge { patience: Duration::from_secs(60) }));
    let mut service = Loop::new(policy, 4);
    let crashing = |load| {
        move |seen: Observation| {
            let now = seen.now;
            seen.ready(4).reading("load", Reading::value(load, now))
        }
    };
    assert_eq!(service.see(5, crashing(80.0)).action, Action::ScaleTo(8));
    assert_eq!(service.see(30, crashing(160.0)).action, Action::ScaleTo(16));
    let stuck = service.see(30, crashing(320.0));
    assert_eq!(stuck.reason, Reason::Stuck);
    assert!(
        stuck.to_string().ends_with("held below 32 by 4 of 16 serving, and none more for 60 s"),
        "{stuck}"
    );
    let now = at(service.now + 5);
    let grown = service.see(5, |seen| seen.ready(9).reading("load", Reading::value(320.0, now)));
    assert_eq!(grown.action, Action::ScaleTo(32), "something came of it");
}

fn fleet(count: u32, in_flight: impl Fn(u32) -> Option<u64>) -> Vec<Instance> {
    let instance = |slot: u32| {
        let instance = Instance::new(format!("web.{slot}")).at(format!("h{slot}"), slot.into());
        match in_flight(slot) {
            Some(requests) => instance.in_flight(requests),
            None => instance,
        }
    };
    (1..=count).map(instance).collect()
}

#[test]
fn those_that_go_are_drained_first() {
    let policy = each(10.0).drain(Some(Drain { deadline: Duration::from_secs(20) }));
    let mut service = Loop::new(policy.clone(), 4);
    let mut look = |after, load, busy: Option<u64>| {
        let now = at(service.now + after);
        service.see(after, |seen| {
            let tasks = fleet(4, |slot| if slot == 4 { busy } else { Some(9) });
            seen.reading("load", Reading::value(load, now)).instances(tasks)
        })
    };
    let first = look(5, 20.0, Some(0));
    assert_eq!((first.action, &first.reason), (Action::DrainThen(2), &Reason::Draining));
    assert_eq!(first.victims, ["web.4", "web.3"]);
    assert_eq!(first.replicas(), 4);
    assert_eq!(
        first.to_string(),
        "drain 2 of 4, then 2: 20 load under a target of 10 each; held above 2 by the drain of web.4, web.3"
    );
    assert_eq!(look(5, 20.0, Some(0)).action, Action::DrainThen(2), "nine are in flight on web.3");
    // One more stays, so only the one on which nothing is in flight goes.
    assert_eq!(look(5, 30.0, Some(0)).action, Action::ScaleTo(3));

    let mut service = Loop::new(policy.clone(), 4);
    let mut look = |after, load| {
        let now = at(service.now + after);
        service
            .see(after, |seen| seen.reading("load", Reading::value(load, now)).instances(fleet(4, |_| None)))
    };
    assert_eq!(look(5, 20.0).action, Action::DrainThen(2));
    assert_eq!(look(5, 40.0).action, Action::Hold, "the load came back");
    assert_eq!(look(5, 20.0).action, Action::DrainThen(2), "and the drain begins anew");
    assert_eq!(look(19, 20.0).action, Action::DrainThen(2));
    assert_eq!(look(1, 20.0).action, Action::ScaleTo(2), "the deadline");
}

#[test]
fn a_drain_without_names_removes_nothing() {
    let policy = each(10.0).drain(Some(Drain { deadline: Duration::from_secs(20) }));
    let mut service = Loop::new(policy, 4);
    for _ in 0..10 {
        assert_eq!(service.load(5, 20.0).action, Action::Hold);
    }
}

#[test]
fn a_forecast_raises_and_its_shadow_only_shows() {
    let play = |mode| {
        let policy = each(10.0).forecast(Some(Forecast::default().mode(mode)));
        let mut service = Loop::new(policy, 2);
        for tick in 1..=175 {
            service.load(5, if tick * 5 % 360 < 180 { 20.0 } else { 90.0 });
        }
        // 875 s: the next 90 are 25 s away.
        let count = service.count;
        (count, service.load(5, 20.0))
    };
    let (before, decision) = play(ForecastMode::Active);
    assert_eq!(before, 9, "{decision}");
    assert!(decision.to_string().contains("raised to 9 by the forecast for the next 30 s"), "{decision}");
    let (before, decision) = play(ForecastMode::Shadow);
    assert_eq!((before, decision.replicas()), (2, 2));
    assert_eq!(decision.expected.unwrap().replicas, 9);
}
