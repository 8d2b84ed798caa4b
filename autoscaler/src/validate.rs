//! What makes a policy valid. Every broken rule is reported, not the first alone.

use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use crate::behavior::{Direction, RateLimit};
use crate::policy::{Policy, SignalPolicy};

/// One broken rule of a policy: the field, its value and the rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} is {value}, but {rule}")]
#[non_exhaustive]
pub struct PolicyError {
    /// The path of the field, such as `behavior.up.limits[0].period`.
    pub field: String,
    /// The value found there.
    pub value: String,
    /// The rule that it breaks.
    pub rule: String,
}

/// All broken rules of a policy; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyErrors(Vec<PolicyError>);

impl PolicyErrors {
    /// The broken rules, in the order of the policy's fields.
    pub fn iter(&self) -> std::slice::Iter<'_, PolicyError> {
        self.0.iter()
    }
}

impl fmt::Display for PolicyErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the policy can't be used: ")?;
        for (index, error) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            write!(f, "{separator}{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for PolicyErrors {}

impl IntoIterator for PolicyErrors {
    type Item = PolicyError;
    type IntoIter = std::vec::IntoIter<PolicyError>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<'a> IntoIterator for &'a PolicyErrors {
    type Item = &'a PolicyError;
    type IntoIter = std::slice::Iter<'a, PolicyError>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

impl Policy {
    /// Checks every rule.
    ///
    /// # Errors
    /// All rules that are broken, each with field, value and rule.
    pub fn validate(&self) -> Result<(), PolicyErrors> {
        let mut check = Check(Vec::new());
        check.rule(self.max >= 1, || "max".into(), &self.max, "it must be at least 1");
        check.rule(self.min <= self.max, || "min".into(), &self.min, "it must not exceed max");
        let count = self.signals.len();
        check.rule(count <= MAX_SIGNALS, || "signals".into(), &count, "at most 16 are allowed");
        for (index, signal) in self.signals.iter().enumerate() {
            check.signal(index, signal);
            let twice = self.signals.iter().take(index).any(|earlier| earlier.name == signal.name);
            check.rule(!twice, || format!("signals[{index}].name"), &signal.name, "each name may occur once");
        }
        check.direction("up", &self.behavior.up, 1..=10_000);
        check.direction("down", &self.behavior.down, 1..=100);
        if let Some(burst) = &self.burst {
            check.within("burst.window", burst.window, Duration::from_secs(1), MAX_WINDOW);
            let allowed = (110..=1000).contains(&burst.threshold);
            let rule = "it must be 110 to 1000 percent";
            check.rule(allowed, || "burst.threshold".into(), &burst.threshold, rule);
        }
        check.within("max_gap", self.max_gap, Duration::from_secs(1), MAX_WINDOW);
        if check.0.is_empty() { Ok(()) } else { Err(PolicyErrors(check.0)) }
    }
}

struct Check(Vec<PolicyError>);

impl Check {
    fn rule(&mut self, holds: bool, field: impl FnOnce() -> String, value: &dyn fmt::Display, rule: &str) {
        if !holds {
            self.0.push(PolicyError { field: field(), value: value.to_string(), rule: rule.to_owned() });
        }
    }

    fn within(&mut self, field: &str, value: Duration, low: Duration, high: Duration) {
        if value < low || value > high {
            self.0.push(PolicyError {
                field: field.to_owned(),
                value: format!("{} s", value.as_secs_f64()),
                rule: format!("it must be {} to {} s", low.as_secs_f64(), high.as_secs_f64()),
            });
        }
    }

    fn signal(&mut self, index: usize, signal: &SignalPolicy) {
        let name = &signal.name;
        let readable = !name.is_empty() && name.len() <= 64 && !name.chars().any(char::is_control);
        let rule = "it must be 1 to 64 bytes without control characters";
        self.rule(readable, || format!("signals[{index}].name"), &format!("{name:?}"), rule);
        let target = signal.target.value();
        let allowed = target.is_finite() && (MIN_TARGET..=MAX_TARGET).contains(&target);
        let rule = "it must be a number from 1e-9 to 1e15";
        self.rule(allowed, || format!("signals[{index}].target"), &target, rule);
        let tolerance = signal.tolerance;
        let rule = "it must be at most 1000 percent";
        self.rule(tolerance.up <= 1000, || format!("signals[{index}].tolerance.up"), &tolerance.up, rule);
        let rule = "it must be at most 100 percent";
        self.rule(
            tolerance.down <= 100,
            || format!("signals[{index}].tolerance.down"),
            &tolerance.down,
            rule,
        );
        if signal.max_age.is_zero() || signal.max_age > MAX_WINDOW {
            let field = format!("signals[{index}].max_age");
            self.within(&field, signal.max_age, Duration::from_nanos(1), MAX_WINDOW);
        }
    }

    fn direction(&mut self, name: &str, direction: &Direction, percent: RangeInclusive<u32>) {
        if direction.stabilization > MAX_WINDOW {
            let field = format!("behavior.{name}.stabilization");
            self.within(&field, direction.stabilization, Duration::ZERO, MAX_WINDOW);
        }
        let count = direction.limits.len();
        let field = || format!("behavior.{name}.limits");
        self.rule(count <= MAX_LIMITS, field, &count, "at most 8 are allowed");
        for (index, limit) in direction.limits.iter().enumerate() {
            let field = |part: &str| format!("behavior.{name}.limits[{index}].{part}");
            match *limit {
                RateLimit::Count { n, .. } => {
                    let rule = "it must be at least 1 (to close a direction, select disabled)";
                    self.rule(n >= 1, || field("n"), &n, rule);
                }
                RateLimit::Percent { p, .. } => {
                    let rule = format!("it must be {} to {} percent", percent.start(), percent.end());
                    self.rule(percent.contains(&p), || field("p"), &p, &rule);
                }
            }
            let period = limit.period();
            if period < MIN_PERIOD || period > MAX_PERIOD {
                self.within(&field("period"), period, MIN_PERIOD, MAX_PERIOD);
            }
        }
    }
}

/// More signals than anybody reads.
const MAX_SIGNALS: usize = 16;
const MAX_LIMITS: usize = 8;
/// The windows and periods that the Horizontal Pod Autoscaler allows.
const MAX_WINDOW: Duration = Duration::from_secs(3600);
const MIN_PERIOD: Duration = Duration::from_secs(1);
const MAX_PERIOD: Duration = Duration::from_secs(1800);
/// Targets outside of this leave no precision for a ratio.
const MIN_TARGET: f64 = 1e-9;
const MAX_TARGET: f64 = 1e15;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{Burst, Target};

    #[test]
    fn the_defaults_are_valid() {
        assert_eq!(Policy::default().validate(), Ok(()));
        assert_eq!(Policy::balanced("in_flight", 70.0).validate(), Ok(()));
    }

    #[test]
    fn every_broken_rule_is_named_with_its_value() {
        let policy = Policy::balanced("in_flight", f64::NAN)
            .bounds(5, 4)
            .signal(SignalPolicy::new("in_flight", Target::Total(1.0)).max_age(Duration::ZERO))
            .up(Direction::new().limit(RateLimit::Count { n: 0, period: Duration::ZERO }))
            .down(Direction::new().limit(RateLimit::Percent { p: 101, period: MIN_PERIOD }))
            .burst(Some(Burst::new(Duration::from_secs(5), 100)));
        let errors = policy.validate().unwrap_err();
        let fields: Vec<&str> = errors.iter().map(|error| error.field.as_str()).collect();
        assert_eq!(
            fields,
            [
                "min",
                "signals[0].target",
                "signals[1].max_age",
                "signals[1].name",
                "behavior.up.limits[0].n",
                "behavior.up.limits[0].period",
                "behavior.down.limits[0].p",
                "burst.threshold",
            ]
        );
        let first = errors.iter().next().unwrap();
        assert_eq!(first.to_string(), "min is 5, but it must not exceed max");
    }

    #[test]
    fn no_duration_is_without_end() {
        let end = Duration::MAX;
        let direction = || Direction::new().stabilization(end).limit(RateLimit::Count { n: 1, period: end });
        let policy = Policy::balanced("in_flight", 70.0)
            .signal(SignalPolicy::new("other", Target::Total(1.0)).max_age(end))
            .up(direction())
            .down(direction())
            .burst(Some(Burst::new(end, 200)))
            .max_gap(end);
        let errors = policy.validate().unwrap_err();
        let fields: Vec<&str> = errors.iter().map(|error| error.field.as_str()).collect();
        assert_eq!(
            fields,
            [
                "signals[1].max_age",
                "behavior.up.stabilization",
                "behavior.up.limits[0].period",
                "behavior.down.stabilization",
                "behavior.down.limits[0].period",
                "burst.window",
                "max_gap",
            ]
        );
    }

    #[test]
    fn policies_are_written_by_hand_in_seconds_and_unknown_fields_are_refused() {
        let text = r#"{"min": 2, "signals": [{"name": "in_flight", "target": {"average_per_instance": 70}}],
            "behavior": {"up": {"limits": [{"count": {"n": 4, "period": 15}}]}, "down": {"stabilization": 90.5}}}"#;
        let policy: Policy = serde_json::from_str(text).unwrap();
        assert_eq!(policy.behavior.down.stabilization, Duration::from_millis(90_500));
        assert_eq!(policy.behavior.up.limits, [RateLimit::Count { n: 4, period: Duration::from_secs(15) }]);
        let again: Policy = serde_json::from_str(&serde_json::to_string(&policy).unwrap()).unwrap();
        assert_eq!(again, policy);
        assert!(serde_json::from_str::<Policy>(r#"{"minimum": 2}"#).is_err());
        assert!(serde_json::from_str::<Policy>(r#"{"max_gap": -1}"#).is_err());
    }
}
