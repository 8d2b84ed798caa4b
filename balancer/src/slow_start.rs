//! Slow start: the share of an endpoint that has just become usable grows.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::config::at_most_a_day;
use crate::error::ConfigError;

/// How the share of a new or recovered endpoint grows to the full one: `max(floor, (age / window)^(1 / aggression))`.
///
/// Envoy's formula. Every policy follows it, and it is relative to the endpoint that has come farthest: while all are
/// new, all have equal shares, and no request is held back from anybody.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct SlowStart {
    /// How long it takes. 10 s: caches and compilers of a usual web service are warm by then.
    pub window: Duration,
    /// The share to begin with, above 0 and up to 1. A tenth, so that it learns at all.
    pub floor: f32,
    /// 1 grows linearly; more grows fast at first, less slowly at first.
    pub aggression: f32,
}

impl Default for SlowStart {
    fn default() -> Self {
        Self { window: Duration::from_secs(10), floor: 0.1, aggression: 1.0 }
    }
}

impl SlowStart {
    /// Sets how long it takes.
    #[must_use]
    pub fn window(mut self, window: Duration) -> Self {
        self.window = window;
        self
    }

    /// Sets the share to begin with.
    #[must_use]
    pub fn floor(mut self, floor: f32) -> Self {
        self.floor = floor;
        self
    }

    /// Sets the form of the growth.
    #[must_use]
    pub fn aggression(mut self, aggression: f32) -> Self {
        self.aggression = aggression;
        self
    }

    /// The share after `age`, up to 1; never falls.
    pub fn share(&self, age: Duration) -> f32 {
        let part = (age.as_secs_f32() / self.window.as_secs_f32()).clamp(0.0, 1.0);
        let grown = if self.aggression == 1.0 { part } else { part.powf(1.0 / self.aggression) };
        grown.max(self.floor)
    }

    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        if self.window < Duration::from_millis(1) {
            return Err(ConfigError::invalid(
                "slow_start.window",
                format_args!("{:?}", self.window),
                "1 ms or more",
            ));
        }
        at_most_a_day("slow_start.window", self.window)?;
        if !(self.floor > 0.0 && self.floor <= 1.0) {
            return Err(ConfigError::invalid("slow_start.floor", self.floor, "above 0 and at most 1"));
        }
        if !(0.1..=10.0).contains(&self.aggression) {
            return Err(ConfigError::invalid("slow_start.aggression", self.aggression, "from 0.1 to 10"));
        }
        Ok(())
    }
}
