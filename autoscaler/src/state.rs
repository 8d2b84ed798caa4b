//! What is remembered from one decision to the next: bounded, serialisable, and safe to lose.
//!
//! A lost state costs time, never instances: a new one holds the present count for a whole window of the way down.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::changes::{self, Change};
use crate::decision::Action;
use crate::expect::Expectation;
use crate::millis;
use crate::observation::Observation;
use crate::policy::{Policy, Target, Threshold};
use crate::series::Series;

/// The memory of one service's decisions. Opaque; below 16 KiB when serialised, and a tenth of that for most policies.
///
/// It keeps the highest and lowest proposals of the stabilisation windows, the changes of the count that rate limits
/// look at, when each signal was last known, and the clocks of the stages: burst, idleness, drains, turns; and what
/// windows and forecasts remember of the load. Changes are taken from the counts that were *observed*: a decision that
/// was never written leaves no trace in the limits, and a change made by somebody else counts as well and starts the
/// windows anew. Times are kept to the millisecond.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// The last observation: when, and the count.
    seen: Option<Mark>,
    /// When every signal was last known.
    #[serde(default, with = "optional")]
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
    #[serde(default, with = "optional")]
    burst_at: Option<Duration>,
    /// What is known of each signal.
    known: Vec<Known>,
    /// Whether the present zero is our own.
    own_zero: bool,
    /// Since when no signal was above its activation value.
    #[serde(default, with = "optional")]
    idle_since: Option<Duration>,
    /// Since when something stands ready to hold requests.
    #[serde(default, with = "optional")]
    buffer_since: Option<Duration>,
    /// Turns of the count by our own changes (1: up after down, 0: down after up), and which way it went last.
    #[serde(default)]
    turns: Vec<Mark>,
    #[serde(default)]
    went_up: Option<bool>,
    /// How many served when that number last grew, or was all that were wanted.
    #[serde(default)]
    grew: Option<Mark>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    series: Vec<Series>,
    #[serde(default)]
    expectation: Option<Expectation>,
    /// Instances that are kept from new requests because they will go, and since when.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    draining: Vec<Victim>,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Mark {
    #[serde(with = "millis")]
    at: Duration,
    replicas: u32,
}

/// What is known of a signal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Known {
    signal: String,
    /// When it was last true, if it ever was.
    #[serde(default, with = "optional")]
    at: Option<Duration>,
    /// In how many decisions in a row it was unknown.
    #[serde(default)]
    failures: u32,
    /// When its value last lay in the band of its threshold; as many as the threshold asks for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    inside: Vec<u64>,
}

/// An instance that will go.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Victim {
    id: String,
    #[serde(with = "millis")]
    since: Duration,
}

impl State {
    /// A memory that begins now, with `current` instances wanted: nothing is removed until a whole window of the way
    /// down was seen. ([`State::default`] does the same at its first observation.)
    pub fn seeded(current: u32, now: Duration) -> Self {
        let mark = Mark { at: millis::whole(now), replicas: current };
        Self {
            seen: Some(mark),
            complete_at: Some(mark.at),
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
            self.watch_ready(now, seen);
            if current > 1 && policy.burst.is_some_and(|burst| !burst.short_window.is_zero()) {
                // As the Knative pod autoscaler: what is there when it begins is not removed for a window.
                self.burst(now);
            }
            return None;
        };
        let stepped = (now < last.at).then(|| last.at.saturating_sub(now));
        self.pull_back(now, stepped.is_some());
        let gap = now.saturating_sub(self.complete_at.unwrap_or(last.at));
        let mut renew = stepped.is_some() || gap > policy.max_gap;
        if current != last.replicas {
            let ours = self.pending.filter(|pending| pending.replicas == current);
            renew |= ours.is_none();
            let at = ours.map_or(millis::whole(now), |pending| pending.at);
            self.changes.push(Change::new(at, last.replicas, current));
            if ours.is_some() {
                self.turn(at, current > last.replicas);
            } else {
                // Somebody else's change says nothing about ours.
                self.went_up = None;
            }
            self.own_zero = current == 0 && ours.is_some();
            self.pending = None;
        }
        if renew {
            self.remember(now, current);
        }
        self.seen = Some(Mark { at: millis::whole(now), replicas: current });
        self.watch_ready(now, seen);
        self.watch_buffer(now, seen.buffer);
        self.forget(policy, now);
        stepped
    }

    /// Whether this very moment was decided on before.
    pub(crate) fn has_seen(&self, now: Duration) -> bool {
        self.seen.is_some_and(|seen| seen.at == millis::whole(now))
    }

    fn turn(&mut self, at: Duration, up: bool) {
        if self.went_up.replace(up).is_some_and(|before| before != up) {
            self.turns.push(Mark { at, replicas: u32::from(up) });
            let surplus = self.turns.len().saturating_sub(MAX_TURNS);
            self.turns.drain(..surplus);
        }
    }

    fn watch_ready(&mut self, now: Duration, seen: &Observation) {
        let grew = self.grew.is_none_or(|last| seen.ready > last.replicas) || seen.ready >= seen.current;
        if grew {
            self.grew = Some(Mark { at: millis::whole(now), replicas: seen.ready });
        } else if let Some(last) = self.grew.as_mut() {
            // What went away may come back as progress.
            last.replicas = last.replicas.min(seen.ready);
        }
    }

    fn watch_buffer(&mut self, now: Duration, buffer: Option<bool>) {
        match buffer {
            Some(true) => self.buffer_since = self.buffer_since.or(Some(millis::whole(now))),
            _ => self.buffer_since = None,
        }
    }

    /// Adds a proposal to the windows.
    pub(crate) fn remember(&mut self, at: Duration, replicas: u32) {
        let mark = Mark { at: millis::whole(at), replicas };
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

    /// When the count last changed.
    pub(crate) fn last_change(&self) -> Option<Duration> {
        self.changes.last().map(|change| change.at)
    }

    /// Notes that every signal is known.
    pub(crate) fn complete(&mut self, now: Duration) {
        self.complete_at = Some(millis::whole(now));
    }

    /// Notes that a signal was true at `at`.
    pub(crate) fn knows(&mut self, signal: &str, at: Duration) {
        let at = millis::whole(at);
        let known = self.known(signal);
        known.at = Some(known.at.map_or(at, |last| last.max(at)));
        known.failures = 0;
    }

    /// Notes that a signal is unknown, once for each moment. Returns for how many decisions in a row it was.
    pub(crate) fn misses(&mut self, signal: &str, again: bool) -> u32 {
        let known = self.known(signal);
        known.failures = known.failures.saturating_add(u32::from(!again));
        known.failures
    }

    /// Notes whether a value lay in a band. Returns whether enough did.
    pub(crate) fn in_band(&mut self, signal: &str, band: &Threshold, value: f64, at: Duration) -> bool {
        let (at, within) = (crate::series::millis(at), crate::series::millis(band.within));
        let known = self.known(signal);
        if band.contains(value) && known.inside.last() != Some(&at) {
            known.inside.push(at);
        }
        known.inside.retain(|moment| at.saturating_sub(*moment) < within);
        let samples = usize::try_from(band.samples).unwrap_or(usize::MAX);
        let surplus = known.inside.len().saturating_sub(samples);
        known.inside.drain(..surplus);
        band.contains(value) && known.inside.len() >= samples
    }

    /// When a signal was last true.
    pub(crate) fn last_known(&self, signal: &str) -> Option<Duration> {
        self.known.iter().find(|known| known.signal == signal).and_then(|known| known.at)
    }

    fn known(&mut self, signal: &str) -> &mut Known {
        let index = self.known.iter().position(|known| known.signal == signal);
        let index = index.unwrap_or_else(|| {
            let inside = Vec::new();
            self.known.push(Known { signal: signal.to_owned(), at: None, failures: 0, inside });
            self.known.len() - 1
        });
        &mut self.known[index]
    }

    /// Takes a value into the window of its signal and returns the mean of it, and that of the last `short` if that is
    /// not zero.
    pub(crate) fn averaged(
        &mut self,
        signal: &str,
        window: Duration,
        short: Duration,
        at: Duration,
        value: f64,
    ) -> (f64, Option<f64>) {
        let index = self.series.iter().position(|series| series.signal == signal);
        let index = index.unwrap_or_else(|| {
            self.series.push(Series::new(signal, window));
            self.series.len() - 1
        });
        let series = &mut self.series[index];
        series.push(at, value);
        let short = (!short.is_zero()).then(|| series.mean(at, short).unwrap_or(value));
        (series.mean(at, window).unwrap_or(value), short)
    }

    /// The memory of the policy's forecast, with the steps closed that are over.
    pub(crate) fn expectation(&mut self, policy: &Policy, now: Duration) -> Option<&mut Expectation> {
        let Some(forecast) = &policy.forecast else {
            self.expectation = None;
            return None;
        };
        let memory = self.expectation.get_or_insert_default();
        memory.advance(forecast, now);
        Some(memory)
    }

    /// Notes whether the service is active, where that is known. Returns for how long it was idle.
    pub(crate) fn idle(&mut self, active: Option<bool>, now: Duration) -> Option<Duration> {
        match active {
            Some(false) => self.idle_since = self.idle_since.or(Some(millis::whole(now))),
            _ => self.idle_since = None,
        }
        self.idle_since.map(|since| now.saturating_sub(since))
    }

    /// For how long something stood ready to hold requests.
    pub(crate) fn buffered(&self, now: Duration) -> Option<Duration> {
        self.buffer_since.map(|since| now.saturating_sub(since))
    }

    /// Turns within the period, and whether going down now would be one more.
    pub(crate) fn turns(&self, now: Duration, period: Duration) -> (usize, bool) {
        let recent = self.turns.iter().filter(|mark| now.saturating_sub(mark.at) < period);
        (recent.count(), self.went_up == Some(true))
    }

    /// Removals within the period after which something was added again.
    pub(crate) fn regrets(&self, now: Duration, period: Duration) -> u32 {
        let recent = self.turns.iter().filter(|mark| now.saturating_sub(mark.at) < period);
        let regretted = recent.filter(|mark| mark.replicas > 0).count();
        u32::try_from(regretted).unwrap_or(u32::MAX)
    }

    /// For how long nothing new became ready although instances were missing.
    pub(crate) fn stuck_for(&self, now: Duration) -> Duration {
        self.grew.map_or(Duration::ZERO, |grew| now.saturating_sub(grew.at))
    }

    /// Notes the instances that will go; those that were noted before keep their time. Returns since when the last of
    /// them was noted.
    pub(crate) fn drain(&mut self, victims: &[String], now: Duration) -> Duration {
        let since = |id: &String| {
            let noted = self.draining.iter().find(|victim| victim.id == *id);
            noted.map_or(millis::whole(now), |victim| victim.since)
        };
        let draining: Vec<Victim> =
            victims.iter().map(|id| Victim { id: id.clone(), since: since(id) }).collect();
        self.draining = draining;
        self.draining.iter().map(|victim| victim.since).max().unwrap_or(now)
    }

    /// Notes a decided count, to recognise it when it is observed.
    pub(crate) fn decided(&mut self, at: Duration, action: Action) {
        self.pending = match action {
            Action::ScaleTo(replicas) => Some(Mark { at: millis::whole(at), replicas }),
            Action::Hold | Action::DrainThen(_) => None,
        };
        let goes_up = |to| self.seen.is_none_or(|seen| to > seen.replicas);
        match action {
            Action::DrainThen(_) => {}
            // Those that go stay drained until they are gone; if it fails it is tried again, not begun again.
            Action::ScaleTo(to) if !goes_up(to) => {}
            Action::Hold | Action::ScaleTo(_) => self.draining.clear(),
        }
    }

    /// Whether the present zero is this policy's own decision.
    pub(crate) fn is_own_zero(&self) -> bool {
        self.own_zero
    }

    /// Notes that the burst threshold is met.
    pub(crate) fn burst(&mut self, now: Duration) {
        self.burst_at = Some(millis::whole(now));
    }

    /// Whether the threshold was met less than `window` ago.
    pub(crate) fn in_burst(&self, now: Duration, window: Duration) -> bool {
        self.burst_at.is_some_and(|at| now.saturating_sub(at) < window)
    }

    /// Drops what no rule will look at again.
    fn forget(&mut self, policy: &Policy, now: Duration) {
        let fresh = |at: Duration, window: Duration| now.saturating_sub(at) < window;
        let (up, down) = (policy.behavior.up.stabilization, policy.longest_down_window());
        self.highs.retain(|mark| fresh(mark.at, down));
        self.lows.retain(|mark| fresh(mark.at, up));
        let period = policy.longest_period();
        self.changes.retain(|change| fresh(change.at, period));
        changes::fold(&mut self.changes);
        let period = policy.longest_turn_period();
        self.turns.retain(|mark| fresh(mark.at, period));
    }

    /// A state read from elsewhere is not trusted with its own size.
    fn restrict(&mut self, policy: &Policy) {
        let named = |name: &str| policy.signals.iter().find(|signal| signal.name == name);
        self.known.retain(|known| named(&known.signal).is_some());
        self.known.truncate(policy.signals.len());
        for known in self.known.iter_mut().filter(|known| !known.inside.is_empty()) {
            match named(&known.signal).map(|signal| signal.target) {
                Some(Target::Threshold(band)) => {
                    known.inside.truncate(usize::try_from(band.samples).unwrap_or(usize::MAX));
                }
                _ => known.inside.clear(),
            }
        }
        self.series.retain(|series| {
            named(&series.signal).is_some_and(|signal| !signal.window.is_zero() && series.fits(signal.window))
        });
        self.series.truncate(policy.signals.len());
        self.turns.truncate(MAX_TURNS);
        self.draining.truncate(MAX_VICTIMS);
        fold(&mut self.highs, u32::max);
        fold(&mut self.lows, u32::min);
    }

    /// After the clock stepped back: nothing lies in the future.
    fn pull_back(&mut self, now: Duration, stepped: bool) {
        let now = millis::whole(now);
        let pull = |at: &mut Duration| *at = now.min(*at);
        let marks = self.highs.iter_mut().chain(&mut self.lows).chain(&mut self.turns);
        marks.chain(&mut self.pending).chain(&mut self.grew).for_each(|mark| pull(&mut mark.at));
        self.changes.iter_mut().for_each(|change| pull(&mut change.at));
        self.draining.iter_mut().for_each(|victim| pull(&mut victim.since));
        for known in &mut self.known {
            known.at.iter_mut().for_each(pull);
            if stepped {
                known.inside.clear();
            }
        }
        let moments =
            [&mut self.burst_at, &mut self.complete_at, &mut self.idle_since, &mut self.buffer_since];
        moments.into_iter().flatten().for_each(pull);
        if stepped {
            self.series.iter_mut().for_each(Series::clear);
        }
    }
}

/// A moment that may be none, in milliseconds.
mod optional {
    use super::*;

    pub(super) fn serialize<S: serde::Serializer>(at: &Option<Duration>, to: S) -> Result<S::Ok, S::Error> {
        at.map(crate::series::millis).serialize(to)
    }

    pub(super) fn deserialize<'de, D: serde::Deserializer<'de>>(
        from: D,
    ) -> Result<Option<Duration>, D::Error> {
        Ok(Option::<u64>::deserialize(from)?.map(Duration::from_millis))
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
const MAX_MARKS: usize = 40;
/// The largest flap budget.
const MAX_TURNS: usize = 32;
/// As many instances are drained at once; more in the next step.
pub(crate) const MAX_VICTIMS: usize = 32;

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
