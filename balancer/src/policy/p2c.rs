//! Power of two choices on peak-EWMA latency.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Candidates, Choice, Choose, pressure, turn};
use crate::config::at_most_a_day;
use crate::error::ConfigError;
use crate::slot::Slot;

/// Draws two different endpoints and takes the one with the lower cost: latency estimate times requests in
/// flight (the new one included) over weight.
///
/// Two choices bound what a wrong estimate can do: an endpoint that always wins gets at most 2/n of the
/// traffic (Mitzenmacher 2001). The estimate is a peak-EWMA as in Finagle. Two additions: a failure counts as
/// [`failure_penalty`](Self::failure_penalty) that fades, or else an endpoint that fails fast would look best;
/// and estimates that differ by no more than noise count as equal, so that requests in flight, and then the
/// turn, decide. An endpoint without a sample counts as equal to the other one: neither starved nor flooded.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct P2cPeakEwma {
    /// The time in which an estimate falls to 1/e. 10 s as in Finagle.
    pub decay: Duration,
    /// Estimates below it count as it: how much of a few milliseconds is noise, requests in flight tell better.
    pub floor: Duration,
    /// Estimates within this factor of each other count as equal; 1 or more.
    pub noise: f32,
    /// What a failure counts as. 5 s as in linkerd.
    pub failure_penalty: Duration,
    /// The time in which the penalty falls to 1/e; short, so that one error of the application's own does not
    /// starve its endpoint.
    pub penalty_decay: Duration,
}

impl Default for P2cPeakEwma {
    fn default() -> Self {
        Self {
            decay: Duration::from_secs(10),
            floor: Duration::from_millis(10),
            noise: 2.0,
            failure_penalty: Duration::from_secs(5),
            penalty_decay: Duration::from_secs(1),
        }
    }
}

impl P2cPeakEwma {
    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        if !(self.noise >= 1.0 && self.noise.is_finite()) {
            return Err(ConfigError::invalid("policy.noise", self.noise, "1 or more"));
        }
        for (field, value) in [("policy.decay", self.decay), ("policy.penalty_decay", self.penalty_decay)] {
            if value < Duration::from_millis(1) {
                return Err(ConfigError::invalid(field, format_args!("{value:?}"), "1 ms or more"));
            }
            at_most_a_day(field, value)?;
        }
        at_most_a_day("policy.floor", self.floor)?;
        at_most_a_day("policy.failure_penalty", self.failure_penalty)
    }

    /// The latency to reckon with, in milliseconds: the estimate, or what is left of a penalty.
    pub(crate) fn latency(&self, slot: &Slot, now: Duration) -> Option<f32> {
        let floor = millis(self.floor);
        let estimate = slot.stats.latency.at(now, self.decay).map(|estimate| estimate.max(floor));
        let penalty = slot.stats.since_failure(now).and_then(|age| {
            let faded =
                millis(self.failure_penalty) * (-age.as_secs_f32() / self.penalty_decay.as_secs_f32()).exp();
            (faded > floor).then_some(faded)
        });
        match (estimate, penalty) {
            (Some(a), Some(b)) => Some(a.max(b)),
            (a, b) => a.or(b),
        }
    }

    fn first_wins(&self, a: &Slot, b: &Slot, now: Duration) -> bool {
        let (la, lb) = match (self.latency(a, now), self.latency(b, now)) {
            (Some(la), Some(lb)) if la > lb * self.noise || lb > la * self.noise => (la, lb),
            _ => (1.0, 1.0),
        };
        let (ca, cb) = (la * pressure(a), lb * pressure(b));
        if ca == cb { turn(a) <= turn(b) } else { ca < cb }
    }
}

impl Choose for P2cPeakEwma {
    fn choose(&self, among: &Candidates<'_>) -> Option<Choice> {
        let n = among.eligible();
        if n < 2 {
            return Some(Choice { index: among.nth(0)?, against: None });
        }
        let a = among.draw.below(n);
        let b = among.draw.below(n - 1);
        let b = if b >= a { b + 1 } else { b };
        let (a, b) = (among.nth(a)?, among.nth(b)?);
        let (index, other) = if self.first_wins(among.ready.get(a)?, among.ready.get(b)?, among.now) {
            (a, b)
        } else {
            (b, a)
        };
        Some(Choice { index, against: Some(other) })
    }
}

fn millis(duration: Duration) -> f32 {
    duration.as_secs_f32() * 1000.0
}
