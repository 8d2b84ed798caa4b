//! What was seen: the input of one decision.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// One look at a service.
///
/// All times are [`Duration`]s since one moment that the caller chose and keeps (the Unix epoch, if state is to
/// outlive the process). They are expected not to step back; when they do, that decision is to hold.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Observation {
    /// When this was seen.
    pub now: Duration,
    /// How many instances are wanted at present: what the orchestrator was last told.
    pub current: u32,
    /// How many of them serve.
    pub ready: u32,
    /// One reading for each signal of the policy. A signal without one, or with two, is unknown; readings that the
    /// policy does not name are ignored.
    pub readings: Vec<(String, Reading)>,
    /// An update or rollback of the service is running.
    pub update_in_progress: bool,
    /// Somebody asked that the count be left alone.
    pub held: Option<Hold>,
}

impl Observation {
    /// An observation of a service that wants `current` instances, all of them ready, without any reading.
    pub fn new(now: Duration, current: u32) -> Self {
        Self { now, current, ready: current, ..Self::default() }
    }

    /// Sets how many instances serve.
    #[must_use]
    pub fn ready(mut self, ready: u32) -> Self {
        self.ready = ready;
        self
    }

    /// Adds a reading.
    #[must_use]
    pub fn reading(mut self, signal: impl Into<String>, reading: Reading) -> Self {
        self.readings.push((signal.into(), reading));
        self
    }

    /// Adds many readings.
    #[must_use]
    pub fn readings(mut self, readings: impl IntoIterator<Item = (String, Reading)>) -> Self {
        self.readings.extend(readings);
        self
    }

    /// Sets whether an update of the service is running.
    #[must_use]
    pub fn updating(mut self, update_in_progress: bool) -> Self {
        self.update_in_progress = update_in_progress;
        self
    }

    /// Sets or removes a hold.
    #[must_use]
    pub fn held(mut self, held: Option<Hold>) -> Self {
        self.held = held;
        self
    }
}

/// What came of reading one signal. Zero has to be read: no answer is not a zero.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Reading {
    /// A number: the sum over the whole service. What is not finite, or below zero, counts as an error.
    Value {
        /// The number.
        value: f64,
        /// When it was true.
        at: Duration,
    },
    /// The source answered and knows no number for this service.
    NoData,
    /// The source answered with a number too old to use.
    Stale {
        /// When it was true.
        at: Duration,
    },
    /// The source could not be read, and why. The text goes into sentences (its first 200 characters), so it must
    /// not hold secrets.
    Error(String),
}

impl Reading {
    /// A number that was true at `at`.
    pub fn value(value: f64, at: Duration) -> Self {
        Self::Value { value, at }
    }

    /// A source that could not be read.
    pub fn error(why: impl Into<String>) -> Self {
        Self::Error(why.into())
    }
}

/// A wish that the count be left alone, such as a person's scaling by hand.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// When it lapses, on the clock of the observation; `None` if somebody has to lift it.
    pub until: Option<Duration>,
    /// Who and why, for the sentence.
    pub reason: String,
}

impl Hold {
    /// A hold until it is lifted.
    pub fn new(reason: impl Into<String>) -> Self {
        Self { until: None, reason: reason.into() }
    }

    /// A hold that lapses by itself.
    pub fn until(until: Duration, reason: impl Into<String>) -> Self {
        Self { until: Some(until), reason: reason.into() }
    }

    /// Whether it still counts.
    pub fn is_active(&self, now: Duration) -> bool {
        self.until.is_none_or(|until| now < until)
    }
}
