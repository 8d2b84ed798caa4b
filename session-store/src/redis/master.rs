//! The connection in use, and its checks: ahead of time beside the calls, or before the next call where that came too late.

use super::{
    dial::{Found, Wire, check_role, resolve},
    failure::Failure,
    lane::Lane,
    url::{Settings, Target},
};
use redis::RedisConnectionInfo;
use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

/// The connections to one server.
pub(super) struct Master {
    pub(super) found: Found,
    /// Shared by all calls.
    pub(super) wire: Wire,
    pub(super) lane: Lane,
    /// Connections for calls that wait for replicas, each used by one at a time.
    pub(super) spare: Mutex<Vec<Wire>>,
    pub(super) generation: u64,
}

#[derive(Clone)]
pub(super) struct Live {
    pub(super) master: Arc<Master>,
    /// When the check began that it passed last.
    pub(super) checked: Instant,
    pub(super) doubted: bool,
}

/// Where the connection in use is kept.
pub(super) struct Seat {
    pub(super) settings: Settings,
    /// The URL without its password.
    pub(super) name: String,
    live: Mutex<Option<Live>>,
    checking: AtomicBool,
}

impl Seat {
    pub(super) fn new(settings: Settings, name: String) -> Self {
        Self { settings, name, live: Mutex::default(), checking: AtomicBool::new(false) }
    }

    pub(super) const fn login(&self) -> &RedisConnectionInfo {
        match &self.settings.target {
            Target::Single { login, .. } | Target::Sentinel { login, .. } => login,
        }
    }

    /// The connection in use, where it was checked lately. Before that is long ago it is checked again beside the calls, so that none waits for it.
    pub(super) fn usable(self: &Arc<Self>) -> Option<Live> {
        let live = self.current().filter(|live| !live.doubted)?;
        let age = live.checked.elapsed();
        if age >= AHEAD && !self.checking.swap(true, Relaxed) {
            tokio::spawn(self.clone().check_ahead(live.clone()));
        }
        (age < CHECKED_EVERY).then_some(live)
    }

    async fn check_ahead(self: Arc<Self>, live: Live) {
        let (begun, generation) = (Instant::now(), live.master.generation);
        match self.check(&live.master.wire, &live.master.found).await {
            Ok(()) => {
                if let Some(live) = self.lock().as_mut().filter(|live| live.master.generation == generation) {
                    live.checked = begun;
                }
            }
            Err(failure) => {
                self.left(&failure);
                self.drop_generation(generation);
            }
        }
        self.checking.store(false, Relaxed);
    }

    /// Whether a connection still leads to the master. Sentinels that do not answer at once say nothing against it.
    pub(super) async fn check(&self, wire: &Wire, found: &Found) -> Result<(), Failure> {
        check_role(wire.redis.clone()).await?;
        let Target::Sentinel { sentinels, master, .. } = &self.settings.target else { return Ok(()) };
        match tokio::time::timeout(CHECK, resolve(sentinels, master, &self.settings, Duration::ZERO)).await {
            Ok(Ok(named)) if named.replaces(found) => {
                Err(Failure::again(format!("the Sentinels name another master, {}", named.name())))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn left(&self, failure: &Failure) {
        tracing::warn!(target: "session_store", store = self.name, error = failure.reason, "left the master");
    }

    pub(super) fn current(&self) -> Option<Live> {
        self.lock().clone()
    }

    pub(super) fn set(&self, live: Option<Live>) {
        *self.lock() = live;
    }

    /// Has a connection checked before its next use.
    pub(super) fn doubt(&self, generation: u64) {
        if let Some(live) = self.lock().as_mut().filter(|live| live.master.generation == generation) {
            live.doubted = true;
        }
    }

    pub(super) fn drop_generation(&self, generation: u64) {
        let mut live = self.lock();
        if live.as_ref().is_some_and(|live| live.master.generation == generation) {
            *live = None;
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Live>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A demoted master still answers reads: no call uses a connection that passed no check for so long.
const CHECKED_EVERY: Duration = Duration::from_secs(1);
/// Early enough for the check to end before calls would wait for it, Sentinels that are silent included.
const AHEAD: Duration = Duration::from_millis(700);
/// How long a second look at the Sentinels may take; the connection in use is kept when they say nothing.
const CHECK: Duration = Duration::from_millis(200);
