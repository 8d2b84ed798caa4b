//! The watch itself: an enum of what it does next, and a step.

use std::collections::VecDeque;
use std::fmt;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_core::Stream;
use futures_util::future::{Either, select};
use futures_util::stream::unfold;
use tokio::time::{Instant, sleep_until};
use tracing::debug;

use super::hints::Hints;
use super::kind::Watched;
use super::known::Known;
use super::pace::Pace;
use super::{WatchConfig, WatchEvent};
use crate::client::Client;
use crate::error::{Error, Result};
use crate::request::without_values;

/// A stream of changes: see [`watcher`].
pub struct Watcher<K> {
    events: Pin<Box<dyn Stream<Item = Result<WatchEvent<K>>> + Send>>,
}

/// Watches all objects of a kind. The first good item is [`WatchEvent::Init`] with all of them; after it come the differences.
///
/// The stream never ends. An error is an item: the next ones go on from what is known, after a back-off, with whatever manager
/// answers then. What is known stays meanwhile: a failed look deletes nothing. Changes between two looks are seen as one.
pub fn watcher<K: Watched>(client: &Client, config: WatchConfig) -> Watcher<K> {
    let walk = Walk::<K>::new(client.clone(), config);
    Watcher { events: Box::pin(unfold(walk, |mut walk| async { Some((walk.next().await, walk)) })) }
}

impl<K> Stream for Watcher<K> {
    type Item = Result<WatchEvent<K>>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.events.as_mut().poll_next(cx)
    }
}

impl<K> fmt::Debug for Watcher<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watcher").finish_non_exhaustive()
    }
}

struct Walk<K> {
    client: Client,
    config: WatchConfig,
    known: Known<K>,
    pace: Pace,
    hints: Option<Hints>,
    next: Next,
    /// How long the next list probably is.
    length: usize,
    ready: VecDeque<WatchEvent<K>>,
}

/// What a watch does next.
#[derive(Debug, Clone, Copy)]
enum Next {
    Look,
    /// Wait for a hint, and no longer than until then. The look before ended at `looked`.
    Wait {
        looked: Instant,
        until: Instant,
    },
    /// Wait, whatever hints come.
    BackOff {
        until: Instant,
    },
}

impl<K: Watched> Walk<K> {
    fn new(client: Client, config: WatchConfig) -> Self {
        let pace = Pace::new(config.poll_every.unwrap_or(K::POLL_EVERY));
        Self {
            client,
            config,
            known: Known::default(),
            pace,
            hints: None,
            next: Next::Look,
            length: 0,
            ready: VecDeque::new(),
        }
    }

    async fn next(&mut self) -> Result<WatchEvent<K>> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Ok(event);
            }
            match self.next {
                Next::Look => self.look().await?,
                Next::Wait { looked, until } => self.wait(looked, until).await,
                Next::BackOff { until } => {
                    sleep_until(until).await;
                    self.next = Next::Look;
                }
            }
        }
    }

    async fn look(&mut self) -> Result<()> {
        // If the look is given up, the next one comes after a pause.
        self.next = Next::BackOff { until: Instant::now() + GIVEN_UP };
        let start = Instant::now();
        let events = self.list().await.inspect_err(|error| {
            debug!(kind = K::WHAT, %error, "could not look");
            self.next = Next::BackOff { until: Instant::now() + self.pace.failed(rand::random()) };
        })?;
        let looked = Instant::now();
        self.next = Next::Wait { looked, until: looked + self.pace.looked(looked - start) };
        self.ready.extend(events);
        Ok(())
    }

    async fn list(&mut self) -> Result<Vec<WatchEvent<K>>> {
        let request = K::list(&self.config).expected(self.length);
        let what = request.what.clone();
        let (bytes, endpoint) = match self.client.call_bytes(request).await {
            Ok(answer) => answer,
            // The tasks of a service or node that is gone are none, and the managers are sure of it.
            Err(error) if error.is_not_found() => {
                (bytes::Bytes::from_static(b"[]"), self.client.endpoint().clone())
            }
            Err(error) => return Err(error),
        };
        // A little more: the next one is seldom longer by far.
        self.length = bytes.len() + bytes.len() / 16;
        self.known.take(&bytes).map_err(|error| Error::Decode {
            what,
            endpoint,
            problem: without_values(&error.to_string()),
        })
    }

    async fn wait(&mut self, looked: Instant, until: Instant) {
        let hints = self.hints.get_or_insert_with(|| Hints::listen(self.client.clone(), K::EVENTS));
        let hinted = matches!(select(pin!(hints.next()), pin!(sleep_until(until))).await, Either::Left(_));
        self.next = if hinted {
            let due = looked + self.pace.hinted();
            if due > Instant::now() { Next::BackOff { until: due } } else { Next::Look }
        } else {
            Next::Look
        };
    }
}

const GIVEN_UP: Duration = Duration::from_millis(100);
