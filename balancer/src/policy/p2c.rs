//! Power of two choices on peak-EWMA latency.

use std::cmp::Ordering;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Candidates, Choice, Choose};
use crate::config::at_most_a_day;
use crate::error::ConfigError;
use crate::slot::Slot;

/// Draws two different endpoints, each let through as often as its share says, and takes the one with the lower cost:
/// latency estimate times requests in flight, the new one included.
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

    fn first_wins(&self, among: &Candidates<'_>, a: &Slot, b: &Slot) -> bool {
        let (la, lb) = match (self.latency(a, among.now), self.latency(b, among.now)) {
            (Some(la), Some(lb)) if la > lb * self.noise || lb > la * self.noise => (la, lb),
            _ => (1.0, 1.0),
        };
        let in_flight = |slot: &Slot| (slot.stats.pending() + 1) as f32;
        let (ca, cb) = (la * in_flight(a), lb * in_flight(b));
        if ca == cb { among.waited(a) >= among.waited(b) } else { ca < cb }
    }
}

impl Choose for P2cPeakEwma {
    fn choose(&self, among: &Candidates<'_>) -> Option<Choice> {
        of_two(among, |a, b| self.first_wins(among, a, b))
    }
}

/// Draws two different endpoints, each let through as often as its share says, and takes the one with fewer requests in
/// flight; of equal ones, the one that has waited longer.
///
/// As [`LeastPending`](super::LeastPending) it draws traffic to who fails fast, half as much; unlike it, balancers that
/// share nothing do not flock to the same endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct P2cLeastPending {}

impl Choose for P2cLeastPending {
    fn choose(&self, among: &Candidates<'_>) -> Option<Choice> {
        of_two(among, |a, b| match a.stats.pending().cmp(&b.stats.pending()) {
            Ordering::Equal => among.waited(a) >= among.waited(b),
            order => order.is_lt(),
        })
    }
}

/// The better one of two. Shares are kept by drawing and not by the comparison: an idle endpoint with a small share
/// would lose each comparison, and never learn.
pub(super) fn of_two(among: &Candidates<'_>, first_wins: impl Fn(&Slot, &Slot) -> bool) -> Option<Choice> {
    let uniform = among.group.is_uniform();
    let mut heavier = None;
    for _ in 0..TRIES {
        let (a, b) = among.draw_two()?;
        let Some(b) = b else { return Some(Choice::of(a)) };
        let (first, second) = (among.get(a)?, among.get(b)?);
        let wins = match (uniform || among.admits(first), uniform || among.admits(second)) {
            (true, true) => first_wins(first, second),
            (first, second) if first || second => first,
            _ => {
                let wins = among.share(first) >= among.share(second);
                heavier = Some(between(a, b, wins));
                continue;
            }
        };
        return Some(between(a, b, wins));
    }
    heavier
}

fn between(a: usize, b: usize, first: bool) -> Choice {
    let (index, other) = if first { (a, b) } else { (b, a) };
    Choice { index, against: Some(other) }
}

/// Draws before the heavier one of those drawn last will do.
const TRIES: usize = 8;

fn millis(duration: Duration) -> f32 {
    duration.as_secs_f32() * 1000.0
}
