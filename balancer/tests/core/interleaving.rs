//! Any calls in any order: what holds after each of them.

use std::collections::BTreeMap;

use balancer::{
    Adaptive, Config, Health, Ketama, Lease, LeastPending, Limits, Locality, Maglev, Outcome,
    P2cLeastPending, P2cPeakEwma, PickRequest, Policy, Pool, Prequal, ProbeOutcome, Probes, Random,
    RoundRobin, SlowStart, State, Update, hash,
};
use proptest::prelude::*;

use crate::support::*;

#[derive(Clone, Debug)]
enum Step {
    Pick(Vec<usize>, u64),
    Report(usize, u32),
    Finish(usize, u8),
    Answer(usize, u16),
    Drop(usize),
    Add(usize, u32),
    Remove(usize),
    Drain(usize),
    Reset(Vec<usize>),
    Probe(usize, u8),
    Pass(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let who = 0usize..6;
    prop_oneof![
        8 => (prop::collection::vec(who.clone(), 0..3), any::<u64>()).prop_map(|(a, b)| Step::Pick(a, b)),
        2 => (who.clone(), 0u32..20).prop_map(|(a, b)| Step::Report(a, b)),
        6 => (0usize..40, 0u8..7).prop_map(|(a, b)| Step::Finish(a, b)),
        1 => (0usize..40, prop_oneof![Just(200u16), Just(500)]).prop_map(|(a, b)| Step::Answer(a, b)),
        1 => (0usize..40).prop_map(Step::Drop),
        2 => (who.clone(), 0u32..9).prop_map(|(a, b)| Step::Add(a, b)),
        1 => who.clone().prop_map(Step::Remove),
        1 => who.clone().prop_map(Step::Drain),
        1 => prop::collection::vec(who.clone(), 0..6).prop_map(Step::Reset),
        3 => (who, 0u8..5).prop_map(|(a, b)| Step::Probe(a, b)),
        4 => (0u64..3000).prop_map(Step::Pass),
    ]
}

fn outcome(code: u8) -> Outcome {
    [
        Outcome::Success,
        Outcome::Status(200),
        Outcome::Status(503),
        Outcome::ConnectFailed,
        Outcome::Reset,
        Outcome::Timeout,
        Outcome::Cancelled,
    ][usize::from(code)]
}

fn probe(code: u8) -> ProbeOutcome {
    [
        ProbeOutcome::Passed,
        ProbeOutcome::NotReady,
        ProbeOutcome::BadStatus(404),
        ProbeOutcome::Failed,
        ProbeOutcome::Timeout,
    ][usize::from(code)]
}

/// Every policy, and every rule that changes what it may choose, on or off.
fn config(policy: u8, rules: u8) -> (Config, Health) {
    let policy: Policy = match policy {
        0 => P2cPeakEwma::default().into(),
        1 => P2cLeastPending::default().into(),
        2 => LeastPending::default().into(),
        3 => RoundRobin::default().into(),
        4 => Random::default().into(),
        5 => Maglev::default().table_size(1009).into(),
        6 => Ketama::default().into(),
        _ => Prequal::default().into(),
    };
    let mut health = Health::default();
    health.server_errors = 2;
    let mut config = Config::default().policy(policy).health(health.clone());
    let on = |bit: u8| rules & (1 << bit) != 0;
    if on(0) {
        config = config.probes(Probes::default());
    }
    if on(1) {
        config = config.slow_start(SlowStart::default());
    }
    if on(2) {
        config = config.locality(Locality::default().host("h0").zone("z1"));
    }
    if on(3) {
        config = config.limits(Limits::per_endpoint(LIMIT));
    }
    if on(4) {
        let mut both = Limits::adaptive(Adaptive::default());
        both.per_endpoint = on(3).then_some(LIMIT);
        config = config.limits(both);
    }
    (config, health)
}

const LIMIT: u32 = 3;

fn placed(n: usize) -> balancer::Endpoint {
    endpoint(n).host(format!("h{}", n % 3)).zone(format!("z{}", n % 2))
}

/// Plays the steps and checks after each one; returns a transcript for comparison.
fn play(policy: u8, rules: u8, steps: &[Step]) -> Result<Vec<String>, TestCaseError> {
    let (config, health) = config(policy, rules);
    let limited = config.limits.per_endpoint.is_some();
    let pool = Pool::new(config, 99).unwrap();
    let (mut now, mut leases, mut log) = (ms(0), Vec::<Lease>::new(), Vec::new());
    // What the feed last said: whether a new pick is allowed.
    let mut wanted: BTreeMap<usize, bool> = BTreeMap::new();
    for step in steps {
        match step.clone() {
            Step::Report(n, in_flight) => pool.load_report(&id(n), in_flight, ms(u64::from(in_flight)), now),
            Step::Pick(exclude, key) => {
                let exclude: Vec<_> = exclude.into_iter().map(id).collect();
                let favourite = id((key % 7) as usize);
                let prefer = (key % 3 == 0).then_some(&favourite);
                let request = PickRequest::excluding(&exclude).key(hash(key.to_le_bytes())).prefer(prefer);
                let (result, why) = pool.pick_explained(&request, now);
                prop_assert_eq!(why.picked.is_some(), result.is_ok());
                prop_assert!(!why.to_string().is_empty());
                if let Err(error) = &result {
                    // An endpoint that is usable, not excluded and below its limit is never overlooked.
                    let overlooked = pool.snapshot().views(now).into_iter().find(|view| {
                        let limit = if limited { u64::from(LIMIT) } else { 4 };
                        view.state.is_usable() && !exclude.contains(&view.id) && view.in_flight < limit
                    });
                    prop_assert!(overlooked.is_none(), "{} although {:?}", error, overlooked);
                }
                if let Ok(lease) = result {
                    let picked = lease.endpoint().id.clone();
                    prop_assert!(!exclude.contains(&picked));
                    let number: usize = picked.as_str()[4..].parse().unwrap();
                    prop_assert_eq!(wanted.get(&number), Some(&true), "picked {}", picked);
                    log.push(picked.to_string());
                    leases.push(lease);
                }
            }
            Step::Finish(n, code) if !leases.is_empty() => {
                leases.swap_remove(n % leases.len()).finish(outcome(code), now);
            }
            Step::Answer(n, status) if !leases.is_empty() => {
                let n = n % leases.len();
                leases[n].responded(status, now);
            }
            Step::Drop(n) if !leases.is_empty() => drop(leases.swap_remove(n % leases.len())),
            Step::Add(n, weight) => {
                pool.apply(Update::Add(placed(n).weight(weight)), now);
                wanted.insert(n, true);
            }
            Step::Remove(n) => {
                pool.apply(Update::Remove(id(n)), now);
                wanted.remove(&n);
            }
            Step::Drain(n) => {
                pool.apply(Update::Drain(id(n)), now);
                if let Some(pickable) = wanted.get_mut(&n) {
                    *pickable = false;
                }
            }
            Step::Reset(all) => {
                pool.apply(Update::reset(all.iter().copied().map(placed)), now);
                wanted.retain(|n, _| all.contains(n));
                for n in all {
                    wanted.entry(n).or_insert(true);
                }
            }
            Step::Probe(n, code) => pool.probe_result(&id(n), probe(code), now),
            Step::Pass(more) => {
                now += ms(more);
                pool.tick(now);
                log.push(format!("{:?}", pool.probes_due(now)));
            }
            _ => {}
        }
        let snapshot = pool.snapshot();
        let all: Vec<_> = snapshot.endpoints().map(|(_, state, reason)| (state, reason)).collect();
        let failing = all
            .iter()
            .filter(|(state, reason)| matches!(state, State::Ejected | State::Trial) && reason.is_failing());
        let failing = failing.count();
        let members = all.iter().filter(|(s, _)| !matches!(s, State::Warming | State::Draining)).count();
        let ready = snapshot.ready();
        let must_stay = (members as f64 * health.min_usable.max(1.0 - health.max_ejected)).ceil() as usize;
        prop_assert!(
            failing == 0 || ready >= must_stay.max(1) || (failing == 1 && ready >= 1),
            "{failing} out as failing, {ready} ready of {members}"
        );
        for view in snapshot.views(now) {
            // A trial asks no limit: at most one more.
            prop_assert!(!limited || view.in_flight <= u64::from(LIMIT) + 1, "{} over its limit", view.id);
        }
        let in_flight = pool.load().in_flight;
        prop_assert!(in_flight <= leases.len() as u64);
        log.extend(pool.drain_events().iter().map(|event| format!("{:?} {event}", event.at)));
    }
    drop(leases);
    prop_assert_eq!(pool.load().in_flight, 0);
    for view in pool.snapshot().views(now) {
        prop_assert_eq!(view.in_flight, 0);
        let number: usize = view.id.as_str()[4..].parse().unwrap();
        prop_assert!(wanted.contains_key(&number), "{} is still there", view.id);
    }
    Ok(log)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn any_interleaving(policy in 0u8..8, rules in 0u8..32, steps in prop::collection::vec(step(), 1..150)) {
        let first = play(policy, rules, &steps)?;
        prop_assert_eq!(first, play(policy, rules, &steps)?, "the same seed and calls gave another run");
    }
}
