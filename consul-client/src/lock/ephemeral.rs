//! A key that is there for as long as its owner lives.

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::sync::{oneshot, watch};

use super::session::{KeptSession, at_home};
use crate::{
    Behavior, Client, Error, Result, SessionOptions, backoff::Backoff, kv, request::Request, sessions,
};

/// How a key shall be held: see [`Client::ephemeral`].
#[derive(Clone)]
#[must_use = "nothing is written until `hold`"]
pub struct EphemeralBuilder {
    client: Client,
    key: String,
    value: Bytes,
    ttl: Duration,
}

impl EphemeralBuilder {
    pub(crate) fn new(client: Client, key: String) -> Self {
        Self { client, key, value: Bytes::new(), ttl: DEFAULT_TTL }
    }

    /// What the key holds.
    pub fn value(mut self, value: impl Into<Bytes>) -> Self {
        self.value = value.into();
        self
    }

    /// How long the key outlives an owner that vanished: once to twice this (10 s to 86,400 s; 15 s unless set).
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = ttl;
        self
    }

    /// Writes the key and keeps it there. Waits until it is; the remains of an earlier owner are waited out.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a wrong key or duration; [`Error::Denied`]. What passes by itself is waited out: put your own limit
    /// around it.
    pub async fn hold(self) -> Result<Ephemeral> {
        self.client.lock(self.key.clone()).ttl(self.ttl).check()?;
        at_home(&self.client, false).await?;
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
        let held = loop {
            match Held::create(&self, &self.value).await {
                Ok(Some(held)) => break held,
                Ok(None) => {}
                Err(error) if error.is_retryable() => {
                    tracing::debug!(key = self.key, %error, "consul ephemeral key: attempt failed");
                }
                Err(error) => return Err(error),
            }
            tokio::time::sleep(backoff.next(rand::random())).await;
        };
        let (value, values) = watch::channel(self.value.clone());
        let state = watch::Sender::new(EphemeralState::Present);
        let receiver = state.subscribe();
        let (release, told) = oneshot::channel();
        let key = self.key.clone();
        let task = tokio::spawn(keep(self, held, values, state, told));
        Ok(Ephemeral { key, value, state: receiver, release: Some(release), task: Some(task) })
    }
}

impl fmt::Debug for EphemeralBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EphemeralBuilder")
            .field("key", &self.key)
            .field("ttl", &self.ttl)
            .finish_non_exhaustive()
    }
}

/// A key that is there for as long as this lives, and written again when its session was lost. Dropping it deletes the key in the
/// background, if a runtime is there to do it.
///
/// ```no_run
/// # async fn run(consul: consul_client::Client) -> consul_client::Result<()> {
/// let here = consul.ephemeral("hosts/h1").value(r#"{"slots": 4}"#).hold().await?;
/// here.set(r#"{"slots": 3}"#);
/// here.release().await?;
/// # Ok(())
/// # }
/// ```
#[must_use = "the key is deleted when this is dropped"]
pub struct Ephemeral {
    key: String,
    value: watch::Sender<Bytes>,
    state: watch::Receiver<EphemeralState>,
    release: Option<oneshot::Sender<()>>,
    task: Option<tokio::task::JoinHandle<Result<()>>>,
}

/// How an [`Ephemeral`] is doing.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum EphemeralState {
    /// The key is there.
    Present,
    /// The session was lost, or a write failed; it is tried again.
    Failing {
        /// Why the last attempt failed, if it did.
        error: Option<Arc<Error>>,
    },
}

impl Ephemeral {
    /// The key.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// What the key holds from now on; written in the background.
    pub fn set(&self, value: impl Into<Bytes>) {
        self.value.send_replace(value.into());
    }

    /// How it is doing now.
    pub fn state(&self) -> EphemeralState {
        self.state.borrow().clone()
    }

    /// To be told when the state changes.
    pub fn subscribe_state(&self) -> watch::Receiver<EphemeralState> {
        self.state.clone()
    }

    /// Deletes the key.
    ///
    /// # Errors
    /// As any write; the TTL frees the key then.
    pub async fn release(mut self) -> Result<()> {
        if let Some(release) = self.release.take() {
            let _ = release.send(());
        }
        match self.task.take() {
            Some(task) => task.await.unwrap_or(Ok(())),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Ephemeral {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ephemeral")
            .field("key", &self.key)
            .field("state", &*self.state.borrow())
            .finish_non_exhaustive()
    }
}

/// A session with the key.
struct Held {
    client: Client,
    key: String,
    kept: KeptSession,
}

impl Held {
    /// `None` when another session holds the key.
    async fn create(wanted: &EphemeralBuilder, value: &Bytes) -> Result<Option<Self>> {
        let options = SessionOptions::default()
            .name(format!("ephemeral {}", wanted.key))
            .behavior(Behavior::Delete)
            // Nobody else is to take the key, so nobody has to be kept away from it.
            .lock_delay(Duration::ZERO);
        let kept = KeptSession::create(&wanted.client, options, wanted.ttl).await?;
        let held = Self { client: wanted.client.clone(), key: wanted.key.clone(), kept };
        match held.write(value).await {
            Ok(true) => Ok(Some(held)),
            Ok(false) => held.destroy().await.map(|()| None),
            Err(error) => {
                // Its TTL ends the session where this fails too.
                let _ = held.destroy().await;
                Err(error)
            }
        }
    }

    /// A session may lock what it holds, which also writes.
    async fn write(&self, value: &Bytes) -> Result<bool> {
        let request = Request::put(kv::path(&self.key)?).param("acquire", self.kept.id()).repeatable();
        let request = request.bytes(value.clone()).within(self.kept.ttl() / 2);
        Ok(self.client.read(request).await?.value)
    }

    /// Ends the session, and the key with it.
    async fn destroy(&self) -> Result<()> {
        let request = sessions::destroy_request(self.kept.id())?.within(Duration::from_secs(10));
        self.client.call(&request).await.map(drop)
    }
}

async fn keep(
    wanted: EphemeralBuilder,
    held: Held,
    mut values: watch::Receiver<Bytes>,
    state: watch::Sender<EphemeralState>,
    told: oneshot::Receiver<()>,
) -> Result<()> {
    let mut told = std::pin::pin!(told);
    let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(5));
    let mut held = Some(held);
    values.mark_unchanged();
    loop {
        let failed = match &held {
            Some(now) => tokio::select! {
                _ = &mut told => return now.destroy().await,
                why = now.kept.shared().lost() => {
                    tracing::warn!(key = wanted.key, %why, "consul ephemeral key lost");
                    held = None;
                    None
                }
                changed = values.changed() => {
                    let value = values.borrow_and_update().clone();
                    if changed.is_err() {
                        return now.destroy().await;
                    }
                    match now.write(&value).await {
                        Ok(true) => continue,
                        Ok(false) => { held = None; None }
                        Err(error) => {
                            // Still to be written.
                            values.mark_changed();
                            Some(error)
                        }
                    }
                }
            },
            None => {
                let value = values.borrow_and_update().clone();
                match Held::create(&wanted, &value).await {
                    Ok(Some(again)) => {
                        held = Some(again);
                        backoff.reset();
                        state.send_replace(EphemeralState::Present);
                        continue;
                    }
                    Ok(None) => None,
                    Err(error) => Some(error),
                }
            }
        };
        state.send_replace(EphemeralState::Failing { error: failed.map(Arc::new) });
        tokio::select! {
            _ = &mut told => return match &held { Some(held) => held.destroy().await, None => Ok(()) },
            () = tokio::time::sleep(backoff.next(rand::random())) => {}
        }
    }
}

/// A presence that flaps is worse than one that lingers; an owner that leaves deletes its key itself.
const DEFAULT_TTL: Duration = Duration::from_secs(15);
