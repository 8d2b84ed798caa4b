//! What can go wrong, and which of it is the caller's to put right.

use std::path::PathBuf;
use std::time::Duration;

/// The result of a lab operation.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a lab operation did not happen or did not finish.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Namespaces, bridges and engines are root's.
    #[error("{what} needs root: run it as root or through sudo")]
    NotRoot {
        /// What was asked for.
        what: &'static str,
    },
    /// A lab is up; there is one at a time.
    #[error("a lab with {hosts} hosts is up already: use it (lab status), or take it away first (lab down)")]
    AlreadyUp {
        /// How many hosts it has.
        hosts: usize,
    },
    /// There is no lab.
    #[error("no lab is up: start one with lab up")]
    NotUp,
    /// Another process is changing the lab.
    #[error("another lab command (process {holder}) is still at work after {}s: wait for it, or end that process", waited.as_secs())]
    Busy {
        /// The process that holds the lock, as far as it is known.
        holder: String,
        /// How long this one waited.
        waited: Duration,
    },
    /// A setting that cannot work.
    #[error("{setting} is {value:?}: {rule}")]
    Setting {
        /// Which setting: a flag, an argument or an environment variable.
        setting: &'static str,
        /// Its value.
        value: String,
        /// What it must be.
        rule: String,
    },
    /// A host is not in the state that the operation starts from.
    #[error("host {host} {state}: {hint}")]
    HostState {
        /// The host.
        host: String,
        /// The state it is in.
        state: String,
        /// What to do.
        hint: &'static str,
    },
    /// A part could not be had.
    #[error("{part} is missing and could not be installed: {why}; {hint}")]
    Missing {
        /// The program or package.
        part: String,
        /// Why it could not be installed.
        why: String,
        /// What to do.
        hint: &'static str,
    },
    /// A command of the system failed.
    #[error("`{command}` failed ({status}): {output}")]
    Command {
        /// The command line.
        command: String,
        /// Its exit status, or that it ran out of time.
        status: String,
        /// The end of what it wrote.
        output: String,
    },
    /// A file or folder could not be read or written.
    #[error("cannot {what} {path}: {source}")]
    File {
        /// What was tried.
        what: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
    /// A certificate could not be made.
    #[error("the certificate of {whose} could not be made: {source}")]
    Certificate {
        /// A host, the client or the authority.
        whose: String,
        /// Why.
        source: rcgen::Error,
    },
    /// The state file does not say what a state file says.
    #[error(
        "the lab's state file {path} cannot be understood ({source}): run lab down, which cleans up without it"
    )]
    State {
        /// The state file.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// A daemon did not answer, or answered what it should not.
    #[error("{service} at {addr} failed to answer {request}: {why}")]
    Service {
        /// Consul, Redis or Sentinel.
        service: &'static str,
        /// Where it was asked.
        addr: String,
        /// What it was asked.
        request: String,
        /// What came back.
        why: String,
    },
    /// An engine or its Swarm did not answer, or refused.
    #[error(transparent)]
    Docker(#[from] swarm_client::Error),
    /// Something did not happen in time.
    #[error("{what} did not come about within {}s; last seen: {last}{logs}", within.as_secs())]
    Deadline {
        /// What was waited for.
        what: String,
        /// How long.
        within: Duration,
        /// What stood in the way when the time ran out.
        last: String,
        /// The ends of the daemons' logs, one block each, or nothing.
        logs: String,
    },
}

impl Error {
    /// Whether the lab refused before it changed anything: a setting, a missing right, a lab that is (not) there.
    /// The binary's exit code is 2 for these and 1 for the rest.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        matches!(
            self,
            Self::NotRoot { .. }
                | Self::AlreadyUp { .. }
                | Self::NotUp
                | Self::Busy { .. }
                | Self::Setting { .. }
                | Self::HostState { .. }
                | Self::Missing { .. }
        )
    }

    /// Whether the same call may succeed later without anything being put right by hand.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Busy { .. } | Self::Service { .. } | Self::Deadline { .. } => true,
            Self::Docker(error) => error.is_retryable(),
            _ => false,
        }
    }

    pub(crate) fn certificate(whose: &str) -> impl FnOnce(rcgen::Error) -> Self {
        let whose = whose.to_owned();
        move |source| Self::Certificate { whose, source }
    }

    pub(crate) fn file(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { what, path, source }
    }
}
