//! Watching by content: the agent answers when its hash is another one than ours.

use std::{sync::Arc, time::Duration};

use tokio::{sync::watch, time::Instant};

use super::{Snapshot, WatchState};
use crate::{
    Client, Error, Response, Result,
    backoff::{Backoff, Bucket},
    request::{Raw, Request},
};

/// What to watch.
pub(crate) struct HashSource<T> {
    pub(crate) base: Result<Request>,
    pub(crate) decode: fn(&Request, &Raw) -> Result<Response<Vec<T>>>,
}

pub(super) struct HashEngine<T> {
    client: Client,
    source: HashSource<T>,
    hash: Option<String>,
    shown: Option<Vec<T>>,
    bucket: Bucket,
    backoff: Backoff,
    began: Instant,
    state: watch::Sender<WatchState>,
}

impl<T: Clone + PartialEq> HashEngine<T> {
    pub(super) fn new(client: Client, source: HashSource<T>) -> Self {
        let state = match &source.base {
            Ok(_) => WatchState::Starting,
            Err(error) => WatchState::failing(error.again()),
        };
        Self {
            client,
            source,
            hash: None,
            shown: None,
            bucket: Bucket::new(Duration::from_millis(100), 2),
            backoff: Backoff::new(Duration::from_millis(50), Duration::from_secs(2)),
            began: Instant::now(),
            state: watch::Sender::new(state),
        }
    }

    pub(super) fn state(&self) -> watch::Receiver<WatchState> {
        self.state.subscribe()
    }

    pub(super) async fn next(&mut self) -> Snapshot<T> {
        let Ok(base) = self.source.base.as_ref().map(Request::clone) else {
            return std::future::pending().await;
        };
        loop {
            tokio::time::sleep(self.bucket.take(self.began.elapsed())).await;
            let request = match &self.hash {
                Some(hash) => base.clone().blocking_hash(hash, WAIT),
                None => base.clone().once(LIMIT),
            };
            match self.ask(&request).await {
                Ok((items, hash)) => {
                    self.backoff.reset();
                    let gone = hash.is_none();
                    self.hash = hash;
                    self.state.send_if_modified(|state| {
                        !matches!(std::mem::replace(state, WatchState::Live), WatchState::Live)
                    });
                    if self.shown.as_ref() != Some(&items) {
                        self.shown = Some(items.clone());
                        return Snapshot { items, index: 0, last_contact: None };
                    }
                    if gone {
                        // What is not there has no hash to wait on.
                        tokio::time::sleep(ABSENT_PAUSE).await;
                    }
                }
                Err(error) => {
                    self.hash = None;
                    let since = match &*self.state.borrow() {
                        WatchState::Failing { since, .. } => *since,
                        _ => std::time::Instant::now(),
                    };
                    self.state.send_replace(WatchState::Failing { error: Arc::new(error), since });
                    tokio::time::sleep(self.backoff.next(rand::random())).await;
                }
            }
        }
    }

    /// The items and their hash; none and no hash when it is not there.
    async fn ask(&self, request: &Request) -> Result<(Vec<T>, Option<String>)> {
        match self.client.call(request).await {
            Ok(raw) => {
                let hash = raw.hash.clone().ok_or_else(|| Error::Decode {
                    endpoint: request.endpoint(),
                    reason: "the header X-Consul-ContentHash is missing".to_owned(),
                    write: false,
                })?;
                Ok(((self.source.decode)(request, &raw)?.value, Some(hash)))
            }
            Err(Error::NotFound(answer)) if answer.text.contains("nknown service") => Ok((Vec::new(), None)),
            Err(error) => Err(error),
        }
    }
}

const WAIT: Duration = Duration::from_secs(15);
const LIMIT: Duration = Duration::from_secs(10);
const ABSENT_PAUSE: Duration = Duration::from_secs(1);
