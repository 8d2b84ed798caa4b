//! Keeping a session alive, watching the key, and letting go.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::{sync::watch, task::JoinHandle, time::Instant};

use super::{LOCK_FLAGS, Lost, lease::Lease};
use crate::{
    Client, Consistency, Error, Result, Session, SessionOptions,
    backoff::{Backoff, Bucket},
    kv,
    request::Request,
    sessions,
};

/// A lease that the keeper, the monitor and the lock share.
pub(super) struct Shared {
    began: Instant,
    lease: watch::Sender<Lease>,
}

impl Shared {
    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    pub(super) fn is_held(&self) -> bool {
        self.lease.borrow().lost(self.now()).is_none()
    }

    pub(super) fn deadline(&self) -> Instant {
        self.began + self.lease.borrow().deadline()
    }

    pub(super) fn lose(&self, why: Lost) {
        let now = self.now();
        self.lease.send_modify(|lease| lease.lose(why, now));
    }

    pub(super) async fn lost(&self) -> Lost {
        let mut changes = self.lease.subscribe();
        loop {
            let lease = *changes.borrow_and_update();
            if let Some(why) = lease.lost(self.now()) {
                return why;
            }
            // Whatever the keeper is stuck in, this fires at the deadline. The sender lives in `self`.
            let _ = tokio::time::timeout_at(self.began + lease.deadline(), changes.changed()).await;
        }
    }
}

/// A session that is kept alive and may hold the key. Dropping it lets go in the background.
pub(super) struct Candidate {
    client: Client,
    key: String,
    session: String,
    value: Bytes,
    ttl: Duration,
    shared: Arc<Shared>,
    keeper: Option<Task>,
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
        let options = SessionOptions::default().name(format!("lock {key}")).ttl(ttl).lock_delay(lock_delay);
        let began = Instant::now();
        // Not longer: the lease counts from here, and an old one is worthless.
        let session = client.sessions().create_within(&options, Some(ttl / 2)).await?;
        let shared = Arc::new(Shared { began, lease: watch::Sender::new(Lease::new(ttl, Duration::ZERO)) });
        let keeper = tokio::spawn(keep(client.clone(), session.clone(), ttl, Arc::clone(&shared)));
        Ok(Self {
            client: client.clone(),
            key: key.to_owned(),
            session,
            value,
            ttl,
            shared,
            keeper: Some(Task(keeper)),
            contested: false,
            settled: false,
        })
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    pub(super) fn key(&self) -> &str {
        &self.key
    }

    pub(super) fn session(&self) -> &str {
        &self.session
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
        let request = kv::get_request(&self.key)?;
        let (client, session, shared) = (self.client.clone(), self.session.clone(), Arc::clone(&self.shared));
        let key = self.key.clone();
        Ok(Task(tokio::spawn(async move {
            let why = tokio::select! {
                () = watch_key(&client, &request, &session) => Lost::Taken,
                why = shared.lost() => why,
            };
            shared.lose(why);
            if why != Lost::Released {
                tracing::warn!(key, %why, "consul lock lost");
            }
        })))
    }

    /// Releases, then destroys the session: destroying alone would leave the lock delay behind.
    pub(super) async fn let_go(&mut self) -> Result<()> {
        self.shared.lose(Lost::Released);
        self.keeper = None;
        self.letting_go()?.run().await?;
        self.settled = true;
        Ok(())
    }

    fn letting_go(&self) -> Result<LettingGo> {
        // Beyond the TTL the server does it by itself.
        let limit = self.ttl.min(Duration::from_secs(10));
        let release = match self.contested {
            // A release writes value and flags anew, so it is sent what is there.
            true => Some(
                Request::put(kv::path(&self.key)?)
                    .param("release", &self.session)
                    .param("flags", LOCK_FLAGS)
                    .bytes(self.value.clone())
                    .repeatable()
                    .within(limit),
            ),
            false => None,
        };
        let destroy = sessions::destroy_request(&self.session)?.within(limit);
        Ok(LettingGo { client: self.client.clone(), release, destroy })
    }
}

impl Drop for Candidate {
    fn drop(&mut self) {
        self.shared.lose(Lost::Released);
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

/// A task that ends with its owner.
pub(super) struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Renews the session every third of its TTL until the lease is lost.
async fn keep(client: Client, session: String, ttl: Duration, shared: Arc<Shared>) {
    let limit = (ttl / 4).min(Duration::from_secs(5));
    let mut backoff = Backoff::new(Duration::from_millis(200), (ttl / 10).min(Duration::from_secs(2)));
    let mut next = shared.began + ttl / 3;
    while shared.is_held() {
        tokio::time::sleep_until(next.min(shared.deadline())).await;
        if !shared.is_held() {
            // A renewal now would only keep the next holder waiting.
            return;
        }
        let sent = shared.now();
        match renew(&client, &session, limit).await {
            Ok(()) => {
                let now = shared.now();
                shared.lease.send_modify(|lease| lease.renewed(sent, now));
                backoff.reset();
                next = shared.began + sent + ttl / 3;
            }
            Err(error) if error.is_not_found() => shared.lose(Lost::SessionGone),
            Err(error) => {
                tracing::debug!(%error, "consul lock: renewal failed");
                next = Instant::now() + backoff.next(rand::random());
            }
        }
    }
}

async fn renew(client: &Client, session: &str, limit: Duration) -> Result<()> {
    let request = sessions::renew_request(session)?.once(limit);
    let sessions: Vec<Session> = client.read(request.clone()).await?.value;
    if sessions.iter().any(|renewed| renewed.id == session) {
        return Ok(());
    }
    Err(Error::Decode {
        endpoint: request.endpoint(),
        reason: "a list without the session".to_owned(),
        write: true,
    })
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
