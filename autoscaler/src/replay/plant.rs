//! The service that a policy is played against, and what it costs users and its owner.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::observation::Instance;

/// A service of equal instances. Every policy that is compared runs on the same one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PlantModel {
    /// What one instance can do: units of load a second.
    pub capacity: f64,
    /// What one instance is meant to do: the target of the policies, and of the clairvoyant plan.
    pub target: f64,
    /// Seconds from the decision until an instance serves. It is paid for from the decision on.
    pub start_seconds: usize,
    /// Instances at the beginning, all serving; `None` for what the first load asks for at the target.
    pub initial: Option<u32>,
    /// The fewest that the clairvoyant plan may have.
    pub min: u32,
    /// How long a request takes on an instance that is not busy, in seconds.
    pub service_seconds: f64,
    /// The 95th percentile of the latency that users were promised, in seconds.
    pub objective_seconds: f64,
    /// How long an instance that is removed may finish what is in flight, in seconds.
    pub drain_seconds: f64,
    /// The longest request, in seconds.
    pub longest_request_seconds: f64,
}

impl Default for PlantModel {
    fn default() -> Self {
        Self {
            capacity: 100.0,
            target: 70.0,
            start_seconds: 20,
            initial: None,
            min: 2,
            service_seconds: 0.05,
            objective_seconds: 0.5,
            drain_seconds: 10.0,
            longest_request_seconds: 2.0,
        }
    }
}

impl PlantModel {
    /// How many instances a load asks for at the target, and at least the minimum.
    pub fn needed(&self, load: f64) -> u32 {
        crate::vote::count(load / self.target).max(self.min)
    }
}

/// The service in motion.
#[derive(Debug)]
pub(super) struct Plant<'a> {
    model: &'a PlantModel,
    /// The seconds at which the instances serve, oldest first.
    serves_at: Vec<usize>,
    /// Load that has come and is not done.
    backlog: f64,
}

/// What a second was like.
#[derive(Clone, Copy, Debug)]
pub(super) struct Second {
    pub(super) wanted: u32,
    pub(super) ready: u32,
    /// Load beyond the capacity.
    pub(super) beyond: f64,
    /// The 95th percentile of the latency, in seconds.
    pub(super) p95: f64,
    /// Share of the ready instances that is busy, 0 to 1.
    pub(super) busy: f64,
    /// In flight and waiting.
    pub(super) in_flight: f64,
}

impl<'a> Plant<'a> {
    pub(super) fn new(model: &'a PlantModel, first_load: f64) -> Self {
        let count = model.initial.unwrap_or_else(|| model.needed(first_load));
        Self { model, serves_at: vec![0; count as usize], backlog: 0.0 }
    }

    pub(super) fn wanted(&self) -> u32 {
        u32::try_from(self.serves_at.len()).unwrap_or(u32::MAX)
    }

    pub(super) fn ready(&self, second: usize) -> u32 {
        let ready = self.serves_at.iter().filter(|at| **at <= second).count();
        u32::try_from(ready).unwrap_or(u32::MAX)
    }

    /// The instances one by one. Requests are shorter than a tick, so nothing is in flight on one that is drained.
    pub(super) fn instances(&self, second: usize) -> Vec<Instance> {
        let instance = |(number, serves_at): (usize, &usize)| {
            let started = at(serves_at.saturating_sub(self.model.start_seconds));
            let ready = *serves_at <= second;
            let changed = if ready { at(*serves_at) } else { started };
            let instance = Instance::new(format!("i{number}")).started(started).ready(ready, changed);
            instance.in_flight(0).at(format!("h{number}"), number as u64)
        };
        self.serves_at.iter().enumerate().map(instance).collect()
    }

    /// Lives through a second.
    ///
    /// What can't be done waits, up to ten seconds of work; the rest is given up by its users. The latency is that of a
    /// queue with exponential times and many servers, as far as a formula that is right at both ends can say: the time
    /// of a request alone, more as the instances fill, and the wait for what stands in front.
    pub(super) fn live(&mut self, second: usize, load: f64) -> Second {
        let ready = self.ready(second);
        let capacity = f64::from(ready) * self.model.capacity;
        let offered = load + self.backlog;
        let done = offered.min(capacity);
        self.backlog = (offered - done).min(capacity * PATIENCE_SECONDS);
        let busy = if capacity > 0.0 { done / capacity } else { 1.0 };
        let waits = if capacity > 0.0 { self.backlog / capacity } else { PATIENCE_SECONDS };
        let servers = f64::from(ready).max(1.0);
        // The mean wait of many servers, by Sakasegawa's approximation; 3 is ln(1 / 0.05).
        let crowd = busy.powf((2.0 * (servers + 1.0)).sqrt() - 1.0) / (servers * (1.0 - busy).max(0.02));
        let p95 = self.model.service_seconds * (3.0 + crowd) + waits;
        let in_flight = done * self.model.service_seconds + self.backlog;
        Second { wanted: self.wanted(), ready, beyond: (load - capacity).max(0.0), p95, busy, in_flight }
    }

    /// Wants another count. Returns the requests in flight on those that are removed and not done at the deadline.
    pub(super) fn scale(&mut self, second: usize, to: u32, load: f64) -> f64 {
        let before = self.ready(second);
        // The newest go first: those that don't serve yet.
        self.serves_at.resize(to as usize, second.saturating_add(self.model.start_seconds));
        let removed = before.saturating_sub(self.ready(second));
        let beyond = (self.model.longest_request_seconds - self.model.drain_seconds).max(0.0);
        f64::from(removed) * load / f64::from(before.max(1)) * beyond
    }
}

/// The time of a policy's observation.
pub(super) fn at(second: usize) -> Duration {
    Duration::from_secs(EPOCH + second as u64)
}

/// Users wait no longer.
const PATIENCE_SECONDS: f64 = 10.0;
/// Any; far enough from zero for windows.
const EPOCH: u64 = 1_000_000;
