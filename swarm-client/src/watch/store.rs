//! A local copy that a watch keeps up to date.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use futures_core::Stream;
use futures_util::StreamExt;
use tokio::sync::watch;

use super::WatchEvent;
use super::kind::Watched;
use crate::error::Result;

/// A local copy of all objects of a kind. Cheap to clone; all clones see the same. It is as old as the last look of the watch
/// that feeds it, and knows nothing until [`wait_until_ready`](Self::wait_until_ready).
pub struct Store<K> {
    shared: Arc<RwLock<HashMap<String, Arc<K>>>>,
    ready: watch::Receiver<bool>,
}

/// The one that writes a [`Store`].
pub struct Writer<K> {
    shared: Arc<RwLock<HashMap<String, Arc<K>>>>,
    ready: watch::Sender<bool>,
}

/// Nobody feeds the store any more, and it never got its first list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the store's writer is gone, so it will never be ready; keep the reflector's stream polled")]
pub struct Closed;

/// An empty store and its writer.
#[must_use]
pub fn store<K: Watched>() -> (Store<K>, Writer<K>) {
    let shared = Arc::new(RwLock::new(HashMap::new()));
    let (sender, receiver) = watch::channel(false);
    (Store { shared: Arc::clone(&shared), ready: receiver }, Writer { shared, ready: sender })
}

/// Feeds a store from a watch. The stream's items pass through; the store changes only while somebody reads them.
pub fn reflector<K: Watched>(
    mut writer: Writer<K>,
    events: impl Stream<Item = Result<WatchEvent<K>>>,
) -> impl Stream<Item = Result<WatchEvent<K>>> {
    events.inspect(move |event| {
        if let Ok(event) = event {
            writer.apply(event);
        }
    })
}

impl<K: Watched> Store<K> {
    /// The object with this id.
    #[must_use]
    pub fn get(&self, id: impl AsRef<str>) -> Option<Arc<K>> {
        self.read(|objects| objects.get(id.as_ref()).cloned())
    }

    /// The first object that fits.
    #[must_use]
    pub fn find(&self, fits: impl Fn(&K) -> bool) -> Option<Arc<K>> {
        self.read(|objects| objects.values().find(|object| fits(object)).cloned())
    }

    /// All objects, in no order.
    #[must_use]
    pub fn state(&self) -> Vec<Arc<K>> {
        self.read(|objects| objects.values().cloned().collect())
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.read(HashMap::len)
    }

    /// True if there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// True once the first list has come.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        *self.ready.borrow()
    }

    /// Waits until the first list has come. An empty store before that means nothing.
    ///
    /// # Errors
    /// [`Closed`] if it never will.
    pub async fn wait_until_ready(&self) -> Result<(), Closed> {
        self.ready.clone().wait_for(|ready| *ready).await.map(|_| ()).map_err(|_| Closed)
    }

    fn read<T>(&self, with: impl FnOnce(&HashMap<String, Arc<K>>) -> T) -> T {
        with(&self.shared.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl<K: Watched> Writer<K> {
    /// Takes a change.
    pub fn apply(&mut self, event: &WatchEvent<K>) {
        let mut objects = self.shared.write().unwrap_or_else(PoisonError::into_inner);
        match event {
            WatchEvent::Init(all) => {
                *objects = all.iter().map(|object| (object.id().to_owned(), Arc::clone(object))).collect();
                drop(objects);
                self.ready.send_replace(true);
            }
            WatchEvent::Apply(object) => {
                objects.insert(object.id().to_owned(), Arc::clone(object));
            }
            WatchEvent::Delete(object) => {
                objects.remove(object.id());
            }
        }
    }
}

impl<K> Clone for Store<K> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), ready: self.ready.clone() }
    }
}

impl<K> fmt::Debug for Store<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("ready", &*self.ready.borrow()).finish_non_exhaustive()
    }
}

impl<K> fmt::Debug for Writer<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer").finish_non_exhaustive()
    }
}
