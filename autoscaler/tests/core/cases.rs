//! One case for each rule, by the sentence it says.

use std::time::Duration;

use autoscaler::{
    Action, Burst, Decision, Direction, DuringUpdate, Hold, Observation, Policy, RateLimit, Reading, Reason,
    SignalPolicy, State, Target, decide,
};

const START: u64 = 1_000;

fn at(seconds: u64) -> Duration {
    Duration::from_secs(START + seconds)
}

/// At most doubled or 4 more in 15 s, at most halved in a minute, so that the limits are met by small numbers.
fn policy() -> Policy {
    let period = Duration::from_secs(15);
    let up = Direction::new()
        .limit(RateLimit::Percent { p: 100, period })
        .limit(RateLimit::Count { n: 4, period });
    let minute = Duration::from_secs(60);
    let down = Direction::new().stabilization(minute).limit(RateLimit::Percent { p: 50, period: minute });
    Policy::balanced("in_flight", 70.0).bounds(2, 10).up(up).down(down)
}

fn seen(now: u64, current: u32, load: f64) -> Observation {
    Observation::new(at(now), current).reading("in_flight", Reading::value(load, at(now)))
}

/// A decision that no window of the way down delays.
fn settled(policy: &Policy, observation: &Observation) -> Decision {
    first(&policy.clone().down_window(Duration::ZERO), observation)
}

fn first(policy: &Policy, observation: &Observation) -> Decision {
    decide(policy, &State::seeded(observation.current, at(0)), observation).0
}

#[track_caller]
fn says(decision: &Decision, sentence: &str, reason: &Reason) {
    assert_eq!(decision.to_string(), sentence);
    assert_eq!(decision.reason, *reason);
}

#[test]
fn load_over_the_target_adds() {
    let decision = first(&policy(), &seen(5, 4, 412.0));
    says(&decision, "4 -> 6: 412 in flight over a target of 70 each", &Reason::Load);
    assert_eq!(decision.action, Action::ScaleTo(6));
    assert_eq!(decision.valid_until, at(20), "as long as the reading is good");
}

#[test]
fn a_rate_limit_is_named() {
    let up = Direction::new().limit(RateLimit::Percent { p: 50, period: Duration::from_secs(60) });
    let decision = first(&policy().up(up), &seen(5, 4, 483.0));
    says(
        &decision,
        "4 -> 6: 483 in flight over a target of 70 each; held below 7 by +50 % a minute",
        &Reason::UpLimited,
    );
    let decision = first(&policy().bounds(1, 100), &seen(5, 4, 5_000.0));
    says(
        &decision,
        "4 -> 8: 5000 in flight over a target of 70 each; held below 72 by +4 every 15 s",
        &Reason::UpLimited,
    );
}

#[test]
fn within_tolerance_holds() {
    let decision = first(&policy(), &seen(5, 4, 300.0));
    says(&decision, "hold 4: 300 in flight is within 10 % of a target of 70 each", &Reason::Load);
    let decision = first(&policy(), &seen(5, 2, 119.5));
    says(&decision, "hold 2: 119.50 in flight needs all 2 at a target of 70 each", &Reason::Load);
}

#[test]
fn bounds_are_named() {
    let decision = first(&policy(), &seen(5, 8, 2_000.0));
    says(
        &decision,
        "8 -> 10: 2000 in flight over a target of 70 each; held below 29 by +100 % every 15 s; held below 16 by the maximum of 10",
        &Reason::AtMax,
    );
    let mut state = State::seeded(2, at(0));
    let policy = policy().down_window(Duration::ZERO).burst(None);
    let (decision, next) = decide(&policy, &state, &seen(5, 2, 3.0));
    says(
        &decision,
        "hold 2: 3 in flight under a target of 70 each; held above 1 by the minimum of 2",
        &Reason::AtMin,
    );
    state = next;
    let (decision, _) = decide(&policy, &state, &seen(10, 2, 0.0));
    assert_eq!(decision.action, Action::Hold);
}

#[test]
fn a_count_outside_the_bounds_is_bounded_at_once() {
    let nothing_known = Observation::new(at(5), 12);
    says(&first(&policy(), &nothing_known), "12 -> 10: 12 is above the maximum of 10", &Reason::AboveMax);
    let nothing_known = Observation::new(at(5), 1);
    says(&first(&policy(), &nothing_known), "1 -> 2: 1 is below the minimum of 2", &Reason::BelowMin);
}

#[test]
fn removing_waits_for_a_whole_window_also_after_a_restart() {
    let mut state = State::seeded(6, at(0));
    for now in (5..60).step_by(5) {
        let (decision, next) = decide(&policy(), &state, &seen(now, 6, 210.0));
        says(
            &decision,
            "hold 6: 210 in flight under a target of 70 each; held above 3 by the highest proposal of the last 60 s",
            &Reason::DownStabilized,
        );
        state = next;
    }
    let (decision, _) = decide(&policy(), &state, &seen(60, 6, 210.0));
    says(&decision, "6 -> 3: 210 in flight under a target of 70 each", &Reason::Load);
}

#[test]
fn a_gap_in_the_observations_begins_the_window_anew() {
    let mut state = State::seeded(6, at(0));
    for now in (5..=55).step_by(5) {
        state = decide(&policy(), &state, &seen(now, 6, 210.0)).1;
    }
    // Two minutes of silence: what was seen before proves nothing now.
    let (decision, next) = decide(&policy(), &state, &seen(180, 6, 210.0));
    assert_eq!(decision.reason, Reason::DownStabilized);
    let (decision, _) = decide(&policy(), &next, &seen(239, 6, 210.0));
    assert_eq!(decision.reason, Reason::DownStabilized);
    let (decision, _) = decide(&policy(), &next, &seen(240, 6, 210.0));
    assert_eq!(decision.action, Action::ScaleTo(3));
}

#[test]
fn a_short_outage_does_not_begin_the_window_anew() {
    let policy = policy().signal(SignalPolicy::new("cpu", Target::AveragePerInstance(50.0)));
    let mut state = State::seeded(6, at(0));
    for now in (5..60).step_by(5) {
        let cpu = if now == 30 { Reading::NoData } else { Reading::value(100.0, at(now)) };
        state = decide(&policy, &state, &seen(now, 6, 210.0).reading("cpu", cpu)).1;
    }
    let last = seen(60, 6, 210.0).reading("cpu", Reading::value(100.0, at(60)));
    assert_eq!(decide(&policy, &state, &last).0.action, Action::ScaleTo(3));
}

#[test]
fn a_change_by_somebody_else_begins_the_window_anew() {
    let mut state = State::seeded(2, at(0));
    for now in (5..=100).step_by(5) {
        state = decide(&policy(), &state, &seen(now, 2, 100.0)).1;
    }
    let (decision, next) = decide(&policy(), &state, &seen(105, 4, 100.0));
    assert_eq!((decision.action, &decision.reason), (Action::Hold, &Reason::DownStabilized));
    let (decision, _) = decide(&policy(), &next, &seen(164, 4, 100.0));
    assert_eq!(decision.action, Action::Hold);
    let (decision, _) = decide(&policy(), &next, &seen(165, 4, 100.0));
    assert_eq!(decision.action, Action::ScaleTo(2));
}

#[test]
fn going_up_can_be_made_to_wait_and_a_burst_does_not() {
    let patient = policy().up(Direction::new().stabilization(Duration::from_secs(30)));
    let (decision, _) = decide(&patient, &State::seeded(4, at(0)), &seen(5, 4, 412.0));
    says(
        &decision,
        "hold 4: 412 in flight over a target of 70 each; held below 6 by the lowest proposal of the last 30 s",
        &Reason::UpStabilized,
    );
    let (decision, _) = decide(&patient, &State::seeded(4, at(0)), &seen(5, 4, 490.1));
    says(&decision, "4 -> 8: 490.10 in flight over a target of 70 each", &Reason::Load);
}

#[test]
fn nothing_is_removed_in_a_burst() {
    let policy = policy().down_window(Duration::ZERO).burst(Some(Burst::new(Duration::from_secs(60), 200)));
    let (decision, state) = decide(&policy, &State::seeded(4, at(0)), &seen(5, 4, 600.0));
    assert_eq!(decision.action, Action::ScaleTo(8));
    let (decision, state) = decide(&policy, &state, &seen(10, 8, 70.0));
    says(
        &decision,
        "hold 8: 70 in flight under a target of 70 each; held above 1 by a burst less than 60 s ago",
        &Reason::Burst,
    );
    let (decision, _) = decide(&policy, &state, &seen(65, 8, 70.0));
    assert_eq!(decision.action, Action::ScaleTo(4), "half a minute's share");
}

#[test]
fn an_unknown_signal_holds_and_says_why() {
    let (_, state) = decide(&policy(), &State::seeded(4, at(0)), &seen(5, 4, 300.0));
    let failed =
        Observation::new(at(17), 4).reading("in_flight", Reading::error("gateway h2 did not answer"));
    let (decision, _) = decide(&policy(), &state, &failed);
    says(
        &decision,
        "hold 4: in_flight unknown for 12 s (gateway h2 did not answer); nothing is removed while a signal is unknown",
        &Reason::Unknown,
    );
}

#[test]
fn every_kind_of_no_value_is_unknown() {
    let cases = [
        (vec![], "it was not read"),
        (vec![Reading::NoData], "the source has no data"),
        (vec![Reading::value(1.0, at(185))], "the last value is 15 s old"),
        (vec![Reading::Stale { at: at(100) }], "the last value is 100 s old"),
        (vec![Reading::value(1.0, at(216))], "its time lies 16 s in the future"),
        (vec![Reading::value(f64::NAN, at(200))], "its value was NaN, which is no amount of load"),
        (vec![Reading::value(-1.0, at(200))], "its value was -1, which is no amount of load"),
        (vec![Reading::value(f64::INFINITY, at(200))], "its value was inf, which is no amount of load"),
        (vec![Reading::value(1.0, at(200)); 2], "it was read twice, so it may count the same load twice"),
    ];
    for (readings, why) in cases {
        let readings = readings.into_iter().map(|reading| ("in_flight".to_owned(), reading));
        let decision = settled(&policy(), &Observation::new(at(200), 4).readings(readings));
        assert_eq!((decision.action, &decision.reason), (Action::Hold, &Reason::Unknown));
        assert!(decision.to_string().contains(&format!("({why})")), "{decision}");
    }
}

#[test]
fn one_unknown_signal_stops_removing_and_not_adding() {
    let policy = policy().signal(SignalPolicy::new("queue", Target::Total(100.0)));
    let down = Observation::new(at(200), 6)
        .reading("in_flight", Reading::value(70.0, at(200)))
        .reading("queue", Reading::NoData);
    let decision = settled(&policy, &down);
    says(
        &decision,
        "hold 6: queue unknown so far (the source has no data); nothing is removed while a signal is unknown",
        &Reason::Unknown,
    );
    let up = Observation::new(at(200), 6)
        .reading("in_flight", Reading::NoData)
        .reading("queue", Reading::value(150.0, at(200)));
    let decision = settled(&policy, &up);
    says(
        &decision,
        "6 -> 9: 150 queue over a target of 100 in all; in_flight unknown so far (the source has no data)",
        &Reason::Load,
    );
}

#[test]
fn the_largest_proposal_wins() {
    let policy = policy().signal(SignalPolicy::new("cpu_cores", Target::AveragePerInstance(0.5)));
    let observation = seen(5, 4, 300.0).reading("cpu_cores", Reading::value(4.0, at(5)));
    says(&first(&policy, &observation), "4 -> 8: 4 cpu cores over a target of 0.50 each", &Reason::Load);
}

#[test]
fn a_hold_comes_before_everything_until_it_lapses() {
    let policy = policy();
    let held = seen(5, 12, 5_000.0).held(Some(Hold::until(at(65), "scaled by hand by ada")));
    let decision = first(&policy, &held);
    assert_eq!(decision.to_string(), "hold 12: scaled by hand by ada (for another 60 s)");
    assert_eq!(decision.valid_until, at(20));
    let lapsed = seen(65, 12, 5_000.0).held(Some(Hold::until(at(65), "scaled by hand by ada")));
    assert_eq!(first(&policy, &lapsed).action, Action::ScaleTo(10));
    let held = seen(5, 4, 5_000.0).held(Some(Hold::new("frozen for the fair")));
    assert_eq!(first(&policy, &held).to_string(), "hold 4: frozen for the fair (until lifted)");
}

#[test]
fn a_service_that_was_turned_off_stays_off() {
    let decision = first(&policy(), &seen(5, 0, 500.0));
    says(&decision, "hold 0: the service was turned off; scale it above 0 to turn it on", &Reason::Off);
}

#[test]
fn our_own_zero_comes_back() {
    let policy = policy().bounds(0, 10).down(Direction::new()).burst(None);
    let (decision, state) = decide(&policy, &State::seeded(1, at(0)), &seen(5, 1, 0.0));
    assert_eq!(decision.action, Action::ScaleTo(0));
    let (decision, state) = decide(&policy, &state, &seen(10, 0, 0.0));
    assert_eq!((decision.action, decision.reason), (Action::Hold, Reason::Load));
    let (decision, _) = decide(&policy, &state, &seen(15, 0, 1.0));
    assert_eq!(decision.action, Action::ScaleTo(1));
}

#[test]
fn a_running_update_holds_or_lets_only_up() {
    let up = seen(200, 4, 412.0).updating(true);
    says(&settled(&policy(), &up), "hold 4: an update of the service is running", &Reason::Updating);
    let only_up = policy().during_update(DuringUpdate::OnlyUp);
    assert_eq!(settled(&only_up, &up).action, Action::ScaleTo(6));
    let down = seen(200, 4, 100.0).updating(true);
    says(
        &settled(&only_up, &down),
        "hold 4: 100 in flight under a target of 70 each; held above 2 by the running update",
        &Reason::Updating,
    );
}

#[test]
fn a_closed_direction_is_named() {
    let policy = policy().up(Direction::disabled()).down(Direction::disabled());
    let decision = settled(&policy, &seen(200, 4, 412.0));
    assert_eq!((decision.action, decision.reason), (Action::Hold, Reason::UpDisabled));
    let decision = settled(&policy, &seen(200, 4, 100.0));
    assert_eq!((decision.action, decision.reason), (Action::Hold, Reason::DownDisabled));
}

#[test]
fn a_clock_that_steps_back_holds_once_and_begins_anew() {
    let mut state = State::seeded(6, at(0));
    for now in (5..=55).step_by(5) {
        state = decide(&policy(), &state, &seen(now, 6, 210.0)).1;
    }
    let (decision, state) = decide(&policy(), &state, &seen(25, 6, 700.0));
    says(
        &decision,
        "hold 6: the clock stepped back by 30 s; the windows begin anew",
        &Reason::ClockSteppedBack(Duration::from_secs(30)),
    );
    let (decision, _) = decide(&policy(), &state, &seen(30, 6, 700.0));
    assert_eq!(decision.action, Action::ScaleTo(10));
    let (decision, _) = decide(&policy(), &state, &seen(84, 6, 210.0));
    assert_eq!(decision.reason, Reason::DownStabilized);
}

#[test]
fn what_lay_in_the_future_of_a_clock_that_stepped_back_is_now() {
    let policy = policy().bounds(2, 100);
    let (_, state) = decide(&policy, &State::seeded(4, at(0)), &seen(55, 4, 2_000.0));
    let (_, state) = decide(&policy, &state, &seen(60, 8, 2_000.0));
    let (decision, state) = decide(&policy, &state, &seen(25, 8, 2_000.0));
    assert_eq!(decision.reason, Reason::ClockSteppedBack(Duration::from_secs(35)));
    let (decision, state) = decide(&policy, &state, &seen(39, 8, 2_000.0));
    assert_eq!(decision.reason, Reason::UpLimited, "{decision}");
    let (decision, _) = decide(&policy, &state, &seen(40, 8, 2_000.0));
    assert_eq!(decision.action, Action::ScaleTo(16), "{decision}");
}

#[test]
fn an_invalid_policy_holds() {
    let decision = first(&policy().bounds(5, 4), &seen(5, 4, 5_000.0));
    assert_eq!(
        decision.to_string(),
        "hold 4: the policy can't be used: min is 5, but it must not exceed max"
    );
}

#[test]
fn a_policy_without_signals_keeps_its_bounds() {
    let decision = first(&Policy::default(), &Observation::new(at(5), 4));
    says(&decision, "hold 4: the policy names no signal; only its bounds are kept", &Reason::NoSignals);
    assert_eq!(first(&Policy::default(), &Observation::new(at(5), 40)).action, Action::ScaleTo(10));
}

#[test]
fn a_decision_that_was_not_carried_out_costs_no_allowance() {
    let policy = policy().bounds(2, 100);
    let mut state = State::seeded(4, at(0));
    for now in [5, 10, 15, 20] {
        let (decision, next) = decide(&policy, &state, &seen(now, 4, 2_000.0));
        assert_eq!(decision.action, Action::ScaleTo(8), "at {now}");
        state = next;
    }
    let (decision, state) = decide(&policy, &state, &seen(25, 8, 2_000.0));
    assert_eq!((decision.action, &decision.reason), (Action::Hold, &Reason::UpLimited));
    let (decision, _) = decide(&policy, &state, &seen(35, 8, 2_000.0));
    assert_eq!(decision.action, Action::ScaleTo(16), "15 s after the decision that was carried out");
}

#[test]
fn a_decision_is_data() {
    let decision = first(&policy(), &seen(5, 8, 2_000.0));
    let json = serde_json::to_value(&decision).unwrap();
    assert_eq!(json["action"]["scale_to"], 10);
    assert_eq!(json["reason"], "at_max");
    assert_eq!(json["stages"][1]["name"], "rate");
    assert_eq!(json["stages"][1]["inputs"][0], serde_json::json!(["start_of_period", 8.0]));
    assert_eq!(serde_json::from_value::<Decision>(json).unwrap(), decision);
}
