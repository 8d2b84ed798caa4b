//! Leader election: a lock that is sought again whenever it is lost.

use std::{fmt, future::Future, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::sync::{oneshot, watch};

use super::{Fence, LockBuilder, Lost, session::Shared};
use crate::{Client, Error, KvPair, Result, Txn, Watch, backoff::Backoff};

/// How a candidate stands for election: see [`Client::election`].
#[derive(Debug, Clone)]
#[must_use = "nobody stands for election until `campaign`"]
pub struct ElectionBuilder {
    client: Client,
    lock: LockBuilder,
    key: String,
}

impl ElectionBuilder {
    pub(crate) fn new(client: Client, key: String) -> Self {
        Self { lock: client.lock(key.clone()), client, key }
    }

    /// As [`LockBuilder::ttl`].
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.lock = self.lock.ttl(ttl);
        self
    }

    /// As [`LockBuilder::lock_delay`].
    pub fn lock_delay(mut self, delay: Duration) -> Self {
        self.lock = self.lock.lock_delay(delay);
        self
    }

    /// Who this is: what followers see while it leads.
    pub fn value(mut self, value: impl Into<Bytes>) -> Self {
        self.lock = self.lock.value(value);
        self
    }

    /// Stands for election from now on, until [`resign`](Election::resign) or drop. Runs in a task of its own.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a wrong key or duration.
    pub fn campaign(self) -> Result<Election> {
        self.lock.check()?;
        let state = watch::Sender::new(ElectionState::Follower { leader: None });
        let receiver = state.subscribe();
        let (resign, told) = oneshot::channel();
        let task = tokio::spawn(run(self, state, told));
        Ok(Election { state: receiver, resign: Some(resign), task: Some(task) })
    }
}

/// A candidate that stands for election.
///
/// ```no_run
/// # async fn run(consul: consul_client::Client) -> consul_client::Result<()> {
/// # async fn lead(_: &consul_client::Leadership) {}
/// use consul_client::ElectionState;
///
/// let mut election = consul.election("service/scaler/leader").value("host-1").campaign()?;
/// while let Some(state) = election.next().await {
///     if let ElectionState::Leader(leadership) = state {
///         tokio::select! { why = leadership.lost() => println!("{why}"), () = lead(&leadership) => break }
///     }
/// }
/// election.resign().await?;
/// # Ok(())
/// # }
/// ```
#[must_use = "the candidate resigns when this is dropped"]
pub struct Election {
    state: watch::Receiver<ElectionState>,
    resign: Option<oneshot::Sender<()>>,
    task: Option<tokio::task::JoinHandle<Result<()>>>,
}

impl Election {
    /// The next change, beginning with the present state. One who is slow gets the newest; each term as leader has a
    /// [`fence`](Leadership::fence) of its own. `None` only when the runtime ends. Cancel-safe.
    pub async fn next(&mut self) -> Option<ElectionState> {
        self.state.changed().await.ok()?;
        Some(self.state.borrow_and_update().clone())
    }

    /// How it stands now.
    pub fn state(&self) -> ElectionState {
        self.state.borrow().clone()
    }

    /// The term as leader, if this leads now as far as this side can know.
    pub fn leadership(&self) -> Option<Leadership> {
        match &*self.state.borrow() {
            ElectionState::Leader(leadership) if leadership.is_held() => Some(leadership.clone()),
            _ => None,
        }
    }

    /// To be told of changes elsewhere.
    pub fn subscribe(&self) -> watch::Receiver<ElectionState> {
        self.state.clone()
    }

    /// Stands no longer, and gives way at once if it leads.
    ///
    /// # Errors
    /// As any write; the background tries once more then, and after that the TTL frees the key.
    pub async fn resign(mut self) -> Result<()> {
        if let Some(resign) = self.resign.take() {
            let _ = resign.send(());
        }
        match self.task.take() {
            Some(task) => task.await.unwrap_or(Ok(())),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Election {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Election").field("state", &*self.state.borrow()).finish_non_exhaustive()
    }
}

/// How a candidate stands.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum ElectionState {
    /// It leads.
    Leader(Leadership),
    /// Another leads, or nobody yet.
    Follower {
        /// What the leader gave as its value; `None` while nobody is known to lead.
        leader: Option<Bytes>,
    },
    /// It cannot stand: the token may not, or the key is used for something else. It tries on, every few seconds.
    Failing {
        /// Why.
        error: Arc<Error>,
    },
}

impl ElectionState {
    /// Whether it leads.
    pub fn is_leader(&self) -> bool {
        matches!(self, Self::Leader(leadership) if leadership.is_held())
    }
}

/// A term as leader. Clones are about the same term.
#[derive(Clone)]
pub struct Leadership {
    pub(super) fence: Fence,
    pub(super) shared: Arc<Shared>,
    pub(super) txn: Txn,
}

impl Leadership {
    /// As [`Lock::fence`](crate::Lock::fence): larger for each later term, whoever's.
    pub fn fence(&self) -> Fence {
        self.fence
    }

    /// Completes when this no longer leads, at the latest at the [lease deadline](Self::lease_deadline).
    pub fn lost(&self) -> impl Future<Output = Lost> + Send + 'static + use<> {
        let shared = Arc::clone(&self.shared);
        async move { shared.lost().await }
    }

    /// Whether it leads now, as far as this side can know. Once false, always false.
    pub fn is_held(&self) -> bool {
        self.shared.is_held()
    }

    /// Until when it leads without another renewal.
    pub fn lease_deadline(&self) -> std::time::Instant {
        self.shared.deadline().into_std()
    }

    /// A transaction that Consul refuses unless this still leads when it gets there.
    pub fn txn(&self) -> Txn {
        self.txn.clone()
    }
}

impl fmt::Debug for Leadership {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Leadership")
            .field("fence", &self.fence)
            .field("held", &self.is_held())
            .finish_non_exhaustive()
    }
}

async fn run(
    wanted: ElectionBuilder,
    state: watch::Sender<ElectionState>,
    told: oneshot::Receiver<()>,
) -> Result<()> {
    let mut told = std::pin::pin!(told);
    let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(5));
    loop {
        let lock = tokio::select! {
            // Resigned, or dropped.
            _ = &mut told => return Ok(()),
            () = follow(wanted.client.kv().watch(&wanted.key), &state) => continue,
            lock = wanted.lock.clone().acquire() => lock,
        };
        let lock = match lock {
            Ok(lock) => lock,
            Err(error) => {
                tracing::warn!(key = wanted.key, %error, "consul election: cannot stand");
                state.send_replace(ElectionState::Failing { error: Arc::new(error) });
                tokio::select! {
                    _ = &mut told => return Ok(()),
                    () = tokio::time::sleep(backoff.next(rand::random())) => continue,
                }
            }
        };
        backoff.reset();
        state.send_replace(ElectionState::Leader(lock.leadership()));
        tokio::select! {
            _ = &mut told => {
                state.send_replace(ElectionState::Follower { leader: None });
                return lock.release().await;
            }
            _ = lock.lost() => state.send_replace(ElectionState::Follower { leader: None }),
        };
    }
}

/// Says who leads, for as long as it is not this one.
async fn follow(mut watch: Watch<KvPair>, state: &watch::Sender<ElectionState>) {
    while let Some(snapshot) = watch.next().await {
        let held = snapshot.items.first().filter(|pair| pair.session.is_some());
        let now = held.map(|pair| pair.value.clone());
        state.send_if_modified(|state| {
            if matches!(state, ElectionState::Follower { leader } if *leader == now) {
                return false;
            }
            *state = ElectionState::Follower { leader: now };
            true
        });
    }
}
