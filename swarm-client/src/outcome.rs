//! How the wait for a rollout ends, as data and as one sentence.

use std::collections::BTreeMap;
use std::fmt;

use crate::pending::PendingReason;

/// How the wait for a rollout ended.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// Each task of the present spec runs, and has for the stable time.
    Converged {
        /// How many tasks run.
        running: u64,
    },
    /// Its tasks have ended, as they were meant to: a job, or a restart policy that does not replace what ended well.
    TasksCompleted {
        /// How many ended.
        completed: u64,
    },
    /// Too many tasks failed; Swarm does nothing until the next update.
    Paused {
        /// Swarm's words.
        message: String,
    },
    /// Too many tasks failed, and the service is back at the spec before.
    RolledBack {
        /// Swarm's words.
        message: String,
    },
    /// Too many tasks failed on the way back too; Swarm does nothing until the next update.
    RollbackPaused {
        /// Swarm's words.
        message: String,
    },
    /// Each task that is missing finds no node, and nothing is on its way that could change this.
    Unschedulable {
        /// Which of the scheduler's rules stand in the way; empty for a global service that fits no node.
        diagnosis: Diagnosis,
    },
    /// Somebody rolled out another spec while this one was waited for.
    Superseded,
    /// The service was removed while it was waited for.
    Removed,
    /// It took longer than the caller wanted to wait; the rollout goes on.
    TimedOut {
        /// What was missing.
        diagnosis: Diagnosis,
    },
}

impl Outcome {
    /// True if the service became what was wanted.
    #[must_use]
    pub fn is_success(&self) -> bool {
        matches!(self, Self::Converged { .. } | Self::TasksCompleted { .. })
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Converged { running } => write!(f, "converged: {running} running"),
            Self::TasksCompleted { completed } => write!(f, "completed: {completed} ended as they should"),
            Self::Paused { message } => write!(f, "paused by failures: {message}"),
            Self::RolledBack { message } => write!(f, "rolled back: {message}"),
            Self::RollbackPaused { message } => write!(f, "rollback paused by failures: {message}"),
            Self::Unschedulable { diagnosis } => write!(f, "unschedulable: {diagnosis}"),
            Self::Superseded => f.write_str("superseded: another spec was rolled out meanwhile"),
            Self::Removed => f.write_str("the service was removed"),
            Self::TimedOut { diagnosis } => write!(f, "timed out: {diagnosis}"),
        }
    }
}

/// How a rollout goes.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum RolloutProgress {
    /// It goes on, and this is what it lacks.
    Waiting(Diagnosis),
    /// It ended; nothing comes after this.
    Ended(Outcome),
}

impl fmt::Display for RolloutProgress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Waiting(diagnosis) => diagnosis.fmt(f),
            Self::Ended(outcome) => outcome.fmt(f),
        }
    }
}

/// What a service lacks.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Diagnosis {
    /// Tasks that run.
    pub running: u64,
    /// Tasks that are wanted; `None` if that cannot be told, as for a global service that fits no node.
    pub wanted: Option<u64>,
    /// True if all were there, but not for long enough.
    pub settling: bool,
    /// True if Swarm is on its way back to the spec before.
    pub rolling_back: bool,
    /// How many tasks are in each state short of running.
    pub on_the_way: BTreeMap<String, u64>,
    /// Why tasks find no node.
    pub pending: Vec<PendingReason>,
    /// What went wrong in other tasks, each text once.
    pub errors: Vec<String>,
    /// Why the last look failed, if it did.
    pub last_read_error: Option<String>,
}

impl fmt::Display for Diagnosis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.wanted {
            Some(wanted) => write!(f, "{} of {wanted} running", self.running)?,
            None => write!(f, "{} running and no task wanted anywhere; check the placement", self.running)?,
        }
        if self.settling {
            f.write_str(", not yet for long enough")?;
        }
        if self.rolling_back {
            f.write_str(", rolling back")?;
        }
        for (state, count) in &self.on_the_way {
            write!(f, ", {count} {state}")?;
        }
        for (i, reason) in self.pending.iter().enumerate() {
            write!(f, "{}{reason}", if i == 0 { "; no suitable node: " } else { ", " })?;
        }
        for error in &self.errors {
            write!(f, "; {error}")?;
        }
        if let Some(error) = &self.last_read_error {
            write!(f, "; the last look failed: {error}")?;
        }
        Ok(())
    }
}
