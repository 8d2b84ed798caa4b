//! Sessions in Redis 6.2 or newer: one server, or the master that Sentinel names.
//!
//! One string per session. A step reads it, decides with [`apply_op`](crate::apply_op), and writes with a script that compares the first bytes of what was
//! read, so nothing is lost between several hosts; it starts again with the newer bytes when they changed. The same script keeps a sorted
//! set of each user's sessions (the member is the session's key, the score its deadline), named by the hash of the user.
//!
//! Keys: `session:{KEY}`, `session-user:{HASH}`, and `session-mark`, which is written where a `WAIT` has nothing else to wait for. The script that ends
//! all sessions of a user finds their keys itself, one reason why Redis Cluster is not offered. Redis needs `maxmemory-policy noeviction`, or
//! sessions vanish. Without `min-replicas-to-write` a master that is cut off goes on acknowledging writes that the failover throws away: log-outs,
//! rotations and revocations therefore wait for a replica ([`Durability`]), on connections of their own, because `WAIT` holds up all that follows it.

mod dial;
mod failure;
mod lane;
mod link;
mod master;
mod script;
mod step;
#[cfg(feature = "tls")]
mod tls;
mod turns;
mod url;

use crate::{
    codec,
    connect::{LONGEST_DEADLINE, StoreOptions, without_password},
    error::StoreError,
    id::StoreKey,
    lifetime::unix_now,
    op::{Applied, Op},
    record::Record,
    seal::Seal,
    store::{Durability, SessionStore},
};
use async_trait::async_trait;
use failure::CallError;
use lane::Ask;
use link::Link;
use redis::{AsyncCommands, Value, aio::MultiplexedConnection};
use script::{Scripts, Wait};
use std::{
    fmt,
    time::{Duration, Instant},
};
#[cfg(feature = "tls")]
pub use tls::TlsOptions;
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
        let settings = url::parse(url, &options)?;
        let replicas = settings.replicas;
        Ok(Self {
            link: Link::new(settings, without_password(url)),
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

    async fn read(
        &self,
        connection: &mut MultiplexedConnection,
        key: &StoreKey,
    ) -> Result<Option<Record>, CallError> {
        Ok(self.found(key, connection.get(&*script::session(key)).await?)?)
    }

    /// What is under a key, of the server's answer.
    fn found(&self, key: &StoreKey, answer: Value) -> Result<Option<Record>, StoreError> {
        match answer {
            Value::Nil => Ok(None),
            Value::BulkString(bytes) => self.seal.decode(key, &bytes).map(Some),
            _ => Err(StoreError::Decode { reason: "the server answered something else than bytes" }),
        }
    }
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
        let start = Instant::now();
        let _permit = self.link.admit("load")?;
        // The usual case by itself: what a failing one needs to remember is larger than what an allocator hands out cheaply.
        if let Some(ready) = self.link.ready(self.deadline) {
            match ready.lane().ask(Ask::Read(script::session(key))).await {
                Ok(answer) => return self.found(key, answer),
                Err(error) => self.link.failed(&ready, "load", error.into())?,
            }
        }
        let work =
            |mut connection: MultiplexedConnection| async move { self.read(&mut connection, key).await };
        let left = self.deadline.saturating_sub(start.elapsed());
        Box::pin(self.link.admitted("load", left, None, work)).await
    }

    async fn apply(&self, key: &StoreKey, op: Op, durability: Durability) -> Result<Applied, StoreError> {
        self.apply_seen(key, None, &op.named(), durability).await
    }

    async fn apply_from(
        &self,
        key: &StoreKey,
        seen: &Record,
        op: Op,
        durability: Durability,
    ) -> Result<Applied, StoreError> {
        self.apply_seen(key, Some(seen), &op.named(), durability).await
    }

    fn time_limit(&self) -> Duration {
        self.deadline
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
                let mut keys = keys.collect::<Result<Vec<_>, _>>()?;
                // The set says who may be live; the records say who is.
                let mut live = Vec::with_capacity(keys.len());
                for keys in keys.chunks(AT_ONCE) {
                    let names = keys.iter().map(|key| script::session(key).to_vec()).collect::<Vec<_>>();
                    let records: Vec<Option<Vec<u8>>> = connection.mget(names).await?;
                    let now = unix_now();
                    live.extend(keys.iter().zip(records).map(|(key, bytes)| {
                        let record = bytes.map(|bytes| self.seal.decode(key, &bytes));
                        // A damaged one is listed, so that it can be ended.
                        record.is_some_and(|record| {
                            record.map_or(true, |record| {
                                record.live_principal() == Some(principal) && record.gone(now).is_none()
                            })
                        })
                    }));
                }
                let mut live = live.into_iter();
                keys.retain(|_| live.next().unwrap_or(false));
                Ok(keys)
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

    async fn about_how_many(&self) -> Result<Option<u64>, StoreError> {
        let work = |mut connection: MultiplexedConnection| async move {
            let all: u64 = redis::cmd("DBSIZE").query_async(&mut connection).await?;
            let (mut cursor, mut seen, mut sessions) = (0_u64, 0_u64, 0_u64);
            for _ in 0..SAMPLE {
                let mut scan = redis::cmd("SCAN");
                scan.arg(cursor).arg("COUNT").arg(SCANNED);
                let names: Vec<Vec<u8>>;
                (cursor, names) = scan.query_async(&mut connection).await?;
                seen += names.len() as u64;
                sessions += names.iter().filter(|name| script::is_session(name)).count() as u64;
                if cursor == 0 {
                    return Ok(Some(sessions));
                }
            }
            // Keys lie in the order of their hashes, so the first ones are as good a sample as any.
            let estimate = u128::from(all) * u128::from(sessions) / u128::from(seen.max(1));
            Ok(Some(u64::try_from(estimate).unwrap_or(u64::MAX)))
        };
        self.link.call("a count", self.deadline, work).await
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
        f.debug_struct("RedisStore").field("url", &self.link.name()).finish_non_exhaustive()
    }
}

const DEADLINE: Duration = crate::store::TIME_LIMIT;
/// Commands that a count takes at most, and keys that each looks at: all of a few thousand, a sample of more.
const SAMPLE: usize = 8;
const SCANNED: usize = 512;
/// Records that are read in one command.
const AT_ONCE: usize = 128;
/// Probes of a balancer come each second or so.
const HEALTH_DEADLINE: Duration = Duration::from_millis(800);
/// The longest one attempt waits for replicas.
pub(super) const MAX_WAIT: Duration = Duration::from_secs(5);
