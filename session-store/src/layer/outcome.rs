//! What a handler learns from its session.

use crate::{error::StoreError, op::Gone};
use std::sync::Arc;

/// What a commit did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Commit {
    /// There was nothing to write.
    Unchanged,
    /// Written, or found written by an earlier commit of the same id.
    Saved {
        /// The record's version.
        version: u64,
    },
    /// Written together with what other requests wrote.
    Merged {
        /// The record's version.
        version: u64,
    },
    /// Not written: a value that this request read and changed was changed by another one. Read again and repeat.
    Conflict {
        /// The version that is current.
        current: u64,
    },
    /// Not written: the session ended meanwhile.
    Gone(Gone),
}

/// What can fail in a handler's use of its session.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SessionError {
    /// The store failed; the layer answers 503 whatever the handler does.
    #[error("the session is not available: {0}")]
    Store(#[source] Arc<StoreError>),
    /// A value is not what the caller takes it for, or cannot be written as JSON. What JSON says about it may quote the value, so it is left out.
    #[error("session value {key:?} {reason}; change the type or the key")]
    Value {
        /// The value's key.
        key: String,
        /// What does not fit.
        reason: &'static str,
    },
    /// The value under this key is no number.
    #[error("session value {key:?} is no number, so nothing can be added to it; use another key")]
    NotCounter {
        /// The value's key.
        key: String,
    },
    /// Other requests changed the same values again and again; nothing was written. Try the request again.
    #[error("the session was changed by other requests at the same time, each time it was tried; try again")]
    Conflict,
    /// The session ended while it was changed; nothing was written.
    #[error("the session ended before its change was saved ({0:?}); log in again")]
    Gone(Gone),
    /// No unused id was found, which points to a broken generator of random numbers.
    #[error("a new session's id was in use several times in a row; check this machine's random numbers")]
    NoFreeId,
}
