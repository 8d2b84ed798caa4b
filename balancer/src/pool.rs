//! The pool: what callers hold.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use crate::config::{Config, Probes};
use crate::endpoint::{EndpointId, Update};
use crate::error::{ConfigError, PickError};
use crate::event::Event;
use crate::explain::{Candidate, Explanation};
use crate::lease::{Lease, PickRequest};
use crate::members::Members;
use crate::policy::Policy;
use crate::shared::Shared;
use crate::slot::Slot;
use crate::snapshot::Snapshot;

/// The endpoints of one service, and who of them gets the next request.
///
/// All methods take `&self`; a clone is another handle on the same pool. `now` is the time since any fixed
/// moment, the same one for all calls, and never goes back by much. Picking takes no lock and allocates
/// nothing; everything that changes a state takes a short lock and publishes a new [`Snapshot`].
#[derive(Clone, Debug)]
pub struct Pool {
    pub(crate) shared: Arc<Shared>,
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
    /// Endpoints that requests are spread over, those that ramp included.
    pub ready: usize,
    /// Endpoints that wait for their first passed probe.
    pub warming: usize,
    /// Endpoints taken out, those on trial included.
    pub ejected: usize,
    /// Endpoints that finish what they have.
    pub draining: usize,
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
        self.shared.note(now);
        let mut snapshot = self.shared.snapshot.load();
        if snapshot.due.is_some_and(|due| due <= now) {
            self.tick(now);
            snapshot = self.shared.snapshot.load();
        }
        self.choose(&snapshot, request, now).map(|(lease, _)| lease)
    }

    /// Picks as [`pick`](Self::pick) does, and tells why. Allocates: for people, tests and sampled logs.
    pub fn pick_explained(
        &self,
        request: &PickRequest<'_>,
        now: Duration,
    ) -> (Result<Lease, PickError>, Explanation) {
        self.shared.note(now);
        if self.shared.snapshot.load().due.is_some_and(|due| due <= now) {
            self.tick(now);
        }
        let snapshot = self.shared.snapshot.load_full();
        let before = snapshot.views(now);
        let result = self.choose(&snapshot, request, now);
        let verdict = |slot: &Arc<Slot>, in_flight| {
            self.verdict(&snapshot, request, result.as_ref().ok(), slot, in_flight)
        };
        let candidates = snapshot.all.iter().zip(before).map(|(slot, view)| Candidate {
            id: view.id,
            verdict: verdict(slot, view.in_flight),
            in_flight: view.in_flight,
            latency_ms: view.latency_ms,
        });
        let explanation = Explanation {
            policy: self.shared.config.policy.name(),
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

    /// Whom to ask for a report of its load, drawn at random; none unless the policy is
    /// [`Prequal`](crate::Prequal). Call it with each request.
    pub fn load_probes(&self) -> Vec<(EndpointId, SocketAddr)> {
        let Policy::Prequal(policy) = &self.shared.config.policy else { return Vec::new() };
        let snapshot = self.shared.snapshot.load();
        let ready = &snapshot.group.ready;
        let whole = policy.probes_per_request.floor();
        let more = self.shared.draw.unit() < policy.probes_per_request - whole;
        let drawn = (0..whole as usize + usize::from(more)).filter_map(|_| {
            let slot = ready.get(self.shared.draw.below(ready.len()))?;
            Some((slot.id().clone(), slot.endpoint.addr))
        });
        drawn.collect()
    }

    /// Takes in what an endpoint says of its load: requests that it works on, from whomever, and how long they take.
    pub fn load_report(&self, id: &EndpointId, in_flight: u32, latency: Duration, now: Duration) {
        self.shared.note(now);
        if matches!(self.shared.config.policy, Policy::Prequal(_)) {
            self.shared.reports.tell(id, in_flight, latency, now);
        }
    }

    /// The settings.
    pub fn config(&self) -> &Config {
        &self.shared.config
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
        let absence = snapshot.absence(0, 0);
        PoolLoad {
            in_flight: snapshot.all.iter().map(|slot| slot.stats.pending()).sum(),
            ready: snapshot.ready(),
            warming: absence.warming,
            ejected: absence.ejected,
            draining: absence.draining,
        }
    }
}
