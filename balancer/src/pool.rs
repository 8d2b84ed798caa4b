//! The pool: what callers hold.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde::Serialize;

use crate::config::{Config, Probes};
use crate::endpoint::{EndpointId, Update};
use crate::error::{ConfigError, PickError};
use crate::event::Event;
use crate::explain::{Candidate, Explanation, Verdict};
use crate::lease::{Lease, PickRequest};
use crate::members::Members;
use crate::policy::{Candidates, Choice, Choose};
use crate::shared::Shared;
use crate::slot::Slot;
use crate::snapshot::Snapshot;
use crate::state::State;

/// The endpoints of one service, and who of them gets the next request.
///
/// All methods take `&self`; a clone is another handle on the same pool. `now` is the time since any fixed
/// moment, the same one for all calls, and never goes back by much. Picking takes no lock and allocates
/// nothing; everything that changes a state takes a short lock and publishes a new [`Snapshot`].
#[derive(Clone, Debug)]
pub struct Pool {
    shared: Arc<Shared>,
}

/// What a probe found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProbeOutcome {
    /// Ready for requests.
    Passed,
    /// Alive, but takes no new requests: it starts or stops. One such answer suffices.
    NotReady,
    /// Answered with a status that is neither.
    BadStatus(u16),
    /// No connection, or it broke.
    Failed,
    /// No answer in time. Ignored while the endpoint answers requests.
    Timeout,
}

impl ProbeOutcome {
    /// The meaning of an HTTP status: 2xx and 3xx pass, 503 is not ready.
    pub fn from_status(status: u16) -> Self {
        match status {
            200..=399 => Self::Passed,
            503 => Self::NotReady,
            other => Self::BadStatus(other),
        }
    }
}

/// How much a pool has to do, in one glance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct PoolLoad {
    /// Requests in flight on all endpoints, the draining ones included.
    pub in_flight: u64,
    /// Endpoints that requests are spread over.
    pub ready: usize,
    /// Endpoints that wait for their first passed probe.
    pub warming: usize,
    /// Endpoints taken out, those on trial included.
    pub ejected: usize,
    /// Endpoints that finish what they have.
    pub draining: usize,
}

enum How {
    Trial,
    Policy(Choice),
}

impl Pool {
    /// An empty pool. The same seed and the same calls give the same picks, pauses and probe times.
    ///
    /// # Errors
    /// A setting that can't work, by name.
    pub fn new(config: Config, seed: u64) -> Result<Self, ConfigError> {
        config.validate()?;
        Ok(Self { shared: Arc::new(Shared::new(Members::new(config, seed), seed)) })
    }

    /// Takes in a change of the set.
    pub fn apply(&self, update: Update, now: Duration) {
        self.shared.change(now, |members| members.apply(update, now));
    }

    /// Lets time pass: pauses end. Call it every 10 to 100 ms; picks do it too when one is due.
    pub fn tick(&self, now: Duration) {
        self.shared.change(now, |members| members.tick(now));
    }

    /// Picks an endpoint.
    ///
    /// # Errors
    /// [`PickError::NoEndpoint`] when none may take the request now.
    pub fn pick(&self, request: &PickRequest<'_>, now: Duration) -> Result<Lease, PickError> {
        self.settle_pauses(now);
        self.choose(&self.shared.snapshot.load(), request, now).map(|(lease, _)| lease)
    }

    /// Picks as [`pick`](Self::pick) does, and tells why. Allocates: for people, tests and sampled logs.
    pub fn pick_explained(
        &self,
        request: &PickRequest<'_>,
        now: Duration,
    ) -> (Result<Lease, PickError>, Explanation) {
        self.settle_pauses(now);
        let snapshot = self.shared.snapshot.load_full();
        let before = snapshot.views(now);
        let result = self.choose(&snapshot, request, now);
        let verdict = |slot: &Arc<Slot>| self.verdict(&snapshot, request, result.as_ref().ok(), slot);
        let candidates = snapshot.all.iter().zip(before).map(|(slot, view)| Candidate {
            id: view.id,
            verdict: verdict(slot),
            in_flight: view.in_flight,
            latency_ms: view.latency_ms,
        });
        let explanation = Explanation {
            policy: self.shared.policy.name(),
            picked: result.as_ref().ok().map(|(lease, _)| lease.endpoint().id.clone()),
            candidates: candidates.collect(),
            refusal: None,
        };
        match result {
            Ok((lease, _)) => (Ok(lease), explanation),
            Err(error) => (Err(error), explanation.refused(&error)),
        }
    }

    /// The probes to make now; each is due again an interval later. Empty without [`Config::probes`].
    ///
    /// An endpoint that drains is among them while it has requests in flight: when probes of it time out in a row,
    /// its reason says so ([`Reason::is_unreachable`](crate::Reason::is_unreachable)), and what it has is better
    /// made elsewhere. It drains on whatever they say.
    pub fn probes_due(&self, now: Duration) -> Vec<(EndpointId, SocketAddr)> {
        self.shared.change(now, |members| members.probes_due(now))
    }

    /// Takes in what a probe found.
    pub fn probe_result(&self, id: &EndpointId, outcome: ProbeOutcome, now: Duration) {
        self.shared.probed(id, outcome, now);
    }

    /// Switches active probes on, or changes when they are made. Endpoints that are ready stay so.
    ///
    /// # Errors
    /// A setting that can't work, by name.
    pub fn enable_probes(&self, probes: Probes) -> Result<(), ConfigError> {
        probes.validate()?;
        self.shared.change(self.shared.last_now(), |members| members.set_probes(probes));
        Ok(())
    }

    /// The present picture.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.shared.snapshot.load_full()
    }

    /// Counts up with each change of membership or state; cheap to ask.
    pub fn generation(&self) -> u64 {
        self.shared.snapshot.load().generation()
    }

    /// The latest time that the pool was told.
    pub fn last_now(&self) -> Duration {
        self.shared.last_now()
    }

    /// Takes out the events since the last call, oldest first; of many uncollected ones the last 512.
    pub fn drain_events(&self) -> Vec<Event> {
        self.shared.change(self.shared.last_now(), Members::drain_events)
    }

    /// How much there is to do.
    pub fn load(&self) -> PoolLoad {
        let snapshot = self.shared.snapshot.load();
        let absence = snapshot.absence(0);
        PoolLoad {
            in_flight: snapshot.all.iter().map(|slot| slot.stats.pending()).sum(),
            ready: snapshot.ready.len(),
            warming: absence.warming,
            ejected: absence.ejected,
            draining: absence.draining,
        }
    }

    fn settle_pauses(&self, now: Duration) {
        self.shared.note(now);
        if self.shared.snapshot.load().due.is_some_and(|due| due <= now) {
            self.tick(now);
        }
    }

    fn choose(
        &self,
        snapshot: &Snapshot,
        request: &PickRequest<'_>,
        now: Duration,
    ) -> Result<(Lease, How), PickError> {
        let waited = |slot: &Slot| now.saturating_sub(slot.since) >= PickRequest::TRIAL_PATIENCE;
        if let Some(slot) = take_trial(snapshot, request, |slot| request.may_try || waited(slot)) {
            return Ok((self.lease(slot, true, now), How::Trial));
        }
        let among = Candidates {
            ready: &snapshot.ready,
            schedule: &snapshot.schedule,
            exclude: request.exclude,
            draw: &self.shared.draw,
            cursor: &self.shared.cursor,
            now,
        };
        let choice = self.shared.policy.choose(&among);
        match choice.and_then(|choice| Some((choice, snapshot.ready.get(choice.index)?))) {
            Some((choice, slot)) => Ok((self.lease(slot, false, now), How::Policy(choice))),
            // Better a risk than no answer.
            None => match take_trial(snapshot, request, |_| true) {
                Some(slot) => Ok((self.lease(slot, true, now), How::Trial)),
                None => Err(PickError::NoEndpoint { reason: snapshot.absence(snapshot.ready.len()) }),
            },
        }
    }

    fn lease(&self, slot: &Arc<Slot>, trial: bool, now: Duration) -> Lease {
        slot.stats.in_flight.fetch_add(1, Ordering::SeqCst);
        slot.stats.requests.fetch_add(1, Ordering::Relaxed);
        slot.stats.turn.store(self.shared.picks.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
        Lease {
            shared: Arc::clone(&self.shared),
            slot: Arc::clone(slot),
            started: now,
            trial,
            answered: false,
            open: true,
        }
    }

    fn verdict(
        &self,
        snapshot: &Snapshot,
        request: &PickRequest<'_>,
        picked: Option<&(Lease, How)>,
        slot: &Arc<Slot>,
    ) -> Verdict {
        match picked {
            Some((lease, How::Trial)) if lease.slot.id() == slot.id() => return Verdict::PickedAsTrial,
            Some((lease, How::Policy(_))) if lease.slot.id() == slot.id() => return Verdict::Picked,
            _ => {}
        }
        if slot.state != State::Ready {
            return Verdict::Unusable { state: slot.state, reason: slot.reason };
        }
        if request.exclude.contains(slot.id()) {
            return Verdict::Excluded;
        }
        match picked {
            Some((_, How::Policy(choice))) => {
                let against = choice.against.and_then(|index| snapshot.ready.get(index));
                let all = matches!(self.shared.policy, crate::Policy::LeastPending(_));
                if all || against.is_some_and(|other| other.id() == slot.id()) {
                    Verdict::Lost
                } else {
                    Verdict::NotDrawn
                }
            }
            _ => Verdict::NotDrawn,
        }
    }
}

/// Claims the one request of a trial.
fn take_trial<'a>(
    snapshot: &'a Snapshot,
    request: &PickRequest<'_>,
    may: impl Fn(&Slot) -> bool,
) -> Option<&'a Arc<Slot>> {
    snapshot.trial.iter().find(|slot| {
        let taken = &slot.stats.trial_taken;
        let free = !request.exclude.contains(slot.id()) && !taken.load(Ordering::Acquire);
        free && may(slot) && !taken.swap(true, Ordering::AcqRel)
    })
}
