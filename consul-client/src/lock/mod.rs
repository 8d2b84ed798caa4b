//! A lock that renews itself, says when it is lost, and carries a fence.
//!
//! Wire-compatible with `consul lock` and HashiCorp's Go client: the same flags on the key, the same release. Different where
//! theirs is unsafe or brittle: time counts from the sending of a renewal, an election does not cost the lock while the lease lasts,
//! and each holder gets a [`Fence`].
//!
//! `lease` says when the lock may be believed to be held (pure); `session` keeps a session alive; `keeper` holds a key with it;
//! `contend` gets it. `election`, `semaphore` and `ephemeral` are made of the same parts.

mod contend;
pub(crate) mod election;
pub(crate) mod ephemeral;
mod keeper;
mod lease;
pub(crate) mod semaphore;
mod session;

use std::{fmt, future::Future, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::time::Instant;

use self::{keeper::Candidate, session::Task};
use crate::{Client, Error, Result, Txn};

/// How a lock is wanted: see [`Client::lock`].
#[derive(Clone)]
#[must_use = "nothing is locked until `acquire` or `try_acquire`"]
pub struct LockBuilder {
    client: Client,
    key: String,
    ttl: Duration,
    lock_delay: Option<Duration>,
    value: Bytes,
}

impl LockBuilder {
    pub(crate) fn new(client: Client, key: String) -> Self {
        Self { client, key, ttl: DEFAULT_TTL, lock_delay: None, value: Bytes::new() }
    }

    /// How long the lock outlives the last renewal (10 s to 86,400 s; 30 s unless set, more than an election at Consul's default
    /// settings takes). Less a tenth it is the time without contact after which the holder is told that it lost the lock; Consul
    /// frees the key after once to twice the TTL.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = ttl;
        self
    }

    /// How long the key stays barred after a holder vanished (0 to 60 s; the TTL unless set, or 60 s). With at least the TTL the
    /// next holder starts after the last one was told, even when Consul ends the session early because its node is gone.
    /// A release is not delayed.
    pub fn lock_delay(mut self, delay: Duration) -> Self {
        self.lock_delay = Some(delay);
        self
    }

    /// What the key shall hold meanwhile and after, such as who holds it.
    pub fn value(mut self, value: impl Into<Bytes>) -> Self {
        self.value = value.into();
        self
    }

    /// Waits until the lock is held, through elections and outages. Put your own limit around it: dropping the future gives up cleanly.
    ///
    /// # Errors
    /// [`Error::Conflict`] when the key exists and is not a lock's; [`Error::Denied`]; [`Error::Invalid`] for a wrong key or duration,
    /// or for a client of [another data centre](Client::with_datacenter) than its agent's, where its session would have no node.
    /// What passes by itself is waited out.
    pub async fn acquire(self) -> Result<Lock> {
        loop {
            // Waiting yields a lock or an error; the loop only says so to the compiler.
            if let Some(lock) = Box::pin(contend::run(&self, true)).await? {
                return Ok(lock);
            }
        }
    }

    /// As [`acquire`](Self::acquire), for so long; `None` when another holds it still.
    ///
    /// # Errors
    /// As [`acquire`](Self::acquire).
    pub async fn acquire_within(self, limit: Duration) -> Result<Option<Lock>> {
        match tokio::time::timeout(limit, self.acquire()).await {
            Ok(lock) => lock.map(Some),
            Err(_) => Ok(None),
        }
    }

    /// The lock if it is free now; `None` when another holds it, or held it less than the lock delay ago.
    ///
    /// # Errors
    /// As [`acquire`](Self::acquire), and also what passes by itself.
    pub async fn try_acquire(self) -> Result<Option<Lock>> {
        Box::pin(contend::run(&self, false)).await
    }

    fn check(&self) -> Result<()> {
        crate::kv::path(&self.key)?;
        if !(MIN_TTL..=MAX_TTL).contains(&self.ttl) {
            return Err(Error::invalid("ttl", &format!("{:?}", self.ttl), "must be 10 s to 86,400 s"));
        }
        if self.lock_delay.is_some_and(|delay| delay > MAX_LOCK_DELAY) {
            return Err(Error::invalid(
                "lock delay",
                &format!("{:?}", self.lock_delay),
                "must be at most 60 s",
            ));
        }
        Ok(())
    }

    fn delay(&self) -> Duration {
        self.lock_delay.unwrap_or(self.ttl.min(MAX_LOCK_DELAY))
    }
}

impl fmt::Debug for LockBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LockBuilder").field("key", &self.key).field("ttl", &self.ttl).finish_non_exhaustive()
    }
}

/// A lock that is held, until [`lost`](Self::lost) says otherwise.
///
/// Locks are advisory and clocks can stop: what must not happen twice needs the [`fence`](Self::fence) as well, checked where the
/// work is done. Dropping it releases in the background, if a runtime is there to do it; [`release`](Self::release) is surer.
///
/// ```no_run
/// # async fn run(consul: consul_client::Client) -> consul_client::Result<()> {
/// # async fn work(_fence: consul_client::Fence) {}
/// let lock = consul.lock("jobs/nightly/leader").value("host-1").acquire().await?;
/// tokio::select! {
///     why = lock.lost() => println!("stopped: {why}"),
///     () = work(lock.fence()) => lock.release().await?,
/// }
/// # Ok(())
/// # }
/// ```
#[must_use = "the lock is released when it is dropped"]
pub struct Lock {
    candidate: Candidate,
    fence: Fence,
    _monitor: Task,
}

impl Lock {
    /// A number that is larger for each later holder of this key. A store that refuses lower ones is safe from a holder that
    /// does not know yet that it lost. (Restoring a snapshot of Consul can turn it back.)
    pub fn fence(&self) -> Fence {
        self.fence
    }

    /// The key.
    pub fn key(&self) -> &str {
        self.candidate.key()
    }

    /// Completes when the lock is no longer held, at the latest at the [lease deadline](Self::lease_deadline). Independent of the
    /// `Lock`, so it can move into a task.
    pub fn lost(&self) -> impl Future<Output = Lost> + Send + 'static + use<> {
        let shared = Arc::clone(self.candidate.shared());
        async move { shared.lost().await }
    }

    /// Whether it is held now, as far as this side can know. Once false, always false.
    pub fn is_held(&self) -> bool {
        self.candidate.shared().is_held()
    }

    /// Until when it is held without another renewal: the sending of the last good one + TTL - a tenth.
    pub fn lease_deadline(&self) -> std::time::Instant {
        self.candidate.shared().deadline().into_std()
    }

    /// A transaction that Consul refuses unless this lock is still held when it gets there: the first operation checks the session.
    ///
    /// ```no_run
    /// # async fn run(lock: consul_client::Lock) -> consul_client::Result<()> {
    /// let written = lock.txn().set("jobs/nightly/progress", "17").commit().await?.is_done();
    /// # Ok(())
    /// # }
    /// ```
    pub fn txn(&self) -> Txn {
        self.candidate.client().txn().check_session(self.key(), self.candidate.session())
    }

    /// What can be asked of the lock without the right to release it.
    pub(crate) fn leadership(&self) -> election::Leadership {
        election::Leadership {
            fence: self.fence,
            shared: Arc::clone(self.candidate.shared()),
            txn: self.txn(),
        }
    }

    /// Releases at once, without the lock delay. If this side had lost it, only the session is ended. Dropping the future leaves
    /// the rest to the background.
    ///
    /// # Errors
    /// As any write; the background tries once more then, and after that the TTL frees the key.
    pub async fn release(mut self) -> Result<()> {
        self.candidate.let_go().await
    }
}

impl fmt::Debug for Lock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let left = self.candidate.shared().deadline().saturating_duration_since(Instant::now());
        f.debug_struct("Lock")
            .field("key", &self.key())
            .field("fence", &self.fence)
            .field("held", &self.is_held())
            .field("lease_left", &left)
            .finish_non_exhaustive()
    }
}

/// See [`Lock::fence`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fence(pub u64);

impl fmt::Display for Fence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Why a lock is no longer held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Lost {
    /// No renewal was confirmed in time.
    #[error("no renewal was confirmed before the lease ended")]
    Deadline,
    /// The session ended: by an operator, or because its node is gone.
    #[error("the session is gone")]
    SessionGone,
    /// The key was deleted, or another holds it.
    #[error("the key was deleted, or another holds it")]
    Taken,
    /// This side let go of it.
    #[error("it was released")]
    Released,
}

/// More than the 18 s that an election takes at most with Consul's default `raft_multiplier`.
const DEFAULT_TTL: Duration = Duration::from_secs(30);
const MIN_TTL: Duration = Duration::from_secs(10);
const MAX_TTL: Duration = Duration::from_secs(86_400);
const MAX_LOCK_DELAY: Duration = Duration::from_secs(60);
/// How HashiCorp's clients mark a lock's key.
const LOCK_FLAGS: u64 = 0x2ddc_cbc0_58a5_0c18;
