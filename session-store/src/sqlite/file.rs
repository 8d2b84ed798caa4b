//! The file: its tables, its statements, and waiting while another process has it.

use super::SyncMode;
use crate::{error::StoreError, id::StoreKey, record::Record, seal::Seal};
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
    connection.execute_batch("PRAGMA journal_mode=WAL;")?;
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
    transaction.pragma_update(None, "user_version", TABLE_VERSION)?;
    transaction.commit()?;
    Ok(connection)
}

/// What the column of users holds.
pub(super) fn user(principal: &str) -> String {
    URL_SAFE_NO_PAD.encode(Sha256::digest(principal))
}

pub(super) fn read(
    connection: &Connection,
    seal: &Seal,
    key: &StoreKey,
) -> Result<Option<Result<Record, StoreError>>, rusqlite::Error> {
    let mut query = connection.prepare_cached("SELECT record FROM sessions WHERE key = ?1")?;
    let bytes = query.query_row(params![key.as_bytes()], |row| row.get::<_, Vec<u8>>(0)).optional()?;
    Ok(bytes.map(|bytes| seal.decode(key, &bytes)))
}

pub(super) fn write(
    connection: &Connection,
    seal: &Seal,
    key: &StoreKey,
    record: &Record,
) -> Result<Result<(), StoreError>, rusqlite::Error> {
    let bytes = match seal.encode(key, record, 0) {
        Ok(bytes) => bytes,
        Err(error) => return Ok(Err(error)),
    };
    let row = params![key.as_bytes(), bytes, record.live_principal().map(user), clamp(record.deadline())];
    connection.prepare_cached(UPSERT)?.execute(row)?;
    Ok(Ok(()))
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

const FIRST_PAUSE: Duration = Duration::from_micros(100);
const LAST_PAUSE: Duration = Duration::from_millis(5);
/// Since 2 users are hashed.
const TABLE_VERSION: i64 = 2;
const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS sessions (
        key BLOB PRIMARY KEY, record BLOB NOT NULL, principal TEXT, deadline INTEGER NOT NULL
    ) WITHOUT ROWID;
    CREATE INDEX IF NOT EXISTS sessions_principal ON sessions (principal) WHERE principal IS NOT NULL;
    CREATE INDEX IF NOT EXISTS sessions_deadline ON sessions (deadline);";
const UPSERT: &str = "INSERT INTO sessions (key, record, principal, deadline) VALUES (?1, ?2, ?3, ?4)
    ON CONFLICT (key) DO UPDATE SET record = ?2, principal = ?3, deadline = ?4";
pub(super) const EXISTS: &str = "SELECT 1 FROM sessions WHERE key = ?1";
pub(super) const SESSIONS_OF: &str = "SELECT key FROM sessions WHERE principal = ?1 AND deadline > ?2";
pub(super) const SWEEP: &str =
    "DELETE FROM sessions WHERE key IN (SELECT key FROM sessions WHERE deadline < ?1 LIMIT ?2)";
pub(super) const SWEEP_AT_ONCE: i64 = 1024;
pub(super) const REVOKE: &str =
    "UPDATE sessions SET record = ?3, principal = NULL, deadline = ?4 WHERE principal = ?1 AND key <> ?2";
