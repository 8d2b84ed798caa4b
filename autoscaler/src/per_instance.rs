//! Readings per instance: which instances count, and what stands in for those that gave no number.
//!
//! The rules and their order are those of the Horizontal Pod Autoscaler's replica calculator.

use std::time::Duration;

use crate::observation::{Instance, Observation, Phase, Sample};
use crate::policy::{Compat, Readiness, SignalPolicy, Target};
use crate::vote::{count, within};

/// A proposal from one number per instance.
#[derive(Debug, PartialEq)]
pub(crate) struct Outcome {
    /// The sum of the numbers that counted as read.
    pub(crate) value: f64,
    pub(crate) replicas: u32,
    pub(crate) within: Option<u32>,
}

/// The proposal, or why there is none.
pub(crate) fn propose(
    signal: &SignalPolicy,
    compat: Compat,
    observation: &Observation,
    window: Duration,
    at: Duration,
    samples: &[Sample],
) -> Result<Outcome, String> {
    let current = observation.current;
    let groups = Groups::of(signal.readiness, observation, window, at, samples)?;
    if groups.ready.is_empty() {
        return Err("no instance that is ready gave a number".to_owned());
    }
    let ratio = |numbers: &[Number]| ratio(signal.target, compat, numbers);
    let first = ratio(&groups.ready)?;
    let value = groups.ready.iter().map(|number| number.value).sum();
    let outcome = |replicas, within| Ok(Outcome { value, replicas, within });
    let fill_unready = !groups.unready.is_empty() && first > 1.0;
    if !fill_unready && groups.missing.is_empty() {
        if let Some(percent) = within(signal.tolerance, compat, first, 1.0) {
            return outcome(current, Some(percent));
        }
        return outcome(count(first * groups.ready.len() as f64), None);
    }
    // What would make the move smaller: up, the absent use nothing; down, they use all that they may.
    let mut numbers = groups.ready;
    if first < 1.0 {
        numbers.extend(groups.missing.iter().map(|number| number.full(signal.target)));
    } else if first > 1.0 {
        numbers.extend(groups.missing.iter().map(|number| Number { value: 0.0, ..*number }));
    }
    if fill_unready {
        numbers.extend(groups.unready.iter().map(|number| Number { value: 0.0, ..*number }));
    }
    let again = ratio(&numbers)?;
    if let Some(percent) = within(signal.tolerance, compat, again, 1.0) {
        return outcome(current, Some(percent));
    }
    if (first < 1.0 && again > 1.0) || (first > 1.0 && again < 1.0) {
        return outcome(current, None);
    }
    let replicas = count(again * numbers.len() as f64);
    let wrong_side = (again < 1.0 && replicas > current) || (again > 1.0 && replicas < current);
    outcome(if wrong_side { current } else { replicas }, None)
}

/// What an instance uses, of what it asked for.
#[derive(Clone, Copy, Debug)]
struct Number {
    value: f64,
    request: f64,
}

impl Number {
    /// All that an instance may use: what it asked for, or more where the target is more.
    fn full(self, target: Target) -> Self {
        let value = match target {
            Target::Utilization(percent) => self.request * f64::from(percent.max(100)) / 100.0,
            other => other.value(),
        };
        Self { value, ..self }
    }
}

#[derive(Default)]
struct Groups {
    ready: Vec<Number>,
    unready: Vec<Number>,
    missing: Vec<Number>,
}

impl Groups {
    fn of(
        readiness: Option<Readiness>,
        observation: &Observation,
        window: Duration,
        at: Duration,
        samples: &[Sample],
    ) -> Result<Self, String> {
        let mut groups = Self::default();
        // One that gave no number still asked for something: what the others asked for on average.
        let asked: Vec<f64> = samples.iter().filter_map(|sample| sample.request).collect();
        let usual = if asked.is_empty() { 1.0 } else { asked.iter().sum::<f64>() / asked.len() as f64 };
        let absent = Number { value: 0.0, request: usual };
        for instance in &observation.instances {
            if matches!(instance.phase, Phase::Stopping | Phase::Failed) {
                continue;
            }
            let sample = samples.iter().find(|sample| sample.instance == instance.id);
            let number = match sample {
                Some(sample) if !sample.value.is_finite() || sample.value < 0.0 => {
                    return Err(format!(
                        "the value of {} was {}, which is no amount of load",
                        crate::vote::shortened(&sample.instance),
                        sample.value
                    ));
                }
                Some(sample) => Number { value: sample.value, request: sample.request.unwrap_or(usual) },
                None => absent,
            };
            if instance.phase == Phase::Pending {
                groups.unready.push(number);
            } else if sample.is_none() {
                groups.missing.push(number);
            } else if readiness.is_some_and(|rules| is_unready(rules, instance, observation.now, window, at))
            {
                groups.unready.push(number);
            } else {
                groups.ready.push(number);
            }
        }
        Ok(groups)
    }
}

fn is_unready(rules: Readiness, instance: &Instance, now: Duration, window: Duration, at: Duration) -> bool {
    let (Some(started), Some(ready), Some(changed)) =
        (instance.started, instance.ready, instance.ready_changed)
    else {
        return true;
    };
    if started.saturating_add(rules.initialization) > now {
        return !ready || at < changed.saturating_add(window);
    }
    !ready && started.saturating_add(rules.delay) > changed
}

/// The numbers against the target.
fn ratio(target: Target, compat: Compat, numbers: &[Number]) -> Result<f64, String> {
    let sum: f64 = numbers.iter().map(|number| number.value).sum();
    match target {
        Target::Utilization(percent) => {
            let asked: f64 = numbers.iter().map(|number| number.request).sum();
            if !(asked.is_finite() && asked > 0.0) {
                return Err("the instances asked for nothing, so there is no share of it".to_owned());
            }
            let used = 100.0 * sum / asked;
            let used = if compat == Compat::Hpa { used.floor() } else { used };
            Ok(used / f64::from(percent))
        }
        other => {
            let mean = sum / numbers.len() as f64;
            // The original counts in thousandths.
            let mean = if compat == Compat::Hpa { (mean * 1000.0).floor() / 1000.0 } else { mean };
            Ok(mean / other.value())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// Instances by one letter each: r(eady), u(nready: pending), m(issing), s(topping); each uses `value` of 100.
    fn case(pattern: &str, value: f64, target: Target, compat: Compat) -> Result<(u32, Option<u32>), String> {
        let (mut instances, mut samples) = (Vec::new(), Vec::new());
        for (index, kind) in pattern.chars().enumerate() {
            let id = format!("web.{index}");
            let phase = match kind {
                'u' => Phase::Pending,
                's' => Phase::Stopping,
                _ => Phase::Running,
            };
            instances.push(Instance::new(&id).phase(phase));
            if kind == 'r' || kind == 's' {
                samples.push(Sample::new(id, value).of(100.0));
            }
        }
        let current = u32::try_from(pattern.chars().filter(|c| *c != 's').count()).unwrap();
        let observation = Observation::new(at(1000), current).instances(instances);
        let signal = SignalPolicy::new("cpu", target);
        let outcome = propose(&signal, compat, &observation, at(60), at(1000), &samples)?;
        Ok((outcome.replicas, outcome.within))
    }

    #[test]
    fn the_horizontal_pod_autoscalers_table() {
        let half = Target::Utilization(50);
        for (pattern, value, expected) in [
            // Plain: ratio 1.5 of 4 is 6; 0.5 of 4 is 2; 1.1 is inside the band.
            ("rrrr", 75.0, (6, None)),
            ("rrrr", 25.0, (2, None)),
            ("rrrr", 55.0, (4, Some(10))),
            // Two are missing: up they count with nothing (75 * 2 / 4 is inside: 37.5 flips), so hold.
            ("rrmm", 75.0, (4, None)),
            // Up with one of four missing: 100 * 3 / 400 = 75 %, 1.5 * 4 = 6 instead of 8.
            ("rrrm", 100.0, (6, None)),
            // Down with one missing of four: (3 * 10 + 100) / 400 = 32 %, 0.65 * 4 = 3 instead of 1.
            ("rrrm", 10.0, (3, None)),
            // Unready ones count with nothing on the way up and not at all on the way down.
            ("rruu", 100.0, (4, Some(10))),
            ("rrru", 100.0, (6, None)),
            ("rrru", 20.0, (2, None)),
            // What is stopping counts for nothing.
            ("rrss", 75.0, (3, None)),
        ] {
            assert_eq!(case(pattern, value, half, Compat::Own), Ok(expected), "{pattern} at {value}");
        }
    }

    #[test]
    fn a_mean_is_held_against_a_target_per_instance() {
        let each = Target::AveragePerInstance(30.0);
        assert_eq!(case("rrr", 60.0, each, Compat::Own), Ok((6, None)));
        assert_eq!(case("rrm", 60.0, each, Compat::Own), Ok((4, None)), "40 on average of three");
        assert_eq!(case("rrm", 10.0, each, Compat::Own), Ok((2, None)), "a missing one has its target");
    }

    #[test]
    fn the_original_cuts_percentages() {
        // 70.9 % is 70 % there: within 10 % of 64; above here.
        assert_eq!(case("rr", 70.9, Target::Utilization(64), Compat::Hpa), Ok((2, Some(10))));
        assert_eq!(case("rr", 70.9, Target::Utilization(64), Compat::Own), Ok((3, None)));
    }

    #[test]
    fn without_a_number_there_is_no_proposal() {
        assert!(case("mm", 1.0, Target::Utilization(50), Compat::Own).is_err());
        assert!(case("uu", 1.0, Target::Utilization(50), Compat::Own).is_err());
        let error = case("r", f64::NAN, Target::Utilization(50), Compat::Own).unwrap_err();
        assert_eq!(error, "the value of web.0 was NaN, which is no amount of load");
    }

    #[test]
    fn an_instance_that_is_starting_counts_as_unready_for_cpu() {
        let rules = Readiness::default();
        let unready =
            |instance: Instance, sample_at| is_unready(rules, &instance, at(1000), at(30), at(sample_at));
        assert!(unready(Instance::new("a"), 1000), "nothing is known of it");
        let young = || Instance::new("a").started(at(900));
        assert!(unready(young().ready(false, at(910)), 1000));
        assert!(unready(young().ready(true, at(980)), 1000), "its sample began before it was ready");
        assert!(!unready(young().ready(true, at(970)), 1000));
        let old = || Instance::new("a").started(at(100));
        assert!(unready(old().ready(false, at(110)), 1000), "it never was ready");
        assert!(!unready(old().ready(false, at(900)), 1000), "it was ready before");
        assert!(!unready(old().ready(true, at(900)), 1000));
    }
}
