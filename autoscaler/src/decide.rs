//! The decision itself: one pass from readings to a count. What lies between the proposal and the result is in `path`.
//!
//! The order is that of the Horizontal Pod Autoscaler v2: a proposal for each signal with a dead band around its
//! target, the largest proposal, the stabilisation windows, the rate limits, the bounds. What differs is said where
//! it does.

use std::time::Duration;

use crate::decision::{Action, Ballot, Decision, Expected, Reason, Vote};
use crate::observation::Observation;
use crate::path::{Path, Scene};
use crate::policy::{BurstOf, DuringUpdate, Pause, Policy, Target};
use crate::state::State;
use crate::vote;

/// Decides how many instances a service should want.
///
/// Total and deterministic: the same arguments give the same answer, there is no clock, no I/O and no panic, and
/// counts saturate. Keep the returned state for the next call; it makes no difference to the limits whether the
/// decision was carried out.
///
/// What comes first settles the matter: an invalid policy, a clock that stepped back, a hold, a pause, a service that
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
        victims: Vec::new(),
        expected: None,
        spare: None,
        valid_until: now.saturating_add(policy.max_gap),
    };
    if let Err(errors) = policy.validate() {
        let first = errors.into_iter().next().map(|error| error.to_string());
        decision.reason = Reason::InvalidPolicy(first.unwrap_or_default());
        return (decision, next);
    }

    let again = next.has_seen(now);
    let stepped = next.observe(policy, observation);
    let votes = vote::collect(policy, &mut next, observation, again);
    decision.valid_until = vote::valid_until(policy, observation, decision.valid_until);
    let unknown = votes.votes.iter().any(|vote| is_unknown(&vote.ballot));
    if !unknown {
        next.complete(now);
    }
    let proposal = proposal(policy, &mut next, observation, &votes);
    decision.expected = expect(policy, &mut next, observation, votes.load);
    decision.spare = spare(policy, observation, &votes);
    let active = policy.zero.map(|zero| match votes.active {
        _ if zero.force_active => Some(true),
        Some(true) => Some(true),
        // Not idle, whatever is read, and so not waking by a load either.
        _ if policy.is_wanted_at(now) => None,
        active => active,
    });
    let idle = active.and_then(|active| next.idle(active, now));
    decision.votes = votes.votes;

    let scene = Scene::of(policy, &next, observation, active.flatten(), idle);
    if let Some((reason, action)) = settled(policy, &next, observation, &scene, stepped) {
        if let Reason::Held { until: Some(until), .. } = reason {
            decision.valid_until = until.min(decision.valid_until);
        }
        (decision.reason, decision.action) = (reason, action);
    } else if let Some(proposal) = proposal {
        let path = Path { decision: &mut decision, policy, state: &mut next, observation, scene };
        path.walk(proposal, unknown);
    } else if unknown {
        decision.reason = Reason::Unknown;
    }
    next.decided(now, decision.action);
    (decision, next)
}

/// The largest proposal, remembered for the windows; the present count if signals are known and none proposes.
fn proposal(
    policy: &Policy,
    state: &mut State,
    observation: &Observation,
    votes: &vote::Votes,
) -> Option<u32> {
    let (now, current) = (observation.now, observation.current);
    let mut proposal = largest(&votes.votes);
    let known = votes.votes.iter().any(|vote| !is_unknown(&vote.ballot));
    if proposal.is_none() && known {
        proposal = Some(current);
    }
    let burst = policy.burst.filter(|_| proposal.is_some());
    if let Some(burst) = burst {
        let base = match burst.of {
            BurstOf::Wanted => current,
            BurstOf::Ready => observation.ready.min(current),
        };
        let asked = votes.short.or(proposal).unwrap_or(0);
        if is_burst(burst.threshold, asked, base) {
            state.burst(now);
        }
        if state.in_burst(now, burst.window) {
            proposal = proposal.max(votes.short);
        }
    }
    if let Some(replicas) = proposal {
        // With a signal unknown this is a lower bound of the truth, and still worth remembering. An outage that is
        // longer than the policy's gap begins the windows anew, a shorter one does not.
        state.remember(now, replicas);
    }
    proposal
}

/// What the forecast expects; takes in the present load afterwards, so that it does not change the answer.
fn expect(
    policy: &Policy,
    state: &mut State,
    observation: &Observation,
    load: Option<f64>,
) -> Option<Expected> {
    let forecast = policy.forecast.as_ref()?;
    let memory = state.expectation(policy, observation.now)?;
    let expected = memory.highest_within(forecast, observation.now, forecast.horizon);
    let batch = forecast.batch.max(forecast.horizon);
    let lasting = memory.highest_within(forecast, observation.now, batch);
    // What a rise adds stays for a window of the way down, so the rise is trusted for as long.
    let trusted = policy.behavior.down.stabilization.min(batch).max(forecast.horizon);
    let rise = memory.rise_within(trusted);
    if let Some(load) = load {
        memory.observe(load);
    }
    let signal = policy.signals.iter().find(|signal| vote::is_forecast(policy, signal))?;
    let replicas = |load| vote::propose(signal.target, signal.tolerance, policy.compat, load, observation).0;
    // Nothing is added to a count whose load is within the tolerance: it lasts.
    let lasts = |load| vote::enough(signal.target, signal.tolerance, load);
    match (expected, lasting, load, rise) {
        (Some(load), Some(lasting), ..) => {
            Some(Expected { load, replicas: replicas(load), lasting: lasts(lasting), recurs: true })
        }
        (None, _, Some(load), Some(rise)) => {
            Some(Expected { load, replicas: replicas(load), lasting: lasts(load + rise), recurs: false })
        }
        _ => None,
    }
}

/// Knative's excess burst capacity, of the first signal.
fn spare(policy: &Policy, observation: &Observation, votes: &vote::Votes) -> Option<f64> {
    let capacity = policy.burst_capacity?;
    let (signal, vote) = (policy.signals.first()?, votes.votes.first()?);
    let Target::AveragePerInstance(each) = signal.target else { return None };
    let Ballot::Proposes { value, .. } = vote.ballot else { return None };
    Some((f64::from(observation.ready) * each - capacity - value).floor())
}

/// What settles the matter before the signals do.
fn settled(
    policy: &Policy,
    state: &State,
    observation: &Observation,
    scene: &Scene,
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
    let updating = observation.update_in_progress && policy.during_update == DuringUpdate::Hold;
    match policy.pause {
        Some(Pause::All) => return Some((Reason::Paused, Action::Hold)),
        Some(Pause::At(replicas)) if current == replicas => return Some((Reason::Paused, Action::Hold)),
        Some(Pause::At(replicas)) if !updating => return Some((Reason::Paused, Action::ScaleTo(replicas))),
        _ => {}
    }
    if current == 0 && !state.is_own_zero() {
        return Some((Reason::Off, Action::Hold));
    }
    if updating {
        return Some((Reason::Updating, Action::Hold));
    }
    if current < scene.min && !scene.is_waking(policy, current) {
        return Some((Reason::BelowMin, Action::ScaleTo(scene.min)));
    }
    if current > scene.max {
        if observation.update_in_progress {
            return Some((Reason::Updating, Action::Hold));
        }
        return Some((Reason::AboveMax, Action::ScaleTo(scene.max)));
    }
    None
}

fn is_unknown(ballot: &Ballot) -> bool {
    matches!(ballot, Ballot::Unknown { .. } | Ballot::FallsBack { .. })
}

fn largest(votes: &[Vote]) -> Option<u32> {
    let proposals = votes.iter().filter_map(|vote| match vote.ballot {
        Ballot::Proposes { replicas, .. } | Ballot::FallsBack { replicas, .. } => Some(replicas),
        _ => None,
    });
    proposals.max()
}

fn is_burst(threshold: u32, proposal: u32, current: u32) -> bool {
    // At zero and one alike a proposal of two is twice of what there could be.
    u64::from(proposal) * 100 >= u64::from(threshold) * u64::from(current.max(1))
}
