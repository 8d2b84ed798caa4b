//! The scripts, and how they are sent: alone on the shared connection, or with a `WAIT` behind them on one of their own.

use super::{
    failure::{CallError, Failure},
    lane::{Ask, Via},
};
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
use std::{sync::Arc, time::Duration};

/// How many replicas have to confirm, and for how long they are waited for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wait {
    pub(super) n: u8,
    pub(super) timeout: Duration,
}

/// A record as the script writes it.
pub(super) struct Row {
    pub(super) key: StoreKey,
    pub(super) head: Head,
    /// Taken when it is sent.
    bytes: Vec<u8>,
    /// Milliseconds until Redis may forget it.
    life: u64,
    /// What changes in a set of a user's sessions.
    index: Option<Entry>,
}

/// What a step writes: the key's own record, and the one that a rotation creates.
pub(super) struct Rows {
    own: Option<Row>,
    created: Option<Row>,
}

impl Rows {
    pub(super) fn is_empty(&self) -> bool {
        self.own.is_none() && self.created.is_none()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Row> {
        self.own.iter().chain(&self.created)
    }

    /// Where it is the usual one, of one record: that, whose bytes are taken.
    fn usual(&mut self, key: &StoreKey, head: Head) -> Option<Write> {
        match (&mut self.own, &self.created) {
            (Some(Row { bytes, life, index: None, .. }), None) => {
                Some(Write { name: session(key), head, bytes: std::mem::take(bytes), life: *life })
            }
            _ => None,
        }
    }
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
    indexed: Option<(Arc<str>, u64)>,
}

impl Before {
    pub(super) fn new(record: &Record) -> Self {
        let live = record.principal.as_ref().filter(|_| record.live_principal().is_some());
        Self { head: record.head, indexed: live.map(|user| (user.clone(), score(record))) }
    }

    /// What has to change in a set so that it says of the key what `after` says.
    fn entry(&self, after: &Record) -> Option<Entry> {
        match (&self.indexed, after.live_principal()) {
            (None, None) => None,
            (Some((user_before, place)), Some(user_now)) => {
                let place_now = score(after);
                let same = **user_before == *user_now && *place == place_now && self.head.is_current();
                (!same).then(|| Entry { set: user(user_now), score: place_now })
            }
            (None, Some(user_now)) => Some(Entry { set: user(user_now), score: score(after) }),
            (Some((user_before, _)), None) => Some(Entry { set: user(user_before), score: 0 }),
        }
    }
}

/// What a step writes; nothing where it changes nothing.
pub(super) fn rows(
    seal: &Seal,
    key: &StoreKey,
    step: &Step,
    before: &Before,
    now: UnixMillis,
) -> Result<Rows, StoreError> {
    let row = |key: &StoreKey, record: &Record, before: &Before| {
        let bytes = seal.encode(key, record, rand::random())?;
        let index = before.entry(record);
        Ok(Row { key: *key, head: Head::of(&bytes), bytes, life: life(record, now), index })
    };
    let own = step.write.as_ref().map(|record| row(key, record, before)).transpose()?;
    // A rotation moves the entry to the new key.
    let created = step.create.as_ref().map(|(key, record)| row(key, record, &Before::default()));
    Ok(Rows { own, created: created.transpose()? })
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

/// The usual step: one record, and no index changes.
pub(super) struct Write {
    name: Name,
    head: Head,
    bytes: Vec<u8>,
    life: u64,
}

/// A session's name in Redis.
#[derive(Clone, Copy)]
pub(super) struct Name([u8; NAME]);

impl std::ops::Deref for Name {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

/// The script for any number of them at once.
pub(super) struct WriteAll(Script);

pub(super) fn write_all() -> WriteAll {
    WriteAll(Script::new(WRITE))
}

impl WriteAll {
    /// Answers an array with what came of each.
    pub(super) fn call(&self, writes: &[Write]) -> Cmd {
        let size = writes.iter().map(|write| write.bytes.len() + 96).sum::<usize>();
        let mut call = Cmd::with_capacity(3 + 4 * writes.len(), size + 64);
        call.arg("EVALSHA").arg(self.0.get_hash()).arg(writes.len());
        for write in writes {
            call.arg(&*write.name);
        }
        for Write { head, bytes, life, .. } in writes {
            call.arg(head.bytes()).arg(&bytes[..]).arg(life);
        }
        call
    }
}

/// What is under a name.
pub(super) fn read(name: &Name) -> Cmd {
    let mut read = Cmd::with_capacity(2, 8 + NAME);
    read.arg("GET").arg(&**name);
    read
}

/// What is under each name, as an array. What is no string (nobody's but a stranger's) is nothing here, and an error to [`read`]; a write to it
/// is an error in any case.
pub(super) fn read_all(names: &[Name]) -> Cmd {
    let mut read = Cmd::with_capacity(1 + names.len(), 8 + NAME * names.len());
    read.arg("MGET");
    for name in names {
        read.arg(&**name);
    }
    read
}

/// For a server that has forgotten a script.
pub(super) fn load(text: &str) -> Cmd {
    let mut load = redis::cmd("SCRIPT");
    load.arg("LOAD").arg(text);
    load
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
        via: Via<'_>,
        key: &StoreKey,
        head: Head,
        now: UnixMillis,
        rows: &mut Rows,
    ) -> Result<Wrote, CallError> {
        if let Via::Lane(lane) = via
            && let Some(write) = rows.usual(key, head)
        {
            return wrote(lane.ask(Ask::Write(write)).await?);
        }
        // Apart, so that the usual one stays small.
        Box::pin(self.compare_and_set_all(via, key, head, now, rows)).await
    }

    async fn compare_and_set_all(
        &self,
        via: Via<'_>,
        key: &StoreKey,
        head: Head,
        now: UnixMillis,
        rows: &Rows,
    ) -> Result<Wrote, CallError> {
        let wait = via.wait();
        let mut call = Call::new(&self.compare_and_set, COMPARE_AND_SET, wait.is_some(), 0);
        let arguments = &mut call.command;
        arguments.arg(1 + 2 * rows.iter().count()).arg(&*session(key));
        for row in rows.iter() {
            arguments.arg(&*session(&row.key)).arg(row.index.as_ref().map_or("", |entry| &entry.set));
        }
        arguments.arg(head.bytes()).arg(now.saturating_sub(SKEW));
        for row in rows.iter() {
            let (score, until) = row.index.as_ref().map_or((0, 0), |entry| {
                (entry.score, entry.score.saturating_sub(now).saturating_add(SKEW).clamp(1, MAX_TTL))
            });
            arguments.arg(&row.bytes[..]).arg(row.life).arg(score).arg(until).arg(member(&row.key));
        }
        let (answer, acked) = call.send(via).await?;
        let wrote = wrote(answer)?;
        if let Wrote::Done = wrote {
            confirmed(wait, acked)?;
        }
        Ok(wrote)
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
        let mut call = Call::new(&self.revoke, REVOKE, wait.is_some(), 0);
        call.command.arg(2).arg(user(principal)).arg(MARK);
        call.command.arg(tombstone).arg(crate::lifetime::millis(TOMBSTONE)).arg(SESSION);
        call.command.arg(except.map(member).unwrap_or_default()).arg(BATCH);
        let (answer, acked) = call.send(Via::Alone(connection, wait)).await?;
        let (ended, more): (usize, bool) =
            FromRedisValue::from_redis_value(answer).map_err(RedisError::from)?;
        confirmed(wait, acked)?;
        Ok((ended, more))
    }
}

/// An answer that needed no write may rest on one that only the primary has: a write of no meaning is made and waited for, and with it all before.
pub(super) async fn confirm(via: Via<'_>) -> Result<(), CallError> {
    let Via::Alone(connection, Some(Wait { n, timeout })) = via else { return Ok(()) };
    let mut pipe = redis::pipe();
    pipe.cmd("SET").arg(MARK).arg("").arg("PX").arg(1_000).ignore();
    pipe.cmd("WAIT").arg(n).arg(crate::lifetime::millis(timeout));
    let (acked,): (i64,) = pipe.query_async(connection).await?;
    confirmed(Some(Wait { n, timeout }), acked)
}

/// A script about to be sent: by its hash, and itself where the server has forgotten it. With a `WAIT` behind it it is sent itself: a second try
/// would wait twice.
struct Call {
    command: Cmd,
    text: &'static str,
}

impl Call {
    fn new(script: &Script, text: &'static str, waits: bool, size: usize) -> Self {
        let mut command = Cmd::with_capacity(8, size + 256);
        command.arg(if waits { "EVAL" } else { "EVALSHA" });
        command.arg(if waits { text } else { script.get_hash() });
        Self { command, text }
    }

    /// The script's answer, and how many replicas have it.
    async fn send(self, mut via: Via<'_>) -> Result<(Value, i64), CallError> {
        if let Via::Alone(connection, Some(Wait { n, timeout })) = via {
            let mut pipe = redis::pipe();
            pipe.add_command(self.command).cmd("WAIT").arg(n).arg(crate::lifetime::millis(timeout));
            return Ok(Box::pin(pipe.query_async(connection)).await?);
        }
        match via.ask(&self.command).await {
            Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                via.ask(&load(self.text)).await?;
                Ok((via.ask(&self.command).await?, 0))
            }
            answer => Ok((answer?, 0)),
        }
    }
}

fn wrote(answer: Value) -> Result<Wrote, CallError> {
    match answer {
        Value::Int(DONE) => Ok(Wrote::Done),
        Value::Int(_) => Ok(Wrote::Collision),
        Value::Nil => Ok(Wrote::Newer(None)),
        Value::BulkString(newer) => Ok(Wrote::Newer(Some(newer))),
        Value::Array(error) => {
            let error = error.into_iter().next().and_then(|text| String::from_redis_value(text).ok());
            Err(Failure::told(&error.unwrap_or_default()).into())
        }
        _ => Err(Failure::again("it answered something that the script does not say").into()),
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

/// Where a session is, without an allocation.
pub(super) fn session(key: &StoreKey) -> Name {
    let mut name = [0; NAME];
    if let Some((before, text)) = name.split_at_mut_checked(SESSION.len()) {
        before.copy_from_slice(SESSION.as_bytes());
        key.write_text(text);
    }
    Name(name)
}

/// Whether a key is a session's.
pub(super) fn is_session(name: &[u8]) -> bool {
    name.starts_with(SESSION.as_bytes())
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
const NAME: usize = SESSION.len() + StoreKey::TEXT;
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

/// Any number of usual steps, each of one record. `KEYS`: the records. `ARGV`, for each: the first bytes that were read (empty: nothing was there), the
/// bytes to write, their life in ms. Answers for each `1` done, or the newer bytes, or nil where there are none, or `{error}`: one that fails stops no other.
pub(super) const WRITE: &str = r"
local answers = {}
for i = 1, #KEYS do
  local arg = i * 3
  local answer
  if redis.pcall('GETRANGE', KEYS[i], '0', '19') == ARGV[arg - 2] then
    answer = redis.pcall('SET', KEYS[i], ARGV[arg - 1], 'PX', ARGV[arg])
    if answer.ok then answer = 1 end
  else
    answer = redis.pcall('GET', KEYS[i])
  end
  if type(answer) == 'table' then answer = {answer.err} end
  answers[i] = answer
end
return answers
";

/// `KEYS`: the record that was read; then for each record to write its key and the index that changes (empty: none).
/// `ARGV`: the first bytes that were read (empty: nothing was there), what of an index is over by any host's clock; then for each record its bytes, life in ms, score (0: it leaves the index), how long the index has to live, member.
/// Answers as the one before, or `2`: a new key is in use.
const COMPARE_AND_SET: &str = r"
if redis.call('GETRANGE', KEYS[1], '0', '19') ~= ARGV[1] then return redis.call('GET', KEYS[1]) end
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
