//! Whether a scaler's decision may still be written: asked inside the compare-and-set that writes it.

use std::fmt;
use std::time::Duration;

use autoscaler::Hold;
use autoscaler::controller::{ScaleError, Term};

/// What is found where the number of replicas is about to be written.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// The term of the scaler that wrote last.
    pub term: Option<Term>,
    /// The hold of a person's scale, whether it has ended or not.
    pub hold: Option<Hold>,
    /// The drain or rebalance that counts the tasks at the moment.
    pub counted: Option<swarm_client::Hold>,
    /// Whether an update is under way.
    pub updating: bool,
    /// The number of replicas wanted.
    pub replicas: Option<u64>,
}

impl Found {
    /// Whether a decision made at `current` replicas may still be written.
    ///
    /// # Errors
    /// Why not.
    pub fn allows(&self, by: Term, current: u32, now: Duration) -> Result<(), Refusal> {
        match self.term {
            Some(other) if other > by => return Err(Refusal::Fenced(other)),
            _ => {}
        }
        if self.hold.as_ref().is_some_and(|hold| hold.is_active(now)) {
            return Err(Refusal::Held);
        }
        // It causes an update too, and says more.
        if let Some(hold) = self.counted.as_ref().filter(|hold| hold.is_active(now)) {
            return Err(Refusal::Counted { by: hold.by.clone(), until: hold.until });
        }
        if self.updating {
            return Err(Refusal::Updating);
        }
        if self.replicas == Some(current.into()) { Ok(()) } else { Err(Refusal::Moved(self.replicas)) }
    }
}

/// Why a write must not happen.
#[derive(Debug, PartialEq, Eq)]
pub enum Refusal {
    /// A later leader has written.
    Fenced(Term),
    /// The number is another one by now.
    Moved(Option<u64>),
    /// A person has scaled.
    Held,
    /// A drain or rebalance counts the tasks: a write now would be undone, or undo it.
    Counted {
        /// What goes on, such as `drain of h1`.
        by: String,
        /// When that ends by itself, since 1970.
        until: Duration,
    },
    /// An update is under way.
    Updating,
    /// It has no number of replicas.
    NotReplicated,
}

impl Refusal {
    /// As the controller's error.
    pub fn scale_error(self, service: &str, replicas: u32, by: Term) -> ScaleError {
        let service = service.to_owned();
        match self {
            Self::Fenced(other) => ScaleError::Fenced { service, term: by, by: other },
            Self::Moved(_) => ScaleError::Conflict { service, why: self.to_string() },
            _ => ScaleError::Refused {
                service,
                tried: format!("scaling to {replicas}"),
                why: self.to_string(),
            },
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fenced(_) => "a later leader has written",
            Self::Moved(Some(now)) => return write!(f, "it has {now} replicas by now"),
            Self::Moved(None) => "its replicas are not known",
            Self::Held => "a person has scaled it meanwhile",
            Self::Counted { by, until } => {
                return write!(f, "it is held by {by} until {} s after 1970", until.as_secs());
            }
            Self::Updating => "an update has begun meanwhile",
            Self::NotReplicated => "it is not a replicated service",
        })
    }
}

impl std::error::Error for Refusal {}

/// The hold of a person's scale until then, in seconds since 1970.
pub fn hold_until(seconds: u64) -> Hold {
    Hold::until(Duration::from_secs(seconds), "scaled by hand")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two() -> Found {
        Found { replicas: Some(2), ..Found::default() }
    }

    #[test]
    fn a_lower_term_never_writes() {
        let led = Found { term: Some(Term(7)), ..two() };
        let at = Duration::from_secs(100);
        assert_eq!(led.allows(Term(6), 2, at), Err(Refusal::Fenced(Term(7))));
        assert_eq!(led.allows(Term(7), 2, at), Ok(()));
        assert_eq!(led.allows(Term(8), 2, at), Ok(()));
    }

    #[test]
    fn a_person_and_an_update_are_respected() {
        let held = Found { hold: Some(hold_until(200)), ..two() };
        assert_eq!(held.allows(Term(1), 2, Duration::from_secs(199)), Err(Refusal::Held));
        assert_eq!(held.allows(Term(1), 2, Duration::from_secs(200)), Ok(()));
        let updating = Found { updating: true, ..two() };
        assert_eq!(updating.allows(Term(1), 2, Duration::ZERO), Err(Refusal::Updating));
    }

    #[test]
    fn a_decision_about_another_number_is_a_conflict() {
        assert_eq!(two().allows(Term(1), 3, Duration::ZERO), Err(Refusal::Moved(Some(2))));
    }
}
