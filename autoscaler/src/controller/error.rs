//! What can go wrong outside, one enum for each trait.

use std::error::Error;
use std::time::Duration;

use super::lease::Term;

/// A cause of any kind.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// Reading or writing a [`ScaleTarget`](super::ScaleTarget) failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ScaleError {
    /// A higher term has written: whoever got this is no longer the leader.
    #[error(
        "service {service} was not scaled under term {term}: term {by} wrote after it, so this leader must stop"
    )]
    Fenced {
        /// The service.
        service: String,
        /// The term of the refused write.
        term: Term,
        /// The term that is on the target.
        by: Term,
    },
    /// The target changed between read and write.
    #[error("service {service} was not scaled: {why}; read it again and decide anew")]
    Conflict {
        /// The service.
        service: String,
        /// What changed.
        why: String,
    },
    /// The service does not exist.
    #[error("service {service} was not found; check its name, or stop its controller")]
    NotFound {
        /// The service.
        service: String,
    },
    /// The target answered no.
    #[error("{tried} was refused for service {service}: {why}")]
    Refused {
        /// The service.
        service: String,
        /// What was tried.
        tried: String,
        /// The answer, and what to do.
        why: String,
    },
    /// The target could not be reached or understood; the cause is the source.
    #[error("{tried} failed for service {service}; it is tried again")]
    Unavailable {
        /// The service.
        service: String,
        /// What was tried.
        tried: String,
        /// Why it failed.
        #[source]
        source: BoxError,
    },
    /// The target gave no answer in time. A write may or may not have happened: read before the next one.
    #[error("{tried} of service {service} had no answer within {limit:?}; it is tried again")]
    TimedOut {
        /// The service.
        service: String,
        /// What was tried.
        tried: String,
        /// The deadline.
        limit: Duration,
    },
}

impl ScaleError {
    /// A target that could not be reached or understood while trying `tried`.
    pub fn unavailable(
        service: impl Into<String>,
        tried: impl Into<String>,
        source: impl Into<BoxError>,
    ) -> Self {
        Self::Unavailable { service: service.into(), tried: tried.into(), source: source.into() }
    }

    /// A higher term has written.
    pub fn is_fenced(&self) -> bool {
        matches!(self, Self::Fenced { .. })
    }

    /// The target changed since it was read.
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::Conflict { .. })
    }

    /// The service does not exist.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound { .. })
    }

    /// The same may succeed later, after a new read.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Conflict { .. } | Self::Unavailable { .. } | Self::TimedOut { .. })
    }
}

/// Acquiring a [`Lease`](super::Lease) failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LeaseError {
    /// The lock service could not be reached or understood; the cause is the source.
    #[error("{tried} failed; it is tried again")]
    Unavailable {
        /// What was tried.
        tried: String,
        /// Why it failed.
        #[source]
        source: BoxError,
    },
    /// The lock service answered no, and trying again won't help until somebody acts.
    #[error("{tried} was refused: {why}")]
    Refused {
        /// What was tried.
        tried: String,
        /// The answer, and what to do.
        why: String,
    },
}

impl LeaseError {
    /// A lock service that could not be reached or understood while trying `tried`.
    pub fn unavailable(tried: impl Into<String>, source: impl Into<BoxError>) -> Self {
        Self::Unavailable { tried: tried.into(), source: source.into() }
    }

    /// The same may succeed later.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Unavailable { .. })
    }
}

/// Writing to or reading from a [`Journal`](super::Journal) failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JournalError {
    /// The store could not be reached; the cause is the source.
    #[error("{tried} failed for service {service}; decisions go on without it")]
    Unavailable {
        /// The service.
        service: String,
        /// What was tried.
        tried: String,
        /// Why it failed.
        #[source]
        source: BoxError,
    },
    /// What was stored can't be read as a state; the cause is the source.
    #[error("the stored state of service {service} can't be read; delete it to begin anew")]
    Corrupt {
        /// The service.
        service: String,
        /// Why it can't be read.
        #[source]
        source: BoxError,
    },
}

impl JournalError {
    /// A store that could not be reached while trying `tried`.
    pub fn unavailable(
        service: impl Into<String>,
        tried: impl Into<String>,
        source: impl Into<BoxError>,
    ) -> Self {
        Self::Unavailable { service: service.into(), tried: tried.into(), source: source.into() }
    }

    /// The same may succeed later.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Unavailable { .. })
    }
}

/// An error and its causes on one line.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
