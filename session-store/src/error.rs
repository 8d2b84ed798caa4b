//! What can fail in a store. Outcomes of a race (conflict, gone) are no errors: see [`Outcome`](crate::Outcome).

use std::{error::Error, time::Duration};

/// The store could not do what was asked.
///
/// No variant holds a session id, a password or a value.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The store's URL or settings are wrong. Trying again does not help.
    #[error("cannot use session store {url:?}: {reason}; {hint}")]
    Config {
        /// The URL with its password left out.
        url: String,
        /// What is wrong with it.
        reason: String,
        /// What to write instead.
        hint: &'static str,
    },
    /// The store could not be reached or refused to work. It may come back.
    #[error(
        "session store {store} is not available for {action}: {reason}; check that it runs and can be reached"
    )]
    Unavailable {
        /// Which store, password left out.
        store: String,
        /// What was tried.
        action: &'static str,
        /// The last thing that went wrong.
        reason: String,
        /// The failure below, where there is one.
        #[source]
        source: Option<Box<dyn Error + Send + Sync>>,
    },
    /// The deadline passed. Whether a write took effect is unknown; sending it again with the same commit id is safe.
    #[error(
        "session store {store} did not finish {action} within {deadline:?} (last failure: {reason}); try again"
    )]
    Timeout {
        /// Which store, password left out.
        store: String,
        /// What was tried.
        action: &'static str,
        /// The deadline of the call.
        deadline: Duration,
        /// What the last attempt met.
        reason: String,
    },
    /// The primary has the write, but too few replicas confirmed it inside the call's deadline: a failover now may undo it. Sending it again is safe.
    #[error(
        "session store {store} did not make {action} durable: {acked} of {wanted} replicas confirmed it; check the replicas, or lower \
         `replicas` in the store's URL"
    )]
    NotDurable {
        /// Which store, password left out.
        store: String,
        /// What was tried.
        action: &'static str,
        /// How many replicas had to confirm.
        wanted: u8,
        /// How many did.
        acked: u8,
    },
    /// The stored bytes are no session record. They are left as they are.
    #[error(
        "a stored session record cannot be read: {reason}; it was written by something else or is damaged"
    )]
    Decode {
        /// Which rule the bytes break.
        reason: &'static str,
    },
    /// The record would pass a limit. Nothing was written.
    #[error(
        "session record not written: {what} is {size} and may be at most {limit}; keep less in the session"
    )]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// Its size.
        size: usize,
        /// The limit.
        limit: usize,
    },
}

impl StoreError {
    /// The same call may succeed later: the store was away or slow.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Unavailable { .. } | Self::Timeout { .. } | Self::NotDurable { .. })
    }

    /// The setting is wrong; a person has to change it.
    #[must_use]
    pub fn is_config(&self) -> bool {
        matches!(self, Self::Config { .. })
    }

    /// The deadline passed and a write may or may not have happened.
    #[must_use]
    pub fn is_timeout(&self) -> bool {
        matches!(self, Self::Timeout { .. })
    }

    /// The write is on the primary only.
    #[must_use]
    pub fn is_not_durable(&self) -> bool {
        matches!(self, Self::NotDurable { .. })
    }

    /// The record would pass a limit.
    #[must_use]
    pub fn is_too_large(&self) -> bool {
        matches!(self, Self::TooLarge { .. })
    }
}
