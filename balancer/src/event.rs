//! What happened in a pool, as data and as one sentence.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use crate::endpoint::EndpointId;
use crate::state::Reason;

/// One change of a pool.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Event {
    /// Counts up by one with each event of the pool.
    pub seq: u64,
    /// When, on the pool's time line.
    pub at: Duration,
    /// Whom it is about; `None` when it is about the whole pool.
    pub endpoint: Option<EndpointId>,
    /// What.
    pub kind: EventKind,
}

/// The kind of an [`Event`].
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum EventKind {
    /// Known now; picked at once when `ready`, else after its first passed probe.
    Added {
        /// Whether it is picked at once.
        ready: bool,
    },
    /// Passed its first probe.
    Ready,
    /// Its share no longer grows.
    Ramped,
    /// Taken out.
    Ejected {
        /// Why.
        reason: Reason,
        /// When it is tried again, if it is by time and not by probe.
        until: Option<Duration>,
    },
    /// Its pause is over: one request tries it.
    Trial,
    /// Back in.
    Recovered {
        /// What it had been ejected for.
        from: Reason,
        /// How long it was out.
        after: Duration,
    },
    /// Back in although it failed: too few others are usable.
    TakenBack {
        /// What it had been ejected for.
        from: Reason,
    },
    /// No new picks.
    Draining {
        /// Requests that it still works on.
        in_flight: u64,
    },
    /// Forgotten.
    Removed,
    /// A reset to the empty set was ignored, as configured.
    EmptyResetRefused,
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(endpoint) = &self.endpoint {
            write!(f, "{endpoint} ")?;
        }
        match &self.kind {
            EventKind::Added { ready: true } => f.write_str("added"),
            EventKind::Added { ready: false } => f.write_str("added, picked after its first passed probe"),
            EventKind::Ready => f.write_str("passed its first probe"),
            EventKind::Ramped => f.write_str("has its full share"),
            EventKind::Ejected { reason, until: Some(until) } => {
                let pause = until.saturating_sub(self.at);
                write!(f, "ejected for {:.2} s: {reason}", pause.as_secs_f64())
            }
            EventKind::Ejected { reason, until: None } => {
                write!(f, "ejected until a probe passes: {reason}")
            }
            EventKind::Trial => f.write_str("is tried with one request"),
            EventKind::Recovered { from, after } => {
                write!(f, "recovered after {:.2} s, was ejected: {from}", after.as_secs_f64())
            }
            EventKind::TakenBack { from } => write!(f, "taken back, too few others are usable; was: {from}"),
            EventKind::Draining { in_flight } => write!(f, "draining with {in_flight} in flight"),
            EventKind::Removed => f.write_str("removed"),
            EventKind::EmptyResetRefused => f.write_str("a reset to the empty set was ignored"),
        }
    }
}
