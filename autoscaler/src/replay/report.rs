//! The score of one policy on one load.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::plant::{PlantModel, Second};
use crate::decision::Decision;

/// What became of a load under a policy. Everything but the seconds and the samples is better when it is lower.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Report {
    /// Of which policy.
    pub name: String,
    /// How long the load lasted.
    pub seconds: u64,
    /// Seconds in which the instances that serve could not do the load.
    pub overload_seconds: u64,
    /// Percent of all load that came beyond the capacity of its second.
    pub beyond_percent: f64,
    /// Minutes in which the 95th percentile of the latency was above the objective.
    pub slo_minutes: f64,
    /// The longest time from a first overload second until none came for 30 s.
    pub recovery_seconds: u64,
    /// Instances paid for, by the second.
    pub instance_seconds: u64,
    /// That, over what the cheapest plan with the same headroom costs that knows the future.
    pub cost_ratio: f64,
    /// That, over what the cheapest plan without any headroom costs that knows the future.
    pub bare_cost_ratio: f64,
    /// Changes of the count.
    pub actions: u32,
    /// Those that added instances.
    pub ups: u32,
    /// Those that removed some.
    pub downs: u32,
    /// Changes whose direction was another than that of the change before.
    pub direction_changes: u32,
    /// Removals while the load could not be read, or while the instances could not do it.
    pub wrong_way: u32,
    /// Requests in flight on removed instances when their drain was over.
    pub busy_kills: f64,
    /// What a picture is drawn from: at most two thousand moments.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub samples: Vec<Sample>,
    /// The changes of the count: the second, and the decision.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub log: Vec<(u64, Decision)>,
    #[serde(skip)]
    tally: Tally,
}

/// One moment of a replay.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// When.
    pub second: u64,
    /// The highest load since the sample before.
    pub load: f64,
    /// Instances wanted.
    pub wanted: u32,
    /// Instances that serve.
    pub ready: u32,
    /// Whether any second since the sample before was overloaded.
    pub overloaded: bool,
}

/// What is only counted with.
#[derive(Clone, Debug, Default, PartialEq)]
struct Tally {
    load: f64,
    beyond: f64,
    slow_seconds: u64,
    /// The first second of the overload that is on, and the last one so far.
    overload: Option<(u64, u64)>,
    every: u64,
    last_up: Option<bool>,
    overloaded_now: bool,
}

impl Report {
    pub(super) fn new(name: &str, wanted: u32) -> Self {
        let first = Sample { second: 0, load: 0.0, wanted, ready: wanted, overloaded: false };
        Self {
            name: name.to_owned(),
            seconds: 0,
            overload_seconds: 0,
            beyond_percent: 0.0,
            slo_minutes: 0.0,
            recovery_seconds: 0,
            instance_seconds: 0,
            cost_ratio: 0.0,
            bare_cost_ratio: 0.0,
            actions: 0,
            ups: 0,
            downs: 0,
            direction_changes: 0,
            wrong_way: 0,
            busy_kills: 0.0,
            samples: vec![first],
            log: Vec::new(),
            tally: Tally { every: 1, ..Tally::default() },
        }
    }

    /// The scores alone.
    #[must_use]
    pub fn without_samples(mut self) -> Self {
        (self.samples, self.log) = (Vec::new(), Vec::new());
        self
    }

    pub(super) fn live(&mut self, second: usize, load: f64, lived: &Second, model: &PlantModel) {
        let second = second as u64;
        self.seconds = second + 1;
        self.tally.load += load;
        self.tally.beyond += lived.beyond;
        self.tally.slow_seconds += u64::from(lived.p95 > model.objective_seconds);
        self.instance_seconds += u64::from(lived.wanted);
        let overloaded = lived.beyond > 0.0;
        self.tally.overloaded_now = overloaded;
        self.overload_seconds += u64::from(overloaded);
        match (self.tally.overload, overloaded) {
            (None, true) => self.tally.overload = Some((second, second)),
            (Some((first, _)), true) => self.tally.overload = Some((first, second)),
            (Some((first, last)), false) if second - last > CALM_SECONDS => self.recovered(first, last),
            _ => {}
        }
        self.sample(second, load, lived, overloaded);
    }

    fn recovered(&mut self, first: u64, last: u64) {
        self.recovery_seconds = self.recovery_seconds.max(last - first + 1);
        self.tally.overload = None;
    }

    /// Keeps every so-manieth moment, and ever fewer.
    fn sample(&mut self, second: u64, load: f64, lived: &Second, overloaded: bool) {
        if second.is_multiple_of(self.tally.every) {
            let (wanted, ready) = (lived.wanted, lived.ready);
            self.samples.push(Sample { second, load, wanted, ready, overloaded });
        } else if let Some(last) = self.samples.last_mut() {
            last.load = last.load.max(load);
            last.overloaded |= overloaded;
        }
        if self.samples.len() > MAX_SAMPLES {
            self.tally.every *= 2;
            let halves = self.samples.chunks(2).filter_map(|pair| {
                let (first, last) = (pair.first()?, pair.last()?);
                let (load, overloaded) = (first.load.max(last.load), first.overloaded || last.overloaded);
                Some(Sample { load, overloaded, ..*first })
            });
            self.samples = halves.collect();
        }
    }

    pub(super) fn act(&mut self, second: usize, decision: &Decision, wrong: bool, killed: f64) {
        let up = decision.replicas() > decision.current;
        self.actions += 1;
        self.ups += u32::from(up);
        self.downs += u32::from(!up);
        self.direction_changes +=
            u32::from(self.tally.last_up.replace(up).is_some_and(|before| before != up));
        self.wrong_way += u32::from(wrong || (!up && self.tally.overloaded_now));
        self.busy_kills += killed;
        if self.log.len() < MAX_LOG {
            self.log.push((second as u64, decision.clone()));
        }
    }

    pub(super) fn finish(&mut self, clairvoyant: u64, bare: u64) {
        if let Some((first, last)) = self.tally.overload {
            self.recovered(first, last);
        }
        if self.tally.load > 0.0 {
            self.beyond_percent = 100.0 * self.tally.beyond / self.tally.load;
        }
        self.slo_minutes = self.tally.slow_seconds as f64 / 60.0;
        self.cost_ratio = self.instance_seconds as f64 / clairvoyant.max(1) as f64;
        self.bare_cost_ratio = self.instance_seconds as f64 / bare.max(1) as f64;
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {} s of overload in {} s ({:.2} % of the load), {:.1} min over the objective, cost {:.2}, {} actions \
             ({} up, {} down, {} turns), {} the wrong way, {:.0} busy kills",
            self.name,
            self.overload_seconds,
            self.seconds,
            self.beyond_percent,
            self.slo_minutes,
            self.cost_ratio,
            self.actions,
            self.ups,
            self.downs,
            self.direction_changes,
            self.wrong_way,
            self.busy_kills,
        )
    }
}

/// An overload has ended when none came for so long.
const CALM_SECONDS: u64 = 30;
const MAX_SAMPLES: usize = 2000;
/// Decisions kept of one replay.
const MAX_LOG: usize = 10_000;
