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
use redis::{Cmd, ErrorKind, FromRedisValue, Script, ServerErrorKind, aio::MultiplexedConnection};
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
    /// The set of the user's sessions, or nothing.
    index: String,
    /// Its place there; 0: it is to leave.
    score: u64,
}

/// What a step writes; nothing where it changes nothing. The key's own record is the first.
pub(super) fn rows(
    seal: &Seal,
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
            bytes: seal.encode(&key, record, rand::random())?,
            life: life(record, now),
            score: user_now.as_ref().map_or(0, |_| record.deadline()),
            index: user_now.or_else(|| user_before.map(str::to_owned)).unwrap_or_default(),
        })
    };
    own.into_iter().chain(created).map(row).collect()
}

/// What a compare-and-set came to.
pub(super) enum Wrote {
    Done,
    Collision,
    /// Somebody was faster; this is there now.
    Newer(Option<Vec<u8>>),
}

pub(super) struct Scripts {
    compare_and_set: Script,
    revoke: Script,
}

impl Scripts {
    pub(super) fn new() -> Self {
        Self { compare_and_set: Script::new(COMPARE_AND_SET), revoke: Script::new(REVOKE) }
    }

    pub(super) async fn compare_and_set(
        &self,
        connection: &mut MultiplexedConnection,
        key: &StoreKey,
        before: Head,
        now: UnixMillis,
        rows: &[Row],
        wait: Option<Wait>,
    ) -> Result<Wrote, CallError> {
        let arguments = |call: &mut Cmd| {
            call.arg(1 + 2 * rows.len()).arg(session(key));
            for row in rows {
                call.arg(session(&row.key)).arg(&row.index);
            }
            call.arg(before.0.as_ref().map_or(&[][..], |head| &head[..])).arg(now.saturating_sub(SKEW));
            for row in rows {
                call.arg(&row.bytes[..]).arg(row.life).arg(row.score).arg(member(&row.key));
            }
        };
        let (answer, acked) =
            send(connection, &self.compare_and_set, COMPARE_AND_SET, arguments, wait).await?;
        let (done, newer): (u8, Option<Vec<u8>>) = answer;
        match done {
            DONE => confirmed(wait, acked).map(|()| Wrote::Done),
            COLLISION => Ok(Wrote::Collision),
            _ => Ok(Wrote::Newer(newer)),
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
        let arguments = |call: &mut Cmd| {
            call.arg(2).arg(user(principal)).arg(MARK);
            call.arg(tombstone).arg(crate::lifetime::millis(TOMBSTONE)).arg(SESSION);
            call.arg(except.map(member).unwrap_or_default()).arg(BATCH);
        };
        let (answer, acked) = send(connection, &self.revoke, REVOKE, arguments, wait).await?;
        let (ended, more): (usize, bool) = answer;
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

/// Sends the script by its hash, and itself where the server has forgotten it. With a `WAIT` behind it it is sent itself: a second try would wait twice.
async fn send<T: FromRedisValue>(
    connection: &mut MultiplexedConnection,
    script: &Script,
    text: &str,
    arguments: impl Fn(&mut Cmd),
    wait: Option<Wait>,
) -> Result<(T, i64), CallError> {
    if let Some(Wait { n, timeout }) = wait {
        let (mut pipe, mut call) = (redis::pipe(), redis::cmd("EVAL"));
        arguments(call.arg(text));
        pipe.add_command(call).cmd("WAIT").arg(n).arg(crate::lifetime::millis(timeout));
        return Ok(pipe.query_async(connection).await?);
    }
    let mut call = redis::cmd("EVALSHA");
    arguments(call.arg(script.get_hash()));
    match call.query_async(connection).await {
        Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
            script.load_async(connection).await?;
            Ok((call.query_async(connection).await?, 0))
        }
        answer => Ok((answer?, 0)),
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

const DONE: u8 = 1;
const COLLISION: u8 = 2;

/// `KEYS`: the record that was read; then for each record to write its key and the index that it is in or was in.
/// `ARGV`: the first bytes that were read (empty: nothing was there), what of an index is over by any host's clock; then for each record its bytes, life in ms, score (0: not in the index), member.
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
