//! What a pool and its leases share: the published snapshot, the lock, the verdict on outcomes.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;

use crate::config::Config;
use crate::lease::{Lease, Outcome};
use crate::members::Members;
use crate::policy::Reports;
use crate::pool::ProbeOutcome;
use crate::rng::Draw;
use crate::slot::{Stats, micros};
use crate::snapshot::Snapshot;
use crate::state::{Reason, State};

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) config: Config,
    decay: Duration,
    pub(crate) snapshot: ArcSwap<Snapshot>,
    members: Mutex<Members>,
    generation: AtomicU64,
    pub(crate) draw: Draw,
    pub(crate) cursor: AtomicU64,
    pub(crate) picks: AtomicU64,
    /// Requests in flight on all endpoints, forgotten ones included, where something asks for them.
    pub(crate) in_flight: AtomicU64,
    pub(crate) counts_in_flight: bool,
    /// Whether the policy asks whose turn it is.
    pub(crate) counts_turns: bool,
    pub(crate) reports: Reports,
    /// Microseconds of the latest time that the pool was told.
    latest: AtomicU64,
}

impl Shared {
    pub(crate) fn new(members: Members, seed: u64) -> Self {
        let config = members.config.clone();
        Self {
            decay: config.policy.decay(),
            snapshot: ArcSwap::from_pointee(Snapshot::build(&config, 0, Vec::new(), None)),
            members: Mutex::new(members),
            generation: AtomicU64::new(0),
            // Picks and transitions draw from streams of their own, so that neither shifts the other.
            draw: Draw::new(seed ^ 0xA5A5_5A5A_C3C3_3C3C),
            cursor: AtomicU64::new(0),
            picks: AtomicU64::new(1),
            in_flight: AtomicU64::new(0),
            counts_in_flight: config.locality.is_some() || config.policy.is_bounded(),
            counts_turns: config.policy.has_turns(),
            reports: Reports::default(),
            latest: AtomicU64::new(0),
            config,
        }
    }

    /// Runs a change under the lock and publishes what came of it.
    pub(crate) fn change<T>(&self, now: Duration, change: impl FnOnce(&mut Members) -> T) -> T {
        self.note(now);
        let mut members = self.lock();
        let result = change(&mut members);
        if let Some(slots) = members.publish() {
            let generation = self.generation.fetch_add(1, Ordering::Relaxed) + 1;
            let old = self.snapshot.load();
            self.snapshot.store(Arc::new(Snapshot::build(&self.config, generation, slots, Some(&old))));
        }
        result
    }

    pub(crate) fn note(&self, now: Duration) {
        let now = micros(now);
        if self.latest.load(Ordering::Relaxed) < now {
            self.latest.fetch_max(now, Ordering::Relaxed);
        }
    }

    pub(crate) fn last_now(&self) -> Duration {
        Duration::from_micros(self.latest.load(Ordering::Relaxed))
    }

    /// The verdict on an attempt: latency, rows of failures, ejection, end of a trial.
    pub(crate) fn settle(&self, lease: &Lease, outcome: Outcome, now: Duration) {
        self.note(now);
        let stats = &lease.slot.stats;
        let elapsed = now.saturating_sub(lease.started);
        if let Some(rules) = self.config.limits.adaptive.as_ref().filter(|_| outcome != Outcome::Cancelled) {
            let failed = matches!(outcome, Outcome::ConnectFailed | Outcome::Reset | Outcome::Timeout);
            stats.adapt(rules, elapsed, failed, now);
        }
        match outcome {
            Outcome::Success => self.well(lease, elapsed, now),
            Outcome::Status(500 | 502..=504 | 506..=599) => {
                stats.note_answer(now);
                stats.note_failure(now);
                self.count(stats, false);
                stats.local_failures.store(0, Ordering::Relaxed);
                let row = stats.server_errors.fetch_add(1, Ordering::Relaxed).saturating_add(1);
                self.ill(lease, row >= self.config.health.server_errors, Reason::ServerErrors(row), now);
            }
            Outcome::Status(_) => self.well(lease, elapsed, now),
            Outcome::ConnectFailed => self.local(lease, Reason::ConnectFailures, now),
            Outcome::Reset | Outcome::Timeout => self.local(lease, Reason::Broken, now),
            Outcome::Cancelled => {
                // It took at least that long.
                let least = elapsed.as_secs_f32() * 1000.0;
                if stats.latency.at(now, self.decay).is_some_and(|estimate| least > estimate) {
                    stats.latency.record(elapsed, now, self.decay);
                }
                if lease.trial {
                    self.end_trial(lease, now);
                }
            }
        }
    }

    /// The request is no longer in flight.
    pub(crate) fn release(&self, lease: &Lease, now: Duration) {
        let stats = &lease.slot.stats;
        if self.counts_in_flight {
            self.in_flight.fetch_sub(1, Ordering::Relaxed);
        }
        if stats.work.end() && stats.retiring.load(Ordering::SeqCst) {
            self.change(now, |members| members.retire(lease.slot.id(), now));
        }
    }

    pub(crate) fn probed(&self, id: &crate::EndpointId, outcome: ProbeOutcome, now: Duration) {
        self.change(now, |members| {
            let Some(rules) = members.config.probes.clone() else { return };
            let Some(member) = members.get(id) else { return };
            let (state, reason) = (member.slot.state, member.slot.reason);
            let busy = member.slot.stats.since_answer(now).is_some_and(|age| age <= rules.timeout / 2);
            let row = &mut member.probe;
            if state == State::Draining {
                // Who stops may refuse connections and finish what it has: only silence tells of its death.
                match outcome {
                    ProbeOutcome::Timeout if !busy => row.failed = row.failed.saturating_add(1),
                    ProbeOutcome::Timeout => {}
                    _ => row.failed = 0,
                }
                if row.failed >= rules.unhealthy_after {
                    let failed = Reason::ProbesFailed(row.failed);
                    members.explain(id, failed);
                }
                return;
            }
            let failed = match outcome {
                ProbeOutcome::Passed => {
                    row.failed = 0;
                    row.passed = row.passed.saturating_add(1);
                    // A probe does not show that requests work: who failed those is tried by one of them.
                    let by_probe = !state.is_usable() && !reason.is_failing();
                    if row.passed >= rules.healthy_after && by_probe {
                        members.recover(id, now);
                    }
                    return;
                }
                ProbeOutcome::NotReady => Reason::NotReady,
                ProbeOutcome::BadStatus(status) => Reason::ProbeStatus(status),
                // A slow probe of an endpoint that answers requests tells of load, not of death.
                ProbeOutcome::Timeout if busy => return,
                ProbeOutcome::Timeout | ProbeOutcome::Failed => {
                    Reason::ProbesFailed(row.failed.saturating_add(1))
                }
            };
            row.passed = 0;
            row.failed = row.failed.saturating_add(1);
            let enough = failed == Reason::NotReady || row.failed >= rules.unhealthy_after;
            // One that failed requests and now says that it stops must not be tried, or taken back as needed.
            let stops = failed == Reason::NotReady && reason.is_failing();
            let worse = (failed.is_unreachable() && !reason.is_unreachable()) || stops;
            match state {
                State::Ready | State::Ramping | State::Trial if enough => members.eject(id, failed, now),
                State::Ready | State::Ramping => members.hasten_probe(id, now),
                State::Ejected if enough && worse => members.eject(id, failed, now),
                // It stays where it is; why it does not get ready is told all the same.
                State::Warming => members.explain(id, failed),
                _ => {}
            }
        });
    }

    fn well(&self, lease: &Lease, elapsed: Duration, now: Duration) {
        let stats = &lease.slot.stats;
        stats.note_answer(now);
        stats.forgive();
        self.count(stats, true);
        if lease.trial {
            self.change(now, |members| {
                if members.get(lease.slot.id()).is_some_and(|member| member.is_trial_of(lease)) {
                    members.recover(lease.slot.id(), now);
                }
            });
        }
        stats.latency.record(elapsed, now, self.decay);
    }

    fn count(&self, stats: &Stats, good: bool) {
        if self.config.health.success_rate.is_some() {
            stats.count(good);
        }
    }

    fn local(&self, lease: &Lease, reason: fn(u32) -> Reason, now: Duration) {
        lease.slot.stats.note_failure(now);
        self.count(&lease.slot.stats, false);
        let row = lease.slot.stats.local_failure(now, self.config.health.local_window);
        self.ill(lease, row >= self.config.health.local_failures, reason(row), now);
    }

    fn ill(&self, lease: &Lease, enough: bool, reason: Reason, now: Duration) {
        let id = lease.slot.id();
        if !enough && !lease.trial {
            if !reason.is_answered() {
                self.change(now, |members| members.hasten_probe(id, now));
            }
            return;
        }
        self.change(now, |members| {
            let Some(member) = members.get(id) else { return };
            // What began before the state did says nothing about it.
            let ready = member.slot.state.is_usable() && lease.started >= member.slot.since;
            if member.is_trial_of(lease) || (enough && ready && member.is_of(lease)) {
                members.eject(id, reason, now);
            }
        });
    }

    fn end_trial(&self, lease: &Lease, now: Duration) {
        self.change(now, |members| {
            if let Some(member) = members.get(lease.slot.id()).filter(|member| member.is_trial_of(lease)) {
                member.slot.stats.trial_taken.store(false, Ordering::Release);
            }
        });
    }

    fn lock(&self) -> MutexGuard<'_, Members> {
        // Nothing under the lock panics; should it ever, the state is still whole enough to serve.
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl crate::members::Member {
    fn is_of(&self, lease: &Lease) -> bool {
        Arc::ptr_eq(&self.slot.stats, &lease.slot.stats)
    }

    fn is_trial_of(&self, lease: &Lease) -> bool {
        lease.trial
            && self.slot.state == State::Trial
            && self.slot.since == lease.slot.since
            && self.is_of(lease)
    }
}
