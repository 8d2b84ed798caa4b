//! The scripts, and how they are sent: alone on the shared connection, or with a `WAIT` behind them on one of their own.

use super::failure::{CallError, Failure};
use crate::{
    error::StoreError,
    id::StoreKey,
    lifetime::UnixMillis,
    record::{Head, Record},
    rule::{Step, TOMBSTONE},
    seal::Seal,
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use redis::{
    Cmd, ErrorKind, FromRedisValue, RedisError, Script, ServerErrorKind, Value, aio::MultiplexedConnection,
};
use sha2::{Digest, Sha256};
use std::time::Duration;

/// How many replicas have to confirm, and for how long they are waited for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wait {
    pub(super) n: u8,
    pub(super) timeout: Duration,
}

/// A record as the script writes it.
pub(super) struct Row {
    pub(super) key: StoreKey,
    pub(super) bytes: Vec<u8>,
    /// Milliseconds until Redis may forget it.
    life: u64,
    /// What changes in a set of a user's sessions.
    index: Option<Entry>,
}

/// A session's place in the set of its user's.
struct Entry {
    set: String,
    /// 0: it is to leave.
    score: u64,
}

/// What the store held under a step's key.
#[derive(Default)]
pub(super) struct Before {
    pub(super) head: Head,
    /// The user whose set it is in, and its place there.
    indexed: Option<(String, u64)>,
}

impl Before {
    pub(super) fn new(record: &Record) -> Self {
        let place = |principal: &str| (principal.to_owned(), score(record));
        Self { head: record.head, indexed: record.live_principal().map(place) }
    }

    /// What has to change in a set so that it says of the key what `after` says.
    fn entry(&self, after: &Record) -> Option<Entry> {
        match (&self.indexed, after.live_principal()) {
            (None, None) => None,
            (Some((user_before, place)), Some(user_now)) => {
                let place_now = score(after);
                let same = user_before == user_now && *place == place_now && self.head.is_current();
                (!same).then(|| Entry { set: user(user_now), score: place_now })
            }
            (None, Some(user_now)) => Some(Entry { set: user(user_now), score: score(after) }),
            (Some((user_before, _)), None) => Some(Entry { set: user(user_before), score: 0 }),
        }
    }
}

/// What a step writes; nothing where it changes nothing. The key's own record is the first.
pub(super) fn rows(
    seal: &Seal,
    key: &StoreKey,
    step: &Step,
    before: &Before,
    now: UnixMillis,
) -> Result<Vec<Row>, StoreError> {
    let own = step.write.as_ref().map(|record| (*key, record, before.entry(record)));
    // A rotation moves the entry to the new key.
    let created = step.create.as_ref().map(|(key, record)| (*key, record, Before::default().entry(record)));
    let row = |(key, record, index): (StoreKey, &Record, Option<Entry>)| {
        Ok(Row { key, bytes: seal.encode(&key, record, rand::random())?, life: life(record, now), index })
    };
    own.into_iter().chain(created).map(row).collect()
}

/// Where a session stands in the set of its user's: not before its deadline, and in steps of a tenth of its idle lifetime, so that a session in
/// use moves now and then rather than with every change.
fn score(record: &Record) -> u64 {
    let step = (crate::lifetime::millis(record.lifetime.idle) / STEPS).max(1);
    (record.deadline() / step).saturating_add(1).saturating_mul(step).min(MAX_SCORE)
}

/// What a compare-and-set came to.
pub(super) enum Wrote {
    Done,
    Collision,
    /// Somebody was faster; this is there now.
    Newer(Option<Vec<u8>>),
}

pub(super) struct Scripts {
    write: Script,
    compare_and_set: Script,
    revoke: Script,
}

impl Scripts {
    pub(super) fn new() -> Self {
        Self {
            write: Script::new(WRITE),
            compare_and_set: Script::new(COMPARE_AND_SET),
            revoke: Script::new(REVOKE),
        }
    }

    pub(super) fn compare_and_set<'a>(
        &'a self,
        connection: &'a mut MultiplexedConnection,
        key: &StoreKey,
        head: Head,
        now: UnixMillis,
        rows: &[Row],
        wait: Option<Wait>,
    ) -> impl Future<Output = Result<Wrote, CallError>> + Send + 'a {
        let head = head.0.as_ref().map_or(&[][..], |head| &head[..]);
        let (script, call) = if let [Row { bytes, life, index: None, .. }] = rows {
            let mut call = Call::new(&self.write, WRITE, wait, bytes.len());
            call.command.arg(1).arg(session(key)).arg(head).arg(&bytes[..]).arg(life);
            (&self.write, call)
        } else {
            let mut call = Call::new(&self.compare_and_set, COMPARE_AND_SET, wait, 0);
            let arguments = &mut call.command;
            arguments.arg(1 + 2 * rows.len()).arg(session(key));
            for row in rows {
                arguments.arg(session(&row.key)).arg(row.index.as_ref().map_or("", |entry| &entry.set));
            }
            arguments.arg(head).arg(now.saturating_sub(SKEW));
            for row in rows {
                let (score, until) = row.index.as_ref().map_or((0, 0), |entry| {
                    (entry.score, entry.score.saturating_sub(now).saturating_add(SKEW).clamp(1, MAX_TTL))
                });
                arguments.arg(&row.bytes[..]).arg(row.life).arg(score).arg(until).arg(member(&row.key));
            }
            (&self.compare_and_set, call)
        };
        async move {
            match call.send(connection, script).await? {
                (Value::Int(DONE), acked) => confirmed(wait, acked).map(|()| Wrote::Done),
                (Value::Int(_), _) => Ok(Wrote::Collision),
                (newer, _) => {
                    Ok(Wrote::Newer(FromRedisValue::from_redis_value(newer).map_err(RedisError::from)?))
                }
            }
        }
    }

    /// Puts tombstones over a user's sessions, a bounded number of them. Answers how many, and whether there are more.
    pub(super) async fn revoke(
        &self,
        connection: &mut MultiplexedConnection,
        principal: &str,
        except: Option<&StoreKey>,
        tombstone: &[u8],
        wait: Option<Wait>,
    ) -> Result<(usize, bool), CallError> {
        let mut call = Call::new(&self.revoke, REVOKE, wait, 0);
        call.command.arg(2).arg(user(principal)).arg(MARK);
        call.command.arg(tombstone).arg(crate::lifetime::millis(TOMBSTONE)).arg(SESSION);
        call.command.arg(except.map(member).unwrap_or_default()).arg(BATCH);
        let (answer, acked) = call.send(connection, &self.revoke).await?;
        let (ended, more): (usize, bool) =
            FromRedisValue::from_redis_value(answer).map_err(RedisError::from)?;
        confirmed(wait, acked)?;
        Ok((ended, more))
    }
}

/// An answer that needed no write may rest on one that only the primary has: a write of no meaning is made and waited for, and with it all before.
pub(super) async fn confirm(
    connection: &mut MultiplexedConnection,
    wait: Option<Wait>,
) -> Result<(), CallError> {
    let Some(Wait { n, timeout }) = wait else { return Ok(()) };
    let mut pipe = redis::pipe();
    pipe.cmd("SET").arg(MARK).arg("").arg("PX").arg(1_000).ignore();
    pipe.cmd("WAIT").arg(n).arg(crate::lifetime::millis(timeout));
    let (acked,): (i64,) = pipe.query_async(connection).await?;
    confirmed(wait, acked)
}

/// A script about to be sent: by its hash, and itself where the server has forgotten it. With a `WAIT` behind it it is sent itself: a second try
/// would wait twice.
struct Call {
    command: Cmd,
    wait: Option<Wait>,
}

impl Call {
    fn new(script: &Script, text: &str, wait: Option<Wait>, size: usize) -> Self {
        let mut command = Cmd::with_capacity(8, size + 256);
        command.arg(if wait.is_some() { "EVAL" } else { "EVALSHA" });
        command.arg(if wait.is_some() { text } else { script.get_hash() });
        Self { command, wait }
    }

    /// The script's answer, and how many replicas have it.
    async fn send(
        self,
        connection: &mut MultiplexedConnection,
        script: &Script,
    ) -> Result<(Value, i64), CallError> {
        if let Some(Wait { n, timeout }) = self.wait {
            let mut pipe = redis::pipe();
            pipe.add_command(self.command).cmd("WAIT").arg(n).arg(crate::lifetime::millis(timeout));
            return Ok(Box::pin(pipe.query_async(connection)).await?);
        }
        match self.command.query_async(connection).await {
            Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                Box::pin(script.load_async(connection)).await?;
                Ok((self.command.query_async(connection).await?, 0))
            }
            answer => Ok((answer?, 0)),
        }
    }
}

/// `WAIT` answers the count that it reached, whatever was asked for.
fn confirmed(wait: Option<Wait>, acked: i64) -> Result<(), CallError> {
    let acked = u8::try_from(acked).unwrap_or(u8::MAX);
    match wait {
        Some(Wait { n, .. }) if acked < n => Err(Failure::short(n, acked).into()),
        _ => Ok(()),
    }
}

fn life(record: &Record, now: UnixMillis) -> u64 {
    record.deadline().saturating_sub(now).saturating_add(SKEW).clamp(1, MAX_TTL)
}

pub(super) fn session(key: &StoreKey) -> String {
    format!("{SESSION}{}", member(key))
}

pub(super) fn user(principal: &str) -> String {
    format!("session-user:{}", URL_SAFE_NO_PAD.encode(Sha256::digest(principal)))
}

fn member(key: &StoreKey) -> String {
    key.to_text()
}

pub(super) fn parse_member(member: &[u8]) -> Result<StoreKey, StoreError> {
    let key = std::str::from_utf8(member).ok().and_then(StoreKey::parse);
    key.ok_or(StoreError::Decode { reason: "an entry of a user's index is no key" })
}

const SESSION: &str = "session:";
/// Sessions that one script ends: it holds up everybody else meanwhile.
const BATCH: usize = 256;
/// Written where there is nothing else to write before a `WAIT`.
const MARK: &str = "session-mark";
/// Redis forgets a record this much after its deadline, so that clocks of hosts may differ; the record's own deadline decides.
const SKEW: u64 = 60_000;
/// Ten years: Redis refuses what does not fit its own clock.
const MAX_TTL: u64 = 10 * 365 * 24 * 3600 * 1000;

/// Of an idle lifetime, to its end: a session in use moves in its index that often.
const STEPS: u64 = 10;
/// Scores are doubles, which hold whole numbers up to here.
const MAX_SCORE: u64 = 1 << 53;

const DONE: i64 = 1;

/// The usual step: one record, and no index changes. `KEYS`: the record. `ARGV`: the first bytes that were read (empty: nothing was there), the bytes to
/// write, their life in ms. Answers `1` done, or the newer bytes, or nil where there are none.
const WRITE: &str = r"
if redis.call('GETRANGE', KEYS[1], 0, 19) ~= ARGV[1] then return redis.call('GET', KEYS[1]) end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return 1
";

/// `KEYS`: the record that was read; then for each record to write its key and the index that changes (empty: none).
/// `ARGV`: the first bytes that were read (empty: nothing was there), what of an index is over by any host's clock; then for each record its bytes, life in ms, score (0: it leaves the index), how long the index has to live, member.
/// Answers as the one before, or `2`: a new key is in use.
const COMPARE_AND_SET: &str = r"
if redis.call('GETRANGE', KEYS[1], 0, 19) ~= ARGV[1] then return redis.call('GET', KEYS[1]) end
for i = 2, #KEYS, 2 do
  if KEYS[i] ~= KEYS[1] and redis.call('EXISTS', KEYS[i]) == 1 then return 2 end
end
for i = 2, #KEYS, 2 do
  local arg = (i - 2) / 2 * 5 + 3
  redis.call('SET', KEYS[i], ARGV[arg], 'PX', ARGV[arg + 1])
  local index = KEYS[i + 1]
  if index ~= '' then
    redis.call('ZREMRANGEBYSCORE', index, '-inf', ARGV[2])
    if ARGV[arg + 2] == '0' then
      redis.call('ZREM', index, ARGV[arg + 4])
    else
      redis.call('ZADD', index, ARGV[arg + 2], ARGV[arg + 4])
      if redis.call('PTTL', index) < tonumber(ARGV[arg + 3]) then redis.call('PEXPIRE', index, ARGV[arg + 3]) end
    end
  end
end
return 1
";

/// `KEYS`: the index of the user's sessions, the mark. `ARGV`: the tombstone, its life in ms, what the names of sessions begin with, the member to
/// leave, how many at most. Who is over by this host's clock may be live by another one's, so all members count. The mark is written so that a
/// `WAIT` behind this waits for something also when an earlier call has ended them all.
/// Answers `{how many, 1 if there are more}`.
const REVOKE: &str = r"
redis.call('SET', KEYS[2], '', 'PX', 1000)
local members = redis.call('ZRANGE', KEYS[1], 0, ARGV[5])
local limit = tonumber(ARGV[5])
local ended = 0
for _, member in ipairs(members) do
  if member ~= ARGV[4] and ended < limit then
    local name = ARGV[3] .. member
    if redis.call('EXISTS', name) == 1 then redis.call('SET', name, ARGV[1], 'PX', ARGV[2]) end
    redis.call('ZREM', KEYS[1], member)
    ended = ended + 1
  end
end
return {ended, #members > limit and 1 or 0}
";
