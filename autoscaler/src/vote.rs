//! One proposal for each signal, or why it has none.

use std::time::Duration;

use crate::decision::{Ballot, Vote};
use crate::observation::{Observation, Reading};
use crate::per_instance;
use crate::policy::{Compat, Policy, SignalPolicy, Step, Target, Tolerance};
use crate::state::State;

/// What all signals say.
pub(crate) struct Votes {
    /// In the policy's order.
    pub(crate) votes: Vec<Vote>,
    /// The largest proposal from the short windows of the burst mode, where there are any.
    pub(crate) short: Option<u32>,
    /// The load that the forecast follows, if it is known.
    pub(crate) load: Option<f64>,
    /// Whether any signal is above its activation value; `None` if none is and not all are known.
    pub(crate) active: Option<bool>,
}

/// The votes of all signals. Notes in the state which signals are known, and what their windows need.
pub(crate) fn collect(policy: &Policy, state: &mut State, observation: &Observation, again: bool) -> Votes {
    let mut all = Votes {
        votes: Vec::with_capacity(policy.signals.len()),
        short: None,
        load: None,
        active: Some(false),
    };
    let short_window = policy.burst.map_or(Duration::ZERO, |burst| burst.short_window);
    for signal in &policy.signals {
        let ballot = match cast(policy, signal, short_window, state, observation) {
            Ok(cast) => {
                state.knows(&signal.name, cast.at.min(observation.now));
                if let Some(value) = cast.read {
                    if value > signal.activation && !matches!(signal.target, Target::Guard(_)) {
                        all.active = Some(true);
                    }
                    if all.load.is_none() && is_forecast(policy, signal) {
                        all.load = Some(value);
                    }
                }
                all.short = all.short.max(cast.short);
                cast.ballot
            }
            Err(why) => {
                if all.active == Some(false) {
                    all.active = None;
                }
                let failures = state.misses(&signal.name, again);
                match policy.fallback.filter(|fallback| failures > fallback.failures) {
                    Some(fallback) if !matches!(signal.target, Target::Guard(_)) => {
                        Ballot::FallsBack { why, replicas: fallback.replicas.of(observation.current) }
                    }
                    _ => {
                        let last = state.last_known(&signal.name);
                        let elapsed = last.map(|at| observation.now.saturating_sub(at));
                        Ballot::Unknown { why, elapsed }
                    }
                }
            }
        };
        all.votes.push(Vote { signal: signal.name.clone(), target: signal.target, ballot });
    }
    all
}

/// Whether the policy's forecast follows this signal.
pub(crate) fn is_forecast(policy: &Policy, signal: &SignalPolicy) -> bool {
    let named =
        |forecast: &crate::policy::Forecast| forecast.signal.as_ref().is_none_or(|name| *name == signal.name);
    policy.forecast.as_ref().is_some_and(named) && matches!(signal.target, Target::AveragePerInstance(_))
}

/// When the first of the values in use will be too old, if that is before `latest`.
pub(crate) fn valid_until(policy: &Policy, observation: &Observation, latest: Duration) -> Duration {
    let ends = policy.signals.iter().filter_map(|signal| {
        let (_, at) = usable(signal, observation).ok()?;
        Some(at.min(observation.now).saturating_add(signal.max_age))
    });
    ends.fold(latest, Duration::min)
}

/// What one signal says.
struct Cast {
    ballot: Ballot,
    at: Duration,
    /// The value as it was read.
    read: Option<f64>,
    /// What the short window of the burst mode proposes.
    short: Option<u32>,
}

fn cast(
    policy: &Policy,
    signal: &SignalPolicy,
    short_window: Duration,
    state: &mut State,
    observation: &Observation,
) -> Result<Cast, String> {
    if let Target::Fixed(replicas) = signal.target {
        let ballot = Ballot::Proposes { value: replicas.into(), replicas, within: None };
        return Ok(Cast { ballot, at: observation.now, read: None, short: None });
    }
    let (reading, at) = usable(signal, observation)?;
    let value = match reading {
        Reading::PerInstance { window, samples, .. } => {
            let outcome = per_instance::propose(signal, policy.compat, observation, *window, at, samples)?;
            let per_instance::Outcome { value, replicas, within } = outcome;
            let ballot = Ballot::Proposes { value, replicas, within };
            return Ok(Cast { ballot, at, read: Some(value), short: None });
        }
        Reading::Value { value, .. } => *value,
        _ => return Err("it was not read".to_owned()),
    };
    let (mean, short) = if signal.window.is_zero() {
        (value, None)
    } else {
        state.averaged(&signal.name, signal.window, short_window, at.min(observation.now), value)
    };
    let propose = |value| propose(signal.target, signal.tolerance, policy.compat, value, observation);
    let ballot = match signal.target {
        Target::Utilization(_) => return Err("a utilisation needs one value per instance".to_owned()),
        Target::Guard(limit) => Ballot::Guards { value: mean, over: mean > limit },
        Target::Threshold(band) => {
            if state.in_band(&signal.name, &band, mean, at.min(observation.now)) {
                Ballot::Proposes { value: mean, replicas: step(band.step, observation.current), within: None }
            } else {
                Ballot::Abstains { value: mean }
            }
        }
        _ => {
            let (replicas, within) = propose(mean);
            Ballot::Proposes { value: mean, replicas, within }
        }
    };
    Ok(Cast { ballot, at, read: Some(value), short: short.map(|value| propose(value).0) })
}

/// The one reading of a signal, or why it can't be used.
fn usable<'a>(
    signal: &SignalPolicy,
    observation: &'a Observation,
) -> Result<(&'a Reading, Duration), String> {
    let now = observation.now;
    let name = signal.reading.as_ref().unwrap_or(&signal.name);
    let mut readings = observation.readings.iter().filter(|(other, _)| other == name);
    let Some((_, reading)) = readings.next() else {
        return Err("it was not read".to_owned());
    };
    if readings.next().is_some() {
        return Err("it was read twice, so it may count the same load twice".to_owned());
    }
    let old = |at: Duration| format!("the last value is {} old", seconds(now.saturating_sub(at)));
    match *reading {
        Reading::Value { value, .. } if !value.is_finite() || value < 0.0 => {
            Err(format!("its value was {value}, which is no amount of load"))
        }
        Reading::Value { at, .. } | Reading::PerInstance { at, .. } => {
            if now.saturating_sub(at) >= signal.max_age {
                Err(old(at))
            } else if at.saturating_sub(now) > signal.max_age {
                Err(format!("its time lies {} in the future", seconds(at.saturating_sub(now))))
            } else {
                Ok((reading, at))
            }
        }
        Reading::NoData => Err("the source has no data".to_owned()),
        Reading::Stale { at } => Err(old(at)),
        Reading::Error(ref why) => Err(shortened(why)),
    }
}

/// How many instances a value asks for, and the tolerance that kept the present count, if it did.
pub(crate) fn propose(
    target: Target,
    tolerance: Tolerance,
    compat: Compat,
    value: f64,
    observation: &Observation,
) -> (u32, Option<u32>) {
    let current = observation.current;
    let per_target = value / target.value();
    if current == 0 || target == Target::Count {
        return (count(per_target), None);
    }
    let aim = match target {
        Target::AveragePerInstance(each) => each * f64::from(current),
        other => other.value(),
    };
    if let Some(percent) = within(tolerance, compat, value, aim) {
        return (current, Some(percent));
    }
    let load = value / aim;
    let ready = f64::from(observation.ready.min(current));
    let replicas = match (target, compat) {
        (Target::AveragePerInstance(_), _) => count(per_target),
        (_, Compat::Hpa) => count(load * ready),
        (_, Compat::Nomad) => count(load * f64::from(current)),
        _ if load > 1.0 => count(load * ready).max(current),
        _ => count(load * f64::from(current)),
    };
    (replicas, None)
}

/// The fewest instances to which nothing would be added at this load.
pub(crate) fn enough(target: Target, tolerance: Tolerance, load: f64) -> u32 {
    count(load * 100.0 / (target.value() * f64::from(100u32.saturating_add(tolerance.up))))
}

/// The tolerance that a value lies in, if it does.
pub(crate) fn within(tolerance: Tolerance, compat: Compat, value: f64, aim: f64) -> Option<u32> {
    let Tolerance { up, down } = tolerance;
    if compat == Compat::Hpa {
        let ratio = value / aim;
        let (low, high) = (1.0 - f64::from(down) / 100.0, 1.0 + f64::from(up) / 100.0);
        return (low <= ratio && ratio <= high).then_some(if ratio < 1.0 { down } else { up });
    }
    // Percent against percent, and a hair: 1.1 is within 10 % of 1, which a comparison of quotients can deny.
    let percent = value * 100.0;
    if percent >= 100.0 * aim {
        (percent <= f64::from(100 + up) * aim * (1.0 + HAIR)).then_some(up)
    } else {
        (percent >= f64::from(100u32.saturating_sub(down)) * aim * (1.0 - HAIR)).then_some(down)
    }
}

/// The count after a step.
fn step(step: Step, current: u32) -> u32 {
    let sum = match step {
        Step::Count(replicas) => return replicas,
        Step::Delta(delta) => i64::from(current) + i64::from(delta),
        Step::Percent(percent) => {
            let hundredths = i128::from(current) * (100 + i128::from(percent));
            // Rounded up.
            i64::try_from(-(-hundredths).div_euclid(100)).unwrap_or(i64::MAX)
        }
    };
    u32::try_from(sum.max(0)).unwrap_or(u32::MAX)
}

/// Rounds up to a count; saturates. A quotient a hair above an integer is that integer: 3.3 / 1.1 is 3, not 4.
pub(crate) fn count(instances: f64) -> u32 {
    (instances * (1.0 - HAIR)).ceil() as u32
}

/// A duration for a sentence: whole seconds, or tenths below ten.
pub(crate) fn seconds(duration: Duration) -> String {
    let tenths = duration.as_millis() / 100;
    if tenths < 100 && !tenths.is_multiple_of(10) {
        format!("{}.{} s", tenths / 10, tenths % 10)
    } else {
        format!("{} s", tenths / 10)
    }
}

/// At most 200 characters of a text that came from outside, on one line.
pub(crate) fn shortened(text: &str) -> String {
    let mut short: String =
        text.chars().take(MAX_TEXT).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.chars().nth(MAX_TEXT).is_some() {
        short.push('…');
    }
    short
}

const MAX_TEXT: usize = 200;
/// What a quotient may be off by rounding.
const HAIR: f64 = 1e-12;

#[cfg(test)]
mod tests {
    use super::*;

    fn proposal(target: Target, value: f64, current: u32, ready: u32) -> (u32, Option<u32>) {
        let observation = Observation::new(Duration::ZERO, current).ready(ready);
        propose(target, Tolerance::default(), Compat::Own, value, &observation)
    }

    #[test]
    fn an_average_asks_for_the_load_over_the_target() {
        let target = Target::AveragePerInstance(70.0);
        assert_eq!(proposal(target, 412.0, 4, 4), (6, None));
        assert_eq!(proposal(target, 412.0, 6, 6), (6, Some(10)));
        assert_eq!(proposal(target, 0.0, 6, 6), (0, None));
        assert_eq!(proposal(target, 71.0, 0, 0), (2, None));
        assert_eq!(proposal(Target::AveragePerInstance(1.1), 3.3, 1, 1), (3, None));
        assert_eq!(proposal(Target::AveragePerInstance(1e-9), 1e300, 1, 1), (u32::MAX, None));
    }

    #[test]
    fn a_dead_band_holds_up_to_its_edges() {
        let target = Target::AveragePerInstance(10.0);
        assert_eq!(proposal(target, 110.0, 10, 10), (10, Some(10)));
        assert_eq!(proposal(target, 90.0, 10, 10), (10, Some(10)));
        assert_eq!(proposal(target, 110.1, 10, 10), (12, None));
        assert_eq!(proposal(target, 89.9, 10, 10), (9, None));
    }

    #[test]
    fn a_total_multiplies_what_is_ready_and_never_turns_a_high_load_into_fewer() {
        let target = Target::Total(100.0);
        assert_eq!(proposal(target, 200.0, 3, 3), (6, None));
        assert_eq!(proposal(target, 195.0, 3, 1), (3, None), "ceil(1.95 * 1) would remove one");
        assert_eq!(proposal(target, 500.0, 3, 0), (3, None), "nothing ready breeds nothing");
        assert_eq!(proposal(target, 50.0, 4, 1), (2, None));
        assert_eq!(proposal(target, 50.0, 0, 0), (1, None));
    }

    #[test]
    fn the_originals_arithmetic_on_request() {
        let total = |compat, value, current, ready| {
            let seen = Observation::new(Duration::ZERO, current).ready(ready);
            propose(Target::Total(100.0), Tolerance::default(), compat, value, &seen).0
        };
        assert_eq!(total(Compat::Hpa, 195.0, 3, 1), 2, "it removes one under a high load");
        assert_eq!(total(Compat::Nomad, 195.0, 3, 1), 6);
    }

    #[test]
    fn steps_round_up_and_stop_at_zero() {
        assert_eq!(step(Step::Delta(-3), 2), 0);
        assert_eq!(step(Step::Percent(10), 11), 13, "12.1");
        assert_eq!(step(Step::Percent(-25), 5), 4, "3.75");
        assert_eq!(step(Step::Percent(-400), 5), 0);
        assert_eq!(step(Step::Percent(i32::MAX), u32::MAX), u32::MAX);
        assert_eq!(step(Step::Count(7), 2), 7);
    }

    #[test]
    fn durations_read_well() {
        assert_eq!(seconds(Duration::from_millis(12_345)), "12 s");
        assert_eq!(seconds(Duration::from_millis(1_250)), "1.2 s");
        assert_eq!(seconds(Duration::from_secs(60)), "60 s");
    }

    #[test]
    fn foreign_text_is_cut_and_kept_on_one_line() {
        assert_eq!(shortened("a\nb"), "a b");
        assert_eq!(shortened(&"x".repeat(300)).chars().count(), MAX_TEXT + 1);
    }
}
