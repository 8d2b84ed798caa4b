//! How fast a service may move in each direction: the part of a [`Policy`](crate::Policy) that turns what the
//! load asks for into what is done now.
//!
//! The shape and the arithmetic order follow the behaviour block of the Kubernetes Horizontal Pod Autoscaler
//! (`autoscaling/v2`), because it is the one that operators know. Percentages are integers here: the original
//! computes them in floating point and is off by one in hundreds of small cases (5 less 80 % gives 0 there, 1 here).

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Compat;
use crate::seconds;

/// The rules of both directions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Behavior {
    /// Rules for adding instances.
    pub up: Direction,
    /// Rules for removing instances.
    pub down: Direction,
}

impl Behavior {
    /// Rules for both directions.
    pub fn new(up: Direction, down: Direction) -> Self {
        Self { up, down }
    }
}

/// The rules of one direction. The default has no window and no limit: move at once, as far as asked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Direction {
    /// How long every proposal must agree before the move is made: going up counts the lowest proposal of this
    /// window, going down the highest. Zero acts on the newest proposal. In serialised form: seconds.
    #[serde(with = "seconds")]
    pub stabilization: Duration,
    /// How many instances may be added or removed within a period; empty means no limit.
    pub limits: Vec<RateLimit>,
    /// Which of several limits counts, or that this direction is closed.
    pub select: Select,
    /// Nothing moves this way for so long after any change of the count (Nomad's cool-down). In serialised form:
    /// seconds.
    #[serde(with = "seconds")]
    pub cooldown: Duration,
}

impl Direction {
    /// No window, no limit, open.
    pub fn new() -> Self {
        Self::default()
    }

    /// The direction is closed: nothing moves this way, except to come back inside the bounds.
    pub fn disabled() -> Self {
        Self { select: Select::Disabled, ..Self::default() }
    }

    /// Sets the stabilisation window.
    #[must_use]
    pub fn stabilization(mut self, window: Duration) -> Self {
        self.stabilization = window;
        self
    }

    /// Adds a limit.
    #[must_use]
    pub fn limit(mut self, limit: RateLimit) -> Self {
        self.limits.push(limit);
        self
    }

    /// Sets how long after any change nothing moves this way.
    #[must_use]
    pub fn cooldown(mut self, cooldown: Duration) -> Self {
        self.cooldown = cooldown;
        self
    }

    /// Sets which limit counts.
    #[must_use]
    pub fn select(mut self, select: Select) -> Self {
        self.select = select;
        self
    }
}

/// At most this much change within a sliding period. Changes in both directions within the period count, so that
/// going up and down again does not earn a new allowance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum RateLimit {
    /// At most `n` instances per period.
    Count {
        /// Instances.
        n: u32,
        /// The period; seconds when serialised.
        #[serde(with = "seconds")]
        period: Duration,
    },
    /// At most `p` percent, of the count at the start of the period, per period. Up rounds up, so that a small
    /// percentage still moves by one, and takes a start at zero for one, so that zero can be left; down keeps the
    /// rounded-down rest.
    Percent {
        /// Percent; 100 doubles on the way up.
        p: u32,
        /// The period; seconds when serialised.
        #[serde(with = "seconds")]
        period: Duration,
    },
}

impl RateLimit {
    /// The period of this limit.
    pub fn period(&self) -> Duration {
        match *self {
            Self::Count { period, .. } | Self::Percent { period, .. } => period,
        }
    }

    /// The highest count this limit allows when the period began with `start` instances.
    pub(crate) fn highest(&self, start: u32, compat: Compat) -> u32 {
        match *self {
            Self::Count { n, .. } => start.saturating_add(n),
            Self::Percent { p, .. } if compat == Compat::Hpa => {
                (f64::from(start) * (1.0 + f64::from(p) / 100.0)).ceil() as u32
            }
            Self::Percent { p, .. } => {
                let grown = (u64::from(start.max(1)) * (100 + u64::from(p))).div_ceil(100);
                u32::try_from(grown).unwrap_or(u32::MAX)
            }
        }
    }

    /// The lowest count this limit allows when the period began with `start` instances.
    pub(crate) fn lowest(&self, start: u32, compat: Compat) -> u32 {
        match *self {
            Self::Count { n, .. } => start.saturating_sub(n),
            Self::Percent { p, .. } if compat == Compat::Hpa => {
                (f64::from(start) * (1.0 - f64::from(p) / 100.0)) as u32
            }
            Self::Percent { p, .. } => {
                let kept = u64::from(start) * 100u64.saturating_sub(u64::from(p)) / 100;
                u32::try_from(kept).unwrap_or(u32::MAX)
            }
        }
    }
}

/// Which of several rate limits counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Select {
    /// The most permissive one.
    #[default]
    Max,
    /// The strictest one.
    Min,
    /// None: the direction is closed.
    Disabled,
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn percentages_are_exact_integers() {
        // Both are wrong in floating point: 50 * 1.1 = 55.00000000000001 -> 56, and 5 * (1 - 0.8) -> 0.
        assert_eq!(RateLimit::Percent { p: 10, period: MINUTE }.highest(50, Compat::Hpa), 56);
        assert_eq!(RateLimit::Percent { p: 80, period: MINUTE }.lowest(5, Compat::Hpa), 0);
        assert_eq!(RateLimit::Percent { p: 10, period: MINUTE }.highest(50, Compat::Own), 55);
        assert_eq!(RateLimit::Percent { p: 80, period: MINUTE }.lowest(5, Compat::Own), 1);
    }

    #[test]
    fn small_percentages_still_move_and_large_ones_saturate() {
        assert_eq!(RateLimit::Percent { p: 1, period: MINUTE }.highest(3, Compat::Own), 4);
        assert_eq!(RateLimit::Percent { p: 100, period: MINUTE }.highest(0, Compat::Own), 2);
        assert_eq!(RateLimit::Percent { p: 100, period: MINUTE }.highest(u32::MAX, Compat::Own), u32::MAX);
        assert_eq!(RateLimit::Percent { p: 250, period: MINUTE }.lowest(9, Compat::Own), 0);
        assert_eq!(RateLimit::Count { n: 4, period: MINUTE }.highest(u32::MAX - 1, Compat::Own), u32::MAX);
        assert_eq!(RateLimit::Count { n: 4, period: MINUTE }.lowest(1, Compat::Own), 0);
    }
}
