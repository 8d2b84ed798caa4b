//! A session that may hold a key: watching the key, and letting go.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::time::Instant;

use super::{
    LOCK_FLAGS, Lost,
    session::{self, KeptSession, Shared, Task},
};
use crate::{
    Client, Consistency, Result, SessionOptions,
    backoff::{Backoff, Bucket},
    kv,
    request::Request,
    sessions,
};

/// A session that is kept alive and may hold the key. Dropping it lets go in the background.
pub(super) struct Candidate {
    client: Client,
    key: String,
    value: Bytes,
    kept: KeptSession,
    /// Whether the key may be ours.
    contested: bool,
    settled: bool,
}

impl Candidate {
    /// Creates a session and starts to keep it.
    pub(super) async fn create(
        client: &Client,
        key: &str,
        ttl: Duration,
        lock_delay: Duration,
        value: Bytes,
    ) -> Result<Self> {
        let options = SessionOptions::default().name(format!("lock {key}")).lock_delay(lock_delay);
        let kept = KeptSession::create(client, options, ttl).await?;
        let (client, key) = (client.clone(), key.to_owned());
        Ok(Self { client, key, value, kept, contested: false, settled: false })
    }

    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        self.kept.shared()
    }

    pub(super) fn key(&self) -> &str {
        &self.key
    }

    pub(super) fn session(&self) -> &str {
        self.kept.id()
    }

    /// From now on the key may be ours.
    pub(super) fn contest(&mut self) {
        self.contested = true;
    }

    /// The session is gone: nothing to clean up.
    pub(super) fn forget(mut self) {
        self.settled = true;
    }

    /// Starts to watch the key.
    pub(super) fn monitor(&self) -> Result<Task> {
        let (client, session) = (self.client.clone(), self.session().to_owned());
        let request = kv::get_request(&self.key)?;
        let taken = async move { watch_key(&client, &request, &session).await };
        Ok(session::monitor(self.shared(), "lock", self.key.clone(), taken))
    }

    /// Releases, then destroys the session: destroying alone would leave the lock delay behind.
    pub(super) async fn let_go(&mut self) -> Result<()> {
        self.shared().lose(Lost::Released);
        self.kept.stop();
        self.letting_go()?.run().await?;
        self.settled = true;
        Ok(())
    }

    fn letting_go(&self) -> Result<LettingGo> {
        // Beyond the TTL the server does it by itself.
        let limit = self.kept.ttl().min(Duration::from_secs(10));
        let release = match self.contested {
            // A release writes value and flags anew, so it is sent what is there.
            true => Some(
                Request::put(kv::path(&self.key)?)
                    .param("release", self.session())
                    .param("flags", LOCK_FLAGS)
                    .bytes(self.value.clone())
                    .repeatable()
                    .within(limit),
            ),
            false => None,
        };
        let destroy = sessions::destroy_request(self.session())?.within(limit);
        Ok(LettingGo { client: self.client.clone(), release, destroy })
    }
}

impl Drop for Candidate {
    fn drop(&mut self) {
        self.shared().lose(Lost::Released);
        if self.settled {
            return;
        }
        if let (Ok(runtime), Ok(letting_go)) = (tokio::runtime::Handle::try_current(), self.letting_go()) {
            runtime.spawn(async move {
                if let Err(error) = letting_go.run().await {
                    tracing::debug!(%error, "consul lock: best-effort release failed, its ttl will free the key");
                }
            });
        }
    }
}

struct LettingGo {
    client: Client,
    release: Option<Request>,
    destroy: Request,
}

impl LettingGo {
    async fn run(self) -> Result<()> {
        let released = match &self.release {
            // `false` means that it was not ours any more.
            Some(release) => self.client.call(release).await.map(drop),
            None => Ok(()),
        };
        let destroyed = self.client.call(&self.destroy).await.map(drop);
        released.and(destroyed)
    }
}

/// Returns when the key is not this session's any more, by the word of a quorum. Failures say nothing about that.
async fn watch_key(client: &Client, request: &Request, session: &str) {
    let began = Instant::now();
    let mut bucket = Bucket::new(Duration::from_millis(100), 2);
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(2));
    let mut index = 0;
    loop {
        tokio::time::sleep(bucket.take(began.elapsed())).await;
        let read = if index == 0 {
            request.clone().once(READ_LIMIT)
        } else {
            request.clone().blocking(index, READ_WAIT)
        };
        match ours(client, &read, session).await {
            Ok((true, next)) => {
                backoff.reset();
                index = if next < index { 0 } else { next.max(1) };
            }
            Ok((false, _)) => {
                let confirm = request.clone().consistency(Consistency::Consistent).once(READ_LIMIT);
                if let Ok((false, _)) = ours(client, &confirm, session).await {
                    return;
                }
                index = 0;
                tokio::time::sleep(backoff.next(rand::random())).await;
            }
            Err(_) => {
                index = 0;
                tokio::time::sleep(backoff.next(rand::random())).await;
            }
        }
    }
}

async fn ours(client: &Client, request: &Request, session: &str) -> Result<(bool, u64)> {
    let pairs = kv::decode_pairs(request, &client.call(request).await?)?;
    let ours = pairs.value.iter().any(|pair| pair.session.as_deref() == Some(session));
    Ok((ours, pairs.meta.index.unwrap_or(0)))
}

const READ_LIMIT: Duration = Duration::from_secs(10);
const READ_WAIT: Duration = Duration::from_secs(15);
