//! What is remembered from one decision to the next: bounded, serialisable, and safe to lose.
//!
//! A lost state costs time, never instances: a new one holds the present count for a whole window of the way down.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::changes::{self, Change};
use crate::decision::Action;
use crate::observation::Observation;
use crate::policy::Policy;

/// The memory of one service's decisions. Opaque; at most some 10 KiB when serialised.
///
/// It keeps the highest and lowest proposals of the stabilisation windows, the changes of the count that rate limits
/// look at, when each signal was last known, and the clock of the burst mode. Changes are taken from the counts
/// that were *observed*: a decision that was never written leaves no trace in the limits, and a change made by
/// somebody else counts as well and starts the windows anew.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// The last observation: when, and the count.
    seen: Option<Mark>,
    /// When every signal was last known.
    complete_at: Option<Duration>,
    /// Proposals of the down window of which none later is higher: values fall, times rise.
    highs: Vec<Mark>,
    /// Proposals of the up window of which none later is lower: values and times rise.
    lows: Vec<Mark>,
    /// Observed changes of the count.
    changes: Vec<Change>,
    /// The count decided last, until it is observed.
    pending: Option<Mark>,
    /// When the burst threshold was last met.
    burst_at: Option<Duration>,
    /// When each signal was last known.
    known: Vec<(String, Duration)>,
    /// Whether the present zero is our own.
    own_zero: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Mark {
    at: Duration,
    replicas: u32,
}

impl State {
    /// A memory that begins now, with `current` instances wanted: nothing is removed until a whole window of the way
    /// down was seen. ([`State::default`] does the same at its first observation.)
    pub fn seeded(current: u32, now: Duration) -> Self {
        let mark = Mark { at: now, replicas: current };
        Self {
            seen: Some(mark),
            complete_at: Some(now),
            highs: vec![mark],
            lows: vec![mark],
            ..Self::default()
        }
    }

    /// Takes in the time and the count of an observation. Returns by how much the clock stepped back, if it did.
    pub(crate) fn observe(&mut self, policy: &Policy, seen: &Observation) -> Option<Duration> {
        let (now, current) = (seen.now, seen.current);
        self.restrict(policy);
        let Some(last) = self.seen else {
            *self = Self::seeded(current, now);
            return None;
        };
        let stepped = (now < last.at).then(|| last.at.saturating_sub(now));
        self.pull_back(now);
        let gap = now.saturating_sub(self.complete_at.unwrap_or(last.at));
        let mut renew = stepped.is_some() || gap > policy.max_gap;
        if current != last.replicas {
            let ours = self.pending.filter(|pending| pending.replicas == current);
            renew |= ours.is_none();
            let at = ours.map_or(now, |pending| pending.at);
            self.changes.push(Change::new(at, last.replicas, current));
            self.own_zero = current == 0 && ours.is_some();
            self.pending = None;
        }
        if renew {
            self.remember(now, current);
        }
        self.seen = Some(Mark { at: now, replicas: current });
        self.forget(policy, now);
        stepped
    }

    /// Adds a proposal to the windows.
    pub(crate) fn remember(&mut self, at: Duration, replicas: u32) {
        let mark = Mark { at, replicas };
        while self.highs.last().is_some_and(|last| last.replicas <= replicas) {
            self.highs.pop();
        }
        self.highs.push(mark);
        while self.lows.last().is_some_and(|last| last.replicas >= replicas) {
            self.lows.pop();
        }
        self.lows.push(mark);
        fold(&mut self.highs, u32::max);
        fold(&mut self.lows, u32::min);
    }

    /// The highest proposal younger than `window`, or the newest one.
    pub(crate) fn highest(&self, now: Duration, window: Duration, newest: u32) -> u32 {
        within(&self.highs, now, window).fold(newest, u32::max)
    }

    /// The lowest proposal younger than `window`, or the newest one.
    pub(crate) fn lowest(&self, now: Duration, window: Duration, newest: u32) -> u32 {
        within(&self.lows, now, window).fold(newest, u32::min)
    }

    /// The count at the start of the period that ends now, as the rate limits see it: the present one without what
    /// was added in it, and with what was removed. The lowest and the highest that it may have been, which differ only
    /// if there were too many changes to keep each.
    pub(crate) fn start_of_period(&self, now: Duration, period: Duration, current: u32) -> (u32, u32) {
        changes::start(&self.changes, now, period, current)
    }

    /// Notes that every signal is known.
    pub(crate) fn complete(&mut self, now: Duration) {
        self.complete_at = Some(now);
    }

    /// Notes that a signal was true at `at`.
    pub(crate) fn knows(&mut self, signal: &str, at: Duration) {
        match self.known.iter_mut().find(|(name, _)| name == signal) {
            Some((_, last)) => *last = at.max(*last),
            None => self.known.push((signal.to_owned(), at)),
        }
    }

    /// When a signal was last true.
    pub(crate) fn last_known(&self, signal: &str) -> Option<Duration> {
        self.known.iter().find(|(name, _)| name == signal).map(|&(_, at)| at)
    }

    /// Notes a decided count, to recognise it when it is observed.
    pub(crate) fn decided(&mut self, at: Duration, action: Action) {
        self.pending = match action {
            Action::ScaleTo(replicas) => Some(Mark { at, replicas }),
            Action::Hold => None,
        };
    }

    /// Whether the present zero is this policy's own decision.
    pub(crate) fn is_own_zero(&self) -> bool {
        self.own_zero
    }

    /// Notes that the burst threshold is met.
    pub(crate) fn burst(&mut self, now: Duration) {
        self.burst_at = Some(now);
    }

    /// Whether the threshold was met less than `window` ago.
    pub(crate) fn in_burst(&self, now: Duration, window: Duration) -> bool {
        self.burst_at.is_some_and(|at| now.saturating_sub(at) < window)
    }

    /// Drops what no rule will look at again.
    fn forget(&mut self, policy: &Policy, now: Duration) {
        let fresh = |at: Duration, window: Duration| now.saturating_sub(at) < window;
        let (up, down) = (policy.behavior.up.stabilization, policy.behavior.down.stabilization);
        self.highs.retain(|mark| fresh(mark.at, down));
        self.lows.retain(|mark| fresh(mark.at, up));
        let period = policy.longest_period();
        self.changes.retain(|change| fresh(change.at, period));
        changes::fold(&mut self.changes);
    }

    /// A state read from elsewhere is not trusted with its own size.
    fn restrict(&mut self, policy: &Policy) {
        self.known.retain(|(name, _)| policy.signals.iter().any(|signal| signal.name == *name));
        self.known.truncate(policy.signals.len());
        fold(&mut self.highs, u32::max);
        fold(&mut self.lows, u32::min);
    }

    /// After the clock stepped back: nothing lies in the future.
    fn pull_back(&mut self, now: Duration) {
        let pull = |at: &mut Duration| *at = now.min(*at);
        self.highs.iter_mut().chain(&mut self.lows).for_each(|mark| pull(&mut mark.at));
        self.changes.iter_mut().for_each(|change| pull(&mut change.at));
        self.known.iter_mut().for_each(|(_, at)| pull(at));
        self.pending.iter_mut().for_each(|mark| pull(&mut mark.at));
        self.burst_at.iter_mut().for_each(pull);
        self.complete_at.iter_mut().for_each(pull);
    }
}

/// Folds the oldest marks into one when there are too many, the careful way: the more binding value, held longer.
fn fold(marks: &mut Vec<Mark>, binding: fn(u32, u32) -> u32) {
    let surplus = marks.len().saturating_sub(MAX_MARKS);
    let folded = marks.drain(..surplus).map(|mark| mark.replicas).reduce(binding);
    if let (Some(folded), Some(first)) = (folded, marks.first_mut()) {
        first.replicas = binding(folded, first.replicas);
    }
}

fn within(marks: &[Mark], now: Duration, window: Duration) -> impl Iterator<Item = u32> {
    marks.iter().filter(move |mark| now.saturating_sub(mark.at) < window).map(|mark| mark.replicas)
}

/// Distinct proposals kept per window; only a load that moves one way for the whole window reaches it.
const MAX_MARKS: usize = 48;

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn windows_count_what_is_younger_than_they_are() {
        let mut state = State::seeded(4, at(100));
        state.remember(at(110), 2);
        assert_eq!(state.highest(at(159), at(60), 2), 4);
        assert_eq!(state.highest(at(160), at(60), 2), 2, "the seed is exactly as old as the window");
        assert_eq!(state.lowest(at(160), at(60), 7), 2);
        assert_eq!(state.lowest(at(160), Duration::ZERO, 7), 7);
    }

    #[test]
    fn too_many_marks_fold_into_the_careful_side() {
        let mut state = State::seeded(1000, at(0));
        for step in 1..200u32 {
            state.remember(at(step.into()), 1000 - step);
        }
        assert_eq!(state.highs.len(), MAX_MARKS);
        assert_eq!(state.highest(at(199), at(3600), 0), 1000);
    }

    #[test]
    fn a_serialised_state_stays_small() {
        let mut state = State::default();
        let policy = Policy::balanced("in_flight", 1.0).down_window(at(3600)).bounds(1, u32::MAX);
        for step in 0..10_000u64 {
            let count = if step % 2 == 0 { u32::MAX } else { u32::MAX - 7 };
            let now = Duration::from_nanos(1_700_000_000_999_999_999 + step * 1_000_000_000);
            state.observe(&policy, &Observation::new(now, count));
            state.remember(now, u32::MAX - u32::try_from(step).unwrap());
        }
        let size = serde_json::to_string(&state).unwrap().len();
        assert!(size < 16 * 1024, "{size} bytes");
    }
}
