//! Sessions in one SQLite file: several processes of one host, nothing to run beside them.
//!
//! Each process has one thread that writes and one that reads, with a connection each, so its own requests never wait for a lock, and steps that come at
//! the same time share a transaction; between processes `BEGIN IMMEDIATE` is retried with
//! a short back-off of our own, because SQLite's busy handler sleeps up to 100 ms at a time. WAL with `synchronous=NORMAL`: a crash of the
//! process loses nothing, a loss of power may lose the last moments, a log-out among them. `sqlite:PATH?sync=full` waits for the disk at each
//! write instead, and is as fast as the disk syncs. WAL needs shared memory: not for
//! network file systems. The column of users holds hashes, as the keys do.

// A step stays in the box that its caller allocated.
#![allow(clippy::vec_box)]

mod answers;
mod file;
mod reader;

use crate::{
    codec::HEAD,
    connect::{LONGEST_DEADLINE, StoreOptions, config},
    error::StoreError,
    id::StoreKey,
    lifetime::{UnixMillis, unix_now},
    op::{Applied, Op, Outcome},
    record::{Head, Record},
    rule::apply_op,
    seal::Seal,
    store::{Durability, SessionStore},
};
use answers::Answers;
use async_trait::async_trait;
use file::*;
use reader::Load;
use rusqlite::{Connection, TransactionBehavior, params};
use std::{
    fmt, mem,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};
use tokio::sync::{mpsc, oneshot};

/// Sessions in a SQLite file.
pub struct SqliteStore {
    jobs: mpsc::Sender<Job>,
    loads: mpsc::Sender<Load>,
    path: PathBuf,
    deadline: Duration,
    seal: Seal,
}

/// What a write waits for before it is answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SyncMode {
    /// The operating system has it: a crash of the process loses nothing, a loss of power may lose the last moments.
    #[default]
    Normal,
    /// The disk has it.
    Full,
}

enum Job {
    /// Reads, or writes in a transaction of its own.
    Alone(Box<dyn FnOnce(&mut Worker) + Send>),
    /// May share its transaction with others. Stays in its box, so that this thread frees nothing of its caller's.
    Step(Box<Step>),
}

/// What the thread answers: the file's failure, or the store's.
type Answer<T> = Result<Result<T, StoreError>, rusqlite::Error>;

struct Step {
    key: StoreKey,
    op: Op,
    ready: Option<Ready>,
    until: Instant,
    answer: oneshot::Sender<Answer<Applied>>,
}

/// A step that was decided on where it was asked for, from a record seen earlier: the thread has only to write it, if that record is still there.
struct Ready {
    seen: [u8; HEAD],
    bytes: Vec<u8>,
    applied: Applied,
}

struct Worker {
    connection: Connection,
    seal: Seal,
    writes: u64,
    answers: Answers,
}

impl SqliteStore {
    /// Opens or creates the file (readable by its owner only) and its table.
    ///
    /// # Errors
    /// [`StoreError::Config`] where the path cannot be used, [`StoreError::Unavailable`] where the file cannot be opened now.
    pub async fn open(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        Self::open_with(path, SyncMode::Normal, StoreOptions::new()).await
    }

    /// As [`open`](Self::open), and says what a write waits for, and more.
    ///
    /// # Errors
    /// As of [`open`](Self::open).
    pub async fn open_with(
        path: impl AsRef<Path>,
        sync: SyncMode,
        options: StoreOptions,
    ) -> Result<Self, StoreError> {
        let (seal, deadline) = (options.seal, options.deadline.unwrap_or(DEADLINE));
        let path = path.as_ref().to_owned();
        if path.as_os_str().is_empty() {
            return Err(config(
                "sqlite:",
                "it names no file",
                "write sqlite:PATH, such as sqlite:sessions.db",
            ));
        }
        let (jobs, mut queue) = mpsc::channel::<Job>(QUEUE);
        let (loads, asked) = mpsc::channel(QUEUE);
        let (ready, opened) = oneshot::channel();
        let (file, sealing, answers) = (path.clone(), seal.clone(), Answers::new());
        let read_answers = answers.clone();
        let thread = std::thread::Builder::new().name("session-sqlite".into()).spawn(move || {
            let until = Instant::now() + DEADLINE;
            let opened = retry(until, || prepare(&file, sync))
                .and_then(|writer| Ok((writer, retry(until, || open_reader(&file))?)));
            let (mut worker, reader) = match opened {
                Ok((connection, reader)) => {
                    (Worker { connection, seal: sealing, writes: 0, answers }, reader)
                }
                Err(error) => return drop(ready.send(Err(error))),
            };
            if ready.send(Ok(reader)).is_ok() {
                let (mut next, mut steps) = (None, Vec::new());
                while let Some(job) = next.take().or_else(|| queue.blocking_recv()) {
                    match job {
                        Job::Alone(work) => {
                            work(&mut worker);
                            continue;
                        }
                        Job::Step(step) => steps.push(step),
                    }
                    while steps.len() < TOGETHER {
                        match queue.try_recv() {
                            Ok(Job::Step(step)) => steps.push(step),
                            Ok(job) => {
                                next = Some(job);
                                break;
                            }
                            Err(_) => break,
                        }
                    }
                    // All of them are under way at the same time, so any order is right.
                    worker.apply_all(&mut steps);
                }
            }
        });
        thread.map_err(|source| unavailable(&path, "open", source))?;
        match opened.await {
            Ok(Ok(reader)) => {
                let reading = std::thread::Builder::new().name("session-sqlite-read".into());
                let spawned = reading.spawn(move || reader::run(reader, asked, &read_answers));
                spawned.map_err(|source| unavailable(&path, "open", source))?;
                Ok(Self { jobs, loads, path, deadline, seal })
            }
            Ok(Err(error)) if is_wrong_file(&error) => {
                let hint = "name a file in a folder that exists and can be written, or a database that this library made";
                Err(config(&format!("sqlite:{}", path.display()), error.to_string(), hint))
            }
            Ok(Err(error)) => Err(unavailable(&path, "open", error)),
            Err(error) => Err(unavailable(&path, "open", error)),
        }
    }

    /// How long a call may wait, for the file to be free too; at most a day. 8 s by default.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline.min(LONGEST_DEADLINE);
        self
    }

    /// Opens what stands after `sqlite:` in a URL.
    pub(crate) async fn connect(rest: &str, options: StoreOptions) -> Result<Self, StoreError> {
        match rest.rsplit_once('?') {
            None => Self::open_with(rest, SyncMode::Normal, options).await,
            Some((path, "sync=normal")) => Self::open_with(path, SyncMode::Normal, options).await,
            Some((path, "sync=full")) => Self::open_with(path, SyncMode::Full, options).await,
            Some(_) => Err(config(
                &format!("sqlite:{rest}"),
                "what stands after ? is not sync=full or sync=normal",
                "write sqlite:PATH or sqlite:PATH?sync=full",
            )),
        }
    }

    async fn step(&self, key: &StoreKey, op: Op, ready: Option<Ready>) -> Result<Applied, StoreError> {
        let (answer, answered) = oneshot::channel();
        let step = Step { key: *key, op, ready, until: Instant::now() + self.deadline, answer };
        self.send(&self.jobs, "write", self.deadline, Job::Step(Box::new(step)), answered).await
    }

    /// Runs `work` on the store's thread within `deadline`, again and again while another process holds the file.
    async fn run<T, F>(&self, action: &'static str, deadline: Duration, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: Fn(&mut Worker) -> Result<Result<T, StoreError>, rusqlite::Error> + Send + 'static,
    {
        let until = Instant::now() + deadline;
        let (answer, answered) = oneshot::channel();
        let job = Job::Alone(Box::new(move |worker| {
            if !answer.is_closed() && Instant::now() < until {
                let _ = answer.send(retry(until, || work(worker)));
            }
        }));
        self.send(&self.jobs, action, deadline, job, answered).await
    }

    async fn send<T, J>(
        &self,
        thread: &mpsc::Sender<J>,
        action: &'static str,
        deadline: Duration,
        job: J,
        answered: oneshot::Receiver<Answer<T>>,
    ) -> Result<T, StoreError> {
        let all = async {
            thread.send(job).await.map_err(|_| unavailable(&self.path, action, "its thread has ended"))?;
            match answered.await {
                Ok(Ok(done)) => done,
                Ok(Err(error)) => Err(unavailable(&self.path, action, error)),
                Err(_) => Err(self.timeout(action, deadline)), // the job came too late or its thread ended
            }
        };
        tokio::time::timeout(deadline, all).await.unwrap_or_else(|_| Err(self.timeout(action, deadline)))
    }

    fn timeout(&self, action: &'static str, deadline: Duration) -> StoreError {
        let store = format!("sqlite:{}", self.path.display());
        StoreError::Timeout {
            store,
            action,
            deadline,
            reason: "the file stayed locked or the disk is slow".into(),
        }
    }
}

#[async_trait]
impl SessionStore for SqliteStore {
    async fn load(&self, key: &StoreKey) -> Result<Option<Record>, StoreError> {
        let (answer, answered) = oneshot::channel();
        let load = Load { key: *key, room: Vec::with_capacity(USUAL), answer };
        let bytes = self.send(&self.loads, "load", self.deadline, load, answered).await?;
        bytes.map(|bytes| self.seal.decode(key, &bytes)).transpose()
    }

    async fn apply(&self, key: &StoreKey, op: Op, _: Durability) -> Result<Applied, StoreError> {
        self.step(key, op, None).await
    }

    async fn apply_from(
        &self,
        key: &StoreKey,
        seen: &Record,
        op: Op,
        _: Durability,
    ) -> Result<Applied, StoreError> {
        let ready = Ready::new(&self.seal, key, seen, &op);
        self.step(key, op, ready).await
    }

    fn time_limit(&self) -> Duration {
        self.deadline
    }

    async fn sessions_of(&self, principal: &str) -> Result<Vec<StoreKey>, StoreError> {
        let principal = user(principal);
        let work = move |worker: &mut Worker| {
            let now = unix_now();
            let mut query = worker.connection.prepare_cached(SESSIONS_OF)?;
            let rows = query.query_map(params![principal, clamp(now)], |row| {
                Ok((StoreKey::from_bytes(row.get(0)?), row.get::<_, Vec<u8>>(1)?))
            })?;
            let mut keys = Vec::new();
            for row in rows {
                let (key, bytes) = row?;
                // The row says who may be live; the record says who is. A damaged one is listed, so that it can be ended.
                if worker.seal.decode(&key, &bytes).map_or(true, |record| record.gone(now).is_none()) {
                    keys.push(key);
                }
            }
            Ok(Ok(keys))
        };
        self.run("list", self.deadline, work).await
    }

    async fn revoke_all(&self, principal: &str, except: Option<&StoreKey>) -> Result<usize, StoreError> {
        let (user, except) = (user(principal), except.map_or([0; 32], |key| *key.as_bytes()));
        let work = move |worker: &mut Worker| {
            let transaction = worker.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let tombstone = Record::revoked(unix_now());
            let bytes = match crate::codec::encode(&tombstone, 0) {
                Ok(bytes) => bytes,
                Err(error) => return Ok(Err(error)),
            };
            let row = params![user, except, bytes, clamp(tombstone.deadline())];
            let ended = transaction.prepare_cached(REVOKE)?.execute(row)?;
            transaction.commit()?;
            Ok(Ok(ended))
        };
        self.run("revocation", self.deadline, work).await
    }

    async fn sweep(&self, limit: usize) -> Result<usize, StoreError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let work = move |worker: &mut Worker| {
            let mut sweep = worker.connection.prepare_cached(SWEEP)?;
            sweep.execute(params![clamp(unix_now()), limit]).map(Ok)
        };
        self.run("sweep", self.deadline, work).await
    }

    async fn about_how_many(&self) -> Result<Option<u64>, StoreError> {
        let work = |worker: &mut Worker| {
            let mut count = worker.connection.prepare_cached(COUNT)?;
            let live: i64 = count.query_row(params![clamp(unix_now())], |row| row.get(0))?;
            Ok(Ok(Some(u64::try_from(live).unwrap_or(0))))
        };
        self.run("a count", self.deadline, work).await
    }

    async fn health(&self) -> Result<(), StoreError> {
        let work = |worker: &mut Worker| {
            worker.connection.transaction_with_behavior(TransactionBehavior::Immediate)?.rollback().map(Ok)
        };
        self.run("a health check", HEALTH_DEADLINE, work).await
    }
}

impl Worker {
    /// Steps of different callers in one transaction: to begin and commit one costs more than a step. Each is a step of its own all the same: what one
    /// cannot do (a limit, a damaged record) it is told alone, and its answer is given when all are committed.
    fn apply_all(&mut self, steps: &mut Vec<Box<Step>>) {
        let now = Instant::now();
        steps.retain(|step| !step.answer.is_closed() && step.until > now);
        let Some(until) = steps.iter().map(|step| step.until).min() else { return };
        if let Ok(done) = retry(until, || self.apply_together(steps)) {
            return self.answers.steps(mem::take(steps), done);
        }
        // Each by itself, within its own time: one that breaks the file's rules must not fail the others.
        for step in steps.drain(..) {
            let done = retry(step.until, || self.apply_together(std::slice::from_ref(&step)));
            match done.map(|mut done| done.pop()) {
                Ok(Some(done)) => step.give(done),
                Ok(None) => {}
                Err(error) => drop(step.answer.send(Err(error))),
            }
        }
    }

    fn apply_together(&mut self, steps: &[Box<Step>]) -> Result<Vec<Done>, rusqlite::Error> {
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let (now, mut writes) = (unix_now(), 0);
        let mut all = Vec::with_capacity(steps.len());
        for step in steps {
            let Step { key, op, ready, .. } = &**step;
            if let Some(ready) = ready
                && ready.write(&transaction, key)?
            {
                writes += 1;
                all.push(Done::AsDecided);
                continue;
            }
            all.push(Done::Here(Box::new(apply(&transaction, &self.seal, key, op, now, &mut writes)?)));
        }
        let before = self.writes;
        self.writes = before.wrapping_add(writes);
        if before / SWEEP_EVERY != self.writes / SWEEP_EVERY {
            transaction.prepare_cached(SWEEP)?.execute(params![clamp(now), SWEEP_AT_ONCE])?;
        }
        transaction.commit()?;
        Ok(all)
    }
}

/// What came of a step.
enum Done {
    /// What was decided on where it was asked for, is written.
    AsDecided,
    Here(Box<Result<Applied, StoreError>>),
}

impl Step {
    fn give(self: Box<Self>, done: Done) {
        let answer = match (done, self.ready) {
            (Done::Here(answer), _) => *answer,
            (Done::AsDecided, Some(ready)) => Ok(ready.applied),
            // It was not decided on before: nobody is told that it was.
            (Done::AsDecided, None) => return,
        };
        let _ = self.answer.send(Ok(answer));
    }
}

impl Ready {
    /// Nothing where more than the record itself would change, or where there is nothing to write: then it is decided in the transaction.
    fn new(seal: &Seal, key: &StoreKey, seen: &Record, op: &Op) -> Option<Self> {
        let head = seen.head.0?;
        let mut step = apply_op(Some(seen.clone()), op, unix_now());
        let record = step.write.filter(|record| Columns::of(record) == Columns::of(seen))?;
        if step.create.is_some() {
            return None;
        }
        let bytes = seal.encode(key, &record, 0).ok()?;
        if let Some(record) = &mut step.applied.record {
            record.head = Head::of(&bytes);
        }
        Some(Self { seen: head, bytes, applied: step.applied })
    }

    /// Whether it was written: the first bytes hold a checksum of all the others.
    fn write(&self, transaction: &Connection, key: &StoreKey) -> Result<bool, rusqlite::Error> {
        let mut update = transaction.prepare_cached(UPDATE_SEEN)?;
        Ok(update.execute(params![key.as_bytes(), self.bytes, self.seen])? == 1)
    }
}

/// One step inside a transaction. What it cannot do is found before it writes anything.
fn apply(
    transaction: &Connection,
    seal: &Seal,
    key: &StoreKey,
    op: &Op,
    now: UnixMillis,
    writes: &mut u64,
) -> Answer<Applied> {
    let before = match read(transaction, key)?.map(|bytes| seal.decode(key, &bytes)).transpose() {
        Ok(before) => before,
        Err(error) => return Ok(Err(error)),
    };
    let was = before.as_ref().map(Columns::of);
    let step = apply_op(before, op, now);
    let encoded = |(key, record): (&StoreKey, &Record)| seal.encode(key, record, 0);
    let own = step.write.as_ref().map(|record| (key, record)).map(encoded).transpose();
    let created = step.create.as_ref().map(|(key, record)| (key, record)).map(encoded).transpose();
    let (own, created) = match (own, created) {
        (Ok(own), Ok(created)) => (own, created),
        (Err(error), _) | (_, Err(error)) => return Ok(Err(error)),
    };
    if let Some(((new, record), bytes)) = step.create.as_ref().zip(created) {
        if transaction.prepare_cached(EXISTS)?.exists(params![new.as_bytes()])? {
            return Ok(Ok(Applied { outcome: Outcome::Collision, record: None, moved_to: None }));
        }
        write(transaction, new, &bytes, &Columns::of(record), None)?;
    }
    if let Some((record, bytes)) = step.write.as_ref().zip(own) {
        write(transaction, key, &bytes, &Columns::of(record), was.as_ref())?;
        *writes += 1;
    }
    Ok(Ok(step.applied))
}

fn unavailable(
    path: &Path,
    action: &'static str,
    source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> StoreError {
    let source = source.into();
    let (store, reason) = (format!("sqlite:{}", path.display()), source.to_string());
    StoreError::Unavailable { store, action, reason, source: Some(source) }
}

impl fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteStore").field("path", &self.path).finish_non_exhaustive()
    }
}

const DEADLINE: Duration = crate::store::TIME_LIMIT;
/// Probes of a balancer come each second or so.
const HEALTH_DEADLINE: Duration = Duration::from_millis(800);
/// Calls that wait for the thread; more wait in their own tasks, up to their deadline.
const QUEUE: usize = 1024;
const SWEEP_EVERY: u64 = 256;
/// As many bytes as [`HEAD`] says.
const UPDATE_SEEN: &str = "UPDATE sessions SET record = ?2 WHERE key = ?1 AND substr(record, 1, 20) = ?3";
const _: () = assert!(HEAD == 20);
/// Of a record, as most sites have them.
const USUAL: usize = 512;
/// Steps in one transaction. It holds up other processes meanwhile.
const TOGETHER: usize = 64;
