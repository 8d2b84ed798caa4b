//! From a request to an answer of some endpoint: attempts, retries, rests and waits.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::StatusCode;
use tokio::time::{Instant, sleep, timeout_at};

use super::attempt::{Answer, Failure, Outgoing};
use super::gateway::Inner;
use super::hedge::{self, Tried};
use super::refusal::{Refusal, broke_off, give_up};
use super::room::Place;
use super::upstream::Upstream;
use crate::config::Probes;
use crate::endpoint::EndpointId;
use crate::lease::{Lease, PickRequest};
use crate::members::HASTE;

pub(super) type Answered = (Answer, Lease, Arc<Upstream>);

/// Where a request has been.
#[derive(Default)]
pub(super) struct Way {
    /// Endpoints not to go to now.
    pub(super) tried: Vec<EndpointId>,
    /// Attempts of any kind.
    pub(super) sent: u32,
    /// Attempts that reached an endpoint.
    attempts: u32,
    /// How often all endpoints had been tried.
    rounds: u32,
    /// Its place in the waiting room, and until when.
    wait: Option<(Place, Instant)>,
}

impl Way {
    /// How long to leave the endpoints alone once all have been tried.
    fn rest(&self, probes: Option<&Probes>) -> Duration {
        let index = self.attempts.max(self.rounds).saturating_sub(1) as usize;
        let most = RESTS.get(index).copied().unwrap_or(LONGEST_REST);
        let rest = jittered(most);
        match probes {
            // A failure has probes made at once, 100 ms apart: their verdict comes before the last attempts are spent
            // on what accepts connections and is dead, and sends the request to the waiting room.
            Some(rules) if index > 0 => {
                rest.max(HASTE * rules.unhealthy_after.saturating_add(1)).min(LONGEST_REST)
            }
            _ => rest,
        }
    }
}

/// A blip is over at once; a process that starts anew needs longer. The four attempts of the default are spread
/// over about a second.
const RESTS: [Duration; 3] =
    [Duration::from_millis(30), Duration::from_millis(250), Duration::from_millis(500)];
const LONGEST_REST: Duration = Duration::from_secs(1);

/// Tries until there is an answer, or a reason to give up.
pub(super) async fn answer(
    inner: &Arc<Inner>,
    outgoing: &Outgoing,
    way: &mut Way,
) -> Result<Answered, Refusal> {
    let config = &inner.config;
    let mut next = None;
    loop {
        let lease = match next.take() {
            Some(lease) => lease,
            None => pick(inner, outgoing, way).await?,
        };
        way.sent += 1;
        // Who tries an endpoint for all keeps its place, should it fail.
        if !lease.is_trial() {
            way.wait = None;
        }
        let Tried { result, mut lease, upstream } = hedge::try_once(inner, outgoing, way, lease).await;
        let now = inner.now();
        let failure = match result {
            Ok(answer) => {
                lease.responded(answer.status(), now);
                inner.follow();
                // As many answers as come, so many more can be asked for.
                inner.wake(1);
                if answer.status() == 101 && outgoing.upgrade.is_none() {
                    lease.finish(crate::Outcome::Reset, now);
                    let why = "the endpoint switched protocols without being asked";
                    return Err(Refusal::new(StatusCode::BAD_GATEWAY, why));
                }
                if config.retry_statuses.contains(&answer.status()) && outgoing.is_repeatable() {
                    way.attempts += 1;
                    way.tried.push(lease.endpoint().id.clone());
                    next = elsewhere(inner, outgoing, way);
                    if next.is_some() {
                        tracing::debug!(target: "balancer", endpoint = %lease.endpoint().id, status = answer.status(), "asked elsewhere");
                        lease.finish(crate::Outcome::Success, now);
                        continue;
                    }
                }
                return Ok((answer, lease, upstream));
            }
            Err(failure) => failure,
        };
        let id = lease.endpoint().id.clone();
        lease.finish(failure.outcome(), now);
        inner.follow();
        tracing::debug!(target: "balancer", endpoint = %id, ?failure, "attempt failed");
        // An attempt that was called off did no harm that another one could do again.
        way.attempts += u32::from(matches!(failure, Failure::Reset { .. } | Failure::Timeout));
        let again = failure.is_unsent() || outgoing.is_idempotent();
        if matches!(failure, Failure::Client) {
            return Err(broke_off(outgoing));
        }
        let late = Instant::now() >= outgoing.deadline(config);
        if late || !again || way.attempts >= config.max_attempts || !outgoing.body.can_start() {
            return Err(give_up(&failure));
        }
        if !way.tried.contains(&id) {
            way.tried.push(id);
        }
        if matches!(failure, Failure::Local(_)) {
            // It harms no endpoint, so that the budget has no say; what we lack may be there in a moment.
            pause(100).await;
            continue;
        }
        while !inner.may_retry() {
            pause(100).await;
            if Instant::now() >= outgoing.deadline(config) {
                return Err(give_up(&failure));
            }
        }
    }
}

/// Another endpoint for a request that has an answer in hand, if there is one at once and the budget pays for it.
fn elsewhere(inner: &Arc<Inner>, outgoing: &Outgoing, way: &Way) -> Option<Lease> {
    let config = &inner.config;
    if way.attempts >= config.max_attempts || Instant::now() >= outgoing.deadline(config) {
        return None;
    }
    let mut request = PickRequest::excluding(&way.tried).priority(outgoing.priority);
    request.key = outgoing.key;
    let picked = inner.pool.pick(&request, inner.now()).ok();
    inner.follow();
    // The budget pays for what is done: a lease that is dropped counts as cancelled.
    picked.filter(|_| inner.may_retry())
}

/// An endpoint, after a wait if need be.
async fn pick(inner: &Arc<Inner>, outgoing: &Outgoing, way: &mut Way) -> Result<Lease, Refusal> {
    let config = &inner.config;
    let mut rest: Option<Instant> = None;
    loop {
        let deadline = outgoing.deadline(config);
        // Lying down before the look makes sure that no wake-up is missed.
        let woken = way.wait.as_ref().map(|(place, _)| place.sleep());
        let changed = rest.map(|until| (until, inner.changes.notified()));
        let mut request = PickRequest::excluding(&way.tried)
            .may_try(outgoing.is_repeatable())
            .prefer(outgoing.home.as_ref())
            .priority(outgoing.priority);
        request.key = outgoing.key;
        let picked = inner.pool.pick(&request, inner.now());
        inner.follow();
        let error = match picked {
            Ok(lease) => return Ok(lease),
            Err(error) => error,
        };
        if Instant::now() >= deadline {
            return Err(Refusal::new(StatusCode::GATEWAY_TIMEOUT, format!("the time is up and {error}")));
        }
        if error.is_excluded() {
            // All have been tried: begin again, not at once; another one that comes is taken.
            let Some((until, changed)) = changed else {
                way.rounds = way.rounds.saturating_add(1);
                let rules = config.probe.as_ref().map(|probe| &probe.rules);
                rest = Some(Instant::now() + way.rest(rules));
                continue;
            };
            if timeout_at(until.min(deadline), changed).await.is_err() {
                way.tried.clear();
                rest = None;
            }
            continue;
        }
        way.tried.clear();
        rest = None;
        let Some(woken) = woken else {
            let Some(place) = inner.room.enter(outgoing.priority) else {
                inner.counters.rejected.fetch_add(1, Ordering::Relaxed);
                let why = format!("{error}, and {} requests are waiting already", config.waiting_limit);
                return Err(Refusal { again: Some(1), ..Refusal::new(StatusCode::SERVICE_UNAVAILABLE, why) });
            };
            way.wait = Some((place, Instant::now() + config.waiting_timeout));
            continue;
        };
        let until = way.wait.as_ref().map_or(deadline, |(_, until)| (*until).min(deadline));
        let woken = tokio::select! {
            biased;
            woken = timeout_at(until, woken) => woken.is_ok(),
            () = outgoing.body.broken() => return Err(broke_off(outgoing)),
        };
        if !woken {
            let why = format!("{error}, and none came for {:.1} s", outgoing.began.elapsed().as_secs_f64());
            return Err(Refusal { again: Some(1), ..Refusal::new(StatusCode::SERVICE_UNAVAILABLE, why) });
        }
    }
}

/// Half to all of so many milliseconds.
async fn pause(most: u64) {
    sleep(jittered(Duration::from_millis(most))).await;
}

/// Half to all of it.
fn jittered(most: Duration) -> Duration {
    most.mul_f64(0.5 + 0.5 * rand::random::<f64>())
}
