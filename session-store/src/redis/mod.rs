//! Sessions in Redis 6.2 or newer: one server, or the master that Sentinel names.
//!
//! One string per session. A step reads it, decides with [`apply_op`], and writes with a script that compares the first bytes of what was
//! read, so nothing is lost between several hosts; it starts again with the newer bytes when they changed. The same script keeps a sorted
//! set of each user's sessions (the member is the session's key, the score its deadline), named by the hash of the user.
//!
//! Keys: `session:{KEY}` and `session-user:{HASH}`. Redis needs `maxmemory-policy noeviction`, or sessions vanish. Without
//! `min-replicas-to-write` a master that is cut off goes on acknowledging writes that the failover throws away.

mod dial;
mod link;
mod turns;
mod url;

use crate::{
    codec,
    error::StoreError,
    id::StoreKey,
    lifetime::{UnixMillis, unix_now},
    op::{Applied, Op, Outcome},
    record::Record,
    rule::{Step, apply_op},
    store::{Durability, SessionStore, without_password},
};
use async_trait::async_trait;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use link::{CallError, Link};
use redis::{AsyncCommands, Script, aio::MultiplexedConnection};
use sha2::{Digest, Sha256};
use std::{
    fmt,
    time::{Duration, Instant},
};
use turns::Turns;

/// Sessions in Redis. See the [module](self) for what it needs.
pub struct RedisStore {
    link: Link,
    turns: Turns,
    script: Script,
    deadline: Duration,
}

impl RedisStore {
    /// A store for a URL (see [`connect`](crate::connect)). Connects at the first call.
    ///
    /// # Errors
    /// [`StoreError::Config`] for a URL that cannot work.
    pub fn open(url: &str) -> Result<Self, StoreError> {
        let link = Link::new(url::Target::parse(url)?, without_password(url));
        let turns = Turns::default();
        Ok(Self { link, turns, script: Script::new(COMPARE_AND_SET), deadline: DEADLINE })
    }

    /// How long a call may wait, through a failover too. 8 s by default.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// One read, then compare-and-set until nobody was faster. Repeated from the start after a failure: the commit's id makes that safe.
    async fn step(
        &self,
        mut connection: MultiplexedConnection,
        key: &StoreKey,
        op: &Op,
        hint: Option<Vec<u8>>,
    ) -> Result<(Applied, Option<Vec<u8>>), CallError> {
        let mut fresh = hint.is_none();
        let mut before = if fresh { connection.get(session(key)).await? } else { hint };
        loop {
            let now = unix_now();
            let record = before.as_deref().map(codec::decode).transpose()?;
            let user = record.as_ref().and_then(Record::live_principal).map(user);
            let step = apply_op(record, op, now);
            let rows = rows(key, &step, user.as_deref(), now);
            if !fresh && !rows.as_ref().is_ok_and(|rows| !rows.is_empty()) {
                // An answer without a write is not checked by the script, so it has to come from the store as it is now.
                before = connection.get(session(key)).await?;
                fresh = true;
                continue;
            }
            let mut rows = rows?;
            if rows.is_empty() {
                return Ok((step.applied, None));
            }
            match self.write(&mut connection, key, before.as_deref(), now, &rows).await? {
                (DONE, _) => return Ok((step.applied, Some(rows.swap_remove(0).bytes))),
                (COLLISION, _) => {
                    let applied = Applied { outcome: Outcome::Collision, record: None, moved_to: None };
                    return Ok((applied, None));
                }
                (_, newer) => (before, fresh) = (newer, true),
            }
        }
    }

    async fn write(
        &self,
        connection: &mut MultiplexedConnection,
        key: &StoreKey,
        before: Option<&[u8]>,
        now: UnixMillis,
        rows: &[Row],
    ) -> Result<(u8, Option<Vec<u8>>), CallError> {
        let head = before.map(|bytes| bytes.get(..codec::HEAD).unwrap_or(bytes)).unwrap_or_default();
        let mut call = self.script.prepare_invoke();
        call.key(session(key)).arg(head).arg(now);
        for row in rows {
            call.key(session(&row.key)).key(&row.index);
            call.arg(&row.bytes[..]).arg(row.life).arg(row.score).arg(member(&row.key));
        }
        Ok(call.invoke_async(connection).await?)
    }
}

/// A record as the script writes it.
struct Row {
    key: StoreKey,
    bytes: Vec<u8>,
    /// Milliseconds until Redis may forget it.
    life: u64,
    /// The set of the user's sessions, or nothing.
    index: String,
    /// Its place there; 0: it is to leave.
    score: u64,
}

/// What a step writes; nothing where it changes nothing. The key's own record is the first.
fn rows(
    key: &StoreKey,
    step: &Step,
    user_before: Option<&str>,
    now: UnixMillis,
) -> Result<Vec<Row>, StoreError> {
    let own = step.write.as_ref().map(|record| (*key, record));
    let created = step.create.as_ref().map(|(key, record)| (*key, record));
    let row = |(key, record): (StoreKey, &Record)| {
        let user_now = record.live_principal().map(user);
        Ok(Row {
            key,
            bytes: codec::encode(record, rand::random())?,
            life: record.deadline().saturating_sub(now).saturating_add(SKEW).clamp(1, MAX_TTL),
            score: user_now.as_ref().map_or(0, |_| record.deadline()),
            index: user_now.or_else(|| user_before.map(str::to_owned)).unwrap_or_default(),
        })
    };
    own.into_iter().chain(created).map(row).collect()
}

#[async_trait]
impl SessionStore for RedisStore {
    async fn load(&self, key: &StoreKey) -> Result<Option<Record>, StoreError> {
        let name = session(key);
        let work = |mut connection: MultiplexedConnection| {
            let name = name.clone();
            async move {
                let bytes: Option<Vec<u8>> = connection.get(name).await?;
                Ok(bytes.as_deref().map(codec::decode).transpose()?)
            }
        };
        self.link.call("load", self.deadline, work).await
    }

    async fn apply(&self, key: &StoreKey, op: Op, _: Durability) -> Result<Applied, StoreError> {
        let start = Instant::now();
        let _permit = self.link.admit("write")?;
        let Ok(mut turn) = tokio::time::timeout(self.deadline, self.turns.take(key)).await else {
            let reason = "earlier changes of this session were not finished";
            return Err(self.link.timeout("write", self.deadline, reason));
        };
        let left = self.deadline.saturating_sub(start.elapsed());
        let hint = turn.take();
        let work = |connection| self.step(connection, key, &op, hint.clone());
        let (applied, wrote) = self.link.admitted("write", left, work).await?;
        *turn = wrote;
        Ok(applied)
    }

    async fn sessions_of(&self, principal: &str) -> Result<Vec<StoreKey>, StoreError> {
        let index = user(principal);
        let work = |mut connection: MultiplexedConnection| {
            let index = index.clone();
            async move {
                let members: Vec<Vec<u8>> =
                    connection.zrangebyscore(index, format!("({}", unix_now()), "+inf").await?;
                let keys = members.iter().map(|member| parse_member(member));
                Ok(keys.collect::<Result<Vec<_>, _>>()?)
            }
        };
        self.link.call("list", self.deadline, work).await
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

fn session(key: &StoreKey) -> String {
    format!("session:{}", member(key))
}

fn member(key: &StoreKey) -> String {
    URL_SAFE_NO_PAD.encode(key.as_bytes())
}

fn parse_member(member: &[u8]) -> Result<StoreKey, StoreError> {
    let bytes = URL_SAFE_NO_PAD.decode(member).ok().and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
    bytes
        .map(StoreKey::from_bytes)
        .ok_or(StoreError::Decode { reason: "an entry of a user's index is no key" })
}

fn user(principal: &str) -> String {
    format!("session-user:{}", URL_SAFE_NO_PAD.encode(Sha256::digest(principal)))
}

const DEADLINE: Duration = Duration::from_secs(8);
/// Probes of a balancer come each second or so.
const HEALTH_DEADLINE: Duration = Duration::from_millis(800);
/// Redis forgets a record this much after its deadline, so that clocks of hosts may differ; the record's own deadline decides.
const SKEW: u64 = 60_000;
/// Ten years: Redis refuses what does not fit its own clock.
const MAX_TTL: u64 = 10 * 365 * 24 * 3600 * 1000;

const DONE: u8 = 1;
const COLLISION: u8 = 2;

/// `KEYS`: the record that was read; then for each record to write its key and the index that it is in or was in.
/// `ARGV`: the first bytes that were read (empty: nothing was there), now; then for each record its bytes, life in ms, score (0: not in the index), member.
/// Answers `{0, newer bytes}`, `{1}` done, `{2}` a new key is in use.
const COMPARE_AND_SET: &str = r"
local current = redis.call('GET', KEYS[1])
if (current or ''):sub(1, #ARGV[1]) ~= ARGV[1] or (#ARGV[1] == 0 and current) then
  return {0, current}
end
for i = 2, #KEYS, 2 do
  if KEYS[i] ~= KEYS[1] and redis.call('EXISTS', KEYS[i]) == 1 then return {2, false} end
end
for i = 2, #KEYS, 2 do
  local arg = (i - 2) * 2 + 3
  redis.call('SET', KEYS[i], ARGV[arg], 'PX', ARGV[arg + 1])
  local index = KEYS[i + 1]
  if index ~= '' then
    redis.call('ZREMRANGEBYSCORE', index, '-inf', ARGV[2])
    if ARGV[arg + 2] == '0' then
      redis.call('ZREM', index, ARGV[arg + 3])
    else
      redis.call('ZADD', index, ARGV[arg + 2], ARGV[arg + 3])
      if redis.call('PTTL', index) < tonumber(ARGV[arg + 1]) then redis.call('PEXPIRE', index, ARGV[arg + 1]) end
    end
  end
end
return {1, false}
";
