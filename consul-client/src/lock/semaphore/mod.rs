//! A lock with several slots.

mod slots;

use std::{fmt, future::Future, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::time::Instant;

use self::slots::Step;
use super::{
    Lost,
    session::{self, KeptSession, Task, at_home},
};
use crate::{
    Answer, Behavior, Client, Consistency, Error, KvPair, Result, SessionOptions,
    backoff::{Backoff, Bucket},
    kv,
    request::Request,
    sessions,
};

/// How a slot is wanted: see [`Client::semaphore`].
#[derive(Clone)]
#[must_use = "nothing is taken until `acquire` or `try_acquire`"]
pub struct SemaphoreBuilder {
    client: Client,
    prefix: String,
    limit: u64,
    ttl: Duration,
    value: Bytes,
}

impl SemaphoreBuilder {
    pub(crate) fn new(client: Client, prefix: String, limit: u64) -> Self {
        let prefix = prefix.trim_end_matches('/').to_owned();
        Self { client, prefix, limit, ttl: super::DEFAULT_TTL, value: Bytes::new() }
    }

    /// As [`LockBuilder::ttl`](super::LockBuilder::ttl).
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = ttl;
        self
    }

    /// What the contender's own key shall hold, such as who it is.
    pub fn value(mut self, value: impl Into<Bytes>) -> Self {
        self.value = value.into();
        self
    }

    /// Waits until a slot is held, through elections and outages. Put your own limit around it: dropping the future gives up cleanly.
    ///
    /// # Errors
    /// [`Error::Conflict`] when the prefix holds something else, or a semaphore with another limit; [`Error::Denied`];
    /// [`Error::Invalid`]. What passes by itself is waited out.
    pub async fn acquire(self) -> Result<Permit> {
        loop {
            if let Some(permit) = Box::pin(self.run(true)).await? {
                return Ok(permit);
            }
        }
    }

    /// A slot if one is free now.
    ///
    /// # Errors
    /// As [`acquire`](Self::acquire), and also what passes by itself.
    pub async fn try_acquire(self) -> Result<Option<Permit>> {
        Box::pin(self.run(false)).await
    }

    fn check(&self) -> Result<()> {
        if self.limit == 0 {
            return Err(Error::invalid("limit", "0", "must be at least 1"));
        }
        self.client.lock(slots::lock_key(&self.prefix)).ttl(self.ttl).check()
    }

    async fn run(&self, wait: bool) -> Result<Option<Permit>> {
        self.check()?;
        at_home(&self.client, false).await?;
        let began = Instant::now();
        let mut bucket = Bucket::new(Duration::from_millis(100), 2);
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
        let mut permit = None;
        let mut index = 0;
        loop {
            tokio::time::sleep(bucket.take(began.elapsed())).await;
            match self.step(&mut permit, index).await {
                Ok(Found::Taken) => {
                    if let Some(mut permit) = permit.take().filter(|permit: &Permit| permit.is_held()) {
                        permit.monitor = Some(permit.watch());
                        return Ok(Some(permit));
                    }
                    index = 0;
                }
                Ok(Found::Full(_)) if !wait => return Ok(None),
                Ok(Found::Full(next)) => {
                    backoff.reset();
                    index = if next < index { 0 } else { next };
                }
                Ok(Found::Again) => index = 0,
                Err(error) if wait && error.is_retryable() => {
                    tracing::debug!(prefix = self.prefix, %error, "consul semaphore: attempt failed");
                    index = 0;
                    tokio::time::sleep(backoff.next(rand::random())).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn step(&self, slot: &mut Option<Permit>, index: u64) -> Result<Found> {
        if slot.as_ref().is_some_and(|permit| !permit.is_held()) {
            *slot = None;
        }
        let permit = match slot {
            Some(permit) => permit,
            None => slot.insert(Permit::contend(self).await?),
        };
        let (pairs, next) = permit.look(index).await?;
        match slots::take(&pairs, &self.prefix, permit.session(), self.limit) {
            Step::Nothing => Ok(Found::Taken),
            // The next look tells: then it is so already, or not.
            Step::Write { body, index } => permit.write(body, index).await.map(|_| Found::Again),
            Step::Full => Ok(Found::Full(next)),
            Step::Conflict(why) => {
                Err(Error::Conflict(Answer::new(format!("GET /v1/kv/{}", self.prefix), 0, &why, true)))
            }
        }
    }
}

impl fmt::Debug for SemaphoreBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SemaphoreBuilder")
            .field("prefix", &self.prefix)
            .field("limit", &self.limit)
            .finish_non_exhaustive()
    }
}

enum Found {
    Taken,
    Full(u64),
    Again,
}

/// A slot that is held, until [`lost`](Self::lost) says otherwise. Dropping it gives it back in the background, if a runtime is there to
/// do it; [`release`](Self::release) is surer.
///
/// ```no_run
/// # async fn run(consul: consul_client::Client) -> consul_client::Result<()> {
/// # async fn work() {}
/// let permit = consul.semaphore("jobs/backup", 2).acquire().await?;
/// tokio::select! {
///     why = permit.lost() => println!("stopped: {why}"),
///     () = work() => permit.release().await?,
/// }
/// # Ok(())
/// # }
/// ```
#[must_use = "the slot is given back when this is dropped"]
pub struct Permit {
    client: Client,
    prefix: String,
    kept: KeptSession,
    monitor: Option<Task>,
    settled: bool,
}

impl Permit {
    /// A session with a contender's key. It holds nothing yet.
    async fn contend(wanted: &SemaphoreBuilder) -> Result<Self> {
        let options = SessionOptions::default()
            .name(format!("semaphore {}", wanted.prefix))
            .behavior(Behavior::Delete)
            .lock_delay(Duration::ZERO);
        let kept = KeptSession::create(&wanted.client, options, wanted.ttl).await?;
        let (client, prefix) = (wanted.client.clone(), wanted.prefix.clone());
        let permit = Self { client, prefix, kept, monitor: None, settled: false };
        let key = slots::contender_key(&permit.prefix, permit.session());
        let request = Request::put(kv::path(&key)?)
            .shown_as("/v1/kv/<prefix>/<session>")
            .param("acquire", permit.session())
            .param("flags", slots::FLAGS)
            .repeatable()
            .bytes(wanted.value.clone())
            .within(wanted.ttl / 2);
        if permit.client.read::<bool>(request).await?.value {
            return Ok(permit);
        }
        let text = "the contender's own key is held by another";
        Err(Error::Conflict(Answer::new("PUT /v1/kv/<prefix>/<session>".to_owned(), 0, text, true)))
    }

    fn session(&self) -> &str {
        self.kept.id()
    }

    /// The prefix.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Completes when the slot is no longer held, at the latest at the [lease deadline](Self::lease_deadline).
    pub fn lost(&self) -> impl Future<Output = Lost> + Send + 'static + use<> {
        let shared = Arc::clone(self.kept.shared());
        async move { shared.lost().await }
    }

    /// Whether it is held now, as far as this side can know. Once false, always false.
    pub fn is_held(&self) -> bool {
        self.kept.shared().is_held()
    }

    /// Until when it is held without another renewal.
    pub fn lease_deadline(&self) -> std::time::Instant {
        self.kept.shared().deadline().into_std()
    }

    /// Gives it back at once.
    ///
    /// # Errors
    /// As any write; the background tries once more then, and after that the TTL frees the slot.
    pub async fn release(mut self) -> Result<()> {
        self.kept.shared().lose(Lost::Released);
        self.kept.stop();
        give_back(self.client.clone(), self.prefix.clone(), self.session().to_owned()).await?;
        self.settled = true;
        Ok(())
    }

    async fn look(&self, index: u64) -> Result<(Vec<KvPair>, u64)> {
        look(&self.client, &self.prefix, index).await
    }

    async fn write(&self, body: Vec<u8>, index: u64) -> Result<bool> {
        write(&self.client, &self.prefix, body, index).await
    }

    /// Says that the slot is lost when a quorum does.
    fn watch(&self) -> Task {
        let (client, prefix, session) = (self.client.clone(), self.prefix.clone(), self.session().to_owned());
        let taken = async move { gone(&client, &prefix, &session).await };
        session::monitor(self.kept.shared(), "semaphore's slot", self.prefix.clone(), taken)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.kept.shared().lose(Lost::Released);
        if self.settled {
            return;
        }
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let (client, prefix, session) =
                (self.client.clone(), self.prefix.clone(), self.session().to_owned());
            runtime.spawn(async move {
                if let Err(error) = give_back(client, prefix, session).await {
                    tracing::debug!(%error, "consul semaphore: best-effort release failed, its ttl will free the slot");
                }
            });
        }
    }
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit")
            .field("prefix", &self.prefix)
            .field("held", &self.is_held())
            .finish_non_exhaustive()
    }
}

async fn look(client: &Client, prefix: &str, index: u64) -> Result<(Vec<KvPair>, u64)> {
    let path = format!("/v1/kv/{}/", crate::escape::path("prefix", prefix)?);
    let mut request = Request::get(path).flag("recurse").absent_ok().consistency(Consistency::Consistent);
    if index > 0 {
        request = request.blocking(index, READ_WAIT);
    }
    let pairs = kv::decode_pairs(&request, &client.call(&request).await?)?;
    Ok((pairs.value, pairs.meta.index.unwrap_or(0)))
}

async fn write(client: &Client, prefix: &str, body: Vec<u8>, index: u64) -> Result<bool> {
    let request = Request::put(kv::path(&slots::lock_key(prefix))?)
        .param("cas", index)
        .param("flags", slots::FLAGS)
        .bytes(body.into());
    match client.read(request).await {
        Ok(written) => Ok(written.value),
        // Whoever writes looks again anyway.
        Err(Error::Ambiguous { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Takes the session out of the holders, then ends it, and its key with it.
async fn give_back(client: Client, prefix: String, session: String) -> Result<()> {
    let mut backoff = Backoff::new(Duration::from_millis(20), Duration::from_millis(500));
    for _ in 0..GIVE_BACK_TRIES {
        let (pairs, _) = look(&client, &prefix, 0).await?;
        match slots::give_back(&pairs, &prefix, &session) {
            Step::Write { body, index } => {
                if write(&client, &prefix, body, index).await? {
                    break;
                }
            }
            _ => break,
        }
        tokio::time::sleep(backoff.next(rand::random())).await;
    }
    // Where the list still names it, the next contender takes it out, because its key is gone.
    client.call(&sessions::destroy_request(&session)?.within(Duration::from_secs(10))).await.map(drop)
}

/// Returns when the slot is not this session's any more, by the word of a quorum. Failures say nothing about that.
async fn gone(client: &Client, prefix: &str, session: &str) {
    let began = Instant::now();
    let mut bucket = Bucket::new(Duration::from_millis(100), 2);
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(2));
    let mut index = 0;
    loop {
        tokio::time::sleep(bucket.take(began.elapsed())).await;
        match look(client, prefix, index).await {
            Ok((pairs, next)) if slots::holds(&pairs, prefix, session) => {
                backoff.reset();
                index = if next < index { 0 } else { next };
            }
            Ok(_) => return,
            Err(_) => {
                index = 0;
                tokio::time::sleep(backoff.next(rand::random())).await;
            }
        }
    }
}

const READ_WAIT: Duration = Duration::from_secs(15);
/// Contenders that change the list at the same time make each other try again.
const GIVE_BACK_TRIES: u32 = 20;
