//! One proposal for each signal, or why it has none.

use std::time::Duration;

use crate::decision::{Ballot, Vote};
use crate::observation::{Observation, Reading};
use crate::policy::{Policy, SignalPolicy, Target, Tolerance};
use crate::state::State;

/// The votes of all signals, in the policy's order. Notes in the state which signals are known.
pub(crate) fn collect(policy: &Policy, state: &mut State, observation: &Observation) -> Vec<Vote> {
    let mut votes = Vec::with_capacity(policy.signals.len());
    for signal in &policy.signals {
        let ballot = match usable(signal, observation) {
            Ok((value, at)) => {
                state.knows(&signal.name, at.min(observation.now));
                let (replicas, within) = propose(signal.target, signal.tolerance, value, observation);
                Ballot::Proposes { value, replicas, within }
            }
            Err(why) => {
                let last = state.last_known(&signal.name);
                Ballot::Unknown { why, elapsed: last.map(|at| observation.now.saturating_sub(at)) }
            }
        };
        votes.push(Vote { signal: signal.name.clone(), target: signal.target, ballot });
    }
    votes
}

/// When the first of the values in use will be too old, if that is before `latest`.
pub(crate) fn valid_until(policy: &Policy, observation: &Observation, latest: Duration) -> Duration {
    let ends = policy.signals.iter().filter_map(|signal| {
        let (_, at) = usable(signal, observation).ok()?;
        Some(at.min(observation.now).saturating_add(signal.max_age))
    });
    ends.fold(latest, Duration::min)
}

/// The one value of a signal, or why it can't be used.
fn usable(signal: &SignalPolicy, observation: &Observation) -> Result<(f64, Duration), String> {
    let now = observation.now;
    let mut readings = observation.readings.iter().filter(|(name, _)| *name == signal.name);
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
        Reading::Value { at, .. } if now.saturating_sub(at) >= signal.max_age => Err(old(at)),
        Reading::Value { at, .. } if at.saturating_sub(now) > signal.max_age => {
            Err(format!("its time lies {} in the future", seconds(at.saturating_sub(now))))
        }
        Reading::Value { value, at } => Ok((value, at)),
        Reading::NoData => Err("the source has no data".to_owned()),
        Reading::Stale { at } => Err(old(at)),
        Reading::Error(ref why) => Err(shortened(why)),
    }
}

/// How many instances a value asks for, and the tolerance that kept the present count, if it did.
fn propose(
    target: Target,
    tolerance: Tolerance,
    value: f64,
    observation: &Observation,
) -> (u32, Option<u32>) {
    let current = observation.current;
    let per_target = value / target.value();
    if current == 0 {
        return (count(per_target), None);
    }
    let aim = match target {
        Target::AveragePerInstance(each) => each * f64::from(current),
        Target::Total(all) => all,
    };
    // Percent against percent: 1.1 is within 10 % of 1, which a comparison of quotients can deny.
    let (load, percent) = (value / aim, value * 100.0);
    if percent >= 100.0 * aim && percent <= f64::from(100 + tolerance.up) * aim {
        return (current, Some(tolerance.up));
    }
    if percent < 100.0 * aim && percent >= f64::from(100u32.saturating_sub(tolerance.down)) * aim {
        return (current, Some(tolerance.down));
    }
    match target {
        Target::AveragePerInstance(_) => (count(per_target), None),
        Target::Total(_) if load > 1.0 => {
            let ready = observation.ready.min(current);
            (count(load * f64::from(ready)).max(current), None)
        }
        Target::Total(_) => (count(load * f64::from(current)), None),
    }
}

/// Rounds up to a count; saturates. A quotient a hair above an integer is that integer: 3.3 / 1.1 is 3, not 4.
fn count(instances: f64) -> u32 {
    (instances * (1.0 - 1e-12)).ceil() as u32
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

#[cfg(test)]
mod tests {
    use super::*;

    fn proposal(target: Target, value: f64, current: u32, ready: u32) -> (u32, Option<u32>) {
        let observation = Observation::new(Duration::ZERO, current).ready(ready);
        propose(target, Tolerance::default(), value, &observation)
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
