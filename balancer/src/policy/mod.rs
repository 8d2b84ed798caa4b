//! Who gets the next request: policies as plain, comparable data.

mod least_pending;
mod p2c;
mod round_robin;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use self::least_pending::LeastPending;
pub use self::p2c::P2cPeakEwma;
pub use self::round_robin::RoundRobin;
pub(crate) use self::round_robin::schedule;
use crate::endpoint::EndpointId;
use crate::error::ConfigError;
use crate::rng::Draw;
use crate::slot::Slot;

/// Who gets the next request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Policy {
    /// The better one of two drawn at random, by latency and requests in flight. The default.
    P2cPeakEwma(P2cPeakEwma),
    /// In turn, by weight. For measuring and for endpoints that are all alike.
    RoundRobin(RoundRobin),
    /// The one with the fewest requests in flight of all. Best alone; several balancers that do it flock.
    LeastPending(LeastPending),
}

impl Default for Policy {
    fn default() -> Self {
        Self::P2cPeakEwma(P2cPeakEwma::default())
    }
}

impl From<P2cPeakEwma> for Policy {
    fn from(policy: P2cPeakEwma) -> Self {
        Self::P2cPeakEwma(policy)
    }
}

impl From<RoundRobin> for Policy {
    fn from(policy: RoundRobin) -> Self {
        Self::RoundRobin(policy)
    }
}

impl From<LeastPending> for Policy {
    fn from(policy: LeastPending) -> Self {
        Self::LeastPending(policy)
    }
}

impl Policy {
    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        match self {
            Self::P2cPeakEwma(policy) => policy.validate(),
            Self::RoundRobin(_) | Self::LeastPending(_) => Ok(()),
        }
    }

    /// The time over which latency estimates decay.
    pub(crate) fn decay(&self) -> Duration {
        match self {
            Self::P2cPeakEwma(policy) => policy.decay,
            Self::RoundRobin(_) | Self::LeastPending(_) => P2cPeakEwma::default().decay,
        }
    }

    /// The name as in serialized form.
    pub fn name(&self) -> &'static str {
        match self {
            Self::P2cPeakEwma(_) => "p2c_peak_ewma",
            Self::RoundRobin(_) => "round_robin",
            Self::LeastPending(_) => "least_pending",
        }
    }
}

impl Choose for Policy {
    fn choose(&self, among: &Candidates<'_>) -> Option<Choice> {
        match self {
            Self::P2cPeakEwma(policy) => policy.choose(among),
            Self::RoundRobin(policy) => policy.choose(among),
            Self::LeastPending(policy) => policy.choose(among),
        }
    }
}

/// What a policy does.
pub(crate) trait Choose {
    /// One of `among`, or `None` when all of them are excluded.
    fn choose(&self, among: &Candidates<'_>) -> Option<Choice>;
}

/// The index that won, and whom it was compared with if not with all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Choice {
    pub(crate) index: usize,
    pub(crate) against: Option<usize>,
}

/// What a policy chooses from.
pub(crate) struct Candidates<'a> {
    pub(crate) ready: &'a [Arc<Slot>],
    pub(crate) schedule: &'a [u32],
    pub(crate) exclude: &'a [EndpointId],
    pub(crate) draw: &'a Draw,
    pub(crate) cursor: &'a AtomicU64,
    pub(crate) now: Duration,
}

impl Candidates<'_> {
    fn excluded(&self, slot: &Slot) -> bool {
        self.exclude.iter().any(|id| id == slot.id())
    }

    /// How many may be chosen. Costs a walk only when something is excluded.
    fn eligible(&self) -> usize {
        if self.exclude.is_empty() {
            return self.ready.len();
        }
        self.ready.iter().filter(|slot| !self.excluded(slot)).count()
    }

    /// The index of the `nth` that may be chosen.
    fn nth(&self, nth: usize) -> Option<usize> {
        if self.exclude.is_empty() {
            return (nth < self.ready.len()).then_some(nth);
        }
        let eligible = self.ready.iter().enumerate().filter(|(_, slot)| !self.excluded(slot));
        eligible.map(|(index, _)| index).nth(nth)
    }
}

/// In flight per weight, counting the request to come.
fn pressure(slot: &Slot) -> f32 {
    (slot.stats.pending() + 1) as f32 / slot.endpoint.weight.max(1) as f32
}

/// The one that was chosen longest ago goes first when nothing else tells two apart.
fn turn(slot: &Slot) -> u64 {
    slot.stats.turn.load(Ordering::Relaxed)
}
