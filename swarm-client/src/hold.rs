//! A hold on a service's replicas: while one lasts, other writers of replicas keep off.
//!
//! A drain and a rebalance count a service's tasks while they move them; a scaler that writes in between would be undone, or
//! undo them. The hold is a label, written in the same compare-and-set as the change that it protects, and it ends by itself,
//! so that a holder that died blocks nobody for long. [`Services::scale`](crate::Services::scale) obeys it; a scaler of one's
//! own asks [`Service::hold`](crate::Service::hold) inside [`Services::try_modify`](crate::Services::try_modify).

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::error::Error;
use crate::model::{Service, ServiceSpec};

/// The label that carries a [`Hold`].
pub const HOLD_LABEL: &str = "swarm-client.hold";

/// Who keeps other writers off a service's replicas, and until when.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Hold {
    /// What goes on, for people: `drain of h1`.
    pub by: String,
    /// When it ends by itself, since 1970.
    pub until: Duration,
}

impl Hold {
    /// A hold for so long from `now` (since 1970).
    #[must_use]
    pub fn new(by: impl Into<String>, now: Duration, length: Duration) -> Self {
        Self { by: by.into(), until: now.saturating_add(length) }
    }

    /// True until it has ended.
    #[must_use]
    pub fn is_active(&self, now: Duration) -> bool {
        now < self.until
    }

    /// Reads a label's value.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (until, by) = text.split_once(' ')?;
        Some(Self { by: by.to_owned(), until: Duration::from_secs(until.parse().ok()?) })
    }

    pub(crate) fn error(self, service: &str) -> Error {
        Error::Held { service: service.to_owned(), by: self.by, until: self.until }
    }
}

impl fmt::Display for Hold {
    /// As the label's value: seconds since 1970, a space, and who.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.until.as_secs(), self.by)
    }
}

impl ServiceSpec {
    /// The hold on its replicas that is active at `now` (since 1970).
    #[must_use]
    pub fn hold(&self, now: Duration) -> Option<Hold> {
        self.labels.get(HOLD_LABEL).and_then(|text| Hold::parse(text)).filter(|hold| hold.is_active(now))
    }

    pub(crate) fn set_hold(&mut self, hold: &Hold) {
        self.labels.insert(HOLD_LABEL.to_owned(), hold.to_string());
    }

    pub(crate) fn release_hold(&mut self) {
        self.labels.remove(HOLD_LABEL);
    }
}

impl Service {
    /// The hold on its replicas that is active at `now` (since 1970).
    #[must_use]
    pub fn hold(&self, now: Duration) -> Option<Hold> {
        self.spec.hold(now)
    }
}

/// The time since 1970, by this machine's clock.
pub(crate) fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hold_ends_by_itself() {
        let at = Duration::from_secs;
        let mut spec = ServiceSpec::builder("web", "web:1").build();
        assert_eq!(spec.hold(at(0)), None);
        spec.set_hold(&Hold::new("drain of h1", at(100), at(30)));
        assert_eq!(spec.labels[HOLD_LABEL], "130 drain of h1");
        assert_eq!(spec.hold(at(129)).unwrap().by, "drain of h1");
        assert_eq!(spec.hold(at(130)), None);
        spec.release_hold();
        assert!(spec.labels.is_empty());
        for bad in ["", "x", "x y", "12"] {
            assert_eq!(Hold::parse(bad), None, "{bad}");
        }
    }
}
