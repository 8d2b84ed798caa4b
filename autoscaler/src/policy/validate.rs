//! What makes a policy valid. Every broken rule is reported, not the first alone.

use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::{Direction, Model, Pause, Policy, RateLimit, SignalPolicy, Target};

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
        check.direction("up", &self.behavior.up, 1..=100_000);
        check.direction("down", &self.behavior.down, 1..=100);
        if let Some(burst) = &self.burst {
            check.within("burst.window", burst.window, Duration::from_secs(1), MAX_WINDOW);
            let allowed = (110..=1000).contains(&burst.threshold);
            let rule = "it must be 110 to 1000 percent";
            check.rule(allowed, || "burst.threshold".into(), &burst.threshold, rule);
            check.at_most("burst.short_window", burst.short_window, MAX_WINDOW);
        }
        check.within("max_gap", self.max_gap, Duration::from_secs(1), MAX_WINDOW);
        check.rest(self);
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

    fn at_most(&mut self, field: &str, value: Duration, high: Duration) {
        if value > high {
            self.within(field, value, Duration::ZERO, high);
        }
    }

    /// What came after the signals and the behaviour.
    fn rest(&mut self, policy: &Policy) {
        let windows = policy.signals.iter().filter(|signal| !signal.window.is_zero()).count();
        self.rule(windows <= MAX_WINDOWS, || "signals".into(), &windows, "at most 2 may have a window");
        if let Some(zero) = &policy.zero {
            self.at_most("zero.idle_for", zero.idle_for, MAX_WINDOW);
            self.at_most("zero.grace", zero.grace, MAX_WINDOW);
            let idle = zero.idle_replicas;
            let rule = "it must be below min (for a service without a minimum, leave zero out)";
            self.rule(idle < policy.min, || "zero.idle_replicas".into(), &idle, rule);
            let rule = "it must not exceed max";
            let active = zero.activation_replicas;
            self.rule(active <= policy.max, || "zero.activation_replicas".into(), &active, rule);
        }
        if let Some(forecast) = &policy.forecast {
            self.within("forecast.step", forecast.step, Duration::from_secs(1), MAX_WINDOW);
            let farthest = forecast.step.saturating_mul(MAX_STEPS_AHEAD).max(Duration::from_secs(1));
            self.within("forecast.horizon", forecast.horizon, Duration::from_secs(1), farthest);
            self.at_most("forecast.batch", forecast.batch, MAX_WINDOW);
            self.model(&forecast.model);
            if let Some(name) = &forecast.signal {
                let known = policy.signals.iter().any(|signal| {
                    signal.name == *name && matches!(signal.target, Target::AveragePerInstance(_))
                });
                let rule = "it must name a signal with a target per instance";
                self.rule(known, || "forecast.signal".into(), name, rule);
            }
        }
        if let Some(budget) = &policy.flap_budget {
            let rule = "it must be 1 to 32";
            self.rule((1..=32).contains(&budget.turns), || "flap_budget.turns".into(), &budget.turns, rule);
            self.within("flap_budget.period", budget.period, Duration::from_secs(1), MAX_BUDGET_PERIOD);
        }
        if let Some(calm) = &policy.calm {
            self.within("calm.period", calm.period, Duration::from_secs(1), MAX_BUDGET_PERIOD);
            self.at_most("calm.longest", calm.longest, MAX_WINDOW);
            self.at_most("calm.known", calm.known, MAX_WINDOW);
        }
        if let Some(surge) = &policy.surge {
            self.within("surge.patience", surge.patience, Duration::from_secs(1), MAX_WINDOW);
        }
        if let Some(drain) = &policy.drain {
            self.at_most("drain.deadline", drain.deadline, MAX_WINDOW);
        }
        let count = policy.schedule.len();
        self.rule(count <= MAX_LIMITS, || "schedule".into(), &count, "at most 8 are allowed");
        for (index, window) in policy.schedule.iter().enumerate() {
            let offset = window.utc_offset_minutes;
            let field = || format!("schedule[{index}].utc_offset_minutes");
            self.rule(offset.unsigned_abs() <= 14 * 60, field, &offset, "it must be -840 to 840");
        }
        if let Some(Pause::At(replicas)) = policy.pause {
            let rule = "it must not exceed max";
            self.rule(replicas <= policy.max, || "pause.at".into(), &replicas, rule);
        }
        if let Some(capacity) = policy.burst_capacity {
            let allowed = capacity.is_finite() && (0.0..=MAX_TARGET).contains(&capacity);
            self.rule(allowed, || "burst_capacity".into(), &capacity, "it must be 0 to 1e15");
        }
    }

    fn model(&mut self, model: &Model) {
        let (steps, weights) = match *model {
            Model::Recurring => return,
            Model::Seasonal { steps } => {
                self.rule(
                    steps >= 1,
                    || "forecast.model.seasonal.steps".into(),
                    &steps,
                    "it must be 1 to 120",
                );
                (steps, [0.0; 3])
            }
            Model::HoltWinters { steps, level, trend, season } => (steps, [level, trend, season]),
        };
        let field = || "forecast.model.steps".into();
        self.rule(steps <= Model::HISTORY / 2, field, &steps, "at most 120 are allowed");
        for (name, weight) in ["level", "trend", "season"].into_iter().zip(weights) {
            let field = || format!("forecast.model.holt_winters.{name}");
            self.rule((0.0..=1.0).contains(&weight), field, &weight, "it must be 0 to 1");
        }
    }

    fn target(&mut self, index: usize, target: Target) {
        let field = |part: &str| format!("signals[{index}].target{part}");
        match target {
            Target::AveragePerInstance(value) | Target::Total(value) | Target::Guard(value) => {
                let allowed = value.is_finite() && (MIN_TARGET..=MAX_TARGET).contains(&value);
                self.rule(allowed, || field(""), &value, "it must be a number from 1e-9 to 1e15");
            }
            Target::Utilization(percent) => {
                let rule = "it must be 1 to 100000 percent";
                self.rule((1..=100_000).contains(&percent), || field(""), &percent, rule);
            }
            Target::Count | Target::Fixed(_) => {}
            Target::Threshold(band) => {
                let allowed = band.lower.is_finite() && band.upper.is_none_or(|upper| upper > band.lower);
                self.rule(
                    allowed,
                    || field(".threshold.lower"),
                    &band.lower,
                    "it must be a number below upper",
                );
                let rule = "it must be 1 to 20";
                let samples = band.samples;
                self.rule((1..=20).contains(&samples), || field(".threshold.samples"), &samples, rule);
                self.within(&field(".threshold.within"), band.within, MIN_PERIOD, MAX_WINDOW);
            }
        }
    }

    fn signal(&mut self, index: usize, signal: &SignalPolicy) {
        let name = &signal.name;
        let readable = !name.is_empty() && name.len() <= 64 && !name.chars().any(char::is_control);
        let rule = "it must be 1 to 64 bytes without control characters";
        self.rule(readable, || format!("signals[{index}].name"), &format!("{name:?}"), rule);
        self.target(index, signal.target);
        self.at_most(&format!("signals[{index}].window"), signal.window, MAX_WINDOW);
        let active = signal.activation.is_finite() && signal.activation >= 0.0;
        let rule = "it must be a number from 0";
        self.rule(active, || format!("signals[{index}].activation"), &signal.activation, rule);
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
        if direction.cooldown > MAX_WINDOW {
            let field = format!("behavior.{name}.cooldown");
            self.within(&field, direction.cooldown, Duration::ZERO, MAX_WINDOW);
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
/// Each is a buffer in the state.
const MAX_WINDOWS: usize = 2;
/// A forecast over half of what is remembered is none.
const MAX_STEPS_AHEAD: u32 = 60;
/// A budget is for the hour or the day.
const MAX_BUDGET_PERIOD: Duration = Duration::from_secs(24 * 3600);
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
    use crate::policy::Burst;

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
