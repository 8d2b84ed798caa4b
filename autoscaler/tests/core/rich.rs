//! What holds for every policy with any of the rules on top of signals and behaviour.

use std::time::Duration;

use autoscaler::replay::{PlantModel, Player, Trace, replay};
use autoscaler::{
    Action, Calm, Compat, Drain, Fallback, FallbackReplicas, FlapBudget, Forecast, Instance, Model,
    Observation, Phase, Policy, Reading, Sample, SignalPolicy, State, Step, Surge, Target, Threshold, Zero,
    decide,
};
use proptest::prelude::*;

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn target() -> impl Strategy<Value = Target> {
    let band = (0.0..200.0f64, prop::option::of(200.0..900.0f64), -5..6i32, 1..6u32);
    prop_oneof![
        (0.5..300.0f64).prop_map(Target::AveragePerInstance),
        (0.5..3_000.0f64).prop_map(Target::Total),
        (1..300u32).prop_map(Target::Utilization),
        (0..50u32).prop_map(Target::Fixed),
        Just(Target::Count),
        (1.0..500.0f64).prop_map(Target::Guard),
        band.prop_map(|(lower, upper, delta, samples)| {
            Target::Threshold(Threshold::new(lower, upper, Step::Delta(delta)).after(samples, seconds(60)))
        }),
    ]
}

fn rich() -> impl Strategy<Value = Policy> {
    let model = prop_oneof![
        Just(Model::Recurring),
        (1..30u32).prop_map(|steps| Model::Seasonal { steps }),
        (0..30u32, 0.0..1.0f64, 0.0..1.0f64).prop_map(|(steps, level, trend)| Model::HoltWinters {
            steps,
            level,
            trend,
            season: 0.3
        }),
    ];
    let compat = prop_oneof![Just(Compat::Own), Just(Compat::Hpa), Just(Compat::Nomad)];
    let options = (
        prop::option::of((1..4u32, 1..600u64)),
        prop::option::of(Just(Calm::default())),
        prop::option::of(1..200u64),
        prop::option::of(0..60u64),
        prop::option::of((0..4u32, 0..30u32)),
        prop::option::of((0..100u64, 0..40u64, any::<bool>())),
        prop::option::of((model, 1..60u64)),
    );
    ((1..5u32, 0..60u32), target(), 0..120u64, 0..90u64, options, compat).prop_map(
        |(
            (min, more),
            target,
            window,
            mean,
            (flap, calm, surge, drain, fallback, zero, forecast),
            compat,
        )| {
            let forecasts = matches!(target, Target::AveragePerInstance(_));
            let signal = SignalPolicy::new("load", target).window(seconds(mean));
            Policy::balanced("second", 50.0)
                .signal(signal)
                .bounds(min, min + more)
                .down_window(seconds(window))
                .compat(compat)
                .flap_budget(flap.map(|(turns, period)| FlapBudget { turns, period: seconds(period) }))
                .calm(calm)
                .surge(surge.map(|patience| Surge { patience: seconds(patience) }))
                .drain(drain.map(|deadline| Drain { deadline: seconds(deadline) }))
                .fallback(fallback.map(|(failures, n)| Fallback {
                    failures,
                    replicas: FallbackReplicas::Static(n),
                    may_remove: false,
                }))
                .zero(zero.map(|(idle, grace, buffer)| {
                    Zero::after(seconds(idle)).grace(seconds(grace)).needs_buffer(buffer)
                }))
                .forecast(forecast.map(|(model, step)| {
                    let forecast = Forecast::new(model, seconds(step)).horizon(seconds(step));
                    if forecasts { forecast.signal("load") } else { forecast }
                }))
        },
    )
}

/// One look at the service: after how long, the loads, how many serve, requests in flight on each.
#[derive(Clone, Debug)]
struct Look {
    after: u64,
    load: Option<f64>,
    second: Option<f64>,
    ready: u32,
    in_flight: u64,
    buffer: Option<bool>,
}

fn looks(max: usize) -> impl Strategy<Value = Vec<Look>> {
    let load = || prop_oneof![1 => Just(None), 9 => (0.0..2_000.0f64).prop_map(Some), 3 => Just(Some(0.0))];
    let look = (1..30u64, load(), load(), 0..60u32, 0..3u64, any::<Option<bool>>());
    let look = look.prop_map(|(after, load, second, ready, in_flight, buffer)| Look {
        after,
        load,
        second,
        ready,
        in_flight,
        buffer,
    });
    prop::collection::vec(look, 1..max)
}

fn observe(policy: &Policy, now: u64, current: u32, look: &Look) -> Observation {
    let now = seconds(now);
    let each = matches!(policy.signals[1].target, Target::Utilization(_));
    let instances = (0..current).map(|n| {
        let phase = if n < look.ready { Phase::Running } else { Phase::Pending };
        Instance::new(format!("i{n}"))
            .at(format!("h{}", n % 5), n.into())
            .phase(phase)
            .in_flight(look.in_flight)
    });
    let reading = |load: Option<f64>| load.map_or(Reading::NoData, |load| Reading::value(load, now));
    let load = match look.load {
        Some(load) if each => {
            let sample = |n| Sample::new(format!("i{n}"), load / 20.0).of(50.0);
            Reading::PerInstance { at: now, window: seconds(15), samples: (0..current).map(sample).collect() }
        }
        load => reading(load),
    };
    Observation::new(now, current)
        .ready(look.ready.min(current))
        .instances(instances)
        .buffer(look.buffer)
        .reading("second", reading(look.second))
        .reading("load", load)
}

fn play(policy: &Policy, looks: &[Look]) -> (Vec<(Observation, autoscaler::Decision)>, State, u64, u32) {
    let (mut now, mut current) = (1_000_000, policy.min.max(1));
    let mut state = State::seeded(current, seconds(now));
    let mut steps = Vec::new();
    for look in looks {
        now += look.after;
        let seen = observe(policy, now, current, look);
        let (decision, next) = decide(policy, &state, &seen);
        current = decision.replicas();
        state = next;
        steps.push((seen, decision));
    }
    (steps, state, now, current)
}

/// Where a decision leads to, its drain included.
fn aim(decision: &autoscaler::Decision) -> u32 {
    match decision.action {
        Action::DrainThen(to) => to,
        _ => decision.replicas(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn results_are_bounded_and_nothing_is_removed_while_a_signal_is_unknown(policy in rich(), looks in looks(60)) {
        prop_assert!(policy.validate().is_ok(), "{:?}", policy.validate());
        let least = policy.zero.map_or(policy.min, |zero| zero.idle_replicas);
        for (seen, decision) in play(&policy, &looks).0 {
            if let Action::ScaleTo(to) = decision.action {
                prop_assert!((least..=policy.max).contains(&to), "{}", decision);
                prop_assert_ne!(to, seen.current);
            }
            let unknown = seen.readings.iter().any(|(_, reading)| *reading == Reading::NoData);
            let fixed = matches!(policy.signals[1].target, Target::Fixed(_));
            if unknown && !fixed && seen.current <= policy.max {
                prop_assert!(decision.replicas() >= seen.current, "{}", decision);
                prop_assert!(!matches!(decision.action, Action::DrainThen(_)), "{}", decision);
            }
            prop_assert!(!decision.to_string().ends_with(": "), "{}", decision);
            prop_assert!(decision.diff(&decision).is_empty());
        }
    }

    #[test]
    fn no_victim_leaves_with_requests_in_flight_before_the_deadline(
        policy in rich(), looks in looks(60), deadline in 1..60u64,
    ) {
        let policy = policy.drain(Some(Drain { deadline: seconds(deadline) }));
        let mut draining: Option<Duration> = None;
        for (seen, decision) in play(&policy, &looks).0 {
            let inside = seen.current <= policy.max;
            match decision.action {
                Action::DrainThen(to) => {
                    prop_assert!(!decision.victims.is_empty() && to < seen.current);
                    prop_assert_eq!(decision.victims.len() as u32, seen.current - to);
                    draining.get_or_insert(seen.now);
                }
                Action::ScaleTo(to) if to < seen.current && inside => {
                    let began = draining.take();
                    prop_assert!(began.is_some(), "removed without a drain: {}", decision);
                    let waited = seen.now - began.unwrap();
                    let busy = seen.instances.iter().any(|instance| instance.in_flight != Some(0));
                    prop_assert!(!busy || waited >= seconds(deadline), "{} after {:?}", decision, waited);
                }
                _ => draining = None,
            }
        }
    }

    #[test]
    fn the_same_observation_gives_the_same_decision(policy in rich(), looks in looks(40)) {
        let (_, state, now, current) = play(&policy, &looks);
        let seen = observe(&policy, now + 3, current, &looks[0]);
        let (first, next) = decide(&policy, &state, &seen);
        let (second, after) = decide(&policy, &next, &seen);
        prop_assert_eq!(first, second);
        prop_assert_eq!(next, after);
    }

    #[test]
    fn a_state_survives_serialisation_and_stays_small(policy in rich(), looks in looks(120)) {
        let (_, state, now, current) = play(&policy, &looks);
        let json = serde_json::to_string(&state).unwrap();
        prop_assert!(json.len() < 16 * 1024, "{} bytes", json.len());
        let restored: State = serde_json::from_str(&json).unwrap();
        prop_assert_eq!(&restored, &state);
        let seen = observe(&policy, now + 3, current, &looks[0]);
        prop_assert_eq!(decide(&policy, &restored, &seen), decide(&policy, &state, &seen));
    }

    #[test]
    fn a_forecast_never_lowers(policy in rich(), looks in looks(80)) {
        // From the same state, without what is expected. What is aimed at, since a drain may be over for one and begin for the other.
        let (_, state, now, current) = play(&policy, &looks);
        let seen = observe(&policy, now + 3, current, &looks[0]);
        let with = decide(&policy, &state, &seen).0;
        let without = decide(&policy.clone().forecast(None).calm(None), &state, &seen).0;
        if policy.calm.is_none() {
            prop_assert!(aim(&with) >= aim(&without), "{with} / {without}");
        }
    }

    #[test]
    fn a_replay_decides_what_the_live_loop_would(
        loads in prop::collection::vec(0.0..3_000.0f64, 5..40), min in 1..4u32, tick in 1..20usize,
    ) {
        let policy = Policy::balanced("rate", 70.0).guard("p95", 0.5).bounds(min, 60);
        let trace = Trace::of(loads.len() * 20, |second| loads[second / 20]);
        let model = PlantModel { min, ..PlantModel::default() };
        let report = replay(&Player::new("live", policy.clone(), tick), &trace, &model);
        prop_assert_eq!(report.wrong_way, 0);
        prop_assert_eq!(report.busy_kills, 0.0);
        prop_assert!(report.instance_seconds >= u64::from(min) * report.seconds);
        // Every decision of the log follows from the one before and is within what it says.
        for pair in report.log.windows(2) {
            prop_assert_eq!(pair[0].1.replicas(), pair[1].1.current);
            prop_assert!(pair[1].0 > pair[0].0);
        }
        prop_assert_eq!(report.clone(), replay(&Player::new("live", policy, tick), &trace, &model));
    }
}

/// Any numbers in the place of a stored state's, the same length or not: it was written by another version, or by hand.
fn tampered(json: &serde_json::Value, numbers: &mut impl Iterator<Item = u64>) -> serde_json::Value {
    use serde_json::Value;
    match json {
        Value::Number(_) => numbers.next().map_or(Value::Null, Value::from),
        Value::Array(items) => {
            items.iter().chain(items.first()).map(|item| tampered(item, numbers)).collect()
        }
        Value::Object(fields) => {
            fields.iter().map(|(key, value)| (key.clone(), tampered(value, numbers))).collect()
        }
        other => other.clone(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_state_that_was_tampered_with_makes_no_panic(
        policy in rich(), looks in looks(60), numbers in prop::collection::vec(any::<u64>(), 600..601), narrow in any::<bool>(),
    ) {
        let (_, state, now, current) = play(&policy, &looks);
        let json = serde_json::to_value(&state).unwrap();
        let mut numbers = numbers.into_iter().map(|n| if narrow { n % (1 << 31) } else { n }).cycle();
        let Ok(state) = serde_json::from_value::<State>(tampered(&json, &mut numbers)) else { return Ok(()) };
        let mut state = state;
        for (offset, look) in looks.iter().enumerate() {
            let seen = observe(&policy, now + 1 + offset as u64, current, look);
            let (decision, next) = decide(&policy, &state, &seen);
            if let Action::ScaleTo(to) = decision.action {
                prop_assert!(to <= policy.max, "{}", decision);
            }
            state = next;
        }
    }
}
