//! One rule for ejection cap and panic threshold: who may go, and who is taken back.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::Members;
use crate::endpoint::EndpointId;
use crate::event::EventKind;
use crate::slot::Slot;
use crate::state::{Reason, State};

impl Members {
    /// The availability rule: endpoints ejected as failing never leave fewer usable ones than must stay; with
    /// two or more endpoints one may be out whatever the shares say, if another one is usable.
    fn available(&self, ready: usize, failing_out: usize) -> bool {
        let counted = |state| !matches!(state, State::Warming | State::Draining);
        let members = self.members.values().filter(|member| counted(member.slot.state)).count();
        failing_out == 0
            || ready >= self.config.health.must_stay(members).max(1)
            || (failing_out == 1 && ready >= 1)
    }

    fn count(&self) -> (usize, usize) {
        let ready = self.members.values().filter(|member| member.slot.state.is_usable()).count();
        let failing = self.members.values().filter(|member| member.slot.is_failing_out()).count();
        (ready, failing)
    }

    pub(super) fn may_eject(&self, id: &EndpointId) -> bool {
        let (ready, failing) = self.count();
        match self.members.get(id).map(|member| &member.slot) {
            // It is out already, on trial.
            Some(slot) if slot.is_failing_out() => true,
            Some(slot) if slot.state.is_usable() => self.available(ready.saturating_sub(1), failing + 1),
            Some(_) => self.available(ready, failing + 1),
            None => false,
        }
    }

    pub(super) fn rebalance(&mut self, now: Duration) {
        loop {
            let (ready, failing) = self.count();
            if self.available(ready, failing) {
                return;
            }
            let out = self.members.values().filter(|member| member.slot.is_failing_out());
            let longest = out.min_by_key(|member| member.slot.since);
            let Some(id) = longest.map(|member| member.slot.id().clone()) else { return };
            let Some(member) = self.members.get(&id) else { return };
            let from = member.slot.reason;
            // Its penalty stays: known to fail, it is the last choice of what is left.
            member.slot.stats.forgive();
            member.slot.stats.trial_taken.store(false, Ordering::Release);
            self.shift(&id, State::Ready, Reason::Needed, now);
            self.tell(Some(&id), EventKind::TakenBack { from }, now);
        }
    }
}

impl Slot {
    pub(crate) fn is_failing_out(&self) -> bool {
        matches!(self.state, State::Ejected | State::Trial) && self.reason.is_failing()
    }
}
