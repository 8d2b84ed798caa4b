//! What is read and written: the load, and the count of a service.

use std::sync::Arc;

use async_trait::async_trait;

use super::error::ScaleError;
use super::lease::Term;
use crate::decision::Decision;
use crate::observation::{Hold, Instance, Reading};

/// Reads the load of a service.
#[async_trait]
pub trait SignalSource: Send + Sync {
    /// One reading for each signal, stamped with [`now`](super::now). What can't be read is
    /// [`Reading::Error`] with the reason, never a zero and never left out silently. Each value is the sum over the
    /// whole service, each request counted by exactly one reporter. Called with a deadline.
    async fn read(&self, service: &str) -> Vec<(String, Reading)>;
}

#[async_trait]
impl<T: SignalSource + ?Sized> SignalSource for Arc<T> {
    async fn read(&self, service: &str) -> Vec<(String, Reading)> {
        (**self).read(service).await
    }
}

/// The count of one service, at whatever runs it.
#[async_trait]
pub trait ScaleTarget: Send + Sync {
    /// Reads the present count and what else a decision needs. Called with a deadline.
    ///
    /// # Errors
    /// When it can't be read; nothing is decided then.
    async fn read(&self) -> Result<TargetStatus, ScaleError>;

    /// Sets the count to `replicas`, in one compare-and-set that also stores `term`. In that same step it refuses
    /// * with [`ScaleError::Fenced`] when a higher term has written;
    /// * with [`ScaleError::Conflict`] when the count is no longer `because.current`, or a hold or an update has
    ///   begun, or the compare fails. The controller then reads and decides anew.
    ///
    /// Called with a deadline; a future that is dropped may have written or not.
    ///
    /// # Errors
    /// The two refusals above, and whatever keeps the target from being written.
    async fn write(&self, replicas: u32, term: Term, because: &Decision) -> Result<Written, ScaleError>;
}

#[async_trait]
impl<T: ScaleTarget + ?Sized> ScaleTarget for Arc<T> {
    async fn read(&self) -> Result<TargetStatus, ScaleError> {
        (**self).read().await
    }

    async fn write(&self, replicas: u32, term: Term, because: &Decision) -> Result<Written, ScaleError> {
        (**self).write(replicas, term, because).await
    }
}

/// A service as its [`ScaleTarget`] sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TargetStatus {
    /// Instances wanted: what the orchestrator was last told.
    pub wanted: u32,
    /// Instances that serve.
    pub ready: u32,
    /// An update or rollback is running.
    pub update_in_progress: bool,
    /// Somebody asked that the count be left alone.
    pub hold: Option<Hold>,
    /// The term that wrote last, if any ever did.
    pub last_term: Option<Term>,
    /// The instances one by one, where they are known; for drains and readings per instance.
    pub instances: Vec<Instance>,
    /// Whether something stands ready to hold requests while there is no instance; for scaling to zero.
    pub buffer: Option<bool>,
}

/// A write that happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// The target's version of the service after the write, if it has versions.
    pub version: Option<u64>,
}
