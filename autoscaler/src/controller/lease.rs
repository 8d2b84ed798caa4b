//! Who may write: a lease with a term.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use super::error::LeaseError;

/// The number of a leadership: each one is higher than all before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Term(pub u64);

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A lease that is held.
#[derive(Clone, Debug)]
pub struct Held {
    /// The number of this leadership.
    pub term: Term,
    /// Cancelled when the lease is lost, or when it can no longer be known to be held. A lock with a time to live
    /// has to cancel before that time is over, not after.
    pub lost: CancellationToken,
}

/// Elects one writer among many.
#[async_trait]
pub trait Lease: Send + Sync {
    /// Waits until the lease is held, however long that takes; dropping the future gives up waiting. Every success
    /// has a higher term than all before it.
    ///
    /// # Errors
    /// When the lock service can't be asked. The controller tries again, with growing pauses.
    async fn acquire(&self) -> Result<Held, LeaseError>;

    /// Gives a lease back, so that another need not wait for it to run out. Best effort; called with a deadline, also
    /// for leases that are lost already.
    async fn release(&self, held: &Held) {
        let _ = held;
    }
}

#[async_trait]
impl<T: Lease + ?Sized> Lease for Arc<T> {
    async fn acquire(&self) -> Result<Held, LeaseError> {
        (**self).acquire().await
    }

    async fn release(&self, held: &Held) {
        (**self).release(held).await;
    }
}

/// The lease of a single controller: always granted, never lost.
///
/// Terms count up from the Unix time in seconds at construction, so that a restarted process is not fenced off by what
/// it wrote before.
#[derive(Debug)]
pub struct AlwaysLeader {
    next: AtomicU64,
}

impl AlwaysLeader {
    /// A lease whose first term is the Unix time in seconds.
    pub fn new() -> Self {
        let unix: Duration = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self::starting_at(Term(unix.as_secs()))
    }

    /// A lease with this first term.
    pub fn starting_at(term: Term) -> Self {
        Self { next: AtomicU64::new(term.0) }
    }
}

impl Default for AlwaysLeader {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl Lease for AlwaysLeader {
    async fn acquire(&self) -> Result<Held, LeaseError> {
        let term = Term(self.next.fetch_add(1, Ordering::Relaxed));
        Ok(Held { term, lost: CancellationToken::new() })
    }
}
