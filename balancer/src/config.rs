//! Settings of a pool: plain data, a reason beside each number.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::ConfigError;
use crate::limits::Limits;
use crate::locality::Locality;
use crate::policy::Policy;
use crate::slow_start::SlowStart;

/// Settings of a [`Pool`](crate::Pool).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Config {
    /// Who gets the next request.
    pub policy: Policy,
    /// When an endpoint is taken out, judged by requests, and when it comes back.
    pub health: Health,
    /// Active probes; `None` means that endpoints are ready as soon as they are known.
    pub probes: Option<Probes>,
    /// How the share of a new or recovered endpoint grows; `None`: it has its full share at once.
    pub slow_start: Option<SlowStart>,
    /// Where the balancer is, to prefer what is near; `None`: all endpoints are equally near.
    pub locality: Option<Locality>,
    /// How many requests an endpoint may have in flight. No limit by default.
    pub limits: Limits,
    /// Whether a reset to the empty set is ignored. Off by default: a feed must not turn its own failure into
    /// an empty set, so that an empty set is news and not an accident.
    pub refuse_empty_reset: bool,
}

impl Config {
    /// Sets the policy.
    #[must_use]
    pub fn policy(mut self, policy: impl Into<Policy>) -> Self {
        self.policy = policy.into();
        self
    }

    /// Sets the rules for requests.
    #[must_use]
    pub fn health(mut self, health: Health) -> Self {
        self.health = health;
        self
    }

    /// Switches active probes on.
    #[must_use]
    pub fn probes(mut self, probes: Probes) -> Self {
        self.probes = Some(probes);
        self
    }

    /// Has the share of new and recovered endpoints grow.
    #[must_use]
    pub fn slow_start(mut self, slow_start: SlowStart) -> Self {
        self.slow_start = Some(slow_start);
        self
    }

    /// Prefers what is near.
    #[must_use]
    pub fn locality(mut self, locality: Locality) -> Self {
        self.locality = Some(locality);
        self
    }

    /// Limits requests in flight per endpoint.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Sets whether a reset to the empty set is ignored.
    #[must_use]
    pub fn refuse_empty_reset(mut self, refuse: bool) -> Self {
        self.refuse_empty_reset = refuse;
        self
    }

    /// Checks every value. No duration may be longer than a day.
    ///
    /// # Errors
    /// Names the field, its value and the rule.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.policy.validate()?;
        self.health.validate()?;
        self.limits.validate()?;
        self.slow_start.as_ref().map_or(Ok(()), SlowStart::validate)?;
        self.locality.as_ref().map_or(Ok(()), Locality::validate)?;
        self.probes.as_ref().map_or(Ok(()), Probes::validate)
    }
}

/// Passive health: what is concluded from requests.
///
/// Failures are of two kinds. *Unreachable* (no connection) may take out any endpoint, even the last one: it
/// is kinder to hold a request than to send it to a dead address. *Failing* (5xx answers, connections that
/// break, answers that never come) takes one out only as far as the others can carry the load.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Health {
    /// Consecutive local failures (connect, reset, timeout) that eject. 2: one may be chance, the second in a
    /// row without a success in between hardly ever is.
    pub local_failures: u32,
    /// The longest gap between two failures that still counts as "in a row".
    pub local_window: Duration,
    /// Consecutive 5xx answers that eject (501 and 505 are no sign of ill health). 5, as in Envoy.
    pub server_errors: u32,
    /// The greatest share of endpoints ejected as failing, 0 to 1.
    pub max_ejected: f64,
    /// The least share of endpoints to keep usable, 0 to 1: below it nobody is ejected as failing, and who was
    /// is taken back.
    pub min_usable: f64,
    /// First pause of an unreachable endpoint before it is tried again. Short, so that a blip heals fast.
    pub unreachable_pause: Duration,
    /// The longest pause of an unreachable endpoint: one request a second at a dead address costs next to nothing.
    pub unreachable_pause_max: Duration,
    /// First pause of a failing endpoint.
    pub failing_pause: Duration,
    /// The longest pause of a failing endpoint.
    pub failing_pause_max: Duration,
    /// Whether endpoints whose success rate falls behind that of the others are taken out; `None` is not.
    pub success_rate: Option<SuccessRate>,
    /// How long an endpoint must have been well for its next ejection to count as the first one.
    pub forgive_after: Duration,
}

impl Default for Health {
    fn default() -> Self {
        Self {
            local_failures: 2,
            local_window: Duration::from_secs(10),
            server_errors: 5,
            max_ejected: 0.5,
            min_usable: 0.5,
            unreachable_pause: Duration::from_millis(250),
            unreachable_pause_max: Duration::from_secs(1),
            failing_pause: Duration::from_secs(2),
            failing_pause_max: Duration::from_secs(60),
            success_rate: Some(SuccessRate::default()),
            forgive_after: Duration::from_secs(30),
        }
    }
}

impl Health {
    fn validate(&self) -> Result<(), ConfigError> {
        at_least_one("health.local_failures", self.local_failures)?;
        at_least_one("health.server_errors", self.server_errors)?;
        share("health.max_ejected", self.max_ejected)?;
        share("health.min_usable", self.min_usable)?;
        self.success_rate.as_ref().map_or(Ok(()), SuccessRate::validate)?;
        at_most_a_day("health.unreachable_pause_max", self.unreachable_pause_max)?;
        at_most_a_day("health.failing_pause_max", self.failing_pause_max)?;
        for (field, pause, most) in [
            ("health.unreachable_pause", self.unreachable_pause, self.unreachable_pause_max),
            ("health.failing_pause", self.failing_pause, self.failing_pause_max),
        ] {
            if pause.is_zero() || pause > most {
                let rule = "a pause is above zero and not above its maximum";
                return Err(ConfigError::invalid(field, format_args!("{pause:?}"), rule));
            }
        }
        at_most_a_day("health.local_window", self.local_window)?;
        at_most_a_day("health.forgive_after", self.forgive_after)
    }

    /// How many of `members` must stay usable for an ejection as failing.
    pub(crate) fn must_stay(&self, members: usize) -> usize {
        let share = self.min_usable.max(1.0 - self.max_ejected);
        // The subtraction keeps 0.6 * 5 from being rounded up to 4 by the last bit of the product.
        (members as f64 * share - 1e-9).ceil().max(0.0) as usize
    }
}

/// Ejection of who answers clearly worse than the others, which errors in a row do not show: one failure in three.
///
/// After each interval an endpoint is taken out as failing whose share of good answers is below the mean of the others
/// by more than `margin` and by more than `deviations` times their standard deviation. Envoy's rule has the second half
/// only and needs five endpoints; the margin lets it work from two on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct SuccessRate {
    /// How long to count before comparing.
    pub interval: Duration,
    /// Who had fewer requests in an interval is not judged.
    pub min_requests: u32,
    /// The least gap to the mean of the others, 0 to 1.
    pub margin: f64,
    /// The least gap in standard deviations of the others. 1.9 as in Envoy.
    pub deviations: f64,
}

impl Default for SuccessRate {
    fn default() -> Self {
        Self { interval: Duration::from_secs(10), min_requests: 100, margin: 0.2, deviations: 1.9 }
    }
}

impl SuccessRate {
    fn validate(&self) -> Result<(), ConfigError> {
        at_least_one("health.success_rate.min_requests", self.min_requests)?;
        share("health.success_rate.margin", self.margin)?;
        if !(0.0..=100.0).contains(&self.deviations) {
            return Err(ConfigError::invalid(
                "health.success_rate.deviations",
                self.deviations,
                "from 0 to 100",
            ));
        }
        if self.interval < Duration::from_millis(100) {
            let value = format_args!("{:?}", self.interval);
            return Err(ConfigError::invalid("health.success_rate.interval", value, "100 ms or more"));
        }
        at_most_a_day("health.success_rate.interval", self.interval)
    }
}

/// When to probe, and what follows from the answers. How to probe is the caller's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Probes {
    /// From one probe of an endpoint to the next, jittered by a tenth either way. After a failure, of a probe or
    /// of a request, the next one is made at once, but no sooner than 100 ms after the last.
    pub interval: Duration,
    /// How long a probe may take.
    pub timeout: Duration,
    /// Failed probes in a row that eject.
    pub unhealthy_after: u32,
    /// Passed probes in a row that bring back.
    pub healthy_after: u32,
}

impl Default for Probes {
    /// A dead machine sends nothing: two probes of half a second bound what that costs to about a second.
    fn default() -> Self {
        Self {
            interval: Duration::from_millis(500),
            timeout: Duration::from_millis(500),
            unhealthy_after: 2,
            healthy_after: 1,
        }
    }
}

impl Probes {
    /// Sets the time from one probe to the next.
    #[must_use]
    pub fn interval(mut self, interval: Duration) -> Self {
        self.interval = interval;
        self
    }

    /// Sets how long a probe may take.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sets the failed probes in a row that eject.
    #[must_use]
    pub fn unhealthy_after(mut self, probes: u32) -> Self {
        self.unhealthy_after = probes;
        self
    }

    /// Sets the passed probes in a row that bring back.
    #[must_use]
    pub fn healthy_after(mut self, probes: u32) -> Self {
        self.healthy_after = probes;
        self
    }

    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        at_least_one("probes.unhealthy_after", self.unhealthy_after)?;
        at_least_one("probes.healthy_after", self.healthy_after)?;
        for (field, value) in [("probes.interval", self.interval), ("probes.timeout", self.timeout)] {
            if value < Duration::from_millis(10) {
                return Err(ConfigError::invalid(field, format_args!("{value:?}"), "10 ms or more"));
            }
            at_most_a_day(field, value)?;
        }
        Ok(())
    }
}

fn at_least_one(field: &'static str, value: u32) -> Result<(), ConfigError> {
    if value == 0 { Err(ConfigError::invalid(field, value, "1 or more")) } else { Ok(()) }
}

/// Longer than any of these makes sense, and short enough that no sum of times overflows.
pub(crate) fn at_most_a_day(field: &'static str, value: Duration) -> Result<(), ConfigError> {
    const DAY: Duration = Duration::from_secs(24 * 60 * 60);
    if value <= DAY {
        return Ok(());
    }
    Err(ConfigError::invalid(field, format_args!("{value:?}"), "one day at most"))
}

pub(crate) fn share(field: &'static str, value: f64) -> Result<(), ConfigError> {
    if (0.0..=1.0).contains(&value) { Ok(()) } else { Err(ConfigError::invalid(field, value, "from 0 to 1")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::P2cPeakEwma;

    #[test]
    fn default_is_valid_and_errors_name_the_field() {
        Config::default().validate().unwrap();
        let health = Health { max_ejected: 1.5, ..Health::default() };
        let error = Config::default().health(health).validate().unwrap_err();
        assert_eq!(error.to_string(), "config health.max_ejected = 1.5 can't be used: from 0 to 1");
        let none = Config::default().probes(Probes::default().unhealthy_after(0)).validate();
        assert!(none.unwrap_err().to_string().contains("probes.unhealthy_after = 0"));
        for (field, config) in endless() {
            let error = config.validate().unwrap_err().to_string();
            assert!(error.starts_with(&format!("config {field} = ")), "{error}");
            assert!(error.ends_with(": one day at most"), "{error}");
        }
    }

    fn endless() -> Vec<(&'static str, Config)> {
        let long = Duration::MAX;
        let health = |health: Health| Config::default().health(health);
        let probes = |probes: Probes| Config::default().probes(probes);
        let policy = |policy: P2cPeakEwma| Config::default().policy(policy);
        let (h, p) = (Health::default, P2cPeakEwma::default);
        vec![
            ("health.local_window", health(Health { local_window: long, ..h() })),
            ("health.unreachable_pause_max", health(Health { unreachable_pause_max: long, ..h() })),
            ("health.failing_pause_max", health(Health { failing_pause_max: long, ..h() })),
            ("health.forgive_after", health(Health { forgive_after: long, ..h() })),
            ("probes.interval", probes(Probes::default().interval(long))),
            ("probes.timeout", probes(Probes::default().timeout(long))),
            ("policy.decay", policy(P2cPeakEwma { decay: long, ..p() })),
            ("policy.floor", policy(P2cPeakEwma { floor: long, ..p() })),
            ("policy.failure_penalty", policy(P2cPeakEwma { failure_penalty: long, ..p() })),
            ("policy.penalty_decay", policy(P2cPeakEwma { penalty_decay: long, ..p() })),
        ]
    }

    #[test]
    fn must_stay_rounds_up() {
        let health = Health { max_ejected: 0.4, min_usable: 0.2, ..Health::default() };
        assert_eq!([0, 1, 2, 3, 5, 10].map(|n| health.must_stay(n)), [0, 1, 2, 2, 3, 6]);
    }
}
