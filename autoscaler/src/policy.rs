//! What a service should have: bounds, signals with their targets, and how fast to move.
//!
//! A policy is plain, comparable data. It is checked by [`Policy::validate`]; [`decide`](crate::decide) holds on one
//! that does not pass, and the controller refuses it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::behavior::{Behavior, Direction, RateLimit};
use crate::seconds;

/// How one service is scaled.
///
/// [`Policy::balanced`] is the place to start. The [`Default`] has no signal: it keeps the bounds and nothing else.
///
/// ```
/// use autoscaler::Policy;
/// use std::time::Duration;
///
/// let policy = Policy::balanced("in_flight", 70.0).bounds(2, 12).down_window(Duration::from_secs(120));
/// assert!(policy.validate().is_ok());
/// assert!(policy.bounds(5, 4).validate().is_err());
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Policy {
    /// Never fewer instances than this. Zero allows scaling to zero.
    pub min: u32,
    /// Never more instances than this.
    pub max: u32,
    /// What is looked at. Each signal proposes a count and the largest proposal wins.
    pub signals: Vec<SignalPolicy>,
    /// How fast to move each way.
    pub behavior: Behavior,
    /// When to stop being calm; `None` for never.
    pub burst: Option<Burst>,
    /// What may be done while an update or rollback of the service runs.
    pub during_update: DuringUpdate,
    /// The longest time between two complete observations for which the windows count as watched. After a longer
    /// gap (an outage of the signals, a change of leader, a sleeping machine) the stabilisation windows begin anew
    /// from the present count, so that nothing is removed on the first look. Must be longer than the time between
    /// two decisions. In serialised form: seconds.
    #[serde(with = "seconds")]
    pub max_gap: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            min: 1,
            max: 10,
            signals: Vec::new(),
            behavior: Behavior::default(),
            burst: None,
            during_update: DuringUpdate::default(),
            max_gap: MAX_GAP,
        }
    }
}

impl Policy {
    /// The policy to start with: fast up, calm down, from one signal that grows with the load (requests in flight
    /// at the load balancer, or offered requests a second), `target` of it per instance.
    ///
    /// Up: no window; at most doubled, or 4 more, in 15 s, whichever is larger (what the Horizontal Pod Autoscaler
    /// does, well tried). Down: the highest proposal of the last 60 s, and at most half in a minute. A load that
    /// asks for twice the present count or more is a [`Burst`]. Bounds are 1 to 10 until set.
    pub fn balanced(signal: impl Into<String>, target: f64) -> Self {
        Self {
            signals: vec![SignalPolicy::new(signal, Target::AveragePerInstance(target))],
            behavior: Behavior {
                up: Direction::new()
                    .limit(RateLimit::Percent { p: 100, period: UP_PERIOD })
                    .limit(RateLimit::Count { n: 4, period: UP_PERIOD }),
                down: Direction::new()
                    .stabilization(DOWN_WINDOW)
                    .limit(RateLimit::Percent { p: 50, period: Duration::from_secs(60) }),
            },
            burst: Some(Burst::default()),
            ..Self::default()
        }
    }

    /// Sets both bounds, inclusive.
    #[must_use]
    pub fn bounds(mut self, min: u32, max: u32) -> Self {
        (self.min, self.max) = (min, max);
        self
    }

    /// Adds a signal.
    #[must_use]
    pub fn signal(mut self, signal: SignalPolicy) -> Self {
        self.signals.push(signal);
        self
    }

    /// Sets the rules for adding instances.
    #[must_use]
    pub fn up(mut self, direction: Direction) -> Self {
        self.behavior.up = direction;
        self
    }

    /// Sets the rules for removing instances.
    #[must_use]
    pub fn down(mut self, direction: Direction) -> Self {
        self.behavior.down = direction;
        self
    }

    /// Sets how long every proposal must agree before instances are removed.
    #[must_use]
    pub fn down_window(mut self, window: Duration) -> Self {
        self.behavior.down.stabilization = window;
        self
    }

    /// Sets or removes burst mode.
    #[must_use]
    pub fn burst(mut self, burst: Option<Burst>) -> Self {
        self.burst = burst;
        self
    }

    /// Sets what may be done while an update runs.
    #[must_use]
    pub fn during_update(mut self, during_update: DuringUpdate) -> Self {
        self.during_update = during_update;
        self
    }

    /// Sets the longest gap between two complete observations.
    #[must_use]
    pub fn max_gap(mut self, max_gap: Duration) -> Self {
        self.max_gap = max_gap;
        self
    }

    /// The longest period of all rate limits: how long a change has to be remembered.
    pub(crate) fn longest_period(&self) -> Duration {
        let limits = self.behavior.up.limits.iter().chain(&self.behavior.down.limits);
        limits.map(RateLimit::period).max().unwrap_or_default()
    }
}

/// One number to look at, and what it should be.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct SignalPolicy {
    /// The name of its [`Reading`](crate::Reading), also used in sentences with `_` read as a space.
    pub name: String,
    /// What it should be.
    pub target: Target,
    /// How far it may be off before anything moves.
    #[serde(default)]
    pub tolerance: Tolerance,
    /// A value of this age or older is not used: the signal is unknown. In serialised form: seconds.
    #[serde(default = "default_max_age", with = "seconds")]
    pub max_age: Duration,
}

impl SignalPolicy {
    /// A signal with 10 % tolerance each way and values good for 15 s.
    pub fn new(name: impl Into<String>, target: Target) -> Self {
        Self { name: name.into(), target, tolerance: Tolerance::default(), max_age: MAX_AGE }
    }

    /// Sets the tolerance, in percent of the target.
    #[must_use]
    pub fn tolerance(mut self, up: u32, down: u32) -> Self {
        self.tolerance = Tolerance { up, down };
        self
    }

    /// Sets how old a value may be.
    #[must_use]
    pub fn max_age(mut self, max_age: Duration) -> Self {
        self.max_age = max_age;
        self
    }
}

/// What a signal should be. The value read is always the sum over the whole service.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Target {
    /// So much for each instance: the proposal is `ceil(value / target)`, whatever runs now. For load that spreads
    /// over the instances: requests in flight, requests a second.
    AveragePerInstance(f64),
    /// So much in all, whatever the count: the proposal is the present count times `value / target`. For numbers
    /// that fall when instances are added, such as the length of a queue. Upwards, only ready instances are
    /// multiplied, so that instances that never become ready do not breed more of themselves; a value above the
    /// target never proposes fewer than there are (the original's rule can).
    Total(f64),
}

impl Target {
    /// The number itself.
    pub fn value(&self) -> f64 {
        match *self {
            Self::AveragePerInstance(value) | Self::Total(value) => value,
        }
    }
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

/// Burst mode: a load far above what runs. It begins when the signals ask for at least `threshold` percent of the
/// present count, and lasts until `window` has passed without that. In it the stabilisation window of the way up is
/// not waited for, and nothing is removed. Rate limits hold in it too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Burst {
    /// How long it lasts after the last moment that met the threshold. In serialised form: seconds.
    #[serde(with = "seconds")]
    pub window: Duration,
    /// Percent of the present count that begins it: 200 is twice.
    pub threshold: u32,
}

impl Burst {
    /// A burst mode with this window and threshold in percent.
    pub fn new(window: Duration, threshold: u32) -> Self {
        Self { window, threshold }
    }
}

impl Default for Burst {
    fn default() -> Self {
        // The stable window and panic threshold of the Knative pod autoscaler.
        Self { window: Duration::from_secs(60), threshold: 200 }
    }
}

/// What may be done while an update or rollback of the service runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum DuringUpdate {
    /// Nothing: another write would join the running one.
    #[default]
    Hold,
    /// Instances may be added, none removed.
    OnlyUp,
}

fn default_max_age() -> Duration {
    MAX_AGE
}

/// Three missed readings of a five-second tick.
const MAX_AGE: Duration = Duration::from_secs(15);
/// The default stabilisation window on the way down; the example deployment's services start in seconds, so a
/// minute of calm is enough to trust.
const DOWN_WINDOW: Duration = Duration::from_secs(60);
/// The period of both default limits on the way up.
const UP_PERIOD: Duration = Duration::from_secs(15);
/// A dozen five-second ticks.
const MAX_GAP: Duration = Duration::from_secs(60);
