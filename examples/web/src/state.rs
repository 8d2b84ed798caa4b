//! What all requests of an instance share.

use crate::{metrics::Figures, settings::Settings};
use axum::http::HeaderValue;
use serde::Deserialize;
use session_store::{CookieConfig, SessionLayer, SessionStore};
use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::sync::Notify;

/// An instance: its names, its store, and whether it is ready. Clones share it.
#[derive(Clone, Debug)]
pub struct AppState {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    settings: Settings,
    store: Arc<dyn SessionStore>,
    draining: AtomicBool,
    fault: Mutex<Fault>,
    checked: Mutex<Checked>,
    done: Notify,
    figures: Figures,
}

/// What is known of the store.
#[derive(Clone, Copy, Debug, Default)]
struct Checked {
    /// When it was asked last.
    asked: Option<Instant>,
    /// When it answered well last.
    answered: Option<Instant>,
    /// Whether it is being asked.
    asking: bool,
    ready: bool,
}

/// How a test made an instance worse than it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Fault {
    /// How many times as long as it takes anyway each page takes; 0 and 1 change nothing.
    #[serde(default)]
    pub slow: u32,
    /// The status that each page is answered with, at once.
    #[serde(default)]
    pub status: Option<u16>,
}

/// Whether an instance wants requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// It does.
    Ready,
    /// It is about to stop; it still answers.
    Draining,
    /// Its session store does not answer.
    StoreUnreachable,
}

impl AppState {
    /// An instance over a store. [`Settings::session`] is not looked at.
    #[must_use]
    pub fn new(settings: Settings, store: Arc<dyn SessionStore>) -> Self {
        let inner = Inner {
            settings,
            store,
            draining: AtomicBool::new(false),
            fault: Mutex::default(),
            checked: Mutex::default(),
            done: Notify::new(),
            figures: Figures::default(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// The instance's name.
    #[must_use]
    pub fn instance(&self) -> &str {
        &self.inner.settings.instance
    }

    /// The host's name.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.inner.settings.host
    }

    /// Turns not ready, for good.
    pub fn drain(&self) {
        self.inner.draining.store(true, Ordering::Release);
    }

    /// Whether [`drain`](Self::drain) was called.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.inner.draining.load(Ordering::Acquire)
    }

    /// Whether the instance wants requests. The store is asked at most once a second, however many probes there are, and by a task of
    /// its own: a store that is silent keeps no probe waiting, and a probe that gives up takes nothing with it.
    ///
    /// A store that was there and is away for a moment leaves the instance ready: requests wait through an election, and if every instance
    /// turned not ready for its length, a gateway would have none to send them to.
    pub async fn readiness(&self) -> Readiness {
        if self.is_draining() {
            return Readiness::Draining;
        }
        let done = self.inner.done.notified();
        tokio::pin!(done);
        done.as_mut().enable();
        let (ask, asking) = {
            let mut checked = self.inner.checked();
            let due = checked.asked.is_none_or(|asked| asked.elapsed() >= CHECK_EVERY);
            let ask = due && !checked.asking;
            checked.asking |= ask;
            (ask, checked.asking)
        };
        if ask {
            let inner = self.inner.clone();
            tokio::spawn(async move { inner.check().await });
        }
        if asking {
            // Usually the answer is there at once; otherwise the last one counts.
            let _ = tokio::time::timeout(PROMPT, done).await;
        }
        let answered = self.inner.checked().answered;
        let ready = answered.is_some_and(|answered| answered.elapsed() < ELECTION);
        if ready { Readiness::Ready } else { Readiness::StoreUnreachable }
    }

    /// How this instance was made worse; readiness is not.
    #[must_use]
    pub fn fault(&self) -> Fault {
        *self.inner.fault.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes this instance worse, or well again. Does nothing without [`Settings::faults`].
    pub fn set_fault(&self, fault: Fault) {
        if self.inner.settings.faults {
            *self.inner.fault.lock().unwrap_or_else(PoisonError::into_inner) = fault;
        }
    }

    pub(crate) fn takes_faults(&self) -> bool {
        self.inner.settings.faults
    }

    pub(crate) fn figures(&self) -> &Figures {
        &self.inner.figures
    }

    pub(crate) fn store(&self) -> &Arc<dyn SessionStore> {
        &self.inner.store
    }

    pub(crate) fn sessions(&self) -> SessionLayer {
        SessionLayer::new(self.inner.store.clone())
            // A view that was shown as counted outlives the host that counted it: with Sentinel, a replica has it too.
            .commits(self.inner.store.durability())
            .lifetime(self.inner.settings.lifetime())
            .cookie(CookieConfig::insecure_local()) // the site is served over plain HTTP
    }

    /// Names as they go into headers; what no header can hold is left out.
    pub(crate) fn header(name: &str) -> HeaderValue {
        HeaderValue::from_str(name).unwrap_or(HeaderValue::from_static("unnamed"))
    }
}

impl Inner {
    async fn check(&self) {
        let health = tokio::time::timeout(CHECK_DEADLINE, self.store.health()).await;
        let now = Instant::now();
        let mut checked = self.checked();
        checked.asked = Some(now);
        checked.asking = false;
        if matches!(health, Ok(Ok(()))) {
            checked.answered = Some(now);
        }
        let ready = checked.answered.is_some_and(|answered| answered.elapsed() < ELECTION);
        if ready != checked.ready {
            match health {
                Ok(Ok(())) => tracing::info!("ready: the session store answers"),
                Ok(Err(error)) => tracing::warn!(%error, "not ready"),
                Err(_) => tracing::warn!("not ready: the session store's health check took too long"),
            }
        }
        checked.ready = ready;
        drop(checked);
        self.done.notify_waiters();
    }

    fn checked(&self) -> MutexGuard<'_, Checked> {
        // Plain values, whole after every statement.
        self.checked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const CHECK_EVERY: Duration = Duration::from_secs(1);
/// Sentinel notices a dead master after a second or so and elects another within two or three more.
const ELECTION: Duration = Duration::from_secs(5);
const CHECK_DEADLINE: Duration = Duration::from_millis(900);
/// How long a probe waits for a check under way; shorter than probes usually give.
const PROMPT: Duration = Duration::from_millis(200);
