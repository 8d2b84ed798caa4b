//! The one rule that decides what a step does to a record.
//!
//! Every store reads a record, calls [`apply_op`] and writes the result in one atomic step, so stores cannot disagree.
//!
//! Why merge needs more than two values: a deep merge of whole sessions brings removed keys back and loses updates. Here each value knows the
//! version that wrote it, removals are remembered, and a commit says which version it was made from.

use crate::{
    id::{CommitId, StoreKey},
    lifetime::{Lifetime, UnixMillis, millis},
    op::{Applied, Change, Gone, Mode, Op, Outcome, Patch},
    record::{AppliedId, Entry, Record, State, Value},
};
use std::{sync::Arc, time::Duration};

/// What a store has to write, and to answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The key's new record; `None` leaves it as it is.
    pub write: Option<Record>,
    /// A record to create in the same atomic step. If its key is in use, write nothing and answer [`Outcome::Collision`].
    pub create: Option<(StoreKey, Record)>,
    /// The answer.
    pub applied: Applied,
}

/// Decides what `op` does to `record` at `now`. Pure: all stores share it.
///
/// `record` is what the store holds under the key, live or not. The caller writes [`Step::write`] and [`Step::create`] in one atomic step
/// with the read, or calls again with a fresh read.
#[must_use]
pub fn apply_op(record: Option<Record>, op: &Op, now: UnixMillis) -> Step {
    let Some(record) = record else {
        return match op {
            Op::Create { lifetime, principal, patch, id } => {
                let fresh = Record::new(*lifetime, principal.as_deref().map(Into::into), now);
                finish(fresh, patch, *id, now, false, Step::written)
            }
            _ => Step::refused(Outcome::Gone(Gone::Absent), None),
        };
    };
    match op {
        Op::Create { id, .. } => match record.replay(*id) {
            Some(outcome) => Step::refused(outcome, Some(record)),
            None => Step::refused(Outcome::Collision, None),
        },
        Op::Delete => delete(record, now),
        Op::Rotate { to, .. } if record.rotated_to() == Some(*to) => {
            Step::refused(Outcome::Saved { version: record.version }, None)
        }
        _ => match record.gone(now) {
            Some(gone) => Step::refused(Outcome::Gone(gone), None),
            None => apply_live(record, op, now),
        },
    }
}

fn apply_live(mut record: Record, op: &Op, now: UnixMillis) -> Step {
    match op {
        Op::Commit { base, patch, mode, id } => {
            if let Some(outcome) = record.replay(*id) {
                return Step::refused(outcome, Some(record));
            }
            let behind = base.is_some_and(|base| base != record.version);
            if behind
                && (*mode == Mode::CompareAndSet || base.is_some_and(|base| record.clashes(patch, base)))
            {
                return Step::refused(Outcome::Conflict { current: record.version }, Some(record));
            }
            finish(record, patch, *id, now, behind, Step::written)
        }
        Op::Touch => {
            record.touched_at = record.touched_at.max(now);
            let outcome = Outcome::Saved { version: record.version };
            Step::written(record, outcome)
        }
        Op::Rotate { to, principal, patch, grace, id } => {
            let old = record.clone();
            let same_user = principal.is_none() || principal.as_deref() == record.principal.as_deref();
            let leads = principal.is_none();
            if !same_user && record.principal.is_some() {
                record = Record {
                    version: record.version,
                    schema: record.schema,
                    ..Record::new(record.lifetime, None, now)
                };
            }
            if principal.is_some() {
                record.principal = principal.as_deref().map(Into::into);
                record.created_at = now;
            }
            finish(record, patch, *id, now, false, |new, outcome| {
                let pointer = old.left_behind(*to, leads, same_user, *grace, now);
                Step {
                    write: Some(pointer),
                    create: Some((*to, new.clone())),
                    applied: Applied { outcome, record: Some(new), moved_to: Some(*to) },
                }
            })
        }
        Op::Create { .. } | Op::Delete => Step::refused(Outcome::Collision, None), // decided by apply_op
    }
}

fn delete(record: Record, now: UnixMillis) -> Step {
    let (reason, moved_to) = match record.state {
        State::Ended { reason, to, same_user, .. } => {
            let mut step = Step::refused(Outcome::Gone(reason), None);
            step.applied.moved_to = to.filter(|_| same_user);
            return step;
        }
        State::Moved { to, .. } => (Gone::Rotated, Some(to)),
        State::Live => (Gone::Deleted, None),
    };
    let outcome = match moved_to {
        Some(_) => Outcome::Gone(Gone::Rotated),
        None => Outcome::Saved { version: record.version.saturating_add(1) },
    };
    let ended = record.ended(reason, moved_to, true, now);
    Step { write: Some(ended), create: None, applied: Applied { outcome, record: None, moved_to } }
}

fn finish(
    mut record: Record,
    patch: &Patch,
    id: Option<CommitId>,
    now: UnixMillis,
    merged: bool,
    done: impl FnOnce(Record, Outcome) -> Step,
) -> Step {
    let version = record.version.saturating_add(1);
    if let Err(key) = record.patch(patch, version) {
        return Step::refused(Outcome::NotCounter { key }, None);
    }
    record.version = version;
    record.touched_at = record.touched_at.max(now);
    if let Some(id) = id {
        record.remember(AppliedId::new(id, version, merged, now));
    }
    done(record, saved(version, merged))
}

const fn saved(version: u64, merged: bool) -> Outcome {
    if merged { Outcome::Merged { version } } else { Outcome::Saved { version } }
}

impl Step {
    fn written(record: Record, outcome: Outcome) -> Self {
        let applied = Applied { outcome, record: Some(record.clone()), moved_to: None };
        Self { write: Some(record), create: None, applied }
    }

    fn refused(outcome: Outcome, record: Option<Record>) -> Self {
        Self { write: None, create: None, applied: Applied { outcome, record, moved_to: None } }
    }
}

impl Record {
    fn replay(&self, id: Option<CommitId>) -> Option<Outcome> {
        let id = AppliedId::fold(id?);
        let found = self.applied.iter().find(|applied| applied.id == id)?;
        Some(saved(found.version, found.merged))
    }

    /// Whether it can be told if a commit of this id was made on `base` or after it: it is remembered, or all since then are.
    #[cfg_attr(not(feature = "redis"), allow(dead_code, reason = "only Redis loses answers"))]
    pub(crate) fn can_tell(&self, id: CommitId, base: u64) -> bool {
        let most = if id.own { REMEMBERED_OWN } else { REMEMBERED_COMMITS };
        let since = self.version.saturating_sub(base);
        since <= u64::try_from(most).unwrap_or(u64::MAX) || self.replay(Some(id)).is_some()
    }

    fn remember(&mut self, commit: AppliedId) {
        let recent = |known: &AppliedId| commit.at.saturating_sub(known.at) <= millis(REMEMBERED_FOR);
        let mut applied = Vec::with_capacity(self.applied.len() + 1);
        applied.extend(self.applied.iter().filter(|known| recent(known)).copied());
        let most = if commit.own { REMEMBERED_OWN } else { REMEMBERED_COMMITS };
        let mut alike = applied.iter().enumerate().filter(|(_, known)| known.own == commit.own);
        if let (Some((first, _)), true) = (alike.next(), alike.count() >= most - 1) {
            applied.remove(first);
        }
        applied.push(commit);
        self.applied = Arc::new(applied);
    }

    fn rotated_to(&self) -> Option<StoreKey> {
        match self.state {
            State::Moved { to, .. } => Some(to),
            State::Ended { to, .. } => to,
            State::Live => None,
        }
    }

    /// Whether something that the patch sets, removes or expects changed after `base`.
    fn clashes(&self, patch: &Patch, base: u64) -> bool {
        let changed = patch.changes.iter().any(|(key, change)| match change {
            Change::Add(_) | Change::Mismatch => false,
            Change::Remove => self.entries.get(key).is_some_and(|entry| entry.version > base),
            Change::Set(_) => self.changed_since(key, base),
        });
        changed || patch.expected.iter().any(|key| self.changed_since(key, base))
    }

    fn changed_since(&self, key: &str, base: u64) -> bool {
        match (self.entries.get(key), self.removed.iter().rfind(|(removed, _)| **removed == *key)) {
            (Some(entry), _) => entry.version > base,
            (None, Some((_, version))) => *version > base,
            (None, None) => self.removed_floor > base,
        }
    }

    fn patch(&mut self, patch: &Patch, version: u64) -> Result<(), String> {
        self.schema = patch.schema.unwrap_or(self.schema);
        for (key, change) in patch.changes.iter() {
            let value = match change {
                Change::Set(value) => value.clone(),
                Change::Mismatch => return Err(key.to_string()),
                Change::Add(number) => {
                    let before = self.entries.get(key).map_or(Some(0), |entry| entry.value.number());
                    Value::Counter(before.ok_or_else(|| key.to_string())?.saturating_add(*number))
                }
                Change::Remove => {
                    if self.entries.remove(key).is_some() {
                        self.removed.retain(|(removed, _)| *removed != *key);
                        self.removed.push_back((key.clone(), version));
                    }
                    continue;
                }
            };
            self.removed.retain(|(removed, _)| *removed != *key);
            self.entries.insert(key.clone(), Entry { version, value });
        }
        while self.removed.len() > REMEMBERED_REMOVALS {
            if let Some((_, version)) = self.removed.pop_front() {
                self.removed_floor = self.removed_floor.max(version);
            }
        }
        Ok(())
    }

    fn left_behind(
        self,
        to: StoreKey,
        leads: bool,
        same_user: bool,
        grace: Duration,
        now: UnixMillis,
    ) -> Self {
        if !leads || grace.is_zero() {
            return self.ended(Gone::Rotated, Some(to), same_user, now);
        }
        let until = now.saturating_add(millis(grace.min(MAX_GRACE)));
        let state = State::Moved { to, until };
        Self { version: self.version.saturating_add(1), state, ..Self::new(self.lifetime, None, now) }
    }

    /// The tombstone of this record: no value and no user stays.
    fn ended(self, reason: Gone, to: Option<StoreKey>, same_user: bool, now: UnixMillis) -> Self {
        let kept = if reason == Gone::Rotated { MAX_GRACE } else { TOMBSTONE };
        let state = State::Ended { reason, to, same_user, until: now.saturating_add(millis(kept)) };
        Self { version: self.version.saturating_add(1), state, ..Self::new(self.lifetime, None, now) }
    }
}

impl Record {
    /// The tombstone of a session that was ended unseen, in bulk. Versions never fall, so this is the last one.
    pub(crate) fn revoked(now: UnixMillis) -> Self {
        let nothing = Self::new(Lifetime { idle: Duration::ZERO, absolute: Duration::ZERO }, None, now);
        Self { version: u64::MAX, ..nothing.ended(Gone::Deleted, None, true, now) }
    }
}

/// How many named commits a record remembers so that repeating one changes nothing. A repeat comes within seconds of the first.
pub const REMEMBERED_COMMITS: usize = 128;

/// How many commits under [random ids](CommitId::random) it remembers. Only the store that sent one repeats it, as the next change that this process makes of
/// the session, and it can tell when more commits of others came between than are remembered.
pub const REMEMBERED_OWN: usize = 8;

/// How long they are remembered: longer than a gateway or a client goes on sending a request again, short enough that a session which is used now and then stays
/// small.
pub const REMEMBERED_FOR: Duration = Duration::from_secs(120);

/// How long a tombstone says why a session is over; longer than any request. Afterwards the key is absent, which saves nothing either.
pub const TOMBSTONE: Duration = Duration::from_secs(15 * 60);

/// The longest grace of a rotation, and how long it is remembered where the old id went.
pub const MAX_GRACE: Duration = Duration::from_secs(60);

/// Removals beyond these count as "any key may have been removed", which can only report a conflict too many.
const REMEMBERED_REMOVALS: usize = 32;
