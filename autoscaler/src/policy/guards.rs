//! What keeps a service from moving although its load says so: pauses, budgets, outages, updates.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::seconds;

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

/// A service that is not scaled, or in one direction only (KEDA's `paused`, `paused-replicas`, `paused-scale-in` and
/// `paused-scale-out`). A direction can also be closed for good: [`Direction::disabled`](crate::Direction::disabled).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Pause {
    /// The count stays what it is, even outside of the bounds.
    All,
    /// The count is this.
    At(u32),
    /// Nothing is removed.
    ScaleIn,
    /// Nothing is added.
    ScaleOut,
}

/// How often the count may turn: go down after it went up, or up after down. A start costs work and cold caches, a stop
/// a drain; users feel both. When the budget is spent nothing is removed any more; adding is never kept back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FlapBudget {
    /// Turns allowed within the period: 1 to 32.
    pub turns: u32,
    /// The period. In serialised form: seconds.
    #[serde(with = "seconds")]
    pub period: Duration,
}

/// A window of the way down that fits the load: short for one that falls for good, long for one that comes and goes, and
/// short again for one whose return is known.
///
/// Each removal within `period` that was regretted (something was added again afterwards) lengthens the window by twice its
/// own length ([`Direction::stabilization`](crate::Direction::stabilization)), up to `longest`. While the policy's forecast counts and expects something, the window is `known`
/// instead, for then the forecast keeps what is about to be needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Calm {
    /// In serialised form: seconds.
    #[serde(with = "seconds")]
    pub period: Duration,
    /// In serialised form: seconds.
    #[serde(with = "seconds")]
    pub longest: Duration,
    /// In serialised form: seconds.
    #[serde(with = "seconds")]
    pub known: Duration,
}

impl Default for Calm {
    fn default() -> Self {
        Self {
            // What was regretted within the hour.
            period: Duration::from_secs(3600),
            // The window of the Horizontal Pod Autoscaler, which knows nothing of the load.
            longest: Duration::from_secs(300),
            // A step of the forecast, which itself keeps what will be needed soon.
            known: Duration::from_secs(10),
        }
    }
}

/// What stands in for a signal that stayed unknown (KEDA's `fallback`). Without one an unknown signal has no vote.
///
/// As long as a signal is unknown nothing is removed, with a fallback too: it can only add. `may_remove` gives up that
/// safety, as KEDA does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fallback {
    /// It stands in once a signal was unknown in more than so many decisions in a row.
    pub failures: u32,
    /// What the signal is then taken to propose.
    pub replicas: FallbackReplicas,
    /// Let the fallback take the count down while signals are unknown.
    #[serde(default)]
    pub may_remove: bool,
}

/// The proposal of a [`Fallback`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum FallbackReplicas {
    /// This many.
    Static(u32),
    /// What there is.
    Current,
    /// What there is if that is more, else this many.
    CurrentIfHigher(u32),
    /// What there is if that is less, else this many.
    CurrentIfLower(u32),
}

impl FallbackReplicas {
    pub(crate) fn of(self, current: u32) -> u32 {
        match self {
            Self::Static(n) => n,
            Self::Current => current,
            Self::CurrentIfHigher(n) => n.max(current),
            Self::CurrentIfLower(n) => n.min(current),
        }
    }
}

/// Growth is stopped while too many of the instances that there are do not serve: a version that crashes at its start
/// raises the load of all others, and each one more only crashes too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Surge {
    /// Nothing is added while nothing new became ready for so long although instances are missing. In serialised form:
    /// seconds.
    #[serde(with = "seconds")]
    pub patience: Duration,
}

/// Remove instances in two steps: first keep new requests from those that will go, then take them away when nothing is
/// in flight on them, or at the deadline. A load that rises meanwhile keeps them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Drain {
    /// How long requests in flight are waited for. The stop grace period of the service must not be shorter. In
    /// serialised form: seconds.
    #[serde(with = "seconds")]
    pub deadline: Duration,
}
