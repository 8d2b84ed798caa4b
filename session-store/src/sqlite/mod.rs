//! Sessions in one SQLite file: several processes of one host, nothing to run beside them.
//!
//! Each process has one thread with one connection, so its own requests never wait for a lock; between processes `BEGIN IMMEDIATE` is retried with
//! a short back-off of our own, because SQLite's busy handler sleeps up to 100 ms at a time. WAL with `synchronous=NORMAL`: a crash of the
//! process loses nothing, a loss of power may lose the last moments, a log-out among them. `sqlite:PATH?sync=full` waits for the disk at each
//! write instead, and is as fast as the disk syncs. WAL needs shared memory: not for
//! network file systems. The column of users holds hashes, as the keys do.

mod file;

use crate::{
    connect::{LONGEST_DEADLINE, StoreOptions, config},
    error::StoreError,
    id::StoreKey,
    lifetime::unix_now,
    op::{Applied, Op, Outcome},
    record::Record,
    rule::apply_op,
    seal::Seal,
    store::{Durability, SessionStore},
};
use async_trait::async_trait;
use file::*;
use rusqlite::{Connection, TransactionBehavior, params};
use std::{
    fmt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};
use tokio::sync::{mpsc, oneshot};

/// Sessions in a SQLite file.
pub struct SqliteStore {
    jobs: mpsc::Sender<Job>,
    path: PathBuf,
    deadline: Duration,
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

type Job = Box<dyn FnOnce(&mut Worker) + Send>;

struct Worker {
    connection: Connection,
    seal: Seal,
    writes: u64,
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
        let (ready, opened) = oneshot::channel();
        let file = path.clone();
        let thread = std::thread::Builder::new().name("session-sqlite".into()).spawn(move || {
            let mut worker = match retry(Instant::now() + DEADLINE, || prepare(&file, sync)) {
                Ok(connection) => Worker { connection, seal, writes: 0 },
                Err(error) => return drop(ready.send(Err(error))),
            };
            if ready.send(Ok(())).is_ok() {
                while let Some(job) = queue.blocking_recv() {
                    job(&mut worker);
                }
            }
        });
        thread.map_err(|source| unavailable(&path, "open", source))?;
        match opened.await {
            Ok(Ok(())) => Ok(Self { jobs, path, deadline }),
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

    /// Runs `work` on the store's thread within `deadline`, again and again while another process holds the file.
    async fn run<T, F>(&self, action: &'static str, deadline: Duration, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: Fn(&mut Worker) -> Result<Result<T, StoreError>, rusqlite::Error> + Send + 'static,
    {
        let until = Instant::now() + deadline;
        let (answer, answered) = oneshot::channel();
        let job: Job = Box::new(move |worker| {
            if !answer.is_closed() && Instant::now() < until {
                let _ = answer.send(retry(until, || work(worker)));
            }
        });
        let all = async {
            self.jobs.send(job).await.map_err(|_| unavailable(&self.path, action, "its thread has ended"))?;
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
        let key = *key;
        self.run("load", self.deadline, move |worker| {
            Ok(read(&worker.connection, &worker.seal, &key)?.transpose())
        })
        .await
    }

    async fn apply(&self, key: &StoreKey, op: Op, _: Durability) -> Result<Applied, StoreError> {
        let key = *key;
        self.run("write", self.deadline, move |worker| worker.apply(&key, &op)).await
    }

    async fn sessions_of(&self, principal: &str) -> Result<Vec<StoreKey>, StoreError> {
        let principal = user(principal);
        let work = move |worker: &mut Worker| {
            let mut query = worker.connection.prepare_cached(SESSIONS_OF)?;
            let keys =
                query.query_map(params![principal, clamp(unix_now())], |row| row.get::<_, [u8; 32]>(0))?;
            keys.map(|key| key.map(StoreKey::from_bytes)).collect::<Result<Vec<_>, _>>().map(Ok)
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

    async fn health(&self) -> Result<(), StoreError> {
        let work = |worker: &mut Worker| {
            worker.connection.transaction_with_behavior(TransactionBehavior::Immediate)?.rollback().map(Ok)
        };
        self.run("a health check", HEALTH_DEADLINE, work).await
    }
}

impl Worker {
    fn apply(&mut self, key: &StoreKey, op: &Op) -> Result<Result<Applied, StoreError>, rusqlite::Error> {
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let before = match read(&transaction, &self.seal, key)?.transpose() {
            Ok(before) => before,
            Err(error) => return Ok(Err(error)),
        };
        let now = unix_now();
        let step = apply_op(before, op, now);
        if let Some((new, record)) = &step.create {
            if transaction.prepare_cached(EXISTS)?.exists(params![new.as_bytes()])? {
                return Ok(Ok(Applied { outcome: Outcome::Collision, record: None, moved_to: None }));
            }
            if let Err(error) = write(&transaction, &self.seal, new, record)? {
                return Ok(Err(error));
            }
        }
        if let Some(record) = &step.write {
            if let Err(error) = write(&transaction, &self.seal, key, record)? {
                return Ok(Err(error));
            }
            self.writes = self.writes.wrapping_add(1);
            if self.writes.is_multiple_of(SWEEP_EVERY) {
                transaction.prepare_cached(SWEEP)?.execute(params![clamp(now), SWEEP_AT_ONCE])?;
            }
        }
        transaction.commit()?;
        Ok(Ok(step.applied))
    }
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

const DEADLINE: Duration = Duration::from_secs(8);
/// Probes of a balancer come each second or so.
const HEALTH_DEADLINE: Duration = Duration::from_millis(800);
/// Calls that wait for the thread; more wait in their own tasks, up to their deadline.
const QUEUE: usize = 1024;
const SWEEP_EVERY: u64 = 256;
