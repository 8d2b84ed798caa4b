//! The trait that every store implements.

use crate::{
    error::StoreError,
    id::{CommitId, StoreKey},
    lifetime::{Lifetime, UnixMillis},
    op::{Applied, Gone, Mode, Op, Outcome, Patch},
    record::{Record, State},
};
use async_trait::async_trait;
use std::{fmt, future::Future, time::Duration};
use tokio::time::Instant;

/// A place where sessions live.
///
/// Implement the four required methods; [`apply`](Self::apply) reads, calls [`apply_op`](crate::apply_op) and writes as one atomic step. The rest
/// is provided on them. Every call ends within the store's own [limit](Self::time_limit) (8 s, or what its `deadline` setter was given), with an answer or an error;
/// `store.within(time)` gives calls another one. Dropping a call's future
/// is allowed at any time; a write may then have taken effect or not. A failed read is an error, never an empty answer.
#[async_trait]
pub trait SessionStore: Send + Sync + fmt::Debug {
    /// Reads one record as it is stored, live or not; `None` where nothing is stored. Does not follow a rotation and does not renew.
    ///
    /// # Errors
    /// The store's own failures.
    async fn load(&self, key: &StoreKey) -> Result<Option<Record>, StoreError>;

    /// One atomic step. The answer is what [`apply_op`](crate::apply_op) says, and the step has taken effect when it is given.
    ///
    /// # Errors
    /// The store's own failures; after a [timeout](StoreError::is_timeout) it is unknown whether the step took effect.
    async fn apply(&self, key: &StoreKey, op: Op, durability: Durability) -> Result<Applied, StoreError>;

    /// The keys of the live sessions of a user, in any order.
    ///
    /// # Errors
    /// The store's own failures.
    async fn sessions_of(&self, principal: &str) -> Result<Vec<StoreKey>, StoreError>;

    /// Whether the store answers now, and is the one to write to. Ends within a second.
    ///
    /// # Errors
    /// The reason why it does not.
    async fn health(&self) -> Result<(), StoreError>;

    /// About how many sessions are stored, for people to look at; `None` where a store can't say. Those that have ended and are still
    /// remembered may count; a store with many may draw a sample, so don't ask for each request.
    ///
    /// # Errors
    /// The store's own failures.
    async fn about_how_many(&self) -> Result<Option<u64>, StoreError> {
        Ok(None)
    }

    /// [`apply`](Self::apply) for who has loaded the record lately: a store may start from it and spare itself the read where nobody was faster.
    /// The answer is the same.
    ///
    /// # Errors
    /// As of [`apply`](Self::apply).
    async fn apply_from(
        &self,
        key: &StoreKey,
        seen: &Record,
        op: Op,
        durability: Durability,
    ) -> Result<Applied, StoreError> {
        let _ = seen;
        self.apply(key, op, durability).await
    }

    /// What [`delete`](Self::delete), [`rotate`](Self::rotate) and [`revoke_all`](Self::revoke_all) wait for. What they undo would be a log-in.
    fn durability(&self) -> Durability {
        Durability::Primary
    }

    /// How long one call may take, through a failover too, before it is a [timeout](StoreError::is_timeout). `store.within(time)` gives
    /// single calls less.
    fn time_limit(&self) -> Duration {
        TIME_LIMIT
    }

    /// Whether instances on several hosts share what this store holds.
    fn is_shared(&self) -> bool {
        false
    }

    /// Loads a session, following rotations within their grace.
    ///
    /// # Errors
    /// The store's own failures.
    async fn find(&self, key: &StoreKey, now: UnixMillis) -> Result<Loaded, StoreError> {
        let (mut key, begin) = (*key, Instant::now());
        for hop in 0..MAX_HOPS {
            let load = self.load(&key);
            // The first one keeps to the time by itself; who follows shares what is left of it.
            let loaded = if hop == 0 { load.await? } else { in_time(self, "load", begin, load).await? };
            let Some(record) = loaded else { return Ok(Loaded::Absent) };
            match (record.state, record.gone(now)) {
                (State::Live, None) => return Ok(Loaded::Live { key, record: Box::new(record) }),
                (State::Moved { to, until }, _) if now < until => key = to,
                (_, Some(Gone::Expired)) => return Ok(Loaded::Expired),
                (_, Some(Gone::Rotated)) => return Ok(Loaded::Rotated),
                _ => return Ok(Loaded::Revoked),
            }
        }
        Ok(Loaded::Rotated)
    }

    /// Creates a session under an unused key.
    ///
    /// # Errors
    /// The store's own failures; a key in use is [`Outcome::Collision`].
    async fn create(
        &self,
        key: &StoreKey,
        lifetime: Lifetime,
        principal: Option<String>,
        patch: Patch,
        id: Option<CommitId>,
    ) -> Result<Applied, StoreError> {
        let id = id.or_else(|| Some(CommitId::random()));
        self.apply(key, Op::Create { lifetime, principal, patch, id }, Durability::Primary).await
    }

    /// Changes values of a session that was loaded at version `base`.
    ///
    /// # Errors
    /// The store's own failures.
    async fn commit(
        &self,
        key: &StoreKey,
        base: Option<u64>,
        patch: Patch,
        mode: Mode,
        id: Option<CommitId>,
    ) -> Result<Applied, StoreError> {
        let id = id.or_else(|| Some(CommitId::random()));
        self.apply(key, Op::Commit { base, patch, mode, id }, Durability::Primary).await
    }

    /// Renews the idle deadline.
    ///
    /// # Errors
    /// The store's own failures.
    async fn touch(&self, key: &StoreKey) -> Result<Applied, StoreError> {
        self.apply(key, Op::Touch, Durability::Primary).await
    }

    /// Gives the session a new id, for the same user; loads of the old one find it for `grace` (at most a minute).
    ///
    /// # Errors
    /// The store's own failures.
    async fn rotate(&self, old: &StoreKey, new: &StoreKey, grace: Duration) -> Result<Applied, StoreError> {
        let id = Some(CommitId::random());
        let op = Op::Rotate { to: *new, principal: None, patch: Patch::new(), grace, id };
        self.apply(old, op, self.durability()).await
    }

    /// Ends a session, also when it is being rotated at the same time. Once this is answered, nothing brings it back.
    ///
    /// # Errors
    /// The store's own failures; the session may then live on.
    async fn delete(&self, key: &StoreKey) -> Result<Outcome, StoreError> {
        let (mut key, begin) = (*key, Instant::now());
        for hop in 0..MAX_HOPS {
            let delete = self.apply(&key, Op::Delete, self.durability());
            let applied =
                if hop == 0 { delete.await? } else { in_time(self, "log-out", begin, delete).await? };
            match applied.moved_to {
                Some(to) => key = to,
                None => return Ok(applied.outcome),
            }
        }
        Ok(Outcome::Gone(Gone::Rotated))
    }

    /// Ends every session of a user but `except`, and answers how many. Once this is answered, none of the sessions that the user had when it was
    /// asked comes back: not by a commit or a rotation in flight, under no id. A log-in that is under way at the same moment counts as a later one.
    ///
    /// A store with replicas overrides this, so that an answer is durable also where nothing was left to end.
    ///
    /// # Errors
    /// The store's own failures; some sessions may have ended then. Ask again.
    async fn revoke_all(&self, principal: &str, except: Option<&StoreKey>) -> Result<usize, StoreError> {
        let (mut ended, begin) = (0, Instant::now());
        for _ in 0..MAX_ROUNDS {
            let mut keys = in_time(self, "revocation", begin, self.sessions_of(principal)).await?;
            keys.retain(|key| Some(key) != except);
            if keys.is_empty() {
                return Ok(ended);
            }
            let mut failure = None;
            for key in keys {
                match in_time(self, "revocation", begin, self.delete(&key)).await {
                    Ok(outcome) => ended += usize::from(outcome.is_done()),
                    Err(error) => failure = Some(error), // the others are ended all the same
                }
            }
            failure.map_or(Ok(()), Err)?;
        }
        let reason = format!("there were new sessions after {MAX_ROUNDS} rounds");
        Err(StoreError::Unavailable {
            store: format!("{self:?}"),
            action: "revocation",
            reason,
            source: None,
        })
    }

    /// Forgets at most `limit` records that are over, and answers how many. Stores do so by themselves in the course of writing, or leave it to
    /// their server: this is for a store that is rarely written to.
    ///
    /// # Errors
    /// The store's own failures.
    async fn sweep(&self, limit: usize) -> Result<usize, StoreError> {
        let _ = limit;
        Ok(0)
    }
}

/// What a load found.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Loaded {
    /// A session.
    Live {
        /// Where it is; differs from the key asked for after a rotation.
        key: StoreKey,
        /// What it holds.
        record: Box<Record>,
    },
    /// Nothing is stored. An unknown id is never adopted.
    Absent,
    /// Idle or absolute lifetime is over.
    Expired,
    /// Logged out or deleted.
    Revoked,
    /// Over under this id: it was replaced at log-in, or its grace is over. The client has been sent another one.
    Rotated,
}

/// How safe a write has to be before it is answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Durability {
    /// The primary has it. A failover at that moment may lose it.
    #[default]
    Primary,
    /// This many replicas have confirmed it too, or the call fails with [`StoreError::NotDurable`]. A store on one host (SQLite, memory) has no
    /// replicas that a failover could choose: there this is what `Primary` is.
    Replicas {
        /// How many. One of two keeps log-outs possible while a host is gone; all of them would not.
        n: u8,
        /// How long one attempt waits for them (at most 5 s); attempts go on until the call's deadline, for replicas need a moment to follow a
        /// new primary.
        timeout: Duration,
    },
}

impl Durability {
    /// `n` replicas within a second an attempt; `Primary` for 0.
    #[must_use]
    pub const fn replicas(n: u8) -> Self {
        if n == 0 { Self::Primary } else { Self::Replicas { n, timeout: Duration::from_secs(1) } }
    }
}

/// What is left of a call's time for one more step of it.
async fn in_time<T, S: SessionStore + ?Sized>(
    store: &S,
    action: &'static str,
    begin: Instant,
    step: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    let deadline = store.time_limit();
    let left = deadline.saturating_sub(begin.elapsed());
    tokio::time::timeout(left, step).await.unwrap_or_else(|_| {
        let reason = "it takes several steps, and the earlier ones took the time".into();
        Err(StoreError::Timeout { store: format!("{store:?}"), action, deadline, reason })
    })
}

/// Long enough for a failover, short enough for a person at a browser.
pub(crate) const TIME_LIMIT: Duration = Duration::from_secs(8);

/// A session that moves on while it is followed is followed this often.
const MAX_HOPS: usize = 8;

/// Each round ends all that there were; new ones come from log-ins only.
const MAX_ROUNDS: usize = 8;
