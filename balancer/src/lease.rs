//! A request on its way to an endpoint.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::endpoint::{Endpoint, EndpointId};
use crate::shared::Shared;
use crate::slot::Slot;

/// What is asked of a pick.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct PickRequest<'a> {
    /// Endpoints not to pick: those that this request was tried on before.
    pub exclude: &'a [EndpointId],
    /// Whether it may try an ejected endpoint while others are ready.
    pub may_try: bool,
    /// What the hashing policies place it by, made with [`hash`](crate::hash); without it they draw.
    pub key: Option<u64>,
    /// The endpoint that it had before. Taken while it is usable, with whatever policy; else another one is picked.
    pub prefer: Option<&'a EndpointId>,
    /// How much of an endpoint's limit it may use.
    pub priority: Priority,
}

/// How much a request matters when there is too much to do.
///
/// With [`Limits`](crate::Limits) a share of each endpoint's limit is kept for requests that matter more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Priority {
    /// May use 80 % of a limit: prefetches, crawlers, batch.
    Low,
    /// May use 95 % of it.
    #[default]
    Normal,
    /// May use all of it.
    High,
}

impl Priority {
    /// The part of `limit` that requests of this priority may use; at least one.
    pub fn of(self, limit: u32) -> u32 {
        let percent = match self {
            Self::Low => 80,
            Self::Normal => 95,
            Self::High => 100,
        };
        // Rounded up: a small limit has no share to keep.
        (u64::from(limit) * percent).div_ceil(100).max(1) as u32
    }
}

impl Default for PickRequest<'_> {
    fn default() -> Self {
        Self { exclude: &[], may_try: true, key: None, prefer: None, priority: Priority::Normal }
    }
}

impl<'a> PickRequest<'a> {
    /// A request that may go anywhere but to `exclude`.
    pub fn excluding(exclude: &'a [EndpointId]) -> Self {
        Self { exclude, ..Self::default() }
    }

    /// Sets whether it may be the one request that tries an ejected endpoint while others are ready; it may unless
    /// told otherwise. Say `false` for a request that can't be repeated: should the trial fail, it is lost. When no
    /// other endpoint is ready it is tried all the same, and so it is when a trial has waited for
    /// [`TRIAL_PATIENCE`](Self::TRIAL_PATIENCE) for a request that may be repeated.
    #[must_use]
    pub fn may_try(mut self, may: bool) -> Self {
        self.may_try = may;
        self
    }

    /// Sets what the hashing policies place it by.
    #[must_use]
    pub fn key(mut self, key: u64) -> Self {
        self.key = Some(key);
        self
    }

    /// Sets the endpoint that it had before, if any.
    #[must_use]
    pub fn prefer(mut self, endpoint: Option<&'a EndpointId>) -> Self {
        self.prefer = endpoint;
        self
    }

    /// Sets how much it matters.
    #[must_use]
    pub fn priority(mut self, priority: Priority) -> Self {
        self.priority = priority;
        self
    }

    /// How long a trial waits for a request that may be repeated, so that a service that gets no such requests
    /// gets its endpoints back too.
    pub const TRIAL_PATIENCE: Duration = Duration::from_secs(5);
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// Answered, and well.
    Success,
    /// Answered with this HTTP status; 5xx other than 501 and 505 count as failures.
    Status(u16),
    /// No connection could be made, in time or at all.
    ConnectFailed,
    /// The connection broke.
    Reset,
    /// The answer did not come in time.
    Timeout,
    /// Given up for reasons that are not the endpoint's.
    Cancelled,
}

/// The claim of one request on one endpoint: counted as in flight until [`finish`](Lease::finish).
///
/// Dropped without it, it counts as cancelled at the last time that the pool was told.
#[derive(Debug)]
#[must_use = "a dropped lease counts as a cancelled request"]
pub struct Lease {
    pub(crate) shared: Arc<Shared>,
    pub(crate) slot: Arc<Slot>,
    pub(crate) started: Duration,
    pub(crate) trial: bool,
    pub(crate) answered: bool,
    pub(crate) open: bool,
}

impl Lease {
    /// Where to send the request.
    pub fn endpoint(&self) -> &Endpoint {
        &self.slot.endpoint
    }

    /// Whether this is the one request that tries an ejected endpoint.
    pub fn is_trial(&self) -> bool {
        self.trial
    }

    /// The head of the answer is here: settles latency and health now, while a long body keeps the request in
    /// flight. A later [`finish`](Lease::finish) tells only whether the body arrived.
    pub fn responded(&mut self, status: u16, now: Duration) {
        if !self.answered {
            self.shared.settle(self, Outcome::Status(status), now);
            self.answered = true;
        }
    }

    /// The attempt is over.
    pub fn finish(mut self, outcome: Outcome, now: Duration) {
        self.close(outcome, now);
    }

    fn close(&mut self, outcome: Outcome, now: Duration) {
        if !std::mem::replace(&mut self.open, false) {
            return;
        }
        let settled = matches!(outcome, Outcome::Success | Outcome::Status(_) | Outcome::Cancelled);
        if !(self.answered && settled) {
            self.shared.settle(self, outcome, now);
        }
        self.shared.release(self, now);
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.open {
            let now = self.shared.last_now();
            self.close(Outcome::Cancelled, now);
        }
    }
}
