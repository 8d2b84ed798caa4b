//! An endpoint with its live counters, as the pick path sees it.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::endpoint::{Endpoint, EndpointId};
use crate::ewma::PeakEwma;
use crate::limits::{Adaptive, AdaptiveLimit};
use crate::state::{Reason, State};
use crate::work::Work;

/// One endpoint in one snapshot. State and data are fixed; the counters live on from snapshot to snapshot.
#[derive(Clone, Debug)]
pub(crate) struct Slot {
    pub(crate) endpoint: Arc<Endpoint>,
    pub(crate) state: State,
    pub(crate) reason: Reason,
    pub(crate) since: Duration,
    pub(crate) until: Option<Duration>,
    pub(crate) ejections: u32,
    pub(crate) stats: Arc<Stats>,
}

impl Slot {
    pub(crate) fn id(&self) -> &EndpointId {
        &self.endpoint.id
    }
}

/// The counters of an endpoint; all of them may be read and written by any thread.
#[derive(Debug, Default)]
pub(crate) struct Stats {
    pub(crate) work: Work,
    pub(crate) failures: AtomicU64,
    /// Consecutive local failures, and when the last one was.
    pub(crate) local_failures: AtomicU32,
    local_failure_at: AtomicU64,
    /// Consecutive server errors.
    pub(crate) server_errors: AtomicU32,
    /// Answers since success rates were compared last.
    pub(crate) good: AtomicU32,
    pub(crate) bad: AtomicU32,
    /// The limit that was found by watching latency; 0 for none.
    pub(crate) adaptive: AtomicU32,
    pub(crate) limiter: Mutex<Option<AdaptiveLimit>>,
    pub(crate) latency: PeakEwma,
    /// Microseconds + 1 of the last failure of any kind; 0 for none.
    failed_at: AtomicU64,
    /// Microseconds + 1 of the last answer of any kind; 0 for none.
    answered_at: AtomicU64,
    /// The number of the pick that chose it last: the tie-break.
    pub(crate) turn: AtomicU64,
    /// The one request of a trial is on its way.
    pub(crate) trial_taken: AtomicBool,
    /// The last lease to end has to tell the pool.
    pub(crate) retiring: AtomicBool,
}

impl Stats {
    pub(crate) fn pending(&self) -> u64 {
        self.work.in_flight()
    }

    /// Follows the latency of an attempt with the limit.
    pub(crate) fn adapt(&self, rules: &Adaptive, latency: Duration, failed: bool, now: Duration) {
        // Some samples suffice: who finds it taken leaves it.
        let limiter = match self.limiter.try_lock() {
            Ok(limiter) => Some(limiter),
            Err(std::sync::TryLockError::Poisoned(poisoned)) => Some(PoisonError::into_inner(poisoned)),
            Err(std::sync::TryLockError::WouldBlock) => None,
        };
        let Some(mut limiter) = limiter else { return };
        let limiter = limiter.get_or_insert_with(|| AdaptiveLimit::new(rules.clone()));
        let limit = limiter.observe(latency, self.pending(), failed, now);
        self.adaptive.store(limit, Ordering::Relaxed);
    }

    /// Counts a local failure; returns how many there were in a row.
    pub(crate) fn local_failure(&self, now: Duration, window: Duration) -> u32 {
        let last = self.local_failure_at.swap(micros(now), Ordering::Relaxed);
        if micros(now).saturating_sub(last) > window.as_micros() as u64 {
            self.local_failures.store(0, Ordering::Relaxed);
        }
        self.local_failures.fetch_add(1, Ordering::Relaxed).saturating_add(1)
    }

    pub(crate) fn note_failure(&self, now: Duration) {
        self.failures.fetch_add(1, Ordering::Relaxed);
        self.failed_at.store(micros(now) + 1, Ordering::Relaxed);
    }

    pub(crate) fn note_answer(&self, now: Duration) {
        self.answered_at.store(micros(now) + 1, Ordering::Relaxed);
    }

    /// How long ago it failed last.
    pub(crate) fn since_failure(&self, now: Duration) -> Option<Duration> {
        age(self.failed_at.load(Ordering::Relaxed), now)
    }

    /// How long ago it answered a request.
    pub(crate) fn since_answer(&self, now: Duration) -> Option<Duration> {
        age(self.answered_at.load(Ordering::Relaxed), now)
    }

    /// Ends both rows of failures; writes only when there is one, so that the fast path stays in cache.
    pub(crate) fn forgive(&self) {
        if self.local_failures.load(Ordering::Relaxed) != 0 {
            self.local_failures.store(0, Ordering::Relaxed);
        }
        if self.server_errors.load(Ordering::Relaxed) != 0 {
            self.server_errors.store(0, Ordering::Relaxed);
        }
    }

    /// Counts an answer for the comparison of success rates.
    pub(crate) fn count(&self, good: bool) {
        if good { &self.good } else { &self.bad }.fetch_add(1, Ordering::Relaxed);
    }

    /// A fresh start after an ejection: what it did before says nothing about what it does now.
    pub(crate) fn recover(&self) {
        self.forgive();
        self.failed_at.store(0, Ordering::Relaxed);
        self.latency.clear();
        self.good.store(0, Ordering::Relaxed);
        self.bad.store(0, Ordering::Relaxed);
        self.trial_taken.store(false, Ordering::Release);
    }
}

/// Without the division in 128 bits that the standard library does.
pub(crate) fn micros(now: Duration) -> u64 {
    now.as_secs().wrapping_mul(1_000_000).wrapping_add(u64::from(now.subsec_micros()))
}

fn age(stamp: u64, now: Duration) -> Option<Duration> {
    (stamp > 0).then(|| Duration::from_micros(micros(now).saturating_sub(stamp - 1)))
}
