//! The file: its tables, its statements, and waiting while another process has it.

use super::SyncMode;
use crate::{id::StoreKey, record::Record};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use rusqlite::{Connection, ErrorCode, OptionalExtension, TransactionBehavior, params};
use sha2::{Digest, Sha256};
use std::{
    path::Path,
    time::{Duration, Instant},
};

pub(super) fn prepare(path: &Path, sync: SyncMode) -> Result<Connection, rusqlite::Error> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        // Session records are nobody else's to read. What is wrong with the path, the open below says better.
        let _ = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    }
    let mut connection = Connection::open(path)?;
    connection.busy_timeout(Duration::ZERO)?;
    let version: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if version > TABLE_VERSION {
        return Err(rusqlite::Error::InvalidParameterName(format!(
            "its tables are of version {version}, newer than {TABLE_VERSION}"
        )));
    }
    connection.execute_batch(PAGES)?;
    connection.execute_batch(match sync {
        SyncMode::Normal => "PRAGMA synchronous=NORMAL;",
        SyncMode::Full => "PRAGMA synchronous=FULL;",
    })?;
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    // Again, for another process may have been faster.
    let version: i64 = transaction.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    transaction.execute_batch(TABLES)?;
    if version == 1 {
        let users = transaction
            .prepare("SELECT DISTINCT principal FROM sessions WHERE principal IS NOT NULL")?
            .query_map([], |row| row.get::<_, String>(0))?
            .collect::<Result<Vec<_>, _>>()?;
        for name in users {
            transaction.execute(
                "UPDATE sessions SET principal = ?2 WHERE principal = ?1",
                params![name, user(&name)],
            )?;
        }
    }
    if version < 3 {
        // Of the version before: what does not move with each change must not come too early. 40 days are a step of the longest lifetimes.
        transaction.execute("UPDATE sessions SET deadline = deadline + 3456000000", [])?;
    }
    transaction.pragma_update(None, "user_version", TABLE_VERSION)?;
    transaction.commit()?;
    Ok(connection)
}

/// A connection that changes nothing, to a file that is prepared.
pub(super) fn open_reader(path: &Path) -> Result<Connection, rusqlite::Error> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(Duration::ZERO)?;
    connection.execute_batch("PRAGMA query_only=ON;")?;
    Ok(connection)
}

/// What the column of users holds.
pub(super) fn user(principal: &str) -> String {
    URL_SAFE_NO_PAD.encode(Sha256::digest(principal))
}

pub(super) fn read(connection: &Connection, key: &StoreKey) -> Result<Option<Vec<u8>>, rusqlite::Error> {
    let mut room = Vec::new();
    Ok(read_into(connection, key, &mut room)?.then_some(room))
}

/// Whether there is a record; it is all that is in `room` then.
pub(super) fn read_into(
    connection: &Connection,
    key: &StoreKey,
    room: &mut Vec<u8>,
) -> Result<bool, rusqlite::Error> {
    room.clear();
    let mut query = connection.prepare_cached(READ)?;
    let found = query.query_row(params![key.as_bytes()], |row| {
        room.extend_from_slice(row.get_ref(0)?.as_blob()?);
        Ok(())
    });
    found.optional().map(|found| found.is_some())
}

/// What stands beside a record, for the indexes.
#[derive(PartialEq)]
pub(super) struct Columns {
    user: Option<String>,
    /// Not before the record's own, which decides; in steps, so that a session in use moves now and then rather than with every change.
    deadline: i64,
}

impl Columns {
    pub(super) fn of(record: &Record) -> Self {
        let step = (crate::lifetime::millis(record.lifetime.idle) / STEPS).max(1);
        let deadline = (record.deadline() / step).saturating_add(1).saturating_mul(step);
        Self { user: record.live_principal().map(str::to_owned), deadline: clamp(deadline) }
    }
}

/// Writes a record; with what stands beside it, unless that is what it `was`.
pub(super) fn write(
    connection: &Connection,
    key: &StoreKey,
    bytes: &[u8],
    now: &Columns,
    was: Option<&Columns>,
) -> Result<(), rusqlite::Error> {
    if was == Some(now) {
        connection.prepare_cached(UPDATE)?.execute(params![key.as_bytes(), bytes])?;
    } else {
        let row = params![key.as_bytes(), bytes, now.user.as_deref().map(user), now.deadline];
        connection.prepare_cached(UPSERT)?.execute(row)?;
    }
    Ok(())
}

pub(super) fn retry<T>(
    until: Instant,
    mut work: impl FnMut() -> Result<T, rusqlite::Error>,
) -> Result<T, rusqlite::Error> {
    let mut pause = FIRST_PAUSE;
    loop {
        match work() {
            Err(error) if is_busy(&error) && Instant::now() < until => {
                std::thread::sleep(pause.mul_f64(rand::random_range(0.5..1.0)));
                pause = (pause * 2).min(LAST_PAUSE);
            }
            done => return done,
        }
    }
}

pub(super) fn is_busy(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
}

pub(super) fn is_wrong_file(error: &rusqlite::Error) -> bool {
    let code = error.sqlite_error_code();
    let wrong = Some(ErrorCode::CannotOpen) == code || Some(ErrorCode::NotADatabase) == code;
    wrong || code == Some(ErrorCode::ReadOnly) || matches!(error, rusqlite::Error::InvalidParameterName(_))
}

/// SQLite's integers are signed.
pub(super) fn clamp(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A commit writes whole pages, one for each session that changed, and most sessions are small: a new file has pages of half the usual size. The log is
/// folded into the file after 8 MiB of them, in which a session in use stands many times. The cache, in KiB, holds some ten thousand sessions.
const PAGES: &str = "PRAGMA page_size=2048; PRAGMA journal_mode=WAL; PRAGMA wal_autocheckpoint=4096; PRAGMA cache_size=-16384;";
const FIRST_PAUSE: Duration = Duration::from_micros(100);
const LAST_PAUSE: Duration = Duration::from_millis(5);
/// Of an idle lifetime, to its end.
const STEPS: u64 = 10;
/// Since 2 users are hashed; since 3 deadlines stand in steps.
const TABLE_VERSION: i64 = 3;
const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS sessions (
        key BLOB PRIMARY KEY, record BLOB NOT NULL, principal TEXT, deadline INTEGER NOT NULL
    ) WITHOUT ROWID;
    CREATE INDEX IF NOT EXISTS sessions_principal ON sessions (principal) WHERE principal IS NOT NULL;
    CREATE INDEX IF NOT EXISTS sessions_deadline ON sessions (deadline);";
const READ: &str = "SELECT record FROM sessions WHERE key = ?1";
const UPSERT: &str = "INSERT INTO sessions (key, record, principal, deadline) VALUES (?1, ?2, ?3, ?4)
    ON CONFLICT (key) DO UPDATE SET record = ?2, principal = ?3, deadline = ?4";
const UPDATE: &str = "UPDATE sessions SET record = ?2 WHERE key = ?1";
pub(super) const EXISTS: &str = "SELECT 1 FROM sessions WHERE key = ?1";
pub(super) const SESSIONS_OF: &str =
    "SELECT key, record FROM sessions WHERE principal = ?1 AND deadline > ?2";
pub(super) const COUNT: &str = "SELECT count(*) FROM sessions WHERE deadline > ?1";
pub(super) const SWEEP: &str =
    "DELETE FROM sessions WHERE key IN (SELECT key FROM sessions WHERE deadline < ?1 LIMIT ?2)";
pub(super) const SWEEP_AT_ONCE: i64 = 1024;
pub(super) const REVOKE: &str =
    "UPDATE sessions SET record = ?3, principal = NULL, deadline = ?4 WHERE principal = ?1 AND key <> ?2";
