//! A session's record: what a store keeps under one key.

use crate::sorted::Sorted;
use crate::{
    codec::HEAD,
    id::{CommitId, StoreKey},
    lifetime::{Lifetime, UnixMillis},
    op::Gone,
};
use std::{collections::VecDeque, sync::Arc};

/// One session as stored. Stores treat it as opaque but for [`deadline`](Self::deadline) and [`live_principal`](Self::live_principal).
#[derive(Clone, PartialEq, Eq)]
pub struct Record {
    /// Rises by one with every change.
    pub version: u64,
    /// The version of the application's values in it; 0 where the application says nothing ([`Patch::schema`](crate::Patch::schema)).
    pub schema: u16,
    /// When the session, or the log-in that it stands for, began.
    pub created_at: UnixMillis,
    /// When it was last used or changed.
    pub touched_at: UnixMillis,
    /// How long it lives.
    pub lifetime: Lifetime,
    /// Who is logged in.
    pub principal: Option<Arc<str>>,
    /// Live, moved or ended.
    pub state: State,
    pub(crate) entries: Sorted<Entry>,
    /// Which keys were removed lately and in which version: a merge has to know.
    pub(crate) removed: VecDeque<(Arc<str>, u64)>,
    /// Removals up to this version may be forgotten.
    pub(crate) removed_floor: u64,
    pub(crate) applied: Arc<Vec<AppliedId>>,
    pub(crate) head: Head,
}

/// The first bytes of a record as a store read or wrote them: what a compare-and-set compares. No part of what the record says, so any two
/// are equal.
#[derive(Clone, Copy, Default)]
#[cfg_attr(
    not(any(feature = "redis", feature = "sqlite")),
    allow(dead_code, reason = "the memory store compares nothing")
)]
pub(crate) struct Head(pub(crate) Option<[u8; HEAD]>);

impl PartialEq for Head {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Head {}

impl Head {
    pub(crate) fn of(bytes: &[u8]) -> Self {
        Self(bytes.first_chunk().copied())
    }

    /// Nothing where there was nothing.
    #[cfg_attr(not(feature = "redis"), allow(dead_code, reason = "only Redis compares by them"))]
    pub(crate) fn bytes(&self) -> &[u8] {
        self.0.as_ref().map_or(&[], |head| head)
    }

    /// Whether this version of the library wrote it. Older ones kept their indexes in another way.
    #[cfg_attr(not(feature = "redis"), allow(dead_code, reason = "only Redis has such an index"))]
    pub(crate) fn is_current(self) -> bool {
        self.0
            .is_some_and(|[_, _, _, kind, ..]| kind == crate::codec::FORMAT || kind == crate::seal::SEALED[3])
    }
}

/// Whether a record is a session, a pointer to one, or the memory of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// A session.
    Live,
    /// Rotated to another key without a change of user; loads follow until the time given.
    Moved {
        /// Where the session is now.
        to: StoreKey,
        /// When the pointer ends.
        until: UnixMillis,
    },
    /// A tombstone: nothing can be saved here any more.
    Ended {
        /// Why.
        reason: Gone,
        /// Where the session was moved to, so that a repeated rotation is recognized. Loads do not follow it.
        to: Option<StoreKey>,
        /// A delete follows `to`: it is the same user's session there, or the same anonymous one.
        same_user: bool,
        /// When the tombstone may be forgotten.
        until: UnixMillis,
    },
}

/// A value of a session.
#[derive(Clone, PartialEq, Eq)]
pub enum Value {
    /// Bytes; the [`Session`](crate::layer) handle keeps JSON in them. Copies of a record share them.
    Bytes(Arc<[u8]>),
    /// A number that concurrent requests add to without conflict.
    Counter(i64),
}

#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// The record's version that wrote this value.
    pub(crate) version: u64,
    pub(crate) value: Value,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AppliedId {
    /// Of the id, folded: a record is read and written on each request, and 64 bits tell a hundred apart.
    pub(crate) id: u64,
    pub(crate) version: u64,
    pub(crate) merged: bool,
    /// When it was taken, to the second.
    pub(crate) at: UnixMillis,
    /// Made up by the process that sent it, which alone may repeat it.
    pub(crate) own: bool,
}

impl AppliedId {
    pub(crate) fn new(id: CommitId, version: u64, merged: bool, now: UnixMillis) -> Self {
        Self { id: Self::fold(id), version, merged, at: now, own: id.own }
    }

    /// Both halves count: in some kinds of ids one of them is a time.
    pub(crate) fn fold(id: CommitId) -> u64 {
        let number = u128::from_be_bytes(*id.as_bytes());
        #[allow(clippy::cast_possible_truncation, reason = "the lower half")]
        let (low, high) = (number as u64, (number >> 64) as u64);
        low ^ high
    }
}

impl Record {
    /// A new live record without values.
    #[must_use]
    pub fn new(lifetime: Lifetime, principal: Option<Arc<str>>, now: UnixMillis) -> Self {
        Self {
            version: 0,
            schema: 0,
            created_at: now,
            touched_at: now,
            lifetime,
            principal,
            state: State::Live,
            entries: Sorted::default(),
            removed: VecDeque::new(),
            removed_floor: 0,
            applied: Arc::default(),
            head: Head::default(),
        }
    }

    /// The value under a key.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.entries.get(key).map(|entry| &entry.value)
    }

    /// The number under a key, if a counter is there.
    #[must_use]
    pub fn counter(&self, key: &str) -> Option<i64> {
        match self.get(key) {
            Some(Value::Counter(number)) => Some(*number),
            _ => None,
        }
    }

    /// The keys that have a value.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().map(|(key, _)| &**key)
    }

    /// When the store may forget this record.
    #[must_use]
    pub fn deadline(&self) -> UnixMillis {
        match self.state {
            State::Live => self.lifetime.deadline(self.created_at, self.touched_at),
            State::Moved { until, .. } | State::Ended { until, .. } => until,
        }
    }

    /// Why this record is no session at `now`, if it is none.
    #[must_use]
    pub fn gone(&self, now: UnixMillis) -> Option<Gone> {
        match self.state {
            State::Live if now >= self.deadline() => Some(Gone::Expired),
            State::Live => None,
            State::Moved { .. } => Some(Gone::Rotated),
            State::Ended { reason, .. } => Some(reason),
        }
    }

    /// Whose session this is, for an index of live sessions.
    #[must_use]
    pub fn live_principal(&self) -> Option<&str> {
        self.principal.as_deref().filter(|_| self.state == State::Live)
    }
}

impl std::fmt::Debug for Record {
    /// Shows shape and times, never a value or a user.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Record")
            .field("version", &self.version)
            .field("schema", &self.schema)
            .field("created_at", &self.created_at)
            .field("touched_at", &self.touched_at)
            .field("lifetime", &self.lifetime)
            .field("logged_in", &self.principal.is_some())
            .field("state", &self.state)
            .field("values", &self.entries.len())
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Bytes(bytes) => write!(f, "Bytes({} bytes)", bytes.len()),
            Self::Counter(_) => f.write_str("Counter(..)"),
        }
    }
}
