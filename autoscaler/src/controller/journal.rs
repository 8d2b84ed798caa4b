//! What happened, kept for those who ask why.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::error::JournalError;
use super::handle::Mode;
use super::lease::Term;
use crate::decision::Decision;
use crate::state::State;
use crate::vote::seconds;

/// Keeps the decisions and the state of services. All methods are called with a deadline, and none of their errors
/// stops a decision.
#[async_trait]
pub trait Journal: Send + Sync {
    /// Appends an entry.
    ///
    /// # Errors
    /// When it was not kept. What changed something (a written decision, a leadership that began or ended) is then tried
    /// again before the next entry, unless the error says that it is in vain
    /// ([`is_retryable`](JournalError::is_retryable)). It can therefore come twice, if it was kept and the answer came
    /// too late. Any other entry is left out, and counted in the next one like it.
    async fn record(&self, entry: JournalEntry) -> Result<(), JournalError>;

    /// The state that was saved last, by whichever leader.
    ///
    /// # Errors
    /// When it can't be read. The controller begins with a new state then, which removes nothing until a whole window
    /// was seen.
    async fn load_state(&self, service: &str) -> Result<Option<State>, JournalError>;

    /// Keeps a state for the next leader.
    ///
    /// # Errors
    /// When it was not kept.
    async fn save_state(&self, service: &str, state: &State) -> Result<(), JournalError>;
}

#[async_trait]
impl<T: Journal + ?Sized> Journal for Arc<T> {
    async fn record(&self, entry: JournalEntry) -> Result<(), JournalError> {
        (**self).record(entry).await
    }

    async fn load_state(&self, service: &str) -> Result<Option<State>, JournalError> {
        (**self).load_state(service).await
    }

    async fn save_state(&self, service: &str, state: &State) -> Result<(), JournalError> {
        (**self).save_state(service, state).await
    }
}

/// One thing that happened. As text, one sentence.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct JournalEntry {
    /// When, on the controller's clock ([`now`](super::now)).
    pub at: Duration,
    /// The service.
    pub service: String,
    /// The term under which it happened, if a lease was held.
    pub term: Option<Term>,
    /// The mode at that time.
    pub mode: Mode,
    /// What happened.
    pub event: Event,
    /// How many events of the same kind, all since the previous entry, were left out before this one.
    pub left_out: u32,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Event {
    /// This controller holds the lease now.
    Leading,
    /// The lease was lost; nothing is written until it is held again.
    LeaseLost,
    /// The lease can't be acquired.
    LeaseFailed {
        /// Why.
        why: String,
    },
    /// A higher term has written, so this controller stopped believing in its lease.
    ///
    /// If that happens anew with each lease and nobody else leads, the lock service was reset, so that its terms began
    /// again below the one at the target. Nothing is scaled then until somebody removes that term from the target.
    Fenced {
        /// The higher term.
        by: Term,
    },
    /// The mode says to do nothing.
    Paused,
    /// The target could not be read, so nothing was decided.
    TargetFailed {
        /// Why.
        why: String,
    },
    /// Instances are wanted, and none has served for this long. The load that is read then is no idleness.
    NoneServing {
        /// Instances wanted.
        wanted: u32,
        /// For how long.
        elapsed: Duration,
    },
    /// It is not certain that no new requests go to those that will be removed.
    DrainFailed {
        /// Why.
        why: String,
    },
    /// After a drain: who left. Where others left than were drained, requests may have been cut off.
    Left {
        /// Those that were drained and left.
        left: Vec<String>,
        /// Those that were drained and stayed; they get requests again.
        stayed: Vec<String>,
    },
    /// A decision, and what became of it.
    Decided {
        /// The decision.
        decision: Decision,
        /// What became of it.
        outcome: Outcome,
    },
}

/// What became of a decision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Outcome {
    /// It was to hold: there was nothing to write.
    Held,
    /// It was written.
    Written {
        /// The target's version after it.
        version: Option<u64>,
    },
    /// It would have been written, but for shadow mode.
    Shadow,
    /// Those that will be removed are kept from new requests.
    Draining,
    /// It was no longer valid when it was to be written.
    Expired,
    /// It was not written, or nobody knows whether it was.
    Failed {
        /// Why.
        why: String,
    },
}

impl fmt::Display for JournalEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.service)?;
        match &self.event {
            Event::Leading => f.write_str("leading")?,
            Event::LeaseLost => write!(f, "the lease was lost; nothing is written until it is held again")?,
            Event::LeaseFailed { why } => write!(f, "no lease: {why}")?,
            Event::Fenced { by } => write!(
                f,
                "term {by} stands at the target, above this leader's, which stops; if nobody leads under term {by}, the \
                 lock service was reset: remove term {by} from the target by hand, or nothing is scaled until the \
                 terms pass it"
            )?,
            Event::Paused => f.write_str("paused")?,
            Event::TargetFailed { why } => write!(f, "nothing decided: {why}")?,
            Event::NoneServing { wanted, elapsed } => {
                let elapsed = seconds(*elapsed);
                write!(f, "none of {wanted} has served for {elapsed}; look at why they don't start")?;
            }
            Event::DrainFailed { why } => write!(f, "not everybody may know of the drain: {why}")?,
            Event::Left { left, stayed } if stayed.is_empty() => {
                write!(f, "drained and gone: {}", left.join(", "))?;
            }
            Event::Left { left, stayed } => write!(
                f,
                "drained and gone: {}; drained but still there, so others were removed: {}",
                if left.is_empty() { "none".to_owned() } else { left.join(", ") },
                stayed.join(", ")
            )?,
            Event::Decided { decision, outcome } => {
                write!(f, "{decision}")?;
                match outcome {
                    Outcome::Held | Outcome::Draining | Outcome::Written { .. } => {}
                    Outcome::Shadow => f.write_str(" (shadow mode: not written)")?,
                    Outcome::Expired => f.write_str(" (not written: the decision was too old)")?,
                    Outcome::Failed { why } => write!(f, " (not written: {why})")?,
                }
            }
        }
        if let Some(term) = self.term {
            write!(f, " [term {term}]")?;
        }
        Ok(())
    }
}
