//! Endless streams of snapshots.
//!
//! `cursor` holds the rules and is pure; `engine` asks, waits and reports. `hash` and `events` are for the two endpoints that have
//! rules of their own; `changes` and `shared` are other forms of the same stream.

mod changes;
mod cursor;
mod engine;
mod events;
mod hash;
mod shared;

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use futures_core::Stream;
use tokio::sync::watch;

pub use self::{
    changes::{Change, Changes, Identity},
    events::EventWatch,
    shared::{SharedWatch, Subscriber},
};
pub(crate) use self::{engine::Source, hash::HashSource};
use crate::{Client, Error};

/// An endless stream of [`Snapshot`]s: the whole set at first, and again each time its content changes.
///
/// - It never ends, and it yields no errors: [`state`](Self::state) tells how it goes, beside the data.
/// - A failure never empties the set. An empty answer is passed on only after a quorum confirmed it.
/// - Equal content is not repeated, whatever the index does (restart, restore, another server).
/// - It works while it is polled, and holds one connection of the blocking pool meanwhile. [`next`](Self::next) is cancel-safe.
///
/// A name that cannot be asked for (see [`Error::Invalid`]) leaves it silent, with [`WatchState::Failing`] from the start.
///
/// Needs a tokio runtime with time enabled when it is polled.
#[must_use = "a watch does nothing until it is polled"]
pub struct Watch<T> {
    stream: Pin<Box<dyn Stream<Item = Snapshot<T>> + Send>>,
    state: watch::Receiver<WatchState>,
}

impl<T: Clone + PartialEq + Send + Sync + 'static> Watch<T> {
    pub(crate) fn new(client: Client, source: Source<T>) -> Self {
        let engine = engine::Engine::new(client, source);
        let state = engine.state();
        let stream = futures_util::stream::unfold(engine, |mut engine| async move {
            let snapshot = engine.next().await;
            Some((snapshot, engine))
        });
        Self { stream: Box::pin(stream), state }
    }

    pub(crate) fn by_hash(client: Client, source: HashSource<T>) -> Self {
        let engine = hash::HashEngine::new(client, source);
        let state = engine.state();
        let stream = futures_util::stream::unfold(engine, |mut engine| async move {
            let snapshot = engine.next().await;
            Some((snapshot, engine))
        });
        Self { stream: Box::pin(stream), state }
    }

    /// The same as changes: what was added, changed and removed with each snapshot.
    pub fn changes(self) -> Changes<T>
    where
        T: Identity,
    {
        Changes::new(self)
    }

    /// The same for many: one query upstream, however many subscribe. It runs in a task of its own from now on.
    ///
    /// ```no_run
    /// # async fn run(consul: consul_client::Client) {
    /// let web = consul.health().service("web").passing().watch().share();
    /// for _ in 0..1000 {
    ///     let mut subscriber = web.subscribe();
    ///     tokio::spawn(async move { while let Some(snapshot) = subscriber.next().await { /* .. */ } });
    /// }
    /// # }
    /// ```
    pub fn share(self) -> SharedWatch<T> {
        SharedWatch::new(self)
    }
}

impl<T> Watch<T> {
    /// The next snapshot. Never `None`; an `Option` so that it reads like any stream.
    pub async fn next(&mut self) -> Option<Snapshot<T>> {
        std::future::poll_fn(|context| self.stream.as_mut().poll_next(context)).await
    }

    /// How the watch is doing now.
    pub fn state(&self) -> WatchState {
        self.state.borrow().clone()
    }

    /// To be told when the state changes.
    pub fn subscribe_state(&self) -> watch::Receiver<WatchState> {
        self.state.clone()
    }
}

impl<T> Stream for Watch<T> {
    type Item = Snapshot<T>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.stream.as_mut().poll_next(context)
    }
}

impl<T> fmt::Debug for Watch<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").field("state", &*self.state.borrow()).finish_non_exhaustive()
    }
}

/// A whole set at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Snapshot<T> {
    /// All items, in the server's order.
    pub items: Vec<T>,
    /// The index; for logs, not for comparison across servers.
    pub index: u64,
    /// How long ago the answering server had heard from the leader.
    pub last_contact: Option<Duration>,
}

/// How a [`Watch`] is doing. Whatever it says, the last snapshot remains the best that is known.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum WatchState {
    /// No answer yet.
    Starting,
    /// The last answer was good.
    Live,
    /// The answering server knows no leader, or has not heard from it for over 30 s.
    Stale {
        /// Since when.
        since: Instant,
    },
    /// The last question failed; it is asked again with growing pauses of up to 2 s.
    Failing {
        /// Why.
        error: Arc<Error>,
        /// Since when without a good answer.
        since: Instant,
    },
}

impl WatchState {
    pub(crate) fn failing(error: Error) -> Self {
        Self::Failing { error: Arc::new(error), since: Instant::now() }
    }

    /// Whether the last answer was good.
    pub fn is_live(&self) -> bool {
        matches!(self, Self::Live)
    }
}
