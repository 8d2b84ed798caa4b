//! When to stop being calm.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::seconds;

/// Burst mode: a load far above what runs. It begins when the signals ask for at least `threshold` percent of the
/// present count, and lasts until `window` has passed without that. In it the stabilisation window of the way up is
/// not waited for, and nothing is removed. Rate limits hold in it too. What was asked for during it stays in the window
/// of the way down, so that the end of a burst is no cliff.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Burst {
    /// How long it lasts after the last moment that met the threshold. In serialised form: seconds.
    #[serde(with = "seconds")]
    pub window: Duration,
    /// Percent of the present count that begins it: 200 is twice.
    pub threshold: u32,
    /// Look at the mean over this short time instead of the signal's own window; zero looks at the newest value. In a
    /// burst the larger of the two proposals counts. Only for signals that have a window. In serialised form: seconds.
    #[serde(with = "seconds")]
    pub short_window: Duration,
    /// What the threshold is a percentage of.
    pub of: BurstOf,
}

impl Burst {
    /// A burst mode with this window and threshold in percent, on the newest values.
    pub fn new(window: Duration, threshold: u32) -> Self {
        Self { window, threshold, ..Self::default() }
    }

    /// Sets the short window.
    #[must_use]
    pub fn short_window(mut self, window: Duration) -> Self {
        self.short_window = window;
        self
    }

    /// Sets what the threshold is a percentage of.
    #[must_use]
    pub fn of(mut self, of: BurstOf) -> Self {
        self.of = of;
        self
    }
}

impl Default for Burst {
    fn default() -> Self {
        // The stable window and panic threshold of the Knative pod autoscaler.
        Self {
            window: Duration::from_secs(60),
            threshold: 200,
            short_window: Duration::ZERO,
            of: BurstOf::Wanted,
        }
    }
}

/// What the threshold of a [`Burst`] is a percentage of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum BurstOf {
    /// The instances wanted: a burst that was answered ends, though the answer is still starting.
    #[default]
    Wanted,
    /// The instances that serve, as the Knative pod autoscaler counts.
    Ready,
}
