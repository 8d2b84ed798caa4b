//! What holds for every policy, history and observation.

use std::time::Duration;

use autoscaler::{
    Action, Burst, Decision, Direction, Hold, Observation, Policy, RateLimit, Reading, Reason, Select,
    SignalPolicy, State, Target, decide,
};
use proptest::prelude::*;

/// One tick of a random service.
#[derive(Clone, Debug)]
struct Tick {
    after: u64,
    load: Option<f64>,
    ready: u32,
}

fn ticks(max: usize) -> impl Strategy<Value = Vec<Tick>> {
    let load = prop_oneof![1 => Just(None), 9 => (0.0..4_000.0f64).prop_map(Some), 2 => Just(Some(0.0))];
    let tick = (1..40u64, load, 0..60u32).prop_map(|(after, load, ready)| Tick { after, load, ready });
    prop::collection::vec(tick, 1..max)
}

fn direction() -> impl Strategy<Value = Direction> {
    let count =
        (1..20u32, 1..120u64).prop_map(|(n, s)| RateLimit::Count { n, period: Duration::from_secs(s) });
    let percent =
        (1..100u32, 1..120u64).prop_map(|(p, s)| RateLimit::Percent { p, period: Duration::from_secs(s) });
    let limits = prop::collection::vec(prop_oneof![count, percent], 0..3);
    let select = prop_oneof![4 => Just(Select::Max), 4 => Just(Select::Min), 1 => Just(Select::Disabled)];
    (0..120u64, limits, select).prop_map(|(window, limits, select)| {
        let direction = Direction::new().stabilization(Duration::from_secs(window)).select(select);
        limits.into_iter().fold(direction, Direction::limit)
    })
}

fn target() -> impl Strategy<Value = Target> {
    prop_oneof![
        (0.5..300.0f64).prop_map(Target::AveragePerInstance),
        (0.5..3_000.0f64).prop_map(Target::Total)
    ]
}

fn policy(target: impl Strategy<Value = Target>) -> impl Strategy<Value = Policy> {
    let burst = prop::option::of((1..200u64, 110..400u32));
    ((0..5u32, 0..60u32), target, (0..50u32, 0..50u32), direction(), direction(), burst).prop_map(
        |((min, more), target, (up_band, down_band), up, down, burst)| {
            Policy::default()
                .bounds(min, (min + more).max(1))
                .signal(SignalPolicy::new("load", target).tolerance(up_band, down_band))
                .up(up)
                .down(down)
                .burst(burst.map(|(window, threshold)| Burst::new(Duration::from_secs(window), threshold)))
        },
    )
}

fn seen(now: u64, current: u32, tick: &Tick) -> Observation {
    let now = Duration::from_secs(now);
    let reading = tick.load.map_or(Reading::NoData, |load| Reading::value(load, now));
    Observation::new(now, current).ready(tick.ready.min(current)).reading("load", reading)
}

/// Plays ticks in a closed loop from a count inside the bounds: what was seen, and what was decided.
fn play(policy: &Policy, ticks: &[Tick]) -> (Vec<(Observation, Decision)>, State) {
    let mut current = policy.max.min(policy.min + 3).max(1);
    let mut now = 10_000;
    let mut state = State::seeded(current, Duration::from_secs(now));
    let mut steps = Vec::new();
    for tick in ticks {
        now += tick.after;
        let observation = seen(now, current, tick);
        let (decision, next) = decide(policy, &state, &observation);
        current = decision.replicas();
        state = next;
        steps.push((observation, decision));
    }
    (steps, state)
}

fn last_now(steps: &[(Observation, Decision)]) -> (Duration, u32) {
    steps.last().map(|(seen, decision)| (seen.now, decision.replicas())).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn results_are_bounded_and_an_action_is_a_change(policy in policy(target()), ticks in ticks(40)) {
        prop_assert!(policy.validate().is_ok());
        for (observation, decision) in play(&policy, &ticks).0 {
            if let Action::ScaleTo(replicas) = decision.action {
                prop_assert!((policy.min..=policy.max).contains(&replicas));
                prop_assert_ne!(replicas, observation.current);
            }
            prop_assert!(decision.valid_until > decision.at);
            prop_assert!(!decision.to_string().ends_with(": "), "{}", decision);
        }
    }

    #[test]
    fn no_data_holds(policy in policy(target()), ticks in ticks(40)) {
        for (observation, decision) in play(&policy, &ticks).0 {
            if observation.readings.iter().all(|(_, reading)| *reading == Reading::NoData) {
                prop_assert_eq!(decision.action, Action::Hold);
            }
        }
    }

    #[test]
    fn nothing_is_removed_while_a_signal_is_unknown(
        policy in policy(target()), ticks in ticks(40), last in ticks(2), failed in 0..4usize,
    ) {
        let policy = policy.signal(SignalPolicy::new("other", Target::AveragePerInstance(1.0)));
        let (steps, state) = play(&policy, &ticks);
        let (now, current) = last_now(&steps);
        let now = now + Duration::from_secs(1);
        let other = [
            Reading::NoData,
            Reading::error("down"),
            Reading::value(f64::NAN, now),
            Reading::Stale { at: now },
        ];
        let observation = seen(now.as_secs(), current, &last[0]).reading("other", other[failed].clone());
        let (decision, _) = decide(&policy, &state, &observation);
        prop_assert!(decision.replicas() >= current);
        for (observation, decision) in steps {
            prop_assert!(decision.replicas() >= observation.current, "the second signal was never read");
        }
    }

    #[test]
    fn no_rate_limit_is_passed(
        policy in policy(target()), ticks in ticks(60), n in 1..6u32, p in 1..100u32, period in 1..90u64,
    ) {
        let window = Duration::from_secs(period);
        let limited = |direction: Direction| direction
            .limit(RateLimit::Count { n, period: window })
            .limit(RateLimit::Percent { p, period: window });
        let mut policy = policy;
        policy.behavior.up.limits.clear();
        policy.behavior.down.limits.clear();
        let (up, down) = (policy.behavior.up.clone(), policy.behavior.down.clone());
        let policy = policy.up(limited(up).select(Select::Min)).down(limited(down).select(Select::Max));
        let steps = play(&policy, &ticks).0;
        for (index, (observation, decision)) in steps.iter().enumerate() {
            // The count a period ago: what the last decision at least that old had made of it.
            let before = steps[..index].iter().rev();
            let old = before.clone().find(|(seen, _)| observation.now - seen.now >= window);
            let start = old.map_or(steps[0].0.current, |(_, decision)| decision.replicas());
            let replicas = decision.replicas();
            let grown = u64::from(start.max(1)) * u64::from(100 + p);
            if replicas > observation.current && observation.current >= policy.min {
                prop_assert!(replicas <= start + n, "{}", decision);
                prop_assert!(u64::from(replicas) * 100 < grown + 100, "{}", decision);
            }
            if replicas < observation.current {
                let kept = u64::from(start) * u64::from(100 - p) / 100;
                let lowest = start.saturating_sub(n).min(u32::try_from(kept).unwrap());
                prop_assert!(replicas >= lowest, "{} from {}", decision, start);
            }
        }
    }

    #[test]
    fn a_percentage_alone_leaves_zero(p in 1..200u32, period in 1..90u64, load in 1.0..4_000.0f64) {
        let limit = RateLimit::Percent { p, period: Duration::from_secs(period) };
        let policy = Policy::default()
            .bounds(0, 10)
            .signal(SignalPolicy::new("load", Target::AveragePerInstance(1.0)))
            .up(Direction::new().limit(limit));
        // To zero by its own decision, and then a load.
        let mut ticks = vec![Tick { after: 100, load: Some(0.0), ready: 10 }; 2];
        ticks.push(Tick { after: 100, load: Some(load), ready: 10 });
        let (seen, decision) = play(&policy, &ticks).0.pop().unwrap();
        prop_assert_eq!(seen.current, 0);
        prop_assert!(decision.replicas() > 0, "{}", decision);
    }

    #[test]
    fn no_rate_limit_is_passed_however_often_the_count_changes(
        counts in prop::collection::vec(1..60u32, 100..260), n in 1..6u32, period in 80..300u64, more in any::<bool>(),
    ) {
        let window = Duration::from_secs(period);
        let limited = Direction::new().limit(RateLimit::Count { n, period: window });
        let policy = Policy::default()
            .bounds(0, 10_000)
            .signal(SignalPolicy::new("load", Target::AveragePerInstance(1.0)))
            .up(limited.clone())
            .down(limited);
        // Somebody else changes the count each second; our own decision is made at the end alone.
        let mut state = State::seeded(30, Duration::from_secs(1_000));
        let mut history = vec![(1_000, 30)];
        let mut decision = None;
        for (second, current) in (1_001..).zip(counts) {
            history.push((second, current));
            let load = if more { 5_000.0 } else { 0.0 };
            let seen = seen(second, current, &Tick { after: 1, load: Some(load), ready: 60 });
            let (decided, next) = decide(&policy, &state, &seen);
            (decision, state) = (Some(decided), next);
        }
        let (decision, &(now, current)) = (decision.unwrap(), history.last().unwrap());
        // A change that happens to be the one decided last counts from that decision on, a second earlier.
        let at = |ago: u64| {
            let then = history.iter().rev().find(|(second, _)| now - second >= ago);
            then.map_or(30, |&(_, count)| count)
        };
        let (start, next) = (at(period), at(period - 1));
        let (low, high) = (start.min(next), start.max(next));
        let replicas = decision.replicas();
        prop_assert!(replicas <= current.max(high + n), "{decision}, {low} to {high} a period ago");
        prop_assert!(replicas >= current.min(low.saturating_sub(n)), "{decision}, {low} to {high} a period ago");
    }

    #[test]
    fn more_load_never_yields_fewer(
        policy in policy(target()), ticks in ticks(30), a in 0.0..4_000.0f64, b in 0.0..4_000.0f64, ready in 0..60u32,
    ) {
        let (steps, state) = play(&policy, &ticks);
        let (now, current) = last_now(&steps);
        let at = now.as_secs() + 5;
        let [less, more] = [a.min(b), a.max(b)].map(|load| {
            let tick = Tick { after: 0, load: Some(load), ready };
            decide(&policy, &state, &seen(at, current, &tick)).0
        });
        prop_assert!(less.replicas() <= more.replicas(), "{less} / {more}");
    }

    #[test]
    fn one_step_never_crosses_the_target(
        policy in policy((0.5..300.0f64).prop_map(Target::AveragePerInstance)), ticks in ticks(40),
    ) {
        let target = policy.signals[0].target.value();
        for ((observation, decision), tick) in play(&policy, &ticks).0.into_iter().zip(&ticks) {
            let (Some(load), Action::ScaleTo(replicas)) = (tick.load, decision.action) else { continue };
            if replicas < observation.current {
                prop_assert!(load <= target * f64::from(replicas) * (1.0 + 1e-9), "{}", decision);
            } else if observation.current >= policy.min {
                prop_assert!(load > target * f64::from(replicas - 1) * (1.0 - 1e-9), "{}", decision);
            }
        }
    }

    #[test]
    fn the_same_observation_gives_the_same_decision(policy in policy(target()), ticks in ticks(30), last in ticks(2)) {
        let (steps, state) = play(&policy, &ticks);
        let (now, current) = last_now(&steps);
        let observation = seen(now.as_secs() + 5, current, &last[0]);
        let (first, next) = decide(&policy, &state, &observation);
        let (second, after) = decide(&policy, &next, &observation);
        prop_assert_eq!(first, second);
        prop_assert_eq!(next, after);
    }

    #[test]
    fn a_constant_load_is_followed_one_way_and_then_left_alone(
        policy in policy((0.5..300.0f64).prop_map(Target::AveragePerInstance)), load in 0.0..4_000.0f64,
    ) {
        let ticks = vec![Tick { after: 15, load: Some(load), ready: 100 }; 800];
        let steps = play(&policy, &ticks).0;
        let directions: Vec<bool> = steps
            .iter()
            .filter(|(_, decision)| decision.action != Action::Hold)
            .map(|(seen, decision)| decision.replicas() > seen.current)
            .collect();
        prop_assert!(directions.windows(2).all(|pair| pair[0] == pair[1]));
        let settled = steps.iter().rev().take(50).all(|(_, decision)| decision.action == Action::Hold);
        prop_assert!(settled, "{}", steps.last().unwrap().1);
    }

    #[test]
    fn nothing_is_removed_within_a_window_after_it_was_added(policy in policy(target()), ticks in ticks(60)) {
        let mut added: Option<(Duration, u32)> = None;
        for (observation, decision) in play(&policy, &ticks).0 {
            let replicas = decision.replicas();
            if replicas > observation.current && observation.current >= policy.min {
                added = Some((observation.now, replicas));
            } else if let Some((at, _)) = added.filter(|_| replicas < observation.current) {
                let since = observation.now - at;
                prop_assert!(since >= policy.behavior.down.stabilization, "{} after {:?}", decision, since);
            }
        }
    }

    #[test]
    fn a_state_survives_serialisation(policy in policy(target()), ticks in ticks(40), last in ticks(2)) {
        let (steps, state) = play(&policy, &ticks);
        let json = serde_json::to_string(&state).unwrap();
        prop_assert!(json.len() < 16 * 1024);
        let restored: State = serde_json::from_str(&json).unwrap();
        prop_assert_eq!(&restored, &state);
        let (now, current) = last_now(&steps);
        let observation = seen(now.as_secs() + 5, current, &last[0]);
        prop_assert_eq!(decide(&policy, &restored, &observation), decide(&policy, &state, &observation));
    }

    #[test]
    fn anything_is_decided_without_a_panic_and_within_bounds(
        (min, max) in (any::<u32>(), any::<u32>()), target in any::<f64>(), percent in any::<u32>(),
        seen in prop::collection::vec((any::<u64>(), any::<u32>(), any::<u32>(), any::<f64>(), any::<u64>()), 1..12),
        total in any::<bool>(), updating in any::<bool>(), held in prop::option::of(any::<u64>()),
    ) {
        let target = if total { Target::Total(target) } else { Target::AveragePerInstance(target.abs()) };
        let policy = Policy::default()
            .bounds(min, max)
            .signal(SignalPolicy::new("load", target).tolerance(percent % 1_200, percent % 120))
            .up(Direction::new().limit(RateLimit::Percent { p: percent % 11_000, period: Duration::from_secs(15) }))
            .burst(Some(Burst::default()));
        let mut state = State::default();
        for (now, current, ready, value, age) in seen {
            let at = |nanos| Duration::from_nanos(nanos) * 30;
            let observation = Observation::new(at(now), current)
                .ready(ready)
                .updating(updating)
                .held(held.map(|until| Hold::until(at(until), "by hand")))
                .reading("load", Reading::value(value, at(now.saturating_sub(age % 1_000_000_000))));
            let (decision, next) = decide(&policy, &state, &observation);
            if let Action::ScaleTo(replicas) = decision.action {
                prop_assert!((min..=max).contains(&replicas));
            }
            prop_assert!(!decision.to_string().is_empty());
            state = next;
        }
    }
}

#[test]
fn the_ends_of_the_number_ranges_saturate() {
    let policy = Policy::balanced("load", 1e-9).bounds(1, u32::MAX);
    for current in [1, u32::MAX - 1, u32::MAX] {
        let now = Duration::MAX;
        let state = State::seeded(current, now);
        let seen = Observation::new(now, current).reading("load", Reading::value(f64::MAX, now));
        let (decision, _) = decide(&policy, &state, &seen);
        let expected = current.saturating_mul(10).max(current.saturating_add(4));
        assert_eq!(decision.replicas(), expected, "{decision}");
        assert_ne!(decision.reason, Reason::Unknown);
    }
}
