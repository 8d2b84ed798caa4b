//! What is looked at, what it should be, and how a number becomes a proposal.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::seconds;

/// One number to look at, and what it should be.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct SignalPolicy {
    /// The name of its [`Reading`](crate::Reading), also used in sentences with `_` read as a space.
    pub name: String,
    /// What it should be.
    pub target: Target,
    /// The name of the reading, where two signals look at the same one; `None` for the signal's own name.
    #[serde(default)]
    pub reading: Option<String>,
    /// How far it may be off before anything moves.
    #[serde(default)]
    pub tolerance: Tolerance,
    /// A value of this age or older is not used: the signal is unknown. In serialised form: seconds.
    #[serde(default = "default_max_age", with = "seconds")]
    pub max_age: Duration,
    /// Use the mean of the values read within this time instead of the newest; zero uses the newest. Times without a
    /// reading are left out of the mean, not taken for zero. At most two signals of a policy may have a window. In
    /// serialised form: seconds.
    #[serde(default, with = "seconds")]
    pub window: Duration,
    /// The service is active while any signal is above this, in the signal's own unit and strictly. Only looked at by
    /// [`Zero`](super::Zero).
    #[serde(default)]
    pub activation: f64,
    /// Count instances that are still starting apart, as is right for a signal that start-up work raises, such as
    /// CPU. Only for readings per instance. `None` takes each running instance for ready.
    #[serde(default)]
    pub readiness: Option<Readiness>,
}

impl SignalPolicy {
    /// A signal with 10 % tolerance each way and values good for 15 s.
    pub fn new(name: impl Into<String>, target: Target) -> Self {
        Self {
            name: name.into(),
            target,
            reading: None,
            tolerance: Tolerance::default(),
            max_age: MAX_AGE,
            window: Duration::ZERO,
            activation: 0.0,
            readiness: None,
        }
    }

    /// Sets the tolerance, in percent of the target.
    #[must_use]
    pub fn tolerance(mut self, up: u32, down: u32) -> Self {
        self.tolerance = Tolerance { up, down };
        self
    }

    /// Sets the name of the reading to look at.
    #[must_use]
    pub fn reading(mut self, reading: impl Into<String>) -> Self {
        self.reading = Some(reading.into());
        self
    }

    /// Sets how old a value may be.
    #[must_use]
    pub fn max_age(mut self, max_age: Duration) -> Self {
        self.max_age = max_age;
        self
    }

    /// Sets over how long the mean is taken.
    #[must_use]
    pub fn window(mut self, window: Duration) -> Self {
        self.window = window;
        self
    }

    /// Sets above what the service is active.
    #[must_use]
    pub fn activation(mut self, activation: f64) -> Self {
        self.activation = activation;
        self
    }

    /// Sets the rules for instances that are still starting.
    #[must_use]
    pub fn readiness(mut self, readiness: Option<Readiness>) -> Self {
        self.readiness = readiness;
        self
    }
}

/// What a signal should be. The value read is the sum over the whole service, or one value per instance
/// ([`Reading::PerInstance`](crate::Reading::PerInstance)) where it says so.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Target {
    /// So much for each instance: the proposal is `ceil(value / target)`, whatever runs now. For load that spreads
    /// over the instances: requests in flight, requests a second. With a reading per instance, the rules of the
    /// Horizontal Pod Autoscaler for missing and unready instances apply.
    AveragePerInstance(f64),
    /// So much in all, whatever the count: the proposal is the present count times `value / target`. For numbers
    /// that fall when instances are added, such as the length of a queue. Upwards, only ready instances are
    /// multiplied, so that instances that never become ready do not breed more of themselves; a value above the
    /// target never proposes fewer than there are (the original's rule can: see [`Compat`](super::Compat)).
    Total(f64),
    /// So many percent of what each instance asked for ([`Sample::request`](crate::Sample::request)). Needs a reading
    /// per instance.
    Utilization(u32),
    /// The value is the count to have, rounded up (Nomad's pass-through).
    Count,
    /// Always this count, without any reading (Nomad's fixed value).
    Fixed(u32),
    /// A change by a step while the value lies in a band (Nomad's threshold); outside of the band it has no vote.
    Threshold(Threshold),
    /// While the value is above this, nothing is removed; it never adds. For numbers that say how users fare and do not
    /// fall in proportion when instances are added, such as the 95th percentile of the latency.
    Guard(f64),
}

impl Target {
    /// The number itself: of a band its lower end, of a value that is the count one.
    pub fn value(&self) -> f64 {
        match *self {
            Self::AveragePerInstance(value) | Self::Total(value) | Self::Guard(value) => value,
            Self::Utilization(percent) | Self::Fixed(percent) => percent.into(),
            Self::Count => 1.0,
            Self::Threshold(band) => band.lower,
        }
    }
}

/// A band of values and the step to take in it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Threshold {
    /// The lower end, inclusive.
    #[serde(default)]
    pub lower: f64,
    /// The upper end, exclusive; `None` for no end.
    #[serde(default)]
    pub upper: Option<f64>,
    /// The step.
    pub step: Step,
    /// How many values must have been in the band within `within` for the step to be taken: 1 to 20.
    #[serde(default = "default_samples")]
    pub samples: u32,
    /// The time for those values. In serialised form: seconds.
    #[serde(default = "default_within", with = "seconds")]
    pub within: Duration,
}

impl Threshold {
    /// A step while the value is at least `lower` and below `upper`, at the first such value.
    pub fn new(lower: f64, upper: Option<f64>, step: Step) -> Self {
        Self { lower, upper, step, samples: 1, within: WITHIN }
    }

    /// Sets how many values must have been in the band within a time.
    #[must_use]
    pub fn after(mut self, samples: u32, within: Duration) -> Self {
        (self.samples, self.within) = (samples, within);
        self
    }

    pub(crate) fn contains(&self, value: f64) -> bool {
        value >= self.lower && self.upper.is_none_or(|upper| value < upper)
    }
}

/// What a [`Threshold`] does to the count. It never goes below zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// So many more, or fewer when negative.
    Delta(i32),
    /// So many percent more, or fewer when negative, of the present count; the result is rounded up.
    Percent(i32),
    /// This count.
    Count(u32),
}

/// The dead band around a target, in percent of it. Inside it nothing moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tolerance {
    /// Above the target.
    pub up: u32,
    /// Below the target.
    pub down: u32,
}

impl Default for Tolerance {
    fn default() -> Self {
        Self { up: 10, down: 10 }
    }
}

/// When an instance that runs still counts as starting: the Horizontal Pod Autoscaler's rules for CPU.
///
/// An instance that never told when it started, or whether it is ready, is unready. Within `initialization` of its
/// start it is unready while it says so, or if its sample began before it became ready. Later it is unready only if it
/// says so and last changed within `delay` of its start, that is, if it never was ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Readiness {
    /// In serialised form: seconds.
    #[serde(with = "seconds")]
    pub initialization: Duration,
    /// In serialised form: seconds.
    #[serde(with = "seconds")]
    pub delay: Duration,
}

impl Default for Readiness {
    fn default() -> Self {
        // The defaults of the kube-controller-manager's flags.
        Self { initialization: Duration::from_secs(300), delay: Duration::from_secs(30) }
    }
}

fn default_max_age() -> Duration {
    MAX_AGE
}

fn default_samples() -> u32 {
    // Nomad's within_bounds_trigger.
    5
}

fn default_within() -> Duration {
    WITHIN
}

/// Three missed readings of a five-second tick.
const MAX_AGE: Duration = Duration::from_secs(15);
/// Nomad's query window.
const WITHIN: Duration = Duration::from_secs(60);
