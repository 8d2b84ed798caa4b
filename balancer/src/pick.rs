//! The way of a pick: a trial, what it belongs to, the policy's choice in the nearest tier that has room.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::endpoint::EndpointId;
use crate::error::PickError;
use crate::explain::Verdict;
use crate::group::Group;
use crate::lease::{Lease, PickRequest};
use crate::policy::{Candidates, Choice, Choose, Policy};
use crate::pool::Pool;
use crate::slot::Slot;
use crate::snapshot::Snapshot;

/// How an endpoint was picked.
pub(crate) enum How {
    Trial,
    Affinity,
    /// The policy, drawing from the tier with this number.
    Policy(usize, Choice),
}

impl Pool {
    pub(crate) fn choose(
        &self,
        snapshot: &Snapshot,
        request: &PickRequest<'_>,
        now: Duration,
    ) -> Result<(Lease, How), PickError> {
        let waited = |slot: &Slot| now.saturating_sub(slot.since) >= PickRequest::TRIAL_PATIENCE;
        if !snapshot.trial.is_empty()
            && let Some(slot) = take_trial(snapshot, request, |slot| request.may_try || waited(slot))
        {
            return Ok((self.lease(slot, true, now), How::Trial));
        }
        if let Some(lease) = request.prefer.and_then(|id| self.preferred(snapshot, id, request, now)) {
            return Ok((lease, How::Affinity));
        }
        // A limit may be reached between the look and the claim; it is looked again then.
        for _ in 0..CLAIMS {
            let Some((tier, choice, slot)) = self.draw(snapshot, request, now) else { break };
            if let Some(lease) = self.claim(slot, request, now) {
                return Ok((lease, How::Policy(tier, choice)));
            }
        }
        // Better a risk than no answer.
        if let Some(slot) = take_trial(snapshot, request, |_| true) {
            return Ok((self.lease(slot, true, now), How::Trial));
        }
        let ready = snapshot.ready();
        let excluded = snapshot.group.ready.iter().filter(|slot| request.exclude.contains(slot.id())).count();
        Err(PickError::NoEndpoint { reason: snapshot.absence(excluded, ready - excluded) })
    }

    /// The policy's choice, from the nearest tier that has room.
    fn draw<'a>(
        &self,
        snapshot: &'a Snapshot,
        request: &PickRequest<'_>,
        now: Duration,
    ) -> Option<(usize, Choice, &'a Arc<Slot>)> {
        let config = &self.shared.config;
        let among = |group: &'a Group, picks| Candidates {
            group,
            request,
            limits: &config.limits,
            slow_start: config.slow_start.as_ref(),
            reports: &self.shared.reports,
            draw: &self.shared.draw,
            cursor: &self.shared.cursor,
            picks,
            in_flight: self.shared.in_flight.load(Ordering::Relaxed),
            now,
        };
        let picks = self.shared.picks.load(Ordering::Relaxed);
        if let Some(locality) = &config.locality {
            for (tier, group) in snapshot.near.iter().enumerate() {
                if group.usable < locality.min_usable {
                    continue;
                }
                let among = among(group, picks);
                let Some(choice) = config.policy.choose(&among) else { continue };
                let Some(slot) = group.ready.get(choice.index) else { continue };
                // Beside the fair share of the whole pool, not of the tier.
                let whole = Candidates { group: &snapshot.group, ..among };
                if whole.fits(slot, locality.overload) {
                    return Some((tier, choice, slot));
                }
            }
        }
        let choice = config.policy.choose(&among(&snapshot.group, picks))?;
        Some((snapshot.near.len(), choice, snapshot.group.ready.get(choice.index)?))
    }

    /// The endpoint where the request belongs, if it may have it.
    fn preferred(
        &self,
        snapshot: &Snapshot,
        id: &EndpointId,
        request: &PickRequest<'_>,
        now: Duration,
    ) -> Option<Lease> {
        let slot = snapshot.find(id).filter(|slot| slot.state.is_usable())?;
        if request.exclude.contains(id) {
            return None;
        }
        self.claim(slot, request, now)
    }

    /// A lease, unless the endpoint is at its limit.
    fn claim(&self, slot: &Arc<Slot>, request: &PickRequest<'_>, now: Duration) -> Option<Lease> {
        let limits = &self.shared.config.limits;
        if !limits.is_any() {
            return Some(self.lease(slot, false, now));
        }
        let limit = limits.of(slot, request.priority).map_or(u64::MAX, u64::from);
        slot.stats.work.begin_below(limit).then(|| self.leased(slot, false, now))
    }

    fn lease(&self, slot: &Arc<Slot>, trial: bool, now: Duration) -> Lease {
        slot.stats.work.begin();
        self.leased(slot, trial, now)
    }

    /// A lease on a slot that counts it already.
    fn leased(&self, slot: &Arc<Slot>, trial: bool, now: Duration) -> Lease {
        let shared = &self.shared;
        if shared.counts_in_flight {
            shared.in_flight.fetch_add(1, Ordering::Relaxed);
        }
        if shared.counts_turns {
            slot.stats.turn.store(shared.picks.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
        }
        Lease {
            shared: Arc::clone(&self.shared),
            slot: Arc::clone(slot),
            started: now,
            trial,
            answered: false,
            open: true,
        }
    }

    pub(crate) fn verdict(
        &self,
        snapshot: &Snapshot,
        request: &PickRequest<'_>,
        picked: Option<&(Lease, How)>,
        slot: &Arc<Slot>,
        in_flight: u64,
    ) -> Verdict {
        match picked {
            Some((lease, how)) if lease.slot.id() == slot.id() => {
                return match how {
                    How::Trial => Verdict::PickedAsTrial,
                    How::Affinity => Verdict::PickedByAffinity,
                    How::Policy(..) => Verdict::Picked,
                };
            }
            _ => {}
        }
        if !slot.state.is_usable() {
            return Verdict::Unusable { state: slot.state, reason: slot.reason };
        }
        if request.exclude.contains(slot.id()) {
            return Verdict::Excluded;
        }
        let config = &self.shared.config;
        if config.limits.of(slot, request.priority).is_some_and(|limit| in_flight >= u64::from(limit)) {
            return Verdict::Full;
        }
        match picked {
            Some((_, How::Policy(tier, choice))) => {
                let group = snapshot.near.get(*tier).unwrap_or(&snapshot.group);
                let against = choice.against.and_then(|index| group.ready.get(index));
                let all = matches!(config.policy, Policy::LeastPending(_));
                if !group.ready.iter().any(|other| other.id() == slot.id()) {
                    Verdict::Farther
                } else if all || against.is_some_and(|other| other.id() == slot.id()) {
                    Verdict::Lost
                } else {
                    Verdict::NotDrawn
                }
            }
            _ => Verdict::NotDrawn,
        }
    }
}

/// How often a pick is made again because a limit was reached meanwhile.
const CLAIMS: usize = 8;

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
