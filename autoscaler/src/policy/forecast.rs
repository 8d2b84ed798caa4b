//! What a policy may expect of the load to come.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::seconds;

/// A forecast of the load of one signal. It can only raise the proposal, never lower it: wrong forecasts cost
/// instances, not requests.
///
/// The load of the signal (which must have a target per instance) is remembered as its highest value in each `step`. What
/// the model expects within the next `horizon` is a floor for the proposal; when the count changes, what it expects within
/// the next `batch` is one too, so that few large changes are made instead of many small ones.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Forecast {
    /// The signal; `None` for the first one with a target per instance.
    pub signal: Option<String>,
    /// Whether the floor counts, or is only shown in the decision.
    pub mode: ForecastMode,
    /// How it is made.
    pub model: Model,
    /// The width of one remembered value. In serialised form: seconds.
    #[serde(with = "seconds")]
    pub step: Duration,
    /// How far to look ahead: as long as an instance needs to start, and one decision more. In serialised form: seconds.
    #[serde(with = "seconds")]
    pub horizon: Duration,
    /// A change goes so far that none other is expected for so long: instances that will be needed again within it are not
    /// removed, and those that will be needed are added with the first of them. Never shorter than the horizon; zero for
    /// the horizon. While nothing recurs, a change on the way up goes as far as a steady rise leads within the window of the way
    /// down (at least the horizon, at most the batch).
    /// In serialised form: seconds.
    #[serde(with = "seconds")]
    pub batch: Duration,
}

impl Default for Forecast {
    fn default() -> Self {
        Self {
            signal: None,
            mode: ForecastMode::Active,
            model: Model::default(),
            // 40 minutes are remembered, so that what recurs up to three times an hour is seen twice.
            step: Duration::from_secs(10),
            // A container's start and its first health check, and a decision.
            horizon: Duration::from_secs(30),
            // A start and a down window; what runs in vain for so long costs less than users and caches that are moved.
            batch: Duration::from_secs(120),
        }
    }
}

impl Forecast {
    /// A forecast by this model, of steps of this width.
    pub fn new(model: Model, step: Duration) -> Self {
        Self { model, step, ..Self::default() }
    }

    /// Sets how far to look ahead.
    #[must_use]
    pub fn horizon(mut self, horizon: Duration) -> Self {
        self.horizon = horizon;
        self
    }

    /// Sets for how long a change should last.
    #[must_use]
    pub fn batch(mut self, batch: Duration) -> Self {
        self.batch = batch;
        self
    }

    /// Sets whether it counts.
    #[must_use]
    pub fn mode(mut self, mode: ForecastMode) -> Self {
        self.mode = mode;
        self
    }

    /// Sets the signal.
    #[must_use]
    pub fn signal(mut self, signal: impl Into<String>) -> Self {
        self.signal = Some(signal.into());
        self
    }
}

/// Whether a forecast counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ForecastMode {
    /// It is made and shown, and changes nothing.
    Shadow,
    /// It raises the proposal.
    #[default]
    Active,
}

/// How a forecast is made. The memory holds [`HISTORY`](Model::HISTORY) steps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Model {
    /// The load recurs after a time that is found in what is remembered, and is expected to be what it was one such
    /// time ago. Nothing is expected as long as nothing recurs.
    #[default]
    Recurring,
    /// The load recurs after this time (in steps; at most half of what is remembered), and is expected to be what it
    /// was then: the seasonal naive forecast.
    Seasonal {
        /// The time after which the load recurs, in steps.
        steps: u32,
    },
    /// Level, trend and season, additive, each smoothed (Holt 1957, Winters 1960).
    HoltWinters {
        /// The time after which the load recurs, in steps; 0 for no season.
        steps: u32,
        /// The weight of the newest value in the level, 0 to 1.
        level: f64,
        /// The weight of the newest slope in the trend, 0 to 1.
        trend: f64,
        /// The weight of the newest deviation in the season, 0 to 1.
        season: f64,
    },
}

impl Model {
    /// How many steps are remembered.
    pub const HISTORY: u32 = 240;
}
