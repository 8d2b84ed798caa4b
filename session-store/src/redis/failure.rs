//! What an attempt may end with, and whether another one may do better.

use crate::error::StoreError;
use redis::{ErrorKind, RedisError, ServerErrorKind};

/// Why an attempt failed, and whether another one may do better.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    pub(super) reason: String,
    pub(super) again: bool,
    /// How many replicas had to confirm, and how many did.
    pub(super) short: Option<(u8, u8)>,
}

/// What a call's work may end with.
pub(super) enum CallError {
    Redis(Failure),
    Store(StoreError),
}

impl From<RedisError> for CallError {
    fn from(error: RedisError) -> Self {
        Self::Redis(error.into())
    }
}

impl From<Failure> for CallError {
    fn from(failure: Failure) -> Self {
        Self::Redis(failure)
    }
}

impl From<StoreError> for CallError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<RedisError> for Failure {
    fn from(error: RedisError) -> Self {
        let again = match error.kind() {
            ErrorKind::Io | ErrorKind::Parse => true,
            ErrorKind::Server(kind) => matches!(
                kind,
                ServerErrorKind::ReadOnly
                    | ServerErrorKind::BusyLoading
                    | ServerErrorKind::MasterDown
                    | ServerErrorKind::TryAgain
            ),
            // Codes that the client has no name for: too few replicas now, or demoted while a script ran.
            ErrorKind::Extension => matches!(error.code(), Some("NOREPLICAS" | "UNBLOCKED" | "BUSY")),
            _ => error.is_unrecoverable_error(),
        };
        // Redis before 7 hides what happened inside a script in the text of a plain error.
        let again = again
            || error.detail().is_some_and(|text| text.contains("READONLY") || text.contains("NOREPLICAS"));
        // A login error may quote what was sent; its kind says enough.
        let reason = match error.kind() {
            ErrorKind::AuthenticationFailed => "the server refused the password or user".to_owned(),
            ErrorKind::Server(
                ServerErrorKind::ClusterDown
                | ServerErrorKind::CrossSlot
                | ServerErrorKind::Moved
                | ServerErrorKind::Ask,
            ) => {
                "it is a node of a Redis Cluster, which is not offered; name one Redis, or redis+sentinel://"
                    .to_owned()
            }
            _ => error.to_string(),
        };
        Self { reason, again, short: None }
    }
}

impl Failure {
    pub(super) fn again(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), again: true, short: None }
    }

    /// What a script says of a command in it that failed.
    pub(super) fn told(text: &str) -> Self {
        let code = text.split(' ').next().unwrap_or_default();
        let passes = ["READONLY", "NOREPLICAS", "LOADING", "MASTERDOWN", "TRYAGAIN", "BUSY", "UNBLOCKED"];
        // Redis before 7 puts words of its own in front of the code.
        let again = passes.contains(&code) || text.contains("READONLY") || text.contains("NOREPLICAS");
        Self { reason: text.to_owned(), again, short: None }
    }

    /// Fewer replicas than asked for confirmed a write. They may be about to follow a new master.
    pub(super) fn short(wanted: u8, acked: u8) -> Self {
        let reason = format!("{acked} of {wanted} replicas confirmed");
        Self { reason, again: true, short: Some((wanted, acked)) }
    }

    /// A certificate that is refused, by either side, stays refused until somebody changes it.
    #[cfg(feature = "tls")]
    pub(super) fn handshake(error: std::io::Error) -> Self {
        let refused = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        match refused {
            Some(rustls::Error::InvalidCertificate(why)) => Self {
                reason: format!(
                    "its certificate is refused ({why:?}); name its CA by ?ca=PATH, or what it is issued for by ?server-name=NAME"
                ),
                again: false,
                short: None,
            },
            Some(rustls::Error::AlertReceived(alert)) => {
                Self { reason: format!("it refuses TLS with us ({alert:?})"), again: false, short: None }
            }
            _ => Self::again(format!("no TLS with it: {error}")),
        }
    }

    pub(super) fn at(self, address: &str) -> Self {
        Self { reason: format!("{address}: {}", self.reason), ..self }
    }
}
