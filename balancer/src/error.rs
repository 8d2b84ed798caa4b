//! What can go wrong in the core.

use std::fmt;

use serde::Serialize;

/// A setting that can't work.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A value outside of what the rule for it allows.
    #[error("config {field} = {value} can't be used: {rule}")]
    Invalid {
        /// The path of the field.
        field: &'static str,
        /// The value that it had.
        value: String,
        /// What would be accepted.
        rule: &'static str,
    },
}

impl ConfigError {
    pub(crate) fn invalid(field: &'static str, value: impl fmt::Display, rule: &'static str) -> Self {
        Self::Invalid { field, value: value.to_string(), rule }
    }
}

/// Why nothing was picked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PickError {
    /// No endpoint may take the request now.
    #[error("no endpoint can take the request: {reason}")]
    NoEndpoint {
        /// What there is instead.
        reason: Absence,
    },
}

impl PickError {
    /// Whether a later pick may succeed: an endpoint may appear or recover.
    pub fn is_retryable(&self) -> bool {
        true
    }

    /// Whether there would have been an endpoint, had the request not excluded it.
    pub fn is_excluded(&self) -> bool {
        let Self::NoEndpoint { reason } = self;
        reason.excluded > 0
    }

    /// Whether every usable endpoint is at its limit: there will be room when requests end.
    pub fn is_full(&self) -> bool {
        let Self::NoEndpoint { reason } = self;
        reason.full > 0 && reason.excluded == 0
    }
}

/// How many endpoints there are that could not be picked, by cause.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Absence {
    /// Usable, but the request excluded them.
    pub excluded: usize,
    /// Usable, but with as many requests in flight as they may have.
    pub full: usize,
    /// Waiting for their first passed probe.
    pub warming: usize,
    /// Ejected, or on trial with the one request that a trial allows.
    pub ejected: usize,
    /// Finishing what they have.
    pub draining: usize,
}

impl fmt::Display for Absence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [
            (self.excluded, "excluded by the request"),
            (self.full, "at their limit"),
            (self.ejected, "ejected"),
            (self.warming, "waiting for a first passed probe"),
            (self.draining, "draining"),
        ];
        let mut first = true;
        for (count, what) in parts.into_iter().filter(|(count, _)| *count > 0) {
            if !first {
                f.write_str(", ")?;
            }
            first = false;
            write!(f, "{count} {what}")?;
        }
        if first {
            f.write_str("the set is empty")?;
        }
        Ok(())
    }
}
