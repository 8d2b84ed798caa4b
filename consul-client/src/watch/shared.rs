//! One upstream query for many subscribers.

use std::{fmt, sync::Arc};

use tokio::{sync::watch, task::JoinHandle};

use super::{Snapshot, Watch, WatchState};

/// A [`Watch`] that many look at: see [`Watch::share`]. Clones and subscribers share one query, which ends with the last of them.
pub struct SharedWatch<T> {
    inner: Arc<Inner<T>>,
}

struct Inner<T> {
    snapshots: watch::Receiver<Option<Arc<Snapshot<T>>>>,
    state: watch::Receiver<WatchState>,
    task: JoinHandle<()>,
}

impl<T> Drop for Inner<T> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl<T: Clone + PartialEq + Send + Sync + 'static> SharedWatch<T> {
    pub(super) fn new(mut upstream: Watch<T>) -> Self {
        let (sender, snapshots) = watch::channel(None);
        let state = upstream.subscribe_state();
        let task = tokio::spawn(async move {
            while let Some(snapshot) = upstream.next().await {
                sender.send_replace(Some(Arc::new(snapshot)));
            }
        });
        Self { inner: Arc::new(Inner { snapshots, state, task }) }
    }
}

impl<T> SharedWatch<T> {
    /// What is known now; `None` before the first answer.
    pub fn latest(&self) -> Option<Arc<Snapshot<T>>> {
        self.inner.snapshots.borrow().clone()
    }

    /// How the query is doing now.
    pub fn state(&self) -> WatchState {
        self.inner.state.borrow().clone()
    }

    /// To be told when the state changes.
    pub fn subscribe_state(&self) -> watch::Receiver<WatchState> {
        self.inner.state.clone()
    }

    /// Another one who is told of each change, beginning with what is known now.
    pub fn subscribe(&self) -> Subscriber<T> {
        let mut snapshots = self.inner.snapshots.clone();
        if snapshots.borrow().is_some() {
            snapshots.mark_changed();
        } else {
            snapshots.mark_unchanged();
        }
        Subscriber { snapshots, shared: self.clone() }
    }
}

impl<T> Clone for SharedWatch<T> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

impl<T> fmt::Debug for SharedWatch<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedWatch").field("state", &*self.inner.state.borrow()).finish_non_exhaustive()
    }
}

/// One who looks at a [`SharedWatch`].
pub struct Subscriber<T> {
    snapshots: watch::Receiver<Option<Arc<Snapshot<T>>>>,
    shared: SharedWatch<T>,
}

impl<T> Subscriber<T> {
    /// The next snapshot; one who is slow gets the newest and misses those between. Never `None` while a runtime runs; cancel-safe.
    pub async fn next(&mut self) -> Option<Arc<Snapshot<T>>> {
        loop {
            self.snapshots.changed().await.ok()?;
            let newest = self.snapshots.borrow_and_update().clone();
            if newest.is_some() {
                return newest;
            }
        }
    }

    /// What it looks at.
    pub fn shared(&self) -> &SharedWatch<T> {
        &self.shared
    }
}

impl<T> fmt::Debug for Subscriber<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscriber").field("shared", &self.shared).finish_non_exhaustive()
    }
}
