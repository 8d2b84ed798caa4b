//! What can be done to a record, and what may come of it. The [rule](crate::rule) decides which.

use crate::{
    id::{CommitId, StoreKey},
    lifetime::Lifetime,
    record::{Record, Value},
    sorted::Sorted,
};
use std::{collections::BTreeSet, sync::Arc, time::Duration};

/// Changes to some of a session's values. Later calls for a key replace or extend earlier ones.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Patch {
    pub(crate) changes: Sorted<Change>,
    /// Values that may not have changed since the base either.
    pub(crate) expected: BTreeSet<String>,
    pub(crate) schema: Option<u16>,
}

#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Change {
    Set(Value),
    Remove,
    Add(i64),
    /// `add` after `set` of something that is no number.
    Mismatch,
}

/// One atomic step on a session.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Op {
    /// Create-only: a key that has ever held a record that is still remembered is a collision.
    Create {
        /// How long the session lives.
        lifetime: Lifetime,
        /// Who is logged in.
        principal: Option<String>,
        /// First values.
        patch: Patch,
        /// Makes repeating this step safe.
        id: Option<CommitId>,
    },
    /// Update-only: nothing is created or brought back.
    Commit {
        /// The version that the patch was made from; `None` writes blindly, key by key.
        base: Option<u64>,
        /// The changes.
        patch: Patch,
        /// What to do when the record changed since `base`.
        mode: Mode,
        /// Makes repeating this step safe.
        id: Option<CommitId>,
    },
    /// Renews the idle deadline. The version stays.
    Touch,
    /// Moves the session to a new key, in one step with everything else here.
    Rotate {
        /// The new, unused key.
        to: StoreKey,
        /// `Some` logs in: a new absolute lifetime begins, and values of *another* user are left behind.
        principal: Option<String>,
        /// Changes made on the way.
        patch: Patch,
        /// How long loads of the old key find the new one. A log-in ends the old key at once, whatever this says.
        grace: Duration,
        /// Makes repeating this step safe.
        id: Option<CommitId>,
    },
    /// Ends the session and leaves a tombstone. Wins over whatever comes later.
    Delete,
}

/// What a commit does when the record changed since its base.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Apply it if no value that it sets, removes or [expects](Patch::expect_unchanged) was changed since the base; adding to a counter by itself
    /// never conflicts.
    #[default]
    Merge,
    /// Apply it only to exactly the base version.
    CompareAndSet,
}

/// What came of a step. Losing a race is an outcome, not an error.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// Done.
    Saved {
        /// The version after the step (after the first time, when it was repeated).
        version: u64,
    },
    /// Done, on top of changes made since the base.
    Merged {
        /// The version after the step.
        version: u64,
    },
    /// Not done: the same value changed since the base, or the version did.
    Conflict {
        /// The version that is current.
        current: u64,
    },
    /// Not done: the session is over.
    Gone(Gone),
    /// Not done: the new key is in use. Take another random id.
    Collision,
    /// Not done: this key holds something that cannot be added to.
    NotCounter {
        /// The session's key, such as `views`.
        key: String,
    },
}

/// Why there is no session under a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Gone {
    /// Nothing was ever stored, or it was forgotten.
    Absent,
    /// Idle or absolute lifetime is over.
    Expired,
    /// Logged out or deleted.
    Deleted,
    /// The session goes on under another id.
    Rotated,
}

/// What a store answers to a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// What came of it.
    pub outcome: Outcome,
    /// The session as it stands after the step (after a rotation, the one under the new key), where there is one.
    pub record: Option<Record>,
    /// Where the session had moved to by rotation: a delete has to follow.
    pub moved_to: Option<StoreKey>,
}

impl Op {
    /// Under a fresh id where it has none, for a store that repeats it by itself.
    #[cfg_attr(not(feature = "redis"), allow(dead_code, reason = "the other stores repeat nothing"))]
    pub(crate) fn named(mut self) -> Self {
        if let Self::Create { id, .. } | Self::Commit { id, .. } | Self::Rotate { id, .. } = &mut self {
            id.get_or_insert_with(CommitId::random);
        }
        self
    }
}

impl Patch {
    /// No change.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets a value.
    #[must_use]
    pub fn set(mut self, key: impl AsRef<str>, value: impl Into<Vec<u8>>) -> Self {
        self.put(key.as_ref().into(), Change::Set(Value::Bytes(value.into().into())));
        self
    }

    /// Removes a value.
    #[must_use]
    pub fn remove(mut self, key: impl AsRef<str>) -> Self {
        self.put(key.as_ref().into(), Change::Remove);
        self
    }

    /// Adds to a counter, which starts at 0 and stops at the ends of `i64`.
    #[must_use]
    pub fn add(mut self, key: impl AsRef<str>, number: i64) -> Self {
        self.put(key.as_ref().into(), Change::Add(number));
        self
    }

    /// Makes a merge a conflict if this value changed since the base, though the patch leaves it as it is: for a change that depends on it.
    #[must_use]
    pub fn expect_unchanged(mut self, key: impl Into<String>) -> Self {
        self.expected.insert(key.into());
        self
    }

    /// Says which version of the application's values the session holds from now on.
    #[must_use]
    pub fn schema(mut self, schema: u16) -> Self {
        self.schema = Some(schema);
        self
    }

    /// Whether nothing would change.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty() && self.schema.is_none()
    }

    /// This patch as a blind commit under a fresh id.
    #[must_use]
    pub fn commit(self) -> Op {
        Op::Commit { base: None, patch: self, mode: Mode::Merge, id: Some(CommitId::random()) }
    }

    pub(crate) fn put(&mut self, key: Arc<str>, change: Change) {
        let change = match (self.changes.remove(&key), change) {
            (Some(before), Change::Add(number)) => before.then_add(number),
            (_, change) => change,
        };
        self.changes.insert(key, change);
    }
}

impl std::fmt::Debug for Patch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.changes.iter().map(|(key, _)| key)).finish()
    }
}

impl Change {
    fn then_add(self, number: i64) -> Self {
        match self {
            Self::Add(before) => Self::Add(before.saturating_add(number)),
            Self::Remove => Self::Set(Value::Counter(number)),
            Self::Set(value) => {
                value.number().map_or(Self::Mismatch, |n| Self::Set(Value::Counter(n.saturating_add(number))))
            }
            Self::Mismatch => Self::Mismatch,
        }
    }
}

impl Value {
    /// The number in a counter, or in bytes that spell a whole number.
    pub(crate) fn number(&self) -> Option<i64> {
        match self {
            Self::Counter(number) => Some(*number),
            Self::Bytes(bytes) => std::str::from_utf8(bytes).ok()?.parse().ok(),
        }
    }
}

impl Outcome {
    /// Whether the step took effect, now or at the first time.
    #[must_use]
    pub fn is_done(&self) -> bool {
        matches!(self, Self::Saved { .. } | Self::Merged { .. })
    }
}
