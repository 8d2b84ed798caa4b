//! The decision itself: one pass from readings to a count.
//!
//! The order is that of the Horizontal Pod Autoscaler v2: a proposal for each signal with a dead band around its
//! target, the largest proposal, the stabilisation windows, the rate limits, the bounds. What differs is said where
//! it does.

use std::time::Duration;

use crate::decision::{Action, Ballot, Decision, Reason, Stage, StageName, Vote};
use crate::limits;
use crate::observation::Observation;
use crate::policy::{DuringUpdate, Policy};
use crate::state::State;
use crate::vote;

/// Decides how many instances a service should want.
///
/// Total and deterministic: the same arguments give the same answer, there is no clock, no I/O and no panic, and
/// counts saturate. Keep the returned state for the next call; it makes no difference to the limits whether the
/// decision was carried out.
///
/// What comes first settles the matter: an invalid policy, a clock that stepped back, a hold, a service that
/// somebody turned off, a running update, a count outside the bounds, and then the signals.
///
/// While a signal is unknown nothing is removed; while all are, nothing is added either. On the way down the count
/// stays at or above what the largest proposal asks for, so that the load per instance stays within its target.
pub fn decide(policy: &Policy, state: &State, observation: &Observation) -> (Decision, State) {
    let mut next = state.clone();
    let (now, current) = (observation.now, observation.current);
    let mut decision = Decision {
        at: now,
        action: Action::Hold,
        current,
        reason: Reason::NoSignals,
        votes: Vec::new(),
        stages: Vec::new(),
        valid_until: now.saturating_add(policy.max_gap),
    };
    if let Err(errors) = policy.validate() {
        let first = errors.into_iter().next().map(|error| error.to_string());
        decision.reason = Reason::InvalidPolicy(first.unwrap_or_default());
        return (decision, next);
    }

    let stepped = next.observe(policy, observation);
    decision.votes = vote::collect(policy, &mut next, observation);
    decision.valid_until = vote::valid_until(policy, observation, decision.valid_until);
    let unknown = decision.votes.iter().any(|vote| matches!(vote.ballot, Ballot::Unknown { .. }));
    let proposal = largest(&decision.votes);
    if !unknown {
        next.complete(now);
    }
    if let Some(replicas) = proposal {
        // With a signal unknown this is a lower bound of the truth, and still worth remembering. An outage that is
        // longer than the policy's gap begins the windows anew, a shorter one does not.
        next.remember(now, replicas);
        if policy.burst.is_some_and(|burst| is_burst(burst.threshold, replicas, current)) {
            next.burst(now);
        }
    }

    if let Some((reason, action)) = settled(policy, &next, observation, stepped) {
        if let Reason::Held { until: Some(until), .. } = reason {
            decision.valid_until = until.min(decision.valid_until);
        }
        (decision.reason, decision.action) = (reason, action);
    } else if let Some(proposal) = proposal {
        let mut path = Path { decision: &mut decision, policy, state: &next, observation };
        path.walk(proposal, unknown);
    } else if unknown {
        decision.reason = Reason::Unknown;
    }
    next.decided(now, decision.action);
    (decision, next)
}

/// What settles the matter before the signals do.
fn settled(
    policy: &Policy,
    state: &State,
    observation: &Observation,
    stepped: Option<Duration>,
) -> Option<(Reason, Action)> {
    let current = observation.current;
    if let Some(step) = stepped {
        return Some((Reason::ClockSteppedBack(step), Action::Hold));
    }
    if let Some(hold) = observation.held.as_ref().filter(|hold| hold.is_active(observation.now)) {
        let reason = vote::shortened(&hold.reason);
        return Some((Reason::Held { reason, until: hold.until }, Action::Hold));
    }
    if current == 0 && !state.is_own_zero() {
        return Some((Reason::Off, Action::Hold));
    }
    if observation.update_in_progress && policy.during_update == DuringUpdate::Hold {
        return Some((Reason::Updating, Action::Hold));
    }
    if current < policy.min {
        return Some((Reason::BelowMin, Action::ScaleTo(policy.min)));
    }
    if current > policy.max {
        if observation.update_in_progress {
            return Some((Reason::Updating, Action::Hold));
        }
        return Some((Reason::AboveMax, Action::ScaleTo(policy.max)));
    }
    None
}

/// The way from the proposal to the result.
struct Path<'a> {
    decision: &'a mut Decision,
    policy: &'a Policy,
    state: &'a State,
    observation: &'a Observation,
}

impl Path<'_> {
    fn walk(&mut self, proposal: u32, unknown: bool) {
        let current = self.observation.current;
        self.decision.reason = Reason::Load;
        self.decision.stages.push(Stage {
            name: StageName::Combine,
            before: current,
            after: proposal,
            rule: "the largest proposal".to_owned(),
            inputs: Vec::new(),
        });
        let mut count = proposal;
        if unknown && count < current {
            let rule = "a signal being unknown".to_owned();
            count = self.step(StageName::Unknown, count, current, rule, Vec::new(), Reason::Unknown);
        }
        count = self.stabilize(count);
        if self.observation.update_in_progress && count < current {
            let rule = "the running update".to_owned();
            count = self.step(StageName::Update, count, current, rule, Vec::new(), Reason::Updating);
        }
        count = self.limit(count);
        count = self.bound(count);
        if count != current {
            self.decision.action = Action::ScaleTo(count);
        }
    }

    /// Starts from the present count and moves only as far as both windows agree.
    fn stabilize(&mut self, count: u32) -> u32 {
        let (now, current) = (self.observation.now, self.observation.current);
        let burst = self.policy.burst.filter(|burst| self.state.in_burst(now, burst.window));
        if count > current && burst.is_none() {
            let window = self.policy.behavior.up.stabilization;
            let lowest = self.state.lowest(now, window, count).max(current);
            if lowest < count {
                let rule = format!("the lowest proposal of the last {}", vote::seconds(window));
                let inputs = vec![("window_seconds".into(), window.as_secs_f64())];
                return self.step(StageName::Stabilize, count, lowest, rule, inputs, Reason::UpStabilized);
            }
        } else if count < current {
            if let Some(burst) = burst {
                let rule = format!("a burst less than {} ago", vote::seconds(burst.window));
                let inputs = vec![("window_seconds".into(), burst.window.as_secs_f64())];
                return self.step(StageName::Burst, count, current, rule, inputs, Reason::Burst);
            }
            let window = self.policy.behavior.down.stabilization;
            let highest = self.state.highest(now, window, count).min(current);
            if highest > count {
                let rule = format!("the highest proposal of the last {}", vote::seconds(window));
                let inputs = vec![("window_seconds".into(), window.as_secs_f64())];
                return self.step(StageName::Stabilize, count, highest, rule, inputs, Reason::DownStabilized);
            }
        }
        count
    }

    fn limit(&mut self, count: u32) -> u32 {
        let (now, current) = (self.observation.now, self.observation.current);
        let (limit, closed, limited) = if count > current {
            let limit = limits::up(&self.policy.behavior.up, self.state, now, current);
            (limit.filter(|limit| limit.count < count), Reason::UpDisabled, Reason::UpLimited)
        } else if count < current {
            let limit = limits::down(&self.policy.behavior.down, self.state, now, current);
            (limit.filter(|limit| limit.count > count), Reason::DownDisabled, Reason::DownLimited)
        } else {
            return count;
        };
        match limit {
            None => count,
            Some(limit) => {
                let reason = if limit.closed { closed } else { limited };
                let inputs = limit.start.map(|start| ("start_of_period".into(), f64::from(start)));
                let inputs = inputs.into_iter().collect();
                self.step(StageName::Rate, count, limit.count, limit.rule, inputs, reason)
            }
        }
    }

    fn bound(&mut self, count: u32) -> u32 {
        let (min, max) = (self.policy.min, self.policy.max);
        if count > max {
            let rule = format!("the maximum of {max}");
            self.step(StageName::Bound, count, max, rule, Vec::new(), Reason::AtMax)
        } else if count < min {
            let rule = format!("the minimum of {min}");
            self.step(StageName::Bound, count, min, rule, Vec::new(), Reason::AtMin)
        } else {
            count
        }
    }

    fn step(
        &mut self,
        name: StageName,
        before: u32,
        after: u32,
        rule: String,
        inputs: Vec<(std::borrow::Cow<'static, str>, f64)>,
        reason: Reason,
    ) -> u32 {
        self.decision.stages.push(Stage { name, before, after, rule, inputs });
        self.decision.reason = reason;
        after
    }
}

fn largest(votes: &[Vote]) -> Option<u32> {
    let proposals = votes.iter().filter_map(|vote| match vote.ballot {
        Ballot::Proposes { replicas, .. } => Some(replicas),
        Ballot::Unknown { .. } => None,
    });
    proposals.max()
}

fn is_burst(threshold: u32, proposal: u32, current: u32) -> bool {
    // At zero and one alike a proposal of two is twice of what there could be.
    u64::from(proposal) * 100 >= u64::from(threshold) * u64::from(current.max(1))
}
