//! Hedged requests: a second endpoint is asked when the first one takes longer than nearly all others did.
//!
//! From Dean and Barroso, The Tail at Scale (CACM 2013): a copy of the request goes elsewhere once the first has been out
//! for longer than the 95th percentile, the first good answer is passed on, and the other attempt is called off. Few
//! requests get that far, and a budget of their own sees to it that it stays so when everything is slow at once.

use std::pin::pin;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::sleep;

use super::attempt::{Answer, Failure, Outgoing, attempt};
use super::gateway::{Inner, lock};
use super::tries::Way;
use super::upstream::Upstream;
use crate::budget::RetryBudget;
use crate::lease::{Lease, Outcome, PickRequest};

/// When a request is sent to a second endpoint as well.
///
/// For GET, HEAD, OPTIONS and TRACE without a body alone, once each, and only where another endpoint is ready.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Hedge {
    /// The most requests that are sent twice, as a share of all, 0 to 1; one in twenty by default.
    pub share: f64,
    /// Not sooner than this, however quick the others were: a pause of the machine is no slow endpoint.
    pub at_least: Duration,
}

impl Default for Hedge {
    fn default() -> Self {
        Self { share: 0.05, at_least: Duration::from_millis(10) }
    }
}

impl Hedge {
    /// With this share of all requests, 0 to 1.
    pub fn sharing(share: f64) -> Self {
        Self { share, ..Self::default() }
    }
}

/// What a gateway keeps for its hedges.
#[derive(Debug)]
pub(crate) struct Hedging {
    at_least: Duration,
    budget: Mutex<RetryBudget>,
    /// Microseconds after which a request is sent elsewhere as well; 0 while nothing is known.
    after: AtomicU64,
    /// When that was reckoned last, in milliseconds.
    reckoned: AtomicU64,
}

impl Hedging {
    pub(crate) fn new(rules: &Hedge) -> Self {
        Self {
            at_least: rules.at_least,
            budget: Mutex::new(RetryBudget::new(rules.share, 0)),
            after: AtomicU64::new(0),
            reckoned: AtomicU64::new(0),
        }
    }

    /// Notes a request, which pays for a share of a hedge.
    pub(crate) fn deposit(&self, now: Duration) {
        lock(&self.budget).deposit(now);
    }

    /// Takes in the 95th percentile, when it is time to; reckoning it for each request would cost more than it brings.
    pub(crate) fn follow(&self, now: Duration, percentile: impl FnOnce() -> Option<f64>) {
        let millis = now.as_millis() as u64;
        if millis.saturating_sub(self.reckoned.load(Ordering::Relaxed)) < RECKON_MILLIS {
            return;
        }
        self.reckoned.store(millis, Ordering::Relaxed);
        let after = percentile().map(|seconds| Duration::from_secs_f64(seconds).max(self.at_least));
        self.after.store(after.map_or(0, |after| after.as_micros() as u64), Ordering::Relaxed);
    }

    fn after(&self) -> Option<Duration> {
        let micros = self.after.load(Ordering::Relaxed);
        (micros > 0).then(|| Duration::from_micros(micros))
    }
}

/// What became of an attempt, and whose it was.
pub(super) struct Tried {
    pub(super) result: Result<Answer, Failure>,
    pub(super) lease: Lease,
    pub(super) upstream: Arc<Upstream>,
}

/// One attempt, or two at once where the first takes long.
pub(super) async fn try_once(inner: &Inner, outgoing: &Outgoing, way: &mut Way, lease: Lease) -> Tried {
    let config = &inner.config;
    let upstream = inner.upstreams.of(lease.endpoint());
    let may = outgoing.method.is_safe() && outgoing.upgrade.is_none() && outgoing.body.is_none();
    let after = inner.hedging.as_ref().filter(|_| may && !lease.is_trial()).and_then(Hedging::after);
    match after {
        None => {
            let result = attempt(config, &upstream, outgoing, &lease.endpoint().id).await;
            Tried { result, lease, upstream }
        }
        // Apart, so that requests that can't be sent twice have no room for a second attempt to carry.
        Some(after) => Box::pin(hedged(inner, outgoing, way, lease, upstream, after)).await,
    }
}

async fn hedged(
    inner: &Inner,
    outgoing: &Outgoing,
    way: &mut Way,
    lease: Lease,
    upstream: Arc<Upstream>,
    after: Duration,
) -> Tried {
    let config = &inner.config;
    let (held, id) = (Arc::clone(&upstream), lease.endpoint().id.clone());
    let mut first = pin!(attempt(config, &held, outgoing, &id));
    tokio::select! {
        biased;
        result = &mut first => return Tried { result, lease, upstream },
        () = sleep(after) => {}
    }
    let Some(other) = another(inner, outgoing, way, &lease) else {
        return Tried { result: first.await, lease, upstream };
    };
    tracing::debug!(target: "balancer", slow = %lease.endpoint().id, endpoint = %other.endpoint().id, "hedged");
    way.sent += 1;
    let there = inner.upstreams.of(other.endpoint());
    let (also, id) = (Arc::clone(&there), other.endpoint().id.clone());
    let mut second = pin!(attempt(config, &also, outgoing, &id));
    // Whose attempt is dropped counts as cancelled, with the time that it had.
    tokio::select! {
        biased;
        result = &mut first => match result {
            Ok(answer) => Tried { result: Ok(answer), lease, upstream },
            Err(failure) => {
                settle(inner, way, lease, &failure);
                Tried { result: second.await, lease: other, upstream: there }
            }
        },
        result = &mut second => match result {
            Ok(answer) if !answer.code().is_server_error() => {
                Tried { result: Ok(answer), lease: other, upstream: there }
            }
            // One that fails quickly must not win over one that is slow and right.
            Ok(answer) => {
                let mut other = other;
                other.responded(answer.status(), inner.now());
                other.finish(Outcome::Success, inner.now());
                Tried { result: first.await, lease, upstream }
            }
            Err(failure) => {
                settle(inner, way, other, &failure);
                Tried { result: first.await, lease, upstream }
            }
        },
    }
}

/// Another endpoint that is ready, if the budget pays for it.
fn another(inner: &Inner, outgoing: &Outgoing, way: &Way, lease: &Lease) -> Option<Lease> {
    let hedging = inner.hedging.as_ref()?;
    if lock(&hedging.budget).available() == 0 {
        return None;
    }
    let mut exclude = way.tried.clone();
    exclude.push(lease.endpoint().id.clone());
    let mut request = PickRequest::excluding(&exclude).may_try(false).priority(outgoing.priority);
    request.key = outgoing.key;
    let other = inner.pool.pick(&request, inner.now()).ok();
    inner.follow();
    let other = other.filter(|other| !other.is_trial())?;
    if !lock(&hedging.budget).withdraw(inner.now()) {
        return None;
    }
    inner.counters.hedges.fetch_add(1, Ordering::Relaxed);
    Some(other)
}

fn settle(inner: &Inner, way: &mut Way, lease: Lease, failure: &Failure) {
    way.tried.push(lease.endpoint().id.clone());
    lease.finish(failure.outcome(), inner.now());
    inner.follow();
}

/// How often the percentile is reckoned.
const RECKON_MILLIS: u64 = 500;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_is_the_percentile_and_not_less_than_said() {
        let hedging = Hedging::new(&Hedge::default());
        let at = Duration::from_millis;
        hedging.follow(at(600), || None);
        assert_eq!(hedging.after(), None);
        hedging.follow(at(700), || panic!("not so soon again"));
        hedging.follow(at(1100), || Some(0.2));
        assert_eq!(hedging.after(), Some(at(200)));
        hedging.follow(at(1600), || Some(0.000_5));
        assert_eq!(hedging.after(), Some(at(10)));
    }
}
