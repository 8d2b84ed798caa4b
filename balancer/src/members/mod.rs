//! The state machine: who belongs to the pool, in which state, and what changes it.
//!
//! Pure and single-threaded; the pool keeps it behind a lock that the pick path never takes.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::config::{Config, Probes};
use crate::endpoint::{Endpoint, EndpointId, Update};
use crate::event::{Event, EventKind};
use crate::rng::Draw;
use crate::slot::{Slot, Stats};
use crate::state::{Reason, State};

mod availability;
mod success_rate;

/// Events kept for a reader that is slow to collect them.
const EVENTS: usize = 512;
/// The shortest time from one probe to the next.
pub(crate) const HASTE: Duration = Duration::from_millis(100);

#[derive(Debug)]
pub(crate) struct Members {
    pub(crate) config: Config,
    draw: Draw,
    members: BTreeMap<EndpointId, Member>,
    events: VecDeque<Event>,
    seq: u64,
    changed: bool,
    /// When success rates are compared next.
    compare: Duration,
}

#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) slot: Slot,
    /// Left the set, and is forgotten once idle.
    absent: bool,
    /// Was told to drain, and stays so although a reset lists it.
    drained: bool,
    pub(crate) probe: ProbeRow,
}

#[derive(Debug, Default)]
pub(crate) struct ProbeRow {
    pub(crate) due: Duration,
    started: Duration,
    pub(crate) passed: u32,
    pub(crate) failed: u32,
}

impl Members {
    pub(crate) fn new(config: Config, seed: u64) -> Self {
        Self {
            config,
            draw: Draw::new(seed),
            members: BTreeMap::new(),
            events: VecDeque::new(),
            seq: 0,
            changed: false,
            compare: Duration::ZERO,
        }
    }

    pub(crate) fn apply(&mut self, update: Update, now: Duration) {
        match update {
            Update::Reset(endpoints) => self.reset(endpoints, now),
            Update::Add(endpoint) => self.add(endpoint, true, now),
            Update::Remove(id) => self.leave(&id, now),
            Update::Drain(id) => self.drain(&id, Reason::DrainRequested, now),
        }
        self.rebalance(now);
    }

    /// Lets pauses end and idle leavers go.
    pub(crate) fn tick(&mut self, now: Duration) {
        let over = self.members.values().filter(|member| {
            member.slot.state == State::Ejected && member.slot.until.is_some_and(|until| until <= now)
        });
        for id in over.map(|member| member.slot.id().clone()).collect::<Vec<_>>() {
            if let Some(member) = self.members.get_mut(&id) {
                member.slot.stats.trial_taken.store(false, Ordering::Release);
                let reason = member.slot.reason;
                self.shift(&id, State::Trial, reason, now);
                self.tell(Some(&id), EventKind::Trial, now);
            }
        }
        let ramped = self.members.values().filter(|member| {
            member.slot.state == State::Ramping && member.slot.until.is_some_and(|until| until <= now)
        });
        for id in ramped.map(|member| member.slot.id().clone()).collect::<Vec<_>>() {
            if let Some(member) = self.members.get_mut(&id) {
                // Usable since it began to ramp: what began since then counts.
                member.slot.state = State::Ready;
                member.slot.until = None;
                self.changed = true;
            }
            self.tell(Some(&id), EventKind::Ramped, now);
        }
        self.compare_success_rates(now);
        let idle = self.members.values().filter(|member| member.absent && member.slot.stats.pending() == 0);
        for id in idle.map(|member| member.slot.id().clone()).collect::<Vec<_>>() {
            self.forget(&id, now);
        }
    }

    /// The last request of a leaver may be over.
    pub(crate) fn retire(&mut self, id: &EndpointId, now: Duration) {
        if self.members.get(id).is_some_and(|member| member.absent && member.slot.stats.pending() == 0) {
            self.forget(id, now);
        }
    }

    pub(crate) fn get(&mut self, id: &EndpointId) -> Option<&mut Member> {
        self.members.get_mut(id)
    }

    pub(crate) fn set_probes(&mut self, probes: Probes) {
        self.config.probes = Some(probes);
    }

    /// Takes an endpoint out, if the rules let it go.
    pub(crate) fn eject(&mut self, id: &EndpointId, reason: Reason, now: Duration) {
        if reason.is_failing() && !self.may_eject(id) {
            return;
        }
        let health = &self.config.health;
        let by_probe = self.config.probes.is_some() && !reason.is_failing();
        let (first, most) = if reason.is_failing() {
            (health.failing_pause, health.failing_pause_max)
        } else {
            (health.unreachable_pause, health.unreachable_pause_max)
        };
        let interval = self.config.probes.as_ref().map(|probes| probes.interval).unwrap_or_default();
        let jitter = 0.9 + 0.2 * self.draw.unit();
        let Some(member) = self.members.get_mut(id) else { return };
        let slot = &mut member.slot;
        if slot.state.is_usable() && now.saturating_sub(slot.since) >= health.forgive_after {
            slot.ejections = 0;
        }
        slot.ejections = slot.ejections.saturating_add(1);
        let pause = first.saturating_mul(1 << (slot.ejections - 1).min(16)).min(most).mul_f64(jitter);
        let until = (!by_probe).then(|| now.saturating_add(pause));
        if by_probe {
            member.probe.passed = 0;
            member.probe.due = now.saturating_add(pause.min(interval));
        }
        slot.stats.trial_taken.store(false, Ordering::Release);
        self.shift(id, State::Ejected, reason, now);
        if let Some(member) = self.members.get_mut(id) {
            member.slot.until = until;
        }
        self.tell(Some(id), EventKind::Ejected { reason, until }, now);
        self.rebalance(now);
    }

    /// Something failed there: the next probe must not wait for its turn.
    pub(crate) fn hasten_probe(&mut self, id: &EndpointId, now: Duration) {
        if let Some(member) = self.members.get_mut(id).filter(|member| member.slot.state.is_usable()) {
            member.probe.due = member.probe.due.min(now.max(member.probe.started.saturating_add(HASTE)));
        }
    }

    /// Changes only the reason of a state.
    pub(crate) fn explain(&mut self, id: &EndpointId, reason: Reason) {
        if let Some(member) = self.members.get_mut(id).filter(|member| member.slot.reason != reason) {
            member.slot.reason = reason;
            self.changed = true;
        }
    }

    /// Takes an endpoint back in.
    pub(crate) fn recover(&mut self, id: &EndpointId, now: Duration) {
        let Some(member) = self.members.get(id) else { return };
        let (state, from) = (member.slot.state, member.slot.reason);
        let after = now.saturating_sub(member.slot.since);
        member.slot.stats.recover();
        let (reason, kind) = match state {
            State::Warming => (Reason::New, EventKind::Ready),
            _ => (Reason::Recovered, EventKind::Recovered { from, after }),
        };
        self.enter(id, reason, now);
        self.tell(Some(id), kind, now);
    }

    /// Usable from now on, with a share that grows if so configured.
    fn enter(&mut self, id: &EndpointId, reason: Reason, now: Duration) {
        let window = self.config.slow_start.as_ref().map(|slow| slow.window);
        let state = if window.is_some() { State::Ramping } else { State::Ready };
        self.shift(id, state, reason, now);
        if let Some(member) = self.members.get_mut(id) {
            member.slot.until = window.map(|window| now.saturating_add(window));
        }
    }

    /// Ids and addresses whose next probe is due.
    pub(crate) fn probes_due(&mut self, now: Duration) -> Vec<(EndpointId, std::net::SocketAddr)> {
        let Some(interval) = self.config.probes.as_ref().map(|probes| probes.interval) else {
            return Vec::new();
        };
        let mut due = Vec::new();
        for member in self.members.values_mut() {
            // Who drains is asked for the sake of the requests that it still has.
            let asked = member.slot.state != State::Draining || member.slot.stats.pending() > 0;
            if asked && member.probe.due <= now {
                member.probe.started = now;
                member.probe.due = now.saturating_add(interval.mul_f64(0.9 + 0.2 * self.draw.unit()));
                due.push((member.slot.id().clone(), member.slot.endpoint.addr));
            }
        }
        due
    }

    /// All slots, if anything changed since the last call.
    pub(crate) fn publish(&mut self) -> Option<Vec<Arc<Slot>>> {
        std::mem::replace(&mut self.changed, false)
            .then(|| self.members.values().map(|member| Arc::new(member.slot.clone())).collect())
    }

    pub(crate) fn drain_events(&mut self) -> Vec<Event> {
        self.events.drain(..).collect()
    }

    fn reset(&mut self, endpoints: Vec<Endpoint>, now: Duration) {
        if endpoints.is_empty() && self.config.refuse_empty_reset {
            if !self.members.is_empty() {
                self.tell(None, EventKind::EmptyResetRefused, now);
            }
            return;
        }
        let stay: std::collections::BTreeSet<_> =
            endpoints.iter().map(|endpoint| endpoint.id.clone()).collect();
        let leave = self.members.iter().filter(|(id, member)| !member.absent && !stay.contains(*id));
        for id in leave.map(|(id, _)| id.clone()).collect::<Vec<_>>() {
            self.leave(&id, now);
        }
        for endpoint in endpoints {
            self.add(endpoint, false, now);
        }
    }

    fn add(&mut self, mut endpoint: Endpoint, explicit: bool, now: Duration) {
        endpoint.weight = endpoint.weight.clamp(1, Endpoint::MAX_WEIGHT);
        let id = endpoint.id.clone();
        let probing = self.config.probes.as_ref().map(|probes| probes.interval);
        // Spread over a fifth of the interval: soon enough to warm up, and no herd.
        let first = now.saturating_add(probing.unwrap_or_default().mul_f64(0.2 * self.draw.unit()));
        match self.members.get_mut(&id) {
            Some(member) => {
                if *member.slot.endpoint != endpoint {
                    member.slot.endpoint = Arc::new(endpoint);
                    self.changed = true;
                }
                let requested = member.drained && !member.absent;
                if member.slot.state == State::Draining && (explicit || !requested) {
                    member.absent = false;
                    member.drained = false;
                    member.probe = ProbeRow { due: first, ..ProbeRow::default() };
                    member.slot.stats.retiring.store(false, Ordering::SeqCst);
                    member.slot.stats.recover();
                    self.begin(&id, probing.is_some(), now);
                }
            }
            None => {
                let slot = Slot {
                    endpoint: Arc::new(endpoint),
                    state: State::Warming,
                    reason: Reason::New,
                    since: now,
                    until: None,
                    ejections: 0,
                    stats: Arc::new(Stats::default()),
                };
                let probe = ProbeRow { due: first, ..ProbeRow::default() };
                self.members.insert(id.clone(), Member { slot, absent: false, drained: false, probe });
                self.begin(&id, probing.is_some(), now);
            }
        }
    }

    fn begin(&mut self, id: &EndpointId, probed_first: bool, now: Duration) {
        if probed_first {
            self.shift(id, State::Warming, Reason::New, now);
        } else {
            self.enter(id, Reason::New, now);
        }
        self.tell(Some(id), EventKind::Added { ready: !probed_first }, now);
    }

    fn leave(&mut self, id: &EndpointId, now: Duration) {
        let Some(member) = self.members.get_mut(id) else { return };
        member.absent = true;
        member.slot.stats.retiring.store(true, Ordering::SeqCst);
        if member.slot.stats.work.is_idle() {
            self.forget(id, now);
        } else {
            self.drain(id, Reason::Absent, now);
        }
    }

    fn drain(&mut self, id: &EndpointId, reason: Reason, now: Duration) {
        let Some(member) = self.members.get_mut(id) else { return };
        if member.slot.state == State::Draining {
            return;
        }
        member.drained = reason == Reason::DrainRequested;
        member.probe.failed = 0;
        let in_flight = member.slot.stats.pending();
        self.shift(id, State::Draining, reason, now);
        self.tell(Some(id), EventKind::Draining { in_flight }, now);
    }

    fn forget(&mut self, id: &EndpointId, now: Duration) {
        self.members.remove(id);
        self.changed = true;
        self.tell(Some(id), EventKind::Removed, now);
    }

    fn shift(&mut self, id: &EndpointId, state: State, reason: Reason, now: Duration) {
        if let Some(member) = self.members.get_mut(id) {
            member.slot.state = state;
            member.slot.reason = reason;
            member.slot.since = now;
            member.slot.until = None;
            self.changed = true;
        }
    }

    fn tell(&mut self, endpoint: Option<&EndpointId>, kind: EventKind, now: Duration) {
        if self.events.len() >= EVENTS {
            self.events.pop_front();
        }
        let event = Event { seq: self.seq, at: now, endpoint: endpoint.cloned(), kind };
        tracing::info!(target: "balancer", "{event}");
        self.seq += 1;
        self.events.push_back(event);
    }
}
