//! The crate's error and the questions one asks it.

use std::time::Duration;

use crate::endpoint::Endpoint;
use crate::reason::Reason;

/// The result of an operation of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why an operation failed. Ask it with the `is_…` methods rather than by variant: several variants can mean the same.
///
/// No message carries a request's or an answer's body, and join tokens and unlock keys are cut out of what engines say.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting cannot be used.
    #[error("{setting} is {value:?}: {problem}; {advice}")]
    Config {
        /// The setting's name, such as `DOCKER_HOST`.
        setting: &'static str,
        /// Its value.
        value: String,
        /// What is wrong with it.
        problem: String,
        /// What to do.
        advice: &'static str,
    },
    /// No connection came about, or the engine refused it because of a certificate: nothing was done.
    #[error("{what}: could not connect to {endpoint}: {source}; {}", connect_advice(source))]
    Unreachable {
        /// What was tried.
        what: String,
        /// Where.
        endpoint: Endpoint,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
    /// The connection broke before a whole answer was read: a write may have been done.
    #[error("{what}: {endpoint} gave no whole answer: {source}; look whether it was done, then try again")]
    Interrupted {
        /// What was tried.
        what: String,
        /// Where.
        endpoint: Endpoint,
        /// Why it failed.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// No answer in time: a write may have been done.
    #[error(
        "{what}: no answer from {endpoint} within {after:?}; raise the request timeout or look at the managers' health"
    )]
    Timeout {
        /// What was tried.
        what: String,
        /// Where.
        endpoint: Endpoint,
        /// How long was waited.
        after: Duration,
    },
    /// The engine refused.
    #[error("{what}: {endpoint} answered {status} ({reason}): {message}; {}", reason.advice())]
    Engine {
        /// What was tried.
        what: String,
        /// Where.
        endpoint: Endpoint,
        /// The HTTP status.
        status: u16,
        /// What the answer means.
        reason: Reason,
        /// The engine's own words.
        message: String,
    },
    /// The answer is not what the API promises.
    #[error("{what}: cannot read the answer of {endpoint}: {problem}; check that it is a Docker Engine")]
    Decode {
        /// What was tried.
        what: String,
        /// Where.
        endpoint: Endpoint,
        /// What is wrong, without the answer's values.
        problem: String,
    },
    /// Each manager that the client knows failed.
    #[error("{what}: none of {} endpoints could do it: {}", attempts.len(), listed(attempts))]
    NoManager {
        /// What was tried.
        what: String,
        /// How each endpoint failed, in the order tried; never empty.
        attempts: Vec<Error>,
    },
    /// The object does not exist.
    #[error("{kind} {name:?} not found; check the name")]
    NotFound {
        /// What kind of object.
        kind: &'static str,
        /// The name or id that was asked for.
        name: String,
    },
    /// The request makes no sense, so nothing was sent.
    #[error("{what}: {problem}")]
    Invalid {
        /// What was tried.
        what: String,
        /// Which rule it breaks and what to do.
        problem: String,
    },
    /// Others kept changing the object until the retries were spent.
    #[error(
        "{what}: still in conflict with other writers after {attempts} attempts; try again when fewer write"
    )]
    Contended {
        /// What was tried.
        what: String,
        /// How often.
        attempts: u32,
    },
    /// Something counts the service's replicas at the moment: see [`Hold`](crate::Hold).
    #[error("scale service {service:?}: it is held by {by} until {} s after 1970; wait for its end", until.as_secs())]
    Held {
        /// The service.
        service: String,
        /// What goes on.
        by: String,
        /// When the hold ends by itself, since 1970.
        until: Duration,
    },
    /// A wait was over before what was waited for came about.
    #[error("{what}: not within {after:?}: {last}")]
    Deadline {
        /// What was waited for.
        what: String,
        /// How long was waited.
        after: Duration,
        /// How it stood at last.
        last: String,
    },
    /// Several steps were wanted, and this one ended badly; those before it stand.
    #[error("{what}: {outcome}; look at the service, then repeat it")]
    Step {
        /// What was tried.
        what: String,
        /// How it ended.
        outcome: Box<crate::outcome::Outcome>,
    },
    /// The engine did not become a member of the swarm.
    #[error(
        "{what}: the engine is {state} after {waited:?}: {message}; check the addresses and the token, leave, and join again"
    )]
    NotJoined {
        /// What was tried.
        what: String,
        /// The engine's state in the swarm.
        state: String,
        /// The engine's own words, or empty.
        message: String,
        /// How long was waited.
        waited: Duration,
    },
}

impl Error {
    /// The object changed between read and write; a repeat with a fresh read may succeed.
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        self.reason() == Some(Reason::Conflict) || matches!(self, Self::Contended { .. })
    }

    /// The object does not exist.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        self.reason() == Some(Reason::NotFound) || matches!(self, Self::NotFound { .. })
    }

    /// The name is taken.
    #[must_use]
    pub fn is_already_exists(&self) -> bool {
        self.reason() == Some(Reason::AlreadyExists)
    }

    /// Something still uses the object, so it cannot be removed.
    #[must_use]
    pub fn is_in_use(&self) -> bool {
        self.reason() == Some(Reason::InUse)
    }

    /// A name matches more than one object, such as a host's old entry and its new one.
    #[must_use]
    pub fn is_ambiguous(&self) -> bool {
        self.reason() == Some(Reason::Ambiguous)
    }

    /// No engine that was asked is a manager: each is a worker, or in no swarm.
    #[must_use]
    pub fn is_not_manager(&self) -> bool {
        self.all(&|e| matches!(e.reason(), Some(Reason::NotManager | Reason::NotInSwarm)))
    }

    /// No engine that was asked is in a swarm. False when even one of them could not be asked.
    #[must_use]
    pub fn is_not_in_swarm(&self) -> bool {
        self.all(&|e| e.reason() == Some(Reason::NotInSwarm))
    }

    /// Something else counts the service's replicas at the moment.
    #[must_use]
    pub fn is_held(&self) -> bool {
        matches!(self, Self::Held { .. })
    }

    /// The engine is in a swarm already.
    #[must_use]
    pub fn is_already_in_swarm(&self) -> bool {
        self.reason() == Some(Reason::AlreadyInSwarm)
    }

    /// A manager waits for the unlock key.
    #[must_use]
    pub fn is_locked(&self) -> bool {
        self.any(&|e| e.reason() == Some(Reason::Locked))
    }

    /// The swarm has no leader at the moment; an election or the return of managers ends this.
    #[must_use]
    pub fn is_no_leader(&self) -> bool {
        self.any(&|e| matches!(e.reason(), Some(Reason::NoLeader | Reason::LeaderLost)))
    }

    /// The change would cost the managers their majority.
    #[must_use]
    pub fn is_quorum_at_risk(&self) -> bool {
        self.reason() == Some(Reason::Quorum)
    }

    /// No engine could be connected to: nothing was done.
    #[must_use]
    pub fn is_unreachable(&self) -> bool {
        self.all(&|e| matches!(e, Self::Unreachable { .. }))
    }

    /// No answer came in time.
    #[must_use]
    pub fn is_timeout(&self) -> bool {
        self.any(&|e| matches!(e, Self::Timeout { .. } | Self::Deadline { .. }))
    }

    /// True if a write may have been done although it failed: look before you repeat what must not happen twice.
    #[must_use]
    pub fn is_outcome_unknown(&self) -> bool {
        self.any(&|e| match e {
            Self::Timeout { .. } | Self::Interrupted { .. } | Self::Decode { .. } => true,
            Self::Engine { reason: Reason::LeaderLost | Reason::Other, status, .. } => *status >= 500,
            _ => false,
        })
    }

    /// True if the same call may succeed later, without anything being corrected. For a write, see
    /// [`is_outcome_unknown`](Self::is_outcome_unknown) too.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        self.any(&|e| match e {
            // A certificate that was refused is refused again.
            Self::Unreachable { source, .. } => !is_refused_certificate(source),
            Self::Interrupted { .. }
            | Self::Timeout { .. }
            | Self::Contended { .. }
            | Self::Held { .. }
            | Self::Deadline { .. } => true,
            Self::Engine { reason, status, .. } => match reason {
                Reason::Conflict | Reason::NoLeader | Reason::LeaderLost | Reason::ManagerStarting => true,
                Reason::Other => matches!(status, 429 | 500 | 502 | 503 | 504),
                _ => false,
            },
            _ => false,
        })
    }

    /// What the engine's refusal means, if it was one.
    #[must_use]
    pub fn reason(&self) -> Option<Reason> {
        match self {
            Self::Engine { reason, .. } => Some(*reason),
            _ => None,
        }
    }

    fn any(&self, test: &dyn Fn(&Self) -> bool) -> bool {
        match self {
            Self::NoManager { attempts, .. } => attempts.iter().any(test),
            one => test(one),
        }
    }

    fn all(&self, test: &dyn Fn(&Self) -> bool) -> bool {
        match self {
            Self::NoManager { attempts, .. } => attempts.iter().all(test),
            one => test(one),
        }
    }
}

/// Why [`Services::try_modify`](crate::Services::try_modify) failed: its closure refused, or the swarm did.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModifyError<E> {
    /// The closure refused; nothing was written by this call.
    #[error("refused: {0}")]
    Refused(E),
    /// Reading or writing failed.
    #[error(transparent)]
    Swarm(#[from] Error),
}

impl<E> ModifyError<E> {
    /// The closure's refusal, if it was one.
    #[must_use]
    pub fn refusal(&self) -> Option<&E> {
        match self {
            Self::Refused(refusal) => Some(refusal),
            Self::Swarm(_) => None,
        }
    }
}

fn connect_advice(error: &std::io::Error) -> &'static str {
    #[cfg(feature = "tls")]
    if let Some(refused) = crate::tls_refusal::TlsRefusal::of(error) {
        return refused.advice();
    }
    match error.kind() {
        std::io::ErrorKind::PermissionDenied => "run as root or as a member of the socket's group",
        _ => "check that the engine runs and that the address is right",
    }
}

fn is_refused_certificate(error: &std::io::Error) -> bool {
    #[cfg(feature = "tls")]
    return crate::tls_refusal::TlsRefusal::of(error).is_some();
    #[cfg(not(feature = "tls"))]
    {
        let _ = error;
        false
    }
}

fn listed(attempts: &[Error]) -> String {
    attempts.iter().map(ToString::to_string).collect::<Vec<_>>().join(" | ")
}
