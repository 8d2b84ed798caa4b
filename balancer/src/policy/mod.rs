//! Who gets the next request: policies as plain, comparable data.

mod candidates;
mod ketama;
mod least_pending;
mod maglev;
mod p2c;
mod places;
mod prequal;
mod random;
mod round_robin;

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub(crate) use self::candidates::Candidates;
pub use self::ketama::Ketama;
pub use self::least_pending::LeastPending;
pub use self::maglev::Maglev;
pub use self::p2c::{P2cLeastPending, P2cPeakEwma};
use self::places::Places;
pub use self::prequal::Prequal;
pub(crate) use self::prequal::Reports;
pub use self::random::Random;
pub use self::round_robin::RoundRobin;
use crate::error::ConfigError;
use crate::slot::Slot;

/// Who gets the next request. Weights, slow start, tiers, limits and exclusions work in every one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Policy {
    /// The better one of two drawn at random, by latency and requests in flight. The default.
    P2cPeakEwma(P2cPeakEwma),
    /// The one of two drawn at random with fewer requests in flight. Where latency says nothing about load.
    P2cLeastPending(P2cLeastPending),
    /// The one with the fewest requests in flight of all. Best alone; several balancers that do it flock.
    LeastPending(LeastPending),
    /// In turn, by weight. For measuring and for endpoints that are all alike.
    RoundRobin(RoundRobin),
    /// Drawn at random, by weight.
    Random(Random),
    /// By a hash of the request's key, from a table: the fastest and most even one; for caches behind the balancer.
    Maglev(Maglev),
    /// By a hash of the request's key, on a ring: fewer keys move when endpoints come and go.
    Ketama(Ketama),
    /// By what endpoints themselves say of their load. For endpoints that do other work beside the requests.
    Prequal(Prequal),
}

impl Default for Policy {
    fn default() -> Self {
        Self::P2cPeakEwma(P2cPeakEwma::default())
    }
}

macro_rules! policies {
    ($($name:ident $text:literal),*) => {
        $(impl From<$name> for Policy {
            fn from(policy: $name) -> Self {
                Self::$name(policy)
            }
        })*

        impl Policy {
            /// The name as in serialized form.
            pub fn name(&self) -> &'static str {
                match self {
                    $(Self::$name(_) => $text),*
                }
            }
        }

        impl Choose for Policy {
            fn choose(&self, among: &Candidates<'_>) -> Option<Choice> {
                match self {
                    $(Self::$name(policy) => policy.choose(among)),*
                }
            }
        }
    };
}

policies! {
    P2cPeakEwma "p2c_peak_ewma", P2cLeastPending "p2c_least_pending", LeastPending "least_pending",
    RoundRobin "round_robin", Random "random", Maglev "maglev", Ketama "ketama", Prequal "prequal"
}

impl Policy {
    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        match self {
            Self::P2cPeakEwma(policy) => policy.validate(),
            Self::Maglev(policy) => policy.validate(),
            Self::Ketama(policy) => policy.validate(),
            Self::Prequal(policy) => policy.validate(),
            Self::P2cLeastPending(_) | Self::LeastPending(_) | Self::RoundRobin(_) | Self::Random(_) => {
                Ok(())
            }
        }
    }

    /// The time over which latency estimates decay.
    pub(crate) fn decay(&self) -> Duration {
        match self {
            Self::P2cPeakEwma(policy) => policy.decay,
            _ => P2cPeakEwma::default().decay,
        }
    }

    /// Whether it asks how much all endpoints together have in flight.
    pub(crate) fn is_bounded(&self) -> bool {
        match self {
            Self::Maglev(policy) => policy.overload.is_some(),
            Self::Ketama(policy) => policy.overload.is_some(),
            _ => false,
        }
    }

    /// Whether it asks who was chosen when.
    pub(crate) fn has_turns(&self) -> bool {
        !matches!(self, Self::RoundRobin(_) | Self::Random(_))
    }

    /// What can be computed before the picks: of all members of a tier, those that are usable, and what was computed
    /// last for that tier.
    pub(crate) fn plan(&self, members: &[Arc<Slot>], ready: &[Arc<Slot>], old: Option<&Plan>) -> Plan {
        match self {
            Self::RoundRobin(_) => Plan::Order(round_robin::schedule(ready)),
            Self::Random(_) => Plan::sums(ready),
            Self::Maglev(policy) => {
                Plan::Places(Places::new(members, ready, old, |weights| policy.table(weights)))
            }
            Self::Ketama(policy) => {
                Plan::Places(Places::new(members, ready, old, |weights| policy.ring(weights)))
            }
            _ => Plan::None,
        }
    }
}

/// What a policy does.
pub(crate) trait Choose {
    /// One of `among`, or `None` when none of them is open.
    fn choose(&self, among: &Candidates<'_>) -> Option<Choice>;
}

/// The index that won, and whom it was compared with if not with all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Choice {
    pub(crate) index: usize,
    pub(crate) against: Option<usize>,
}

impl Choice {
    pub(crate) fn of(index: usize) -> Self {
        Self { index, against: None }
    }
}

/// What a policy computed of a tier.
#[derive(Debug, Default)]
pub(crate) enum Plan {
    #[default]
    None,
    /// Indices in the order of turns.
    Order(Vec<u32>),
    /// Sums of weights up to and with each index.
    Sums(Vec<u64>),
    /// Where keys belong.
    Places(Places),
}

impl Plan {
    fn sums(ready: &[Arc<Slot>]) -> Self {
        let mut sum = 0;
        let add = |slot: &Arc<Slot>| {
            sum += u64::from(slot.endpoint.weight);
            sum
        };
        Self::Sums(ready.iter().map(add).collect())
    }
}
