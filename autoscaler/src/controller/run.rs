//! The loop: wait for the lease, then read, decide and write once a tick until it is lost.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::clock::{Clock, SystemClock};
use super::drain::{Drainer, Drains};
use super::error::chain;
use super::handle::{Mode, PolicyHandle};
use super::journal::{Event, Journal};
use super::lease::{Held, Lease};
use super::pass::{Ended, Pass};
use super::recorder::Recorder;
use super::target::{ScaleTarget, SignalSource};
use crate::policy::Policy;
use crate::policy::PolicyErrors;

/// Scales one service: see the [module](super) for what it needs.
///
/// Each tick reads the signals and the target at the same time, decides, and writes if there is something to write.
/// Every call outside has a deadline: a third of the tick for reads and writes, an eighth for the journal, and a second at
/// least, because a busy machine needs that long; so a pass can outlast a short tick, by seconds. A conflict is read and decided anew at once, up to twice; a
/// target that can't be read makes the ticks longer, up to eightfold; ticks vary by 10 % so that many controllers
/// don't move in step.
pub struct Controller {
    service: String,
    source: Arc<dyn SignalSource>,
    target: Arc<dyn ScaleTarget>,
    lease: Arc<dyn Lease>,
    journal: Arc<dyn Journal>,
    handle: PolicyHandle,
    tick: Duration,
    drainer: Option<Arc<dyn Drainer>>,
    clock: Arc<dyn Clock>,
    alive_within: Duration,
    permits: Option<Arc<Semaphore>>,
}

impl Controller {
    /// A controller for one service, ticking every 5 s, in [`Mode::Active`].
    ///
    /// # Errors
    /// When the policy is invalid.
    pub fn new(
        service: impl Into<String>,
        policy: Policy,
        source: impl SignalSource + 'static,
        target: impl ScaleTarget + 'static,
        lease: impl Lease + 'static,
        journal: impl Journal + 'static,
    ) -> Result<Self, PolicyErrors> {
        policy.validate()?;
        Ok(Self {
            service: service.into(),
            source: Arc::new(source),
            target: Arc::new(target),
            lease: Arc::new(lease),
            journal: Arc::new(journal),
            handle: PolicyHandle::new(policy),
            tick: TICK,
            drainer: None,
            clock: Arc::new(SystemClock),
            alive_within: ALIVE_WITHIN,
            permits: None,
        })
    }

    /// Sets the time between two decisions: 100 ms to an hour (what is beyond becomes the nearer end), and shorter than the
    /// policy's `max_gap`.
    #[must_use]
    pub fn tick(mut self, tick: Duration) -> Self {
        self.tick = tick.clamp(MIN_TICK, MAX_TICK);
        self
    }

    /// Sets who keeps new requests from instances that will be removed. Needed by a policy with a
    /// [`drain`](crate::Policy::drain); without one such a policy removes nothing before the drain's deadline.
    #[must_use]
    pub fn drainer(mut self, drainer: impl Drainer + 'static) -> Self {
        self.drainer = Some(Arc::new(drainer));
        self
    }

    /// Sets the clock.
    #[must_use]
    pub fn clock(mut self, clock: impl Clock + 'static) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// Sets how long none may serve although some are wanted before that is told ([`Event::NoneServing`]); a minute until
    /// set.
    #[must_use]
    pub fn alive_within(mut self, limit: Duration) -> Self {
        self.alive_within = limit;
        self
    }

    /// Sets what a pass needs one permit of, so that few passes of many controllers run at once.
    #[must_use]
    pub(super) fn permits(mut self, permits: Arc<Semaphore>) -> Self {
        self.permits = Some(permits);
        self
    }

    /// The service.
    pub fn service(&self) -> &str {
        &self.service
    }

    /// Sets the mode to begin with.
    #[must_use]
    pub fn mode(self, mode: Mode) -> Self {
        self.handle.set_mode(mode);
        self
    }

    /// A handle to change policy and mode while it runs.
    pub fn policy_handle(&self) -> PolicyHandle {
        self.handle.clone()
    }

    /// Runs until `shutdown` is cancelled, then gives the lease back and returns. It does not end by itself.
    pub async fn run(self, shutdown: CancellationToken) {
        let service = self.service.as_str();
        if self.tick >= self.handle.get().max_gap {
            warn!(target: "autoscaler", service, tick = ?self.tick,
                "the tick is not shorter than the policy's max_gap: nothing will ever be removed");
        }
        let limit = (self.tick / 8).max(LEAST_LIMIT);
        let mut recorder = Recorder::new(service, Arc::clone(&self.journal), Arc::clone(&self.clock), limit);
        let mut failures = 0;
        while !shutdown.is_cancelled() {
            let acquired = tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                acquired = self.lease.acquire() => acquired,
            };
            match acquired {
                Ok(held) => {
                    // A lease under which nothing can be done is worth no more than none.
                    failures =
                        if self.lead(&held, &mut recorder, &shutdown).await { 0 } else { failures + 1 };
                    // Best effort: without it the lease runs out by itself.
                    let _ = timeout(self.tick.max(LEAST_LIMIT), self.lease.release(&held)).await;
                }
                Err(error) => {
                    let why = chain(&error);
                    warn!(target: "autoscaler", service, error = %why, "lease failed");
                    recorder.record(None, self.handle.mode(), Event::LeaseFailed { why }).await;
                    failures += 1;
                }
            }
            // A lease that is lost as soon as it is held must not make a busy loop.
            self.pause(backed_off(self.tick.min(LEASE_PAUSE), failures), &shutdown).await;
        }
        recorder.flush().await;
    }

    /// Acts as the leader until the lease is lost or shutdown. Returns false if it was fenced before it could act at all.
    async fn lead(&self, held: &Held, recorder: &mut Recorder, shutdown: &CancellationToken) -> bool {
        let (service, term) = (self.service.as_str(), held.term);
        info!(target: "autoscaler", service, %term, "leading");
        recorder.record(Some(term), self.handle.mode(), Event::Leading).await;
        let mut acted = false;
        let ended = tokio::select! {
            biased;
            () = shutdown.cancelled() => return true,
            () = held.lost.cancelled() => Ended::Lost,
            ended = self.ticks(held, recorder, &mut acted) => ended,
        };
        let in_vain = matches!(ended, Ended::Fenced { .. }) && !acted;
        let event = match ended {
            Ended::Lost => {
                warn!(target: "autoscaler", service, %term, "lease lost");
                Event::LeaseLost
            }
            Ended::Fenced { by } => {
                warn!(target: "autoscaler", service, %term, %by, "fenced");
                Event::Fenced { by }
            }
        };
        recorder.record(Some(term), self.handle.mode(), event).await;
        !in_vain
    }

    /// One pass after another. Dropped at any await when the lease is lost. Sets `acted` when a pass went well.
    async fn ticks(&self, held: &Held, recorder: &mut Recorder, acted: &mut bool) -> Ended {
        let (mut policy, mut mode) = (self.handle.policy.subscribe(), self.handle.mode.subscribe());
        let mut pass = Pass {
            service: &self.service,
            source: self.source.as_ref(),
            target: self.target.as_ref(),
            drainer: self.drainer.as_deref(),
            clock: self.clock.as_ref(),
            held,
            tick: self.tick,
            limit: (self.tick / 3).max(LEAST_LIMIT),
            state: recorder.load_state().await,
            drains: Drains::default(),
            none_since: None,
            none_told: None,
            alive_within: self.alive_within,
        };
        let mut failures = 0;
        loop {
            let (policy_now, mode_now) = (policy.borrow_and_update().clone(), *mode.borrow_and_update());
            let permit = match &self.permits {
                // The semaphore is never closed; were it, the passes would run without it.
                Some(permits) => permits.acquire().await.ok(),
                None => None,
            };
            let passed = pass.run(&policy_now, mode_now, recorder).await;
            drop(permit);
            match passed {
                Ok(true) => (failures, *acted) = (0, true),
                Ok(false) => failures += 1,
                Err(ended) => return ended,
            }
            let delay = backed_off(self.tick, failures);
            debug!(target: "autoscaler", service = %self.service, ?delay, "waiting");
            tokio::select! {
                _ = policy.changed() => {}
                _ = mode.changed() => {}
                () = sleep(delay) => {}
            }
        }
    }

    async fn pause(&self, delay: Duration, shutdown: &CancellationToken) {
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = sleep(delay) => {}
        }
    }
}

/// The pause after so many failures in a row: doubled for each, eightfold at most, 10 % more or less.
fn backed_off(pause: Duration, failures: u32) -> Duration {
    pause.saturating_mul(1 << failures.min(3)).mul_f64(rand::random_range(0.9..1.1))
}

/// Fast enough to double every 15 s, slow enough for three reads within a signal's default age.
const TICK: Duration = Duration::from_secs(5);
const MIN_TICK: Duration = Duration::from_millis(100);
/// The longest `max_gap`; and so no pause that is made of it overflows.
const MAX_TICK: Duration = Duration::from_secs(3600);
/// What a call outside gets at least: a read and a compare-and-set, or some new connections, on a busy machine.
const LEAST_LIMIT: Duration = Duration::from_secs(1);
/// The pause before a lease is asked for again.
const LEASE_PAUSE: Duration = Duration::from_secs(1);
/// Longer than a start of a container that was pulled before.
const ALIVE_WITHIN: Duration = Duration::from_secs(60);
