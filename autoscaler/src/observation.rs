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
    /// The instances one by one, where they are known. Needed for readings per instance and for
    /// [`Drain`](crate::Drain); may be empty otherwise.
    pub instances: Vec<Instance>,
    /// Whether something stands ready to hold requests while there is no instance, as far as is known. Needed for
    /// [`Zero`](crate::Zero).
    pub buffer: Option<bool>,
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

    /// Sets the instances one by one.
    #[must_use]
    pub fn instances(mut self, instances: impl IntoIterator<Item = Instance>) -> Self {
        self.instances = instances.into_iter().collect();
        self
    }

    /// Sets whether something stands ready to hold requests.
    #[must_use]
    pub fn buffer(mut self, buffer: Option<bool>) -> Self {
        self.buffer = buffer;
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
    /// One number for each instance that gave one.
    PerInstance {
        /// When they were true.
        at: Duration,
        /// Over how long each was measured, before `at`.
        window: Duration,
        /// The numbers. An instance without one is missing, which is not a zero.
        samples: Vec<Sample>,
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

/// What was measured on one instance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// The instance's [`id`](Instance::id).
    pub instance: String,
    /// The number: finite, not below zero.
    pub value: f64,
    /// What the instance asked for, in the same unit: the CPU limit, say. For [`Target::Utilization`](crate::Target).
    pub request: Option<f64>,
}

impl Sample {
    /// A number of an instance.
    pub fn new(instance: impl Into<String>, value: f64) -> Self {
        Self { instance: instance.into(), value, request: None }
    }

    /// Sets what the instance asked for.
    #[must_use]
    pub fn of(mut self, request: f64) -> Self {
        self.request = Some(request);
        self
    }
}

/// One instance of a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Instance {
    /// Its name, unique in the service.
    pub id: String,
    /// How far it is.
    pub phase: Phase,
    /// Whether it serves, where that is known.
    pub ready: Option<bool>,
    /// When `ready` last changed.
    pub ready_changed: Option<Duration>,
    /// When it was started.
    pub started: Option<Duration>,
    /// Requests in flight on it, where that is known.
    pub in_flight: Option<u64>,
    /// The machine it is on.
    pub node: Option<String>,
    /// Its number within the service, where the orchestrator gives one.
    pub slot: Option<u64>,
}

impl Instance {
    /// A running instance of which nothing else is known.
    pub fn new(id: impl Into<String>) -> Self {
        Self {
            id: id.into(),
            phase: Phase::Running,
            ready: None,
            ready_changed: None,
            started: None,
            in_flight: None,
            node: None,
            slot: None,
        }
    }

    /// Sets how far it is.
    #[must_use]
    pub fn phase(mut self, phase: Phase) -> Self {
        self.phase = phase;
        self
    }

    /// Sets whether it serves, and since when that is so.
    #[must_use]
    pub fn ready(mut self, ready: bool, changed: Duration) -> Self {
        (self.ready, self.ready_changed) = (Some(ready), Some(changed));
        self
    }

    /// Sets when it was started.
    #[must_use]
    pub fn started(mut self, started: Duration) -> Self {
        self.started = Some(started);
        self
    }

    /// Sets how many requests are in flight on it.
    #[must_use]
    pub fn in_flight(mut self, requests: u64) -> Self {
        self.in_flight = Some(requests);
        self
    }

    /// Sets where it is: the machine, and its number within the service.
    #[must_use]
    pub fn at(mut self, node: impl Into<String>, slot: u64) -> Self {
        (self.node, self.slot) = (Some(node.into()), Some(slot));
        self
    }
}

/// How far an instance is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Phase {
    /// Wanted, and not running yet.
    Pending,
    /// Running, ready or not.
    Running,
    /// On its way out. It counts for nothing.
    Stopping,
    /// It failed. It counts for nothing.
    Failed,
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
