//! The loop around the cursor: asks, waits, says how it goes.

use std::{sync::Arc, time::Duration};

use tokio::{sync::watch, time::Instant};

use super::{
    Snapshot, WatchState,
    cursor::{Ask, Cursor, Verdict},
};
use crate::{
    Client, Consistency, Error, Response, Result,
    backoff::{Backoff, Bucket},
    error::Answer,
    request::{Raw, Request},
    transport::{RETRY_ELECTION, speaks_of_an_election, spread},
};

/// What to watch.
pub(crate) struct Source<T> {
    /// The request without index and consistency; an error for a name that cannot be asked for.
    pub(crate) base: Result<Request>,
    pub(crate) consistency: Consistency,
    pub(crate) decode: fn(&Request, &Raw) -> Result<Response<Vec<T>>>,
}

pub(super) struct Engine<T> {
    client: Client,
    base: Option<Request>,
    consistency: Consistency,
    decode: fn(&Request, &Raw) -> Result<Response<Vec<T>>>,
    cursor: Cursor,
    bucket: Bucket,
    backoff: Backoff,
    shown: Option<Vec<T>>,
    state: watch::Sender<WatchState>,
    began: Instant,
}

impl<T: Clone + PartialEq> Engine<T> {
    pub(super) fn new(client: Client, source: Source<T>) -> Self {
        let (base, state) = match source.base {
            Ok(base) => (Some(base), WatchState::Starting),
            Err(error) => {
                tracing::warn!(%error, "consul watch failed");
                (None, WatchState::failing(error))
            }
        };
        Self {
            client,
            base,
            consistency: source.consistency,
            decode: source.decode,
            cursor: Cursor::default(),
            bucket: Bucket::new(MIN_SPACING, BURST),
            backoff: Backoff::new(RETRY_FIRST, RETRY_MOST),
            shown: None,
            state: watch::Sender::new(state),
            began: Instant::now(),
        }
    }

    pub(super) fn state(&self) -> watch::Receiver<WatchState> {
        self.state.subscribe()
    }

    /// Runs until there is something new to show.
    pub(super) async fn next(&mut self) -> Snapshot<T> {
        let Some(base) = self.base.clone() else {
            // The name cannot be asked for, and the state says so: there will never be an answer.
            return std::future::pending().await;
        };
        loop {
            tokio::time::sleep(self.bucket.take(self.began.elapsed())).await;
            let ask = self.cursor.ask();
            let request = match ask {
                Ask::Now => base.clone().consistency(self.consistency).once(SHORT_LIMIT).beside_blocking(),
                Ask::After(index) => base.clone().consistency(self.consistency).blocking(index, WAIT),
                Ask::Confirm => {
                    base.clone().consistency(Consistency::Consistent).once(SHORT_LIMIT).beside_blocking()
                }
            };
            let turn = self.client.turn();
            match self.fetch(&request).await {
                Ok((answer, index)) => {
                    if let Some(snapshot) = self.take(answer, index, turn).await {
                        return snapshot;
                    }
                }
                Err(error) => self.fail(&request, error).await,
            }
        }
    }

    async fn fetch(&self, request: &Request) -> Result<(Response<Vec<T>>, u64)> {
        let answer = (self.decode)(request, &self.client.call(request).await?)?;
        if answer.value.is_empty() && answer.meta.filtered_by_acls == Some(true) {
            let text = "everything was left out because the token may not see it";
            return Err(Error::Denied(Answer::new(request.endpoint(), 200, text, false)));
        }
        // An answer without an index is not Consul's, and an empty one would empty the set.
        let index = answer.meta.index.ok_or_else(|| Error::Decode {
            endpoint: request.endpoint(),
            reason: "the header X-Consul-Index is missing".to_owned(),
            write: false,
        })?;
        Ok((answer, index))
    }

    /// `turn` tells which server answered: one that is cut off from the leader is left for the next.
    async fn take(&mut self, answer: Response<Vec<T>>, index: u64, turn: usize) -> Option<Snapshot<T>> {
        let age = answer.meta.last_contact.unwrap_or_default();
        if age > MAX_STALENESS {
            self.set_stale();
            self.client.leave(turn);
            // Another server may have nothing newer to tell than the last good answer; the state is still to be live again.
            self.cursor.failed();
            tokio::time::sleep(self.backoff.next(rand::random())).await;
            return None;
        }
        let items = answer.value;
        let changed = self.shown.as_ref() != Some(&items);
        let verdict = self.cursor.answered(index, items.is_empty(), changed);
        if verdict == Verdict::Doubt {
            return None;
        }
        self.backoff.reset();
        if answer.meta.known_leader == Some(false) {
            self.set_stale();
            self.client.leave(turn);
        } else {
            self.set_live();
        }
        if verdict == Verdict::Skip {
            return None;
        }
        self.shown = Some(items.clone());
        Some(Snapshot { items, index, last_contact: answer.meta.last_contact })
    }

    async fn fail(&mut self, request: &Request, error: Error) {
        let mut delay = self.backoff.next(rand::random());
        if speaks_of_an_election(&error) {
            delay = delay.min(spread(RETRY_ELECTION));
        }
        let endpoint = request.endpoint();
        self.cursor.failed();
        self.state.send_modify(|state| {
            let since = if let WatchState::Failing { since, .. } = state {
                tracing::debug!(endpoint, %error, delay_ms = delay.as_millis(), "consul watch fails on");
                *since
            } else {
                tracing::warn!(endpoint, %error, "consul watch failed");
                std::time::Instant::now()
            };
            *state = WatchState::Failing { error: Arc::new(error), since };
        });
        tokio::time::sleep(delay).await;
    }

    fn set_live(&self) {
        self.state.send_if_modified(|state| match std::mem::replace(state, WatchState::Live) {
            WatchState::Live => false,
            WatchState::Failing { since, .. } => {
                tracing::info!(seconds = since.elapsed().as_secs_f64(), "consul watch recovered");
                true
            }
            _ => true,
        });
    }

    fn set_stale(&self) {
        self.state.send_if_modified(|state| {
            let changes = !matches!(state, WatchState::Stale { .. });
            if changes {
                *state = WatchState::Stale { since: std::time::Instant::now() };
            }
            changes
        });
    }
}

/// Short enough to notice a hung server soon, long enough that an idle watch costs nothing.
const WAIT: Duration = Duration::from_secs(15);
/// More than the 7 s that a server looks for a leader before it gives up.
const SHORT_LIMIT: Duration = Duration::from_secs(10);
/// A server that heard nothing of a leader for so long (twice a slow election) is not believed.
const MAX_STALENESS: Duration = Duration::from_secs(30);
/// At most ten answers a second, after a burst of two.
const MIN_SPACING: Duration = Duration::from_millis(100);
const BURST: u32 = 2;
const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_MOST: Duration = Duration::from_secs(2);
