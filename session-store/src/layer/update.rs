//! A change that depends on what it reads: run again when somebody was faster.

use super::{
    outcome::{Commit, SessionError},
    session::{Session, Slot, SlotState},
    value::{self, Key},
};
use crate::{
    id::{CommitId, StoreKey},
    op::{Change, Gone, Mode, Op, Outcome, Patch},
    record::Record,
};
use serde::{Serialize, de::DeserializeOwned};
use std::{fmt, sync::Arc, time::Duration};

/// The values of a session inside [`Session::update`] or a migration.
#[derive(Debug)]
pub struct Update<'a> {
    record: Option<&'a Record>,
    patch: Patch,
}

impl Update<'_> {
    /// A value, with this closure's own changes. If somebody else changes it before the commit, the closure runs again.
    ///
    /// # Errors
    /// A value of another type.
    pub fn get<T: DeserializeOwned>(&mut self, key: impl Key<T>) -> Result<Option<T>, SessionError> {
        let key = key.as_ref();
        self.patch.expected.insert(key.to_owned());
        let stored = self.record.and_then(|record| record.get(key));
        value::read(key, stored, self.patch.changes.get(key))
    }

    /// Sets a value, kept as JSON.
    ///
    /// # Errors
    /// A value that is no JSON.
    pub fn set<T: Serialize + ?Sized>(&mut self, key: impl Key<T>, value: &T) -> Result<(), SessionError> {
        let change = value::write(key.as_ref(), value)?;
        self.patch.put(key.as_ref().into(), change);
        Ok(())
    }

    /// Removes a value.
    pub fn remove(&mut self, key: impl AsRef<str>) {
        self.patch.put(key.as_ref().into(), Change::Remove);
    }

    /// Adds to a counter.
    pub fn add(&mut self, key: impl Key<i64>, number: i64) {
        self.patch.put(key.as_ref().into(), Change::Add(number));
    }

    /// Who is logged in.
    #[must_use]
    pub fn principal(&self) -> Option<&str> {
        self.record.and_then(|record| record.principal.as_deref())
    }
}

impl Session {
    /// Changes values that depend on each other or on what they were, and commits at once: `change` sees the session as it is, and runs again if another
    /// request changed a value that it read or wrote. It may run many times and should do nothing else. Creates a session if there is none to
    /// change, and writes nothing where `change` changes nothing. Changes made before it in this request are committed first.
    ///
    /// # Errors
    /// What `change` answers, nothing is written then; [`SessionError::Gone`] where the session ended meanwhile; [`SessionError::Conflict`] after 128
    /// attempts; the store's failure.
    pub async fn update<T, F>(&self, mut change: F) -> Result<T, SessionError>
    where
        F: FnMut(&mut Update<'_>) -> Result<T, SessionError>,
    {
        match self.commit().await? {
            Commit::Conflict { .. } => return Err(SessionError::Conflict),
            Commit::Gone(gone) => return Err(SessionError::Gone(gone)),
            _ => {}
        }
        let mut slot = self.slot().lock().await;
        let mut id = None;
        for attempt in 0..MAX_ATTEMPTS {
            let record = self.loaded(&mut slot).await?;
            let base = record.map(|record| record.version);
            let mut update = Update { record, patch: Patch::new() };
            let done = change(&mut update)?;
            let patch = update.patch;
            if patch.is_empty() {
                return Ok(done);
            }
            let id = *id.get_or_insert_with(|| self.pending().next_id());
            let gone = match &slot.state {
                SlotState::Live(key, _) => {
                    let key = *key;
                    match self.commit_from(&mut slot, &key, base, patch, Mode::Merge, id).await? {
                        Commit::Conflict { .. } => None,
                        Commit::Gone(gone) => Some(gone),
                        _ => return Ok(done),
                    }
                }
                SlotState::Rotated => Some(Gone::Rotated),
                _ => return self.create(&mut slot, None, patch, id).await.map(|_| done),
            };
            if let Some(gone) = gone {
                return Err(SessionError::Gone(gone));
            }
            let most = (1_u64 << attempt.min(4)) as f64 * FIRST_PAUSE;
            tokio::time::sleep(Duration::from_secs_f64(rand::random_range(0.0..most))).await;
        }
        Err(SessionError::Conflict)
    }

    /// Commits onto the record in the slot, which is the newest one afterwards.
    pub(super) async fn commit_from(
        &self,
        slot: &mut Slot,
        key: &StoreKey,
        base: Option<u64>,
        patch: Patch,
        mode: Mode,
        id: CommitId,
    ) -> Result<Commit, SessionError> {
        let SlotState::Live(_, record) = &slot.state else { return Ok(Commit::Gone(Gone::Absent)) };
        let op = Op::Commit { base, patch, mode, id: Some(id) };
        let applied = self.apply(Some(record), key, op, self.layer().commits).await;
        let applied = applied.map_err(|error| self.fail(slot, error))?;
        if let Some(record) = applied.record {
            slot.state = SlotState::Live(*key, Box::new(record));
        }
        match applied.outcome {
            Outcome::Saved { version } => Ok(Commit::Saved { version }),
            Outcome::Merged { version } => Ok(Commit::Merged { version }),
            Outcome::Conflict { current } => Ok(Commit::Conflict { current }),
            Outcome::NotCounter { key } => Err(SessionError::NotCounter { key }),
            Outcome::Gone(gone) => {
                slot.state = if gone == Gone::Rotated { SlotState::Rotated } else { SlotState::None };
                Ok(Commit::Gone(gone))
            }
            Outcome::Collision => Err(SessionError::NoFreeId),
        }
    }

    /// Brings the record in the slot to the application's schema. A newer one is left to the instances that know it.
    pub(super) async fn migrate(&self, slot: &mut Slot) -> Result<(), SessionError> {
        let Some(migration) = &self.layer().migration else { return Ok(()) };
        for _ in 0..MAX_ATTEMPTS {
            let SlotState::Live(key, record) = &slot.state else { return Ok(()) };
            if record.schema >= migration.to {
                return Ok(());
            }
            let mut update = Update { record: Some(record), patch: Patch::new().schema(migration.to) };
            (migration.step)(record.schema, &mut update)?;
            let (key, base, patch) = (*key, Some(record.version), update.patch);
            // Another instance that is faster makes this a conflict, and its record the one that is looked at next.
            self.commit_from(slot, &key, base, patch, Mode::CompareAndSet, CommitId::random()).await?;
        }
        Err(SessionError::Conflict)
    }
}

/// How values of an older version of the application become those of this one.
#[derive(Clone)]
pub(crate) struct Migration {
    pub(super) to: u16,
    pub(super) step: Arc<Step>,
}

type Step = dyn Fn(u16, &mut Update<'_>) -> Result<(), SessionError> + Send + Sync;

impl fmt::Debug for Migration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Migration").field("to", &self.to).finish_non_exhaustive()
    }
}

/// Each conflict means that somebody else succeeded; so many in a row mean that something else is wrong.
const MAX_ATTEMPTS: u32 = 128;
/// Seconds; doubles four times, to 16 ms. What is waited is random below that.
const FIRST_PAUSE: f64 = 0.001;
