//! The immutable picture of a pool that readers share.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde::Serialize;

use crate::config::Config;
use crate::endpoint::{Endpoint, EndpointId};
use crate::error::Absence;
use crate::group::Group;
use crate::slot::Slot;
use crate::state::{Reason, State};

/// All endpoints of a pool at one moment. Membership and states are fixed; counters are live.
#[derive(Debug, Default)]
pub struct Snapshot {
    generation: u64,
    decay: Duration,
    pub(crate) all: Vec<Arc<Slot>>,
    pub(crate) trial: Vec<Arc<Slot>>,
    /// What is near, in order of nearness; empty without [`Config::locality`](crate::Config::locality).
    pub(crate) near: Vec<Group>,
    /// All that is usable.
    pub(crate) group: Group,
    /// When a pause or a ramp ends next.
    pub(crate) due: Option<Duration>,
}

impl Snapshot {
    /// A new picture; `old` is the last one, whose tables may be of use.
    pub(crate) fn build(config: &Config, generation: u64, all: Vec<Arc<Slot>>, old: Option<&Self>) -> Self {
        let policy = &config.policy;
        let members: Vec<_> = all.iter().filter(|slot| slot.state != State::Draining).cloned().collect();
        let trial = all.iter().filter(|slot| slot.state == State::Trial).cloned().collect();
        let timed = |slot: &&Arc<Slot>| matches!(slot.state, State::Ejected | State::Ramping);
        let due = all.iter().filter(timed).filter_map(|slot| slot.until).min();
        let group = |members: &[Arc<Slot>], old: Option<&Group>| {
            Group::new(members, |members, ready| policy.plan(members, ready, old.map(|old| &old.plan)))
        };
        let mut near = Vec::new();
        if let Some(locality) = &config.locality {
            for tier in 0..2u8 {
                let is_in = |slot: &&Arc<Slot>| locality.is_in(tier, &slot.endpoint);
                let tier_members: Vec<_> = members.iter().filter(is_in).cloned().collect();
                near.push(group(&tier_members, old.and_then(|old| old.near.get(usize::from(tier)))));
            }
        }
        let group = group(&members, old.map(|old| &old.group));
        Self { generation, decay: policy.decay(), all, trial, near, group, due }
    }

    /// The endpoint with this id.
    pub(crate) fn find(&self, id: &EndpointId) -> Option<&Arc<Slot>> {
        let at = self.all.binary_search_by(|slot| slot.id().cmp(id)).ok()?;
        self.all.get(at)
    }

    /// Counts up with each change of the pool.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// How many endpoints are known, the draining ones included.
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// Whether no endpoint is known.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// How many endpoints requests are spread over.
    pub fn ready(&self) -> usize {
        self.group.ready.len()
    }

    /// Whether an endpoint waits for the one request of its trial.
    pub fn wants_trial(&self) -> bool {
        self.trial.iter().any(|slot| !slot.stats.trial_taken.load(Ordering::Acquire))
    }

    /// Whether a pick without exclusions would find an endpoint now.
    pub fn is_usable(&self) -> bool {
        !self.group.ready.is_empty() || self.wants_trial()
    }

    /// The endpoints with their state, sorted by id.
    pub fn endpoints(&self) -> impl Iterator<Item = (&Endpoint, State, Reason)> {
        self.all.iter().map(|slot| (&*slot.endpoint, slot.state, slot.reason))
    }

    /// Everything that is known of each endpoint, sorted by id, for people and for export.
    pub fn views(&self, now: Duration) -> Vec<EndpointView> {
        self.all.iter().map(|slot| EndpointView::of(slot, self.decay, now)).collect()
    }

    pub(crate) fn absence(&self, excluded: usize, full: usize) -> Absence {
        let count = |state| self.all.iter().filter(|slot| slot.state == state).count();
        Absence {
            excluded,
            full,
            warming: count(State::Warming),
            ejected: count(State::Ejected) + count(State::Trial),
            draining: count(State::Draining),
        }
    }
}

/// One endpoint as people and exporters see it.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct EndpointView {
    /// Who.
    pub id: EndpointId,
    /// Where, as `address:port`.
    pub addr: String,
    /// The machine, when known.
    pub host: Option<String>,
    /// The zone, when known.
    pub zone: Option<String>,
    /// Its share relative to the others.
    pub weight: u32,
    /// Where it stands.
    pub state: State,
    /// Why it stands there.
    pub reason: Reason,
    /// The reason as a sentence.
    pub why: String,
    /// How long it has stood there.
    pub for_seconds: f64,
    /// How long until it is tried again, when that is by time.
    pub retry_in_seconds: Option<f64>,
    /// Requests that it works on.
    pub in_flight: u64,
    /// The latency estimate; `None` before the first answer.
    pub latency_ms: Option<f64>,
    /// Requests it was picked for.
    pub requests: u64,
    /// Those of them that failed.
    pub failures: u64,
}

impl EndpointView {
    fn of(slot: &Slot, decay: Duration, now: Duration) -> Self {
        Self {
            id: slot.id().clone(),
            addr: slot.endpoint.addr.to_string(),
            host: slot.endpoint.host.clone(),
            zone: slot.endpoint.zone.clone(),
            weight: slot.endpoint.weight,
            state: slot.state,
            reason: slot.reason,
            why: slot.reason.to_string(),
            for_seconds: now.saturating_sub(slot.since).as_secs_f64(),
            retry_in_seconds: slot.until.map(|until| until.saturating_sub(now).as_secs_f64()),
            in_flight: slot.stats.pending(),
            latency_ms: slot.stats.latency.at(now, decay).map(f64::from),
            requests: slot.stats.work.begun(),
            failures: slot.stats.failures.load(Ordering::Relaxed),
        }
    }
}
