//! The endpoints that a policy draws from: a tier of the pool, with what the policy computed of it in advance.

use std::sync::Arc;
use std::time::Duration;

use crate::policy::Plan;
use crate::slot::Slot;
use crate::slow_start::SlowStart;
use crate::state::State;

/// Usable endpoints, sorted by id.
#[derive(Debug, Default)]
pub(crate) struct Group {
    pub(crate) ready: Vec<Arc<Slot>>,
    pub(crate) plan: Plan,
    /// Sum of the weights.
    pub(crate) weight: u64,
    /// The share of the tier that is usable.
    pub(crate) usable: f64,
    heaviest: f32,
    /// All weights are equal.
    even: bool,
    ramping: bool,
    /// Since when the one that has come farthest ramps, when all of them do.
    farthest: Option<Duration>,
}

impl Group {
    /// Of all that belong to the tier and do not drain.
    pub(crate) fn new(members: &[Arc<Slot>], plan: impl FnOnce(&[Arc<Slot>], &[Arc<Slot>]) -> Plan) -> Self {
        let ready: Vec<_> = members.iter().filter(|slot| slot.state.is_usable()).cloned().collect();
        let weights = || ready.iter().map(|slot| slot.endpoint.weight);
        let ramping = ready.iter().filter(|slot| slot.state == State::Ramping).count();
        let all_ramp = ramping == ready.len();
        Self {
            plan: plan(members, &ready),
            weight: weights().map(u64::from).sum(),
            usable: if members.is_empty() { 0.0 } else { ready.len() as f64 / members.len() as f64 },
            heaviest: weights().max().unwrap_or(1) as f32,
            even: weights().max() == weights().min(),
            ramping: ramping > 0,
            farthest: ready.iter().map(|slot| slot.since).min().filter(|_| all_ramp),
            ready,
        }
    }

    /// Whether all shares are equal at all times.
    pub(crate) fn is_uniform(&self) -> bool {
        self.even && !self.ramping
    }

    pub(crate) fn is_even(&self) -> bool {
        self.even
    }

    /// How far a slot has come beside the one that has come farthest: above 0, at most 1.
    pub(crate) fn ramp(&self, slot: &Slot, slow: Option<&SlowStart>, now: Duration) -> f32 {
        if !self.ramping || slot.state != State::Ramping {
            return 1.0;
        }
        let Some(slow) = slow else { return 1.0 };
        let share = |since| slow.share(now.saturating_sub(since));
        (share(slot.since) / self.farthest.map_or(1.0, share)).min(1.0)
    }

    /// Weight and ramp together, relative to the greatest: above 0, at most 1.
    pub(crate) fn share(&self, slot: &Slot, slow: Option<&SlowStart>, now: Duration) -> f32 {
        if self.is_uniform() {
            return 1.0;
        }
        slot.endpoint.weight as f32 / self.heaviest * self.ramp(slot, slow, now)
    }
}
