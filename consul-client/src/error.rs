//! What can go wrong, sorted by what the caller can do about it.
//!
//! Consul answers a wrong argument with 500 as readily as a lost leader, so a status alone says little: the sorting reads the
//! text as well (`classify.rs`). The questions on [`Error`] are the contract; the variants may grow.

use std::{error::Error as StdError, fmt, time::Duration};

/// The result of every call of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failed call, or a setting or argument that was refused before anything was sent.
///
/// Texts never hold a token, a value or a session id; what the server wrote is cut to 512 bytes.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting of the client is wrong. Nothing was sent.
    #[error("setting {name} = {value:?}: {reason}")]
    Setting {
        /// The builder's field or the environment variable.
        name: String,
        /// The value as given; never a secret.
        value: String,
        /// The rule that it breaks, and what to do.
        reason: String,
    },
    /// An argument was refused. Nothing was sent.
    #[error("{what} {value:?}: {reason}")]
    Invalid {
        /// Which argument.
        what: &'static str,
        /// The value as given, cut to 128 characters.
        value: String,
        /// The rule that it breaks.
        reason: String,
    },
    /// The server refused the request as it stands (400, 405, a redirect, or a 500 whose text blames an argument).
    #[error("{0}; the request itself is refused, sending it again changes nothing")]
    Rejected(Answer),
    /// There is no such thing, or no such endpoint on this version.
    #[error("{0}; nothing by that name, or an endpoint that this server does not have")]
    NotFound(Answer),
    /// A condition did not hold: a refused transaction, or a lock key that something else uses.
    #[error("{0}; read the present state and decide anew")]
    Conflict(Answer),
    /// The token lacks a right, or is unknown.
    #[error("{0}; check the token and its policies")]
    Denied(Answer),
    /// The request exceeds a limit of the server: 512 KiB, or 64 operations in a transaction, by default.
    #[error("{0}; unless raised, the server's limits are 512 KiB and 64 operations in a transaction")]
    TooLarge(Answer),
    /// The cluster has no leader at this moment; the request was not carried out.
    #[error("{0}; an election is under way or the quorum is lost")]
    NoLeader(Answer),
    /// The agent has just started, and the cluster does not know its node yet, or the leader is new and has not set up all; the request
    /// was not carried out.
    #[error("{0}; it has just started, this passes within seconds")]
    NotReady(Answer),
    /// Too many requests or connections, at the server or in this client. The request was not carried out.
    #[error("{0}; slow down, or raise the limit")]
    Throttled(Answer),
    /// The server failed in a way that this crate does not know. A write may have happened.
    #[error("{0}; see the server's log")]
    Server(Answer),
    /// No connection: the request never left. Safe to repeat, whatever it is.
    #[error("{endpoint}: cannot connect to {address}; is consul running there?")]
    NotSent {
        /// Method and path.
        endpoint: String,
        /// The address that was tried last.
        address: String,
        /// Why the connection failed.
        #[source]
        source: Box<dyn StdError + Send + Sync>,
    },
    /// A read was sent and no usable answer came in time.
    #[error("{endpoint}: no answer: {reason}")]
    NoAnswer {
        /// Method and path.
        endpoint: String,
        /// What was seen instead.
        reason: String,
        /// The status, when one came.
        status: Option<u16>,
        /// The cause, when there is one.
        #[source]
        source: Option<Box<dyn StdError + Send + Sync>>,
    },
    /// A write was sent and its outcome is unknown: it may have happened. Read to find out.
    #[error("{endpoint}: the write may have happened: {reason}; read the present state before you repeat it")]
    Ambiguous {
        /// Method and path.
        endpoint: String,
        /// What was seen instead of an answer.
        reason: String,
        /// The status, when one came.
        status: Option<u16>,
        /// The cause, when there is one.
        #[source]
        source: Option<Box<dyn StdError + Send + Sync>>,
    },
    /// The answer is not what Consul would send: not JSON, half of it, another shape, or beyond the size limit.
    ///
    /// The decoder's own error is not kept as a source because its text quotes the data.
    #[error("{endpoint}: unreadable answer: {reason}; is this address a consul agent?")]
    Decode {
        /// Method and path.
        endpoint: String,
        /// What is wrong and where.
        reason: String,
        /// Whether the request was a write, which then probably happened.
        write: bool,
    },
}

impl Error {
    /// There is no such thing (404).
    pub fn is_not_found(&self) -> bool {
        matches!(self, Error::NotFound(_))
    }

    /// A condition did not hold: someone else was first.
    pub fn is_conflict(&self) -> bool {
        matches!(self, Error::Conflict(_))
    }

    /// The token lacks the right.
    pub fn is_denied(&self) -> bool {
        matches!(self, Error::Denied(_))
    }

    /// The cause passes by itself, so the same call may succeed later.
    ///
    /// For a write ask [`maybe_applied`](Self::maybe_applied) too: repeat only what may happen twice.
    pub fn is_retryable(&self) -> bool {
        matches!(
            self,
            Error::NoLeader(_)
                | Error::NotReady(_)
                | Error::Throttled(_)
                | Error::NotSent { .. }
                | Error::NoAnswer { .. }
                | Error::Ambiguous { .. }
        )
    }

    /// The write may have happened although the call failed. Always false for reads.
    pub fn maybe_applied(&self) -> bool {
        match self {
            Error::Ambiguous { .. } => true,
            Error::Decode { write, .. } => *write,
            Error::Server(answer) => answer.write,
            _ => false,
        }
    }

    /// The HTTP status, when an answer came.
    pub fn status(&self) -> Option<u16> {
        match self {
            Error::Rejected(a)
            | Error::NotFound(a)
            | Error::Conflict(a)
            | Error::Denied(a)
            | Error::TooLarge(a)
            | Error::NoLeader(a)
            | Error::NotReady(a)
            | Error::Throttled(a)
            | Error::Server(a) => (a.status != 0).then_some(a.status),
            Error::NoAnswer { status, .. } | Error::Ambiguous { status, .. } => *status,
            _ => None,
        }
    }

    pub(crate) fn invalid(what: &'static str, value: &str, reason: impl Into<String>) -> Self {
        Error::Invalid { what, value: value.chars().take(128).collect(), reason: reason.into() }
    }

    /// The same refusal once more. Only what is refused before sending is kept and told again, so sources need no copy.
    pub(crate) fn again(&self) -> Self {
        match self {
            Error::Invalid { what, value, reason } => {
                Error::Invalid { what, value: value.clone(), reason: reason.clone() }
            }
            other => Error::Invalid { what: "request", value: String::new(), reason: other.to_string() },
        }
    }

    pub(crate) fn setting(name: &str, value: &str, reason: impl Into<String>) -> Self {
        Error::Setting { name: name.to_owned(), value: value.to_owned(), reason: reason.into() }
    }

    /// A request whose outcome is unknown: `Ambiguous` for a write, `NoAnswer` for a read.
    pub(crate) fn unknown_outcome(
        write: bool,
        endpoint: String,
        status: Option<u16>,
        reason: String,
        source: Option<Box<dyn StdError + Send + Sync>>,
    ) -> Self {
        if write {
            Error::Ambiguous { endpoint, reason, status, source }
        } else {
            Error::NoAnswer { endpoint, reason, status, source }
        }
    }

    pub(crate) fn timed_out(write: bool, endpoint: String, after: Duration) -> Self {
        Self::unknown_outcome(write, endpoint, None, format!("nothing within {after:?}"), None)
    }
}

/// What the server said, in an [`Error`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Answer {
    /// Method and path.
    pub endpoint: String,
    /// The HTTP status; 0 when the limit is this client's own.
    pub status: u16,
    /// The text, cut to 512 bytes.
    pub text: String,
    pub(crate) write: bool,
}

impl Answer {
    pub(crate) fn new(endpoint: String, status: u16, text: &str, write: bool) -> Self {
        let text = without_ids(text);
        let mut end = text.len().min(MAX_TEXT);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let text = text.get(..end).unwrap_or_default().trim().to_owned();
        Self { endpoint, status, text, write }
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.status, self.text.as_str()) {
            (0, text) => write!(f, "{}: {text}", self.endpoint),
            (status, "") => write!(f, "{}: consul answered {status}", self.endpoint),
            (status, text) => write!(f, "{}: consul answered {status}: {text}", self.endpoint),
        }
    }
}

/// Consul quotes the session or token that it does not know, and both are UUIDs: whoever reads one in a log can use it.
pub(crate) fn without_ids(text: &str) -> String {
    let is_id = |piece: &str| {
        piece.len() == 36
            && piece.bytes().enumerate().all(|(i, byte)| match i {
                8 | 13 | 18 | 23 => byte == b'-',
                _ => byte.is_ascii_hexdigit(),
            })
    };
    let pieces = text.split_inclusive(|c: char| !c.is_ascii_alphanumeric() && c != '-');
    pieces
        .map(|piece| {
            let word = piece.trim_end_matches(|c: char| !c.is_ascii_alphanumeric() && c != '-');
            if is_id(word) {
                format!("<id>{}", piece.get(word.len()..).unwrap_or_default())
            } else {
                piece.to_owned()
            }
        })
        .collect()
}

/// Enough for Consul's longest message, too little for a page of HTML to fill a log.
const MAX_TEXT: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_is_cut_at_a_character() {
        let answer = Answer::new("GET /v1/x".into(), 500, &"ä".repeat(1000), false);
        assert!(answer.text.len() <= MAX_TEXT && answer.text.chars().all(|c| c == 'ä'));
    }

    #[test]
    fn ids_are_left_out() {
        let text = "Session id '88e0b175-6559-c1b8-c352-14dc942640d4' not found, 88e0b175-6559-c1b8-c352-14dc942640d4, web-1 ä";
        assert_eq!(without_ids(text), "Session id '<id>' not found, <id>, web-1 ä");
    }

    #[test]
    fn only_writes_may_have_been_applied() {
        let read = Error::timed_out(false, "GET /v1/x".into(), Duration::from_secs(1));
        let write = Error::timed_out(true, "PUT /v1/x".into(), Duration::from_secs(1));
        assert!(read.is_retryable() && !read.maybe_applied());
        assert!(write.is_retryable() && write.maybe_applied());
    }
}
