//! The supervisor of the connection to the master: redis-rs does not reconnect a multiplexed connection, and knows no supervision over Sentinel.
//!
//! At each connect the master is resolved anew (the newest configuration that a majority of the Sentinels tells) and asked for its
//! ROLE. A connection in use is asked again within each second ([`Seat`]), and so are the Sentinels: a master that was cut off or stopped goes on calling itself one
//! for seconds after another was elected. A timeout, READONLY or a lost connection drops the connection, and the call is tried again
//! inside its own deadline. A host without power answers nothing at all, so each step has a short deadline of its own.

use super::{
    MAX_WAIT,
    dial::{Found, RESPONSE, Wire, check_server, open, resolve},
    failure::{CallError, Failure},
    lane::Lane,
    master::{Live, Master, Seat},
    url::{Settings, Target},
};
use crate::error::StoreError;
use redis::aio::MultiplexedConnection;
use std::{
    future::Future,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};
use tokio::sync::Semaphore;

pub(super) struct Link {
    seat: Arc<Seat>,
    connecting: tokio::sync::Mutex<Option<(Instant, Failure)>>,
    calls: AtomicUsize,
    waits: Semaphore,
}

/// A place among the calls under way.
pub(super) struct Permit<'a>(&'a AtomicUsize);

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// See [`Link::ready`].
pub(super) struct Ready(Arc<Master>);

impl Ready {
    pub(super) fn lane(&self) -> &Lane {
        &self.0.lane
    }
}

impl Link {
    pub(super) fn new(settings: Settings, name: String) -> Self {
        Self {
            seat: Arc::new(Seat::new(settings, name)),
            connecting: Default::default(),
            calls: AtomicUsize::new(0),
            waits: Semaphore::new(MAX_WAITS),
        }
    }

    /// The URL without its password.
    pub(super) fn name(&self) -> &str {
        &self.seat.name
    }

    /// Calls `work` with a connection to the master until it succeeds, fails for good, or `deadline` has passed. `work` must be safe to repeat.
    pub(super) async fn call<T, F, W>(
        &self,
        action: &'static str,
        deadline: Duration,
        work: W,
    ) -> Result<T, StoreError>
    where
        W: Fn(MultiplexedConnection) -> F,
        F: Future<Output = Result<T, CallError>>,
    {
        let _permit = self.admit(action)?;
        self.admitted(action, deadline, None, work).await
    }

    /// A place among the calls under way, of which there is a bounded number.
    pub(super) fn admit(&self, action: &'static str) -> Result<Permit<'_>, StoreError> {
        let permit = Permit(&self.calls);
        if self.calls.fetch_add(1, Relaxed) >= MAX_CALLS {
            return Err(self.unavailable(action, format!("{MAX_CALLS} calls are waiting for it already")));
        }
        Ok(permit)
    }

    /// A connection for one command, where there is one that can be used at once and `left` is more than an answer may take.
    pub(super) fn ready(&self, left: Duration) -> Option<Ready> {
        if left <= RESPONSE {
            return None;
        }
        self.seat.usable().map(|live| Ready(live.master))
    }

    /// What a failure of it comes to: an error, or another attempt in the [usual way](Self::admitted).
    pub(super) fn failed(
        &self,
        ready: &Ready,
        action: &'static str,
        failure: Failure,
    ) -> Result<(), StoreError> {
        if !failure.again {
            return Err(self.unavailable(action, failure.reason));
        }
        self.seat.drop_generation(ready.0.generation);
        Ok(())
    }

    pub(super) fn timeout(
        &self,
        action: &'static str,
        deadline: Duration,
        reason: impl Into<String>,
    ) -> StoreError {
        let deadline = Duration::from_millis(crate::lifetime::millis(deadline)); // as a person reads it
        StoreError::Timeout { store: self.seat.name.clone(), action, deadline, reason: reason.into() }
    }

    /// [`call`](Self::call) for who holds a permit. `waits`: on a connection that no one else uses meanwhile, where one answer may take so long.
    pub(super) async fn admitted<T, F, W>(
        &self,
        action: &'static str,
        deadline: Duration,
        waits: Option<Duration>,
        work: W,
    ) -> Result<T, StoreError>
    where
        W: Fn(MultiplexedConnection) -> F,
        F: Future<Output = Result<T, CallError>>,
    {
        let until = Instant::now() + deadline;
        let (mut attempt, mut last) = (0_u32, Failure::again("no attempt was finished"));
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                if let Some((wanted, acked)) = last.short {
                    return Err(StoreError::NotDurable {
                        store: self.seat.name.clone(),
                        action,
                        wanted,
                        acked,
                    });
                }
                return Err(self.timeout(action, deadline, last.reason));
            }
            let mut used = None;
            match tokio::time::timeout(left, self.attempt(waits, &work, &mut used)).await {
                Ok(Ok(done)) => return Ok(done),
                Ok(Err(CallError::Store(error))) => return Err(error),
                Ok(Err(CallError::Redis(failure))) if !failure.again => {
                    return Err(self.unavailable(action, failure.reason));
                }
                Ok(Err(CallError::Redis(failure))) => last = failure,
                Err(_) => {
                    // The deadline, told above. What did not answer until now is not tried by the next call either; one that lacks replicas answers.
                    match (used, last.short) {
                        (Some(generation), None) => self.seat.drop_generation(generation),
                        (Some(generation), Some(_)) => self.seat.doubt(generation),
                        (None, _) => {}
                    }
                    continue;
                }
            }
            attempt = attempt.saturating_add(1);
            tracing::debug!(target: "session_store", store = self.seat.name, attempt, error = last.reason, "trying again");
            let pause = FIRST_PAUSE.saturating_mul(1 << attempt.min(4)).mul_f64(rand::random_range(0.5..1.0));
            tokio::time::sleep(pause.min(until.saturating_duration_since(Instant::now()))).await;
        }
    }

    async fn attempt<T, F, W>(
        &self,
        waits: Option<Duration>,
        work: &W,
        used: &mut Option<u64>,
    ) -> Result<T, CallError>
    where
        W: Fn(MultiplexedConnection) -> F,
        F: Future<Output = Result<T, CallError>>,
    {
        // The turn first: by the time it comes, the master may be another one.
        let turn = match waits {
            Some(_) => Some(self.waits.acquire().await.map_err(|_| Failure::again("it is closed"))?),
            None => None,
        };
        let live = self.connection().await?;
        let master = &*live.master;
        *used = Some(master.generation);
        let done = match waits {
            None => work(master.wire.redis.clone()).await,
            Some(longest) => {
                let done = match self.spare(master).await {
                    Ok(wire) => self.alone(master, wire, longest, work).await,
                    Err(failure) => Err(failure.into()),
                };
                drop(turn);
                done
            }
        };
        match &done {
            // Its replicas may be gone because it is no master any more: the Sentinels are asked before it is used again.
            Err(CallError::Redis(Failure { short: Some(_), .. })) => self.seat.doubt(master.generation),
            Err(CallError::Redis(failure)) if failure.again => self.seat.drop_generation(master.generation),
            _ => {}
        }
        done
    }

    /// Does `work` on a connection of its own, and keeps that for the next caller. One that was given up on may still be held up by its `WAIT`.
    async fn alone<T, F, W>(
        &self,
        master: &Master,
        wire: Wire,
        longest: Duration,
        work: &W,
    ) -> Result<T, CallError>
    where
        W: Fn(MultiplexedConnection) -> F,
        F: Future<Output = Result<T, CallError>>,
    {
        let limit = longest + RESPONSE;
        let Ok(done) = tokio::time::timeout(limit, work(wire.redis.clone())).await else {
            return Err(Failure::again(format!("no answer within {limit:?}")).into());
        };
        if done.is_ok() {
            master.spare.lock().unwrap_or_else(PoisonError::into_inner).push(wire);
        }
        done
    }

    /// A connection to the same server for one caller alone.
    async fn spare(&self, master: &Master) -> Result<Wire, Failure> {
        if let Some(wire) = master.spare.lock().unwrap_or_else(PoisonError::into_inner).pop() {
            return Ok(wire);
        }
        let address = master.found.address.clone();
        open(address, self.seat.login(), MAX_WAIT + RESPONSE, &self.seat.settings.transport)
            .await
            .map_err(|failure| failure.at(&master.found.name()))
    }

    /// The connection in use, or a new one. One caller connects; who waited for it shares its failure instead of trying again in a row.
    async fn connection(&self) -> Result<Live, Failure> {
        if let Some(live) = self.seat.usable() {
            return Ok(live);
        }
        let asked = Instant::now();
        let mut connecting = self.connecting.lock().await;
        if let Some(live) = self.seat.usable() {
            return Ok(live);
        }
        if let Some((when, failure)) = connecting.as_ref()
            && *when >= asked
        {
            return Err(failure.clone());
        }
        let generation = match self.seat.current() {
            Some(live) => {
                // Out of use until it has answered: a caller with less time than a silent master takes leaves nothing behind that the
                // next one would have to find out anew.
                self.seat.set(None);
                let begun = Instant::now();
                match self.seat.check(&live.master.wire, &live.master.found).await {
                    Ok(()) => {
                        let checked = Live { checked: begun, doubted: false, ..live };
                        self.seat.set(Some(checked.clone()));
                        return Ok(checked);
                    }
                    Err(failure) => {
                        self.seat.left(&failure);
                        live.master.generation.wrapping_add(1)
                    }
                }
            }
            None => rand::random(),
        };
        match self.connect().await {
            Ok((found, wire)) => {
                *connecting = None;
                let master = found.name();
                tracing::info!(target: "session_store", store = self.seat.name, master, "connected to the master");
                let (lane, spare) = (Lane::new(&wire.redis), Mutex::default());
                let master = Arc::new(Master { found, wire, lane, spare, generation });
                let live = Live { master, checked: Instant::now(), doubted: false };
                self.seat.set(Some(live.clone()));
                Ok(live)
            }
            Err(failure) => {
                *connecting = Some((Instant::now(), failure.clone()));
                Err(failure)
            }
        }
    }

    async fn connect(&self) -> Result<(Found, Wire), Failure> {
        let found = match &self.seat.settings.target {
            Target::Single { address, .. } => Found { address: address.clone(), epoch: 0 },
            Target::Sentinel { sentinels, master, .. } => {
                resolve(sentinels, master, &self.seat.settings, STRAGGLERS).await?
            }
        };
        let (name, address) = (found.name(), found.address.clone());
        let wire = open(address, self.seat.login(), RESPONSE, &self.seat.settings.transport);
        let wire = wire.await.map_err(|failure| failure.at(&name))?;
        // One that hung while this took its time may be back with old ideas: the Sentinels are asked once more.
        self.seat.check(&wire, &found).await.map_err(|failure| failure.at(&name))?;
        check_server(wire.redis.clone(), &name).await.map_err(|failure| failure.at(&name))?;
        Ok((found, wire))
    }

    fn unavailable(&self, action: &'static str, reason: String) -> StoreError {
        StoreError::Unavailable { store: self.seat.name.clone(), action, reason, source: None }
    }
}

/// Doubles four times, to about 0.3 s: often enough to be back soon after an election.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
/// A Sentinel learns of an election from the one that held it: with a majority's answers the others still get this long.
const STRAGGLERS: Duration = Duration::from_millis(50);
/// Calls that wait for replicas at once; more wait for their turn. Each has a connection of its own.
const MAX_WAITS: usize = 16;
/// Calls under way at once; one more is refused rather than queued.
const MAX_CALLS: usize = 4096;
