//! A store for calls that have their own deadline.

use crate::{
    error::StoreError,
    id::{CommitId, StoreKey},
    lifetime::{Lifetime, UnixMillis},
    op::{Applied, Mode, Op, Outcome, Patch},
    record::Record,
    store::{Durability, Loaded, SessionStore},
};
use async_trait::async_trait;
use std::{future::Future, sync::Arc, time::Duration};

impl dyn SessionStore {
    /// This store, for calls that have no more time than this: each one through what is returned ends within it, with all its steps, or is a
    /// [timeout](StoreError::is_timeout). More than the store's own [limit](SessionStore::time_limit) changes nothing. It costs no connection.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), session_store::StoreError> {
    /// use std::time::Duration;
    ///
    /// let sessions = session_store::connect("memory:").await?;
    /// let key = session_store::SessionId::random().key();
    /// let found = sessions.within(Duration::from_millis(300)).load(&key).await?;
    /// # assert!(found.is_none()); Ok(()) }
    /// ```
    #[must_use]
    pub fn within(self: &Arc<Self>, deadline: Duration) -> Arc<dyn SessionStore> {
        Arc::new(Within { store: self.clone(), deadline: deadline.min(self.time_limit()) })
    }
}

#[derive(Debug)]
struct Within {
    store: Arc<dyn SessionStore>,
    deadline: Duration,
}

impl Within {
    async fn bound<T>(
        &self,
        action: &'static str,
        call: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let deadline = self.deadline;
        tokio::time::timeout(deadline, call).await.unwrap_or_else(|_| {
            let (store, reason) = (format!("{:?}", self.store), "the caller gave it no more time".to_owned());
            Err(StoreError::Timeout { store, action, deadline, reason })
        })
    }
}

#[async_trait]
impl SessionStore for Within {
    async fn load(&self, key: &StoreKey) -> Result<Option<Record>, StoreError> {
        self.bound("load", self.store.load(key)).await
    }

    async fn apply(&self, key: &StoreKey, op: Op, durability: Durability) -> Result<Applied, StoreError> {
        self.bound("write", self.store.apply(key, op, durability)).await
    }

    async fn sessions_of(&self, principal: &str) -> Result<Vec<StoreKey>, StoreError> {
        self.bound("list", self.store.sessions_of(principal)).await
    }

    async fn health(&self) -> Result<(), StoreError> {
        self.bound("a health check", self.store.health()).await
    }

    async fn about_how_many(&self) -> Result<Option<u64>, StoreError> {
        self.bound("a count", self.store.about_how_many()).await
    }

    async fn apply_from(
        &self,
        key: &StoreKey,
        seen: &Record,
        op: Op,
        durability: Durability,
    ) -> Result<Applied, StoreError> {
        self.bound("write", self.store.apply_from(key, seen, op, durability)).await
    }

    fn durability(&self) -> Durability {
        self.store.durability()
    }

    fn time_limit(&self) -> Duration {
        self.deadline
    }

    fn is_shared(&self) -> bool {
        self.store.is_shared()
    }

    async fn find(&self, key: &StoreKey, now: UnixMillis) -> Result<Loaded, StoreError> {
        self.bound("load", self.store.find(key, now)).await
    }

    async fn create(
        &self,
        key: &StoreKey,
        lifetime: Lifetime,
        principal: Option<String>,
        patch: Patch,
        id: Option<CommitId>,
    ) -> Result<Applied, StoreError> {
        self.bound("write", self.store.create(key, lifetime, principal, patch, id)).await
    }

    async fn commit(
        &self,
        key: &StoreKey,
        base: Option<u64>,
        patch: Patch,
        mode: Mode,
        id: Option<CommitId>,
    ) -> Result<Applied, StoreError> {
        self.bound("write", self.store.commit(key, base, patch, mode, id)).await
    }

    async fn touch(&self, key: &StoreKey) -> Result<Applied, StoreError> {
        self.bound("write", self.store.touch(key)).await
    }

    async fn rotate(&self, old: &StoreKey, new: &StoreKey, grace: Duration) -> Result<Applied, StoreError> {
        self.bound("rotation", self.store.rotate(old, new, grace)).await
    }

    async fn delete(&self, key: &StoreKey) -> Result<Outcome, StoreError> {
        self.bound("log-out", self.store.delete(key)).await
    }

    async fn revoke_all(&self, principal: &str, except: Option<&StoreKey>) -> Result<usize, StoreError> {
        self.bound("revocation", self.store.revoke_all(principal, except)).await
    }

    async fn sweep(&self, limit: usize) -> Result<usize, StoreError> {
        self.bound("sweep", self.store.sweep(limit)).await
    }
}
