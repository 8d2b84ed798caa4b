//! The gateway's handle: what a program holds and asks.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Serialize;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::access::Entry;
use super::config::Config;
use super::hedge::Hedging;
use super::room::Room;
use super::stats::Window;
use super::sticky::Homes;
use super::tunnel::Tunnels;
use super::upstream::Upstreams;
use super::visit::{Guests, Visit};
use crate::budget::RetryBudget;
use crate::endpoint::Update;
use crate::error::ConfigError;
use crate::event::Event;
use crate::pool::Pool;
use crate::snapshot::EndpointView;

/// A gateway in front of a pool; a clone is another handle on the same one.
///
/// It has a clock of its own, which begins with it: change the pool through [`apply`](Self::apply), or with times
/// from [`now`](Self::now). It collects the pool's events; read them from [`events`](Self::events).
#[derive(Clone, Debug)]
pub struct Gateway {
    pub(crate) inner: Arc<Inner>,
}

/// What a gateway has to do, for an autoscaler, an exporter or a person.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Load {
    /// Requests that are here, from their head to the last byte of their answer; the waiting ones included.
    pub in_flight: u64,
    /// Requests that wait for an endpoint.
    pub waiting: usize,
    /// Requests since the start.
    pub requests_total: u64,
    /// Answers of 500 and above since the start, the gateway's own included.
    pub responses_5xx_total: u64,
    /// Requests refused since the start: bad ones, and those that found the waiting room full.
    pub rejected_total: u64,
    /// Retries since the start.
    pub retries_total: u64,
    /// Requests since the start that were sent to a second endpoint because the first took long.
    pub hedges_total: u64,
    /// Arrivals a second over the last ten whole seconds.
    pub rate_per_second: f64,
    /// Median time to the head of the answer over the last ten seconds; `None` without an answer.
    pub latency_p50: Option<f64>,
    /// The same, 95th percentile, in seconds.
    pub latency_p95: Option<f64>,
    /// The same, 99th percentile, in seconds.
    pub latency_p99: Option<f64>,
    /// Every endpoint.
    pub endpoints: Vec<EndpointView>,
}

/// An event of the pool with the time of day.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct LoggedEvent {
    /// Milliseconds since 1970.
    pub unix_ms: u64,
    /// The event as a sentence.
    pub text: String,
    /// The event as data.
    pub event: Event,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) pool: Arc<Pool>,
    pub(crate) config: Config,
    pub(crate) upstreams: Upstreams,
    pub(crate) room: Arc<Room>,
    /// Told of each change of the pool.
    pub(crate) changes: Notify,
    pub(crate) window: Mutex<Window>,
    pub(crate) budget: Mutex<RetryBudget>,
    pub(crate) hedging: Option<Hedging>,
    pub(crate) counters: Counters,
    /// Calls of `serve` that run.
    pub(crate) serving: AtomicUsize,
    pub(crate) closing: AtomicBool,
    /// A drain's delay is over.
    pub(crate) quiesce: watch::Sender<bool>,
    /// Listeners that accept, and connections that are served.
    pub(crate) listening: AtomicUsize,
    pub(crate) open: AtomicUsize,
    pub(crate) start: Instant,
    pub(crate) keeper: tokio::sync::Mutex<()>,
    pub(crate) tunnels: Arc<Tunnels>,
    pub(crate) guests: Arc<Guests>,
    pub(crate) homes: Option<Homes>,
    started_at: SystemTime,
    /// One more than the generation that was followed last; written under the lock.
    followed: AtomicU64,
    following: Mutex<()>,
    log: Mutex<VecDeque<LoggedEvent>>,
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) in_flight: AtomicU64,
    pub(crate) requests: AtomicU64,
    pub(crate) server_errors: AtomicU64,
    pub(crate) rejected: AtomicU64,
    pub(crate) retries: AtomicU64,
    pub(crate) hedges: AtomicU64,
}

/// Events kept for [`Gateway::events`].
const LOG: usize = 512;
/// Waiting requests that go at a time, with each change and each beat: an endpoint that has just come up must not
/// get a thousand at once.
const BATCH: usize = 64;

impl Gateway {
    /// A gateway for `pool`; nothing runs until [`serve`](Self::serve). With [`Config::probe`] it switches the
    /// pool's probes on.
    ///
    /// # Errors
    /// A setting that can't work, by name.
    pub fn new(pool: Arc<Pool>, config: Config) -> Result<Self, ConfigError> {
        config.validate()?;
        if let Some(probe) = &config.probe {
            pool.enable_probes(probe.rules.clone())?;
        }
        // A pool that has lived before goes on from its own time.
        let start = Instant::now();
        let lived = pool.last_now();
        let start = start.checked_sub(lived).unwrap_or(start);
        let inner = Inner {
            upstreams: Upstreams::new(&config),
            room: Arc::new(Room::new(config.waiting_limit)),
            changes: Notify::new(),
            window: Mutex::new(Window::new()),
            budget: Mutex::new(RetryBudget::new(config.retry_share, config.retry_per_second)),
            hedging: config.hedge.as_ref().map(Hedging::new),
            counters: Counters::default(),
            serving: AtomicUsize::new(0),
            closing: AtomicBool::new(false),
            quiesce: watch::Sender::new(false),
            listening: AtomicUsize::new(0),
            open: AtomicUsize::new(0),
            start,
            keeper: tokio::sync::Mutex::new(()),
            tunnels: Arc::default(),
            guests: Arc::default(),
            homes: config.sticky.clone().map(Homes::new),
            started_at: SystemTime::now().checked_sub(lived).unwrap_or(UNIX_EPOCH),
            followed: AtomicU64::new(0),
            following: Mutex::new(()),
            log: Mutex::default(),
            pool,
            config,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Takes in a change of the set, now.
    pub fn apply(&self, update: Update) {
        self.inner.pool.apply(update, self.inner.now());
        self.inner.follow();
    }

    /// The pool.
    pub fn pool(&self) -> &Arc<Pool> {
        &self.inner.pool
    }

    /// The gateway's time, as the pool is told it.
    pub fn now(&self) -> Duration {
        self.inner.now()
    }

    /// Whether it serves and does not drain; false too once the future of [`serve`](Self::serve) is dropped. A front that asks should get 503 when not.
    pub fn ready(&self) -> bool {
        self.inner.serving.load(Ordering::Acquire) > 0 && !self.inner.closing.load(Ordering::Acquire)
    }

    /// Ends the [delay](super::Config::drain_delay) of a drain that has begun: the listeners close, but for what waits in their queues already, and so
    /// do connections that are idle. Waits until no connection and no tunnel is left, at most for `within`, and answers how many are. Without
    /// a drain it does nothing but count.
    ///
    /// For a front that moves to the next gateway at once when this one says that it is not ready, as the holder of a virtual address does: what
    /// is in flight when the address moves is cut. Say so only when this returned.
    pub async fn quiesce(&self, within: Duration) -> usize {
        self.inner.quiesce(within).await
    }

    /// What there is to do.
    pub fn load(&self) -> Load {
        let inner = &self.inner;
        let now = inner.now();
        let (rate, seen) = {
            let mut window = lock(&inner.window);
            (window.rate(now), window.percentiles(now))
        };
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Load {
            in_flight: count(&inner.counters.in_flight),
            waiting: inner.room.inside(),
            requests_total: count(&inner.counters.requests),
            responses_5xx_total: count(&inner.counters.server_errors),
            rejected_total: count(&inner.counters.rejected),
            retries_total: count(&inner.counters.retries),
            hedges_total: count(&inner.counters.hedges),
            rate_per_second: rate,
            latency_p50: seen.p50,
            latency_p95: seen.p95,
            latency_p99: seen.p99,
            endpoints: inner.pool.snapshot().views(now),
        }
    }

    /// The last events of the pool, oldest first, at most 512.
    pub fn events(&self) -> Vec<LoggedEvent> {
        self.inner.collect_events();
        lock(&self.inner.log).iter().cloned().collect()
    }
}

impl Inner {
    pub(crate) fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// Brings connections and the waiting room in line with the pool; whether it had changed.
    pub(crate) fn follow(&self) -> bool {
        let mut changed = false;
        if self.followed.load(Ordering::Acquire) != self.pool.generation() + 1 {
            let _one = lock(&self.following);
            let snapshot = self.pool.snapshot();
            if self.followed.load(Ordering::Acquire) != snapshot.generation() + 1 {
                self.upstreams.follow(&snapshot);
                if let Some(homes) = &self.homes {
                    homes.follow(&snapshot);
                }
                self.followed.store(snapshot.generation() + 1, Ordering::Release);
                changed = true;
            }
        }
        if changed {
            self.changes.notify_waiters();
            self.wake(BATCH);
        }
        changed
    }

    /// Wakes who may go: up to `most` when there is a ready endpoint, one for a trial.
    pub(crate) fn wake(&self, most: usize) {
        if self.room.inside() == 0 {
            return;
        }
        let snapshot = self.pool.snapshot();
        if snapshot.ready() > 0 {
            self.room.wake(most);
        } else if snapshot.wants_trial() {
            self.room.wake(1);
        }
    }

    /// What is to be done again and again while it serves.
    pub(crate) fn beat(&self) {
        self.pool.tick(self.now());
        if let Some(hedging) = &self.hedging {
            let now = self.now();
            hedging.follow(now, || lock(&self.window).percentiles(now).p95);
        }
        if !self.follow() {
            self.wake(BATCH);
        }
        self.collect_events();
    }

    pub(crate) fn collect_events(&self) {
        let mut log = lock(&self.log);
        for event in self.pool.drain_events() {
            if log.len() >= LOG {
                log.pop_front();
            }
            let at = self.started_at.checked_add(event.at).unwrap_or(self.started_at);
            let unix_ms = at.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64;
            log.push_back(LoggedEvent { unix_ms, text: event.to_string(), event });
        }
    }

    /// Whether the budget pays for one more retry.
    pub(crate) fn may_retry(&self) -> bool {
        let paid = lock(&self.budget).withdraw(self.now());
        if paid {
            self.counters.retries.fetch_add(1, Ordering::Relaxed);
        }
        paid
    }
}

/// Counts a request as in flight while it lives.
pub(crate) struct Ticket {
    inner: Arc<Inner>,
    visit: Arc<Visit>,
    pub(crate) entry: Option<Box<Entry>>,
}

impl Ticket {
    pub(crate) fn new(inner: Arc<Inner>, visit: Arc<Visit>) -> Self {
        inner.counters.in_flight.fetch_add(1, Ordering::Relaxed);
        inner.counters.requests.fetch_add(1, Ordering::Relaxed);
        let now = inner.now();
        lock(&inner.window).arrived(now);
        lock(&inner.budget).deposit(now);
        if let Some(hedging) = &inner.hedging {
            hedging.deposit(now);
        }
        Self { inner, visit, entry: None }
    }

    /// So many bytes more went to the client.
    pub(crate) fn sent(&mut self, bytes: u64) {
        if let Some(entry) = &mut self.entry {
            entry.bytes += bytes;
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.inner.counters.in_flight.fetch_sub(1, Ordering::Relaxed);
        // Who waits for an endpoint at its limit may go.
        self.inner.wake(1);
        // The next head is read after this.
        if let Some(seen) = &self.visit.seen {
            seen.resume();
        }
        if let Some(entry) = &self.entry {
            entry.tell(rand::random());
        }
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::endpoint::Endpoint;

    #[tokio::test]
    async fn the_waiting_go_in_batches() {
        let pool = Arc::new(Pool::new(crate::Config::default(), 7).unwrap());
        let gateway = Gateway::new(pool, Config::default()).unwrap();
        let room = &gateway.inner.room;
        let places: Vec<_> = (0..150).map(|_| room.enter(crate::Priority::Normal).unwrap()).collect();
        let mut waiting: Vec<_> = places.iter().map(|place| place.sleep()).collect();
        let mut woken = || {
            waiting.retain_mut(|sleeper| sleeper.try_recv().is_err());
            150 - waiting.len()
        };
        gateway.inner.beat();
        assert_eq!(woken(), 0);
        gateway.apply(Update::Add(Endpoint::new("a", ([127, 0, 0, 1], 1).into())));
        assert_eq!(woken(), BATCH);
        // Neither picks nor failures hurry it; an answer does, by one.
        gateway.inner.follow();
        assert_eq!(woken(), BATCH);
        gateway.inner.wake(1);
        assert_eq!(woken(), BATCH + 1);
        gateway.inner.beat();
        gateway.inner.beat();
        assert_eq!(woken(), 150);
    }
}
