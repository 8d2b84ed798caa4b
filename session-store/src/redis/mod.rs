//! Sessions in Redis 6.2 or newer: one server, or the master that Sentinel names.
//!
//! One string per session. A step reads it, decides with [`apply_op`], and writes with a script that compares the first bytes of what was
//! read, so nothing is lost between several hosts; it starts again with the newer bytes when they changed. The same script keeps a sorted
//! set of each user's sessions (the member is the session's key, the score its deadline), named by the hash of the user.
//!
//! Keys: `session:{KEY}`, `session-user:{HASH}`, and `session-mark`, which is written where a `WAIT` has nothing else to wait for. The script that ends
//! all sessions of a user finds their keys itself, one reason why Redis Cluster is not offered. Redis needs `maxmemory-policy noeviction`, or
//! sessions vanish. Without `min-replicas-to-write` a master that is cut off goes on acknowledging writes that the failover throws away: log-outs,
//! rotations and revocations therefore wait for a replica ([`Durability`]), on connections of their own, because `WAIT` holds up all that follows it.

mod dial;
mod failure;
mod link;
mod script;
mod turns;
mod url;

use crate::{
    codec,
    connect::{LONGEST_DEADLINE, StoreOptions, without_password},
    error::StoreError,
    id::StoreKey,
    lifetime::unix_now,
    op::{Applied, Op, Outcome},
    record::{Head, Record},
    rule::apply_op,
    seal::Seal,
    store::{Durability, SessionStore},
};
use async_trait::async_trait;
use failure::CallError;
use link::Link;
use redis::{AsyncCommands, aio::MultiplexedConnection};
use script::{Row, Scripts, Wait, Wrote, rows};
use std::{
    fmt,
    time::{Duration, Instant},
};
use turns::Turns;

/// Sessions in Redis. See the [module](self) for what it needs.
pub struct RedisStore {
    link: Link,
    turns: Turns,
    scripts: Scripts,
    deadline: Duration,
    durability: Durability,
    seal: Seal,
}

impl RedisStore {
    /// A store for a URL (see [`connect`](crate::connect)). Connects at the first call.
    ///
    /// # Errors
    /// [`StoreError::Config`] for a URL that cannot work.
    pub fn open(url: &str) -> Result<Self, StoreError> {
        Self::open_with(url, StoreOptions::new())
    }

    pub(crate) fn open_with(url: &str, options: StoreOptions) -> Result<Self, StoreError> {
        let (target, replicas) = url::parse(url)?;
        Ok(Self {
            link: Link::new(target, without_password(url)),
            turns: Turns::default(),
            scripts: Scripts::new(),
            deadline: options.deadline.unwrap_or(DEADLINE),
            durability: options.durability.unwrap_or(Durability::replicas(replicas)),
            seal: options.seal,
        })
    }

    /// How long a call may wait, through a failover too; at most a day. 8 s by default.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline.min(LONGEST_DEADLINE);
        self
    }

    /// What a log-out, a rotation or a revocation waits for; overrides `replicas` of the URL.
    #[must_use]
    pub fn durable(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// Compare-and-set from what was seen, or from a read, until nobody was faster. Repeated from the start after a failure: the commit's id makes
    /// that safe.
    async fn step(
        &self,
        mut connection: MultiplexedConnection,
        key: &StoreKey,
        op: &Op,
        seen: Option<Record>,
        wait: Option<Wait>,
    ) -> Result<(Applied, Option<Record>), CallError> {
        let mut before = seen.filter(|record| record.head.0.is_some());
        let mut fresh = before.is_none();
        if fresh {
            before = self.read(&mut connection, key).await?;
        }
        loop {
            let now = unix_now();
            let head = before.as_ref().map(|record| record.head).unwrap_or_default();
            let user = before.as_ref().and_then(Record::live_principal).map(script::user);
            let is_absent = before.is_none();
            let mut step = apply_op(before, op, now);
            let rows = rows(&self.seal, key, &step, user.as_deref(), now);
            if !fresh && !rows.as_ref().is_ok_and(|rows| !rows.is_empty()) {
                // An answer without a write is not checked by the script, so it has to come from the store as it is now.
                (before, fresh) = (self.read(&mut connection, key).await?, true);
                continue;
            }
            let rows = rows?;
            if rows.is_empty() {
                if !is_absent {
                    script::confirm(&mut connection, wait).await?;
                }
                return Ok((step.applied, None));
            }
            match self.scripts.compare_and_set(&mut connection, key, head, now, &rows, wait).await? {
                Wrote::Done => {
                    let wrote = step.write.map(|record| known(record, key, &rows));
                    let place = step.applied.moved_to.unwrap_or(*key);
                    step.applied.record = step.applied.record.map(|record| known(record, &place, &rows));
                    return Ok((step.applied, wrote));
                }
                Wrote::Collision => {
                    let applied = Applied { outcome: Outcome::Collision, record: None, moved_to: None };
                    return Ok((applied, None));
                }
                Wrote::Newer(bytes) => {
                    let newer = bytes.as_deref().map(|bytes| self.seal.decode(key, bytes));
                    (before, fresh) = (newer.transpose()?, true);
                }
            }
        }
    }

    async fn apply_seen(
        &self,
        key: &StoreKey,
        seen: Option<&Record>,
        op: &Op,
        durability: Durability,
    ) -> Result<Applied, StoreError> {
        let start = Instant::now();
        let _permit = self.link.admit("write")?;
        let Ok(mut turn) = tokio::time::timeout(self.deadline, self.turns.take(key)).await else {
            let reason = "earlier changes of this session were not finished";
            return Err(self.link.timeout("write", self.deadline, reason));
        };
        let left = self.deadline.saturating_sub(start.elapsed());
        let seen = turn.take().or_else(|| seen.cloned());
        let wait = wait(durability);
        let work = |connection| self.step(connection, key, op, seen.clone(), wait);
        let (applied, wrote) = self.link.admitted("write", left, wait.map(|wait| wait.timeout), work).await?;
        *turn = wrote;
        Ok(applied)
    }

    async fn read(
        &self,
        connection: &mut MultiplexedConnection,
        key: &StoreKey,
    ) -> Result<Option<Record>, CallError> {
        let bytes: Option<Vec<u8>> = connection.get(script::session(key)).await?;
        Ok(bytes.as_deref().map(|bytes| self.seal.decode(key, bytes)).transpose()?)
    }
}

/// A record with the head under which it was written.
fn known(record: Record, key: &StoreKey, rows: &[Row]) -> Record {
    let row = rows.iter().find(|row| row.key == *key);
    Record { head: row.map(|row| Head::of(&row.bytes)).unwrap_or_default(), ..record }
}

fn wait(durability: Durability) -> Option<Wait> {
    match durability {
        Durability::Primary => None,
        Durability::Replicas { n, timeout } => {
            // WAIT takes 0 for "without end".
            (n > 0).then(|| Wait { n, timeout: timeout.clamp(Duration::from_millis(1), MAX_WAIT) })
        }
    }
}

#[async_trait]
impl SessionStore for RedisStore {
    async fn load(&self, key: &StoreKey) -> Result<Option<Record>, StoreError> {
        let work =
            |mut connection: MultiplexedConnection| async move { self.read(&mut connection, key).await };
        self.link.call("load", self.deadline, work).await
    }

    async fn apply(&self, key: &StoreKey, op: Op, durability: Durability) -> Result<Applied, StoreError> {
        self.apply_seen(key, None, &op, durability).await
    }

    async fn apply_from(
        &self,
        key: &StoreKey,
        seen: &Record,
        op: Op,
        durability: Durability,
    ) -> Result<Applied, StoreError> {
        self.apply_seen(key, Some(seen), &op, durability).await
    }

    fn durability(&self) -> Durability {
        self.durability
    }

    async fn sessions_of(&self, principal: &str) -> Result<Vec<StoreKey>, StoreError> {
        let index = script::user(principal);
        let work = |mut connection: MultiplexedConnection| {
            let index = index.clone();
            async move {
                let members: Vec<Vec<u8>> =
                    connection.zrangebyscore(index, format!("({}", unix_now()), "+inf").await?;
                let keys = members.iter().map(|member| script::parse_member(member));
                Ok(keys.collect::<Result<Vec<_>, _>>()?)
            }
        };
        self.link.call("list", self.deadline, work).await
    }

    async fn revoke_all(&self, principal: &str, except: Option<&StoreKey>) -> Result<usize, StoreError> {
        let (wait, now) = (wait(self.durability), unix_now());
        // One for all of them: a tombstone is never encrypted.
        let tombstone = codec::encode(&Record::revoked(now), rand::random())?;
        let until = Instant::now() + self.deadline;
        let _permit = self.link.admit("revocation")?;
        let mut ended = 0;
        loop {
            let work = |mut connection: MultiplexedConnection| {
                let (scripts, tombstone) = (&self.scripts, &tombstone);
                async move { scripts.revoke(&mut connection, principal, except, tombstone, wait).await }
            };
            let left = until.saturating_duration_since(Instant::now());
            let (some, more) =
                self.link.admitted("revocation", left, wait.map(|wait| wait.timeout), work).await?;
            ended += some;
            if !more {
                return Ok(ended);
            }
        }
    }

    async fn health(&self) -> Result<(), StoreError> {
        let work = |mut connection: MultiplexedConnection| async move {
            let _: () = redis::cmd("PING").query_async(&mut connection).await?;
            Ok(())
        };
        self.link.call("a health check", HEALTH_DEADLINE, work).await
    }

    fn is_shared(&self) -> bool {
        true
    }
}

impl fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStore").field("url", &self.link.name).finish_non_exhaustive()
    }
}

const DEADLINE: Duration = Duration::from_secs(8);
/// Probes of a balancer come each second or so.
const HEALTH_DEADLINE: Duration = Duration::from_millis(800);
/// The longest one attempt waits for replicas.
pub(super) const MAX_WAIT: Duration = Duration::from_secs(5);
