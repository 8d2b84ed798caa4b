//! How many requests an endpoint may have in flight: a fixed number, or one that follows its latency.

use std::sync::atomic::Ordering;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::config::at_most_a_day;
use crate::error::ConfigError;
use crate::lease::Priority;
use crate::slot::Slot;

/// Limits per endpoint. What finds every usable endpoint at its limit is refused with
/// [`PickError::is_full`](crate::PickError::is_full); the proxy lets it wait.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Limits {
    /// The most requests in flight on one endpoint; `None` is no such limit.
    pub per_endpoint: Option<u32>,
    /// A limit that is found by watching latency; `None` is none. With both, the lower one counts.
    pub adaptive: Option<Adaptive>,
}

impl Limits {
    /// A fixed limit.
    pub fn per_endpoint(limit: u32) -> Self {
        Self { per_endpoint: Some(limit), adaptive: None }
    }

    /// Limits found by watching latency.
    pub fn adaptive(rules: Adaptive) -> Self {
        Self { per_endpoint: None, adaptive: Some(rules) }
    }

    pub(crate) fn is_any(&self) -> bool {
        self.per_endpoint.is_some() || self.adaptive.is_some()
    }

    /// The most requests of this priority that a slot may have in flight.
    pub(crate) fn of(&self, slot: &Slot, priority: Priority) -> Option<u32> {
        let found = slot.stats.adaptive.load(Ordering::Relaxed);
        let adaptive = self.adaptive.as_ref().map(|rules| if found == 0 { rules.initial } else { found });
        let limit = match (self.per_endpoint, adaptive) {
            (Some(a), Some(b)) => a.min(b),
            (a, b) => a.or(b)?,
        };
        Some(priority.of(limit))
    }

    pub(crate) fn is_full(&self, slot: &Slot, priority: Priority) -> bool {
        self.of(slot, priority).is_some_and(|limit| slot.stats.pending() >= u64::from(limit))
    }

    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        if self.per_endpoint == Some(0) {
            return Err(ConfigError::invalid("limits.per_endpoint", 0, "1 or more"));
        }
        self.adaptive.as_ref().map_or(Ok(()), Adaptive::validate)
    }
}

/// The rules of [`AdaptiveLimit`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Adaptive {
    /// The limit to begin with.
    pub initial: u32,
    /// It never falls below this one.
    pub least: u32,
    /// It never grows beyond this one.
    pub most: u32,
    /// How much slower than usual answers may be before the limit falls: 2.0 is twice as slow.
    pub tolerance: f32,
    /// Samples are taken together for this long before the limit moves.
    pub window: Duration,
}

impl Default for Adaptive {
    /// Twenty requests at once are no trouble for any web server that is in its right mind.
    fn default() -> Self {
        Self { initial: 20, least: 4, most: 1000, tolerance: 2.0, window: Duration::from_millis(100) }
    }
}

impl Adaptive {
    fn validate(&self) -> Result<(), ConfigError> {
        if self.least == 0 || self.least > self.initial || self.initial > self.most {
            let value = format_args!("{} <= {} <= {}", self.least, self.initial, self.most);
            let rule = "1 <= least <= initial <= most";
            return Err(ConfigError::invalid("limits.adaptive", value, rule));
        }
        if !(1.0..=10.0).contains(&self.tolerance) {
            return Err(ConfigError::invalid("limits.adaptive.tolerance", self.tolerance, "from 1 to 10"));
        }
        if self.window.is_zero() {
            return Err(ConfigError::invalid("limits.adaptive.window", "0", "above zero"));
        }
        at_most_a_day("limits.adaptive.window", self.window)
    }
}

/// A concurrency limit that follows latency: Envoy's gradient, on means of short windows.
///
/// What answers take while little is in flight is the base. When they take longer than `tolerance` times the base, too
/// much is in flight, and the limit falls by as much; else it grows by the square root of itself, but only while it is
/// used. From time to time the limit is halved for a moment to take the base anew: a mean of all times would follow the
/// queue that the limit itself allows, and creep. Failures that were not answers (resets, timeouts) count as ten times
/// their time. Pure: `now` is an argument.
#[derive(Clone, Debug)]
pub struct AdaptiveLimit {
    rules: Adaptive,
    limit: f32,
    /// What answers take while little is in flight, in milliseconds.
    base: Option<f32>,
    /// The base that is being taken anew.
    fresh: f32,
    /// Windows since that began.
    windows: u32,
    sum: f32,
    count: u32,
    failed: bool,
    most_in_flight: u64,
    until: Duration,
}

impl AdaptiveLimit {
    /// One that has seen nothing yet.
    pub fn new(rules: Adaptive) -> Self {
        let limit = rules.initial as f32;
        Self {
            rules,
            limit,
            base: None,
            fresh: f32::INFINITY,
            windows: 0,
            sum: 0.0,
            count: 0,
            failed: false,
            most_in_flight: 0,
            until: Duration::ZERO,
        }
    }

    /// The limit now.
    pub fn limit(&self) -> u32 {
        let measuring = self.base.is_some() && self.windows < MEASURE;
        let limit = if measuring { self.limit / 2.0 } else { self.limit };
        limit.max(self.rules.least as f32) as u32
    }

    /// Takes in how long an answer took and how many were in flight; returns the limit.
    pub fn observe(&mut self, latency: Duration, in_flight: u64, failed: bool, now: Duration) -> u32 {
        let sample = (latency.as_secs_f32() * 1000.0).max(0.01) * if failed { 10.0 } else { 1.0 };
        self.sum += sample;
        self.count += 1;
        self.failed |= failed;
        self.most_in_flight = self.most_in_flight.max(in_flight);
        // A few samples only say something together; a quiet endpoint gets a longer window.
        if now >= self.until && self.count >= MIN_SAMPLES {
            self.turn();
            self.until = now.saturating_add(self.rules.window);
        }
        self.limit()
    }

    fn turn(&mut self) {
        let recent = self.sum / self.count as f32;
        let used = self.most_in_flight as f32 * 2.0 >= self.limit;
        let measuring = self.windows < MEASURE;
        self.windows += 1;
        if !self.failed {
            self.base = Some(self.base.map_or(recent, |base| base.min(recent)));
            // What was under way when the limit was halved still had the old queue.
            if measuring && self.windows > MEASURE / 2 {
                self.fresh = self.fresh.min(recent);
            }
        }
        if self.windows == MEASURE && self.fresh.is_finite() {
            self.base = Some(std::mem::replace(&mut self.fresh, f32::INFINITY));
        }
        let gradient = self.base.map_or(0.5, |base| (self.rules.tolerance * base / recent).clamp(0.5, 1.0));
        let next = if gradient < 1.0 {
            self.limit * gradient
        } else if used && !measuring {
            self.limit + self.limit.sqrt()
        } else {
            self.limit
        };
        let smooth = self.limit * 0.8 + next * 0.2;
        self.limit = smooth.clamp(self.rules.least as f32, self.rules.most as f32);
        if self.windows >= REMEASURE {
            self.windows = 0;
        }
        (self.sum, self.count, self.failed, self.most_in_flight) = (0.0, 0, false, 0);
    }
}

const MIN_SAMPLES: u32 = 10;
/// Windows for which the limit is halved to take the base.
const MEASURE: u32 = 4;
/// Windows after which the base is taken anew: half a minute with the usual window.
const REMEASURE: u32 = 300;

#[cfg(test)]
mod tests {
    use super::*;

    /// A server with `workers` workers of 10 ms each, asked by as many clients as the limit lets in.
    fn settle(workers: u64, demand: u64) -> u32 {
        let mut limit = AdaptiveLimit::new(Adaptive::default());
        for step in 0..20_000u64 {
            let in_flight = demand.min(u64::from(limit.limit()));
            let queued = in_flight.saturating_sub(workers);
            let latency = Duration::from_micros(10_000 + queued * 10_000 / workers);
            limit.observe(latency, in_flight, false, Duration::from_millis(step * 10));
        }
        limit.limit()
    }

    #[test]
    fn it_finds_what_a_server_can_take() {
        let (small, large) = (settle(20, 10_000), settle(200, 10_000));
        assert!((20..=100).contains(&small), "{small}");
        assert!((200..=900).contains(&large), "{large}");
        assert_eq!(settle(20, 5), 20, "what is not used does not grow");
    }

    #[test]
    fn failures_bring_it_down_to_the_floor_and_no_further() {
        let mut limit = AdaptiveLimit::new(Adaptive::default());
        for step in 0..2000u64 {
            let failed = step > 500;
            limit.observe(Duration::from_millis(10), 20, failed, Duration::from_millis(step * 10));
        }
        assert!(limit.limit() < 20, "{}", limit.limit());
        assert!(limit.limit() >= Adaptive::default().least);
    }
}
