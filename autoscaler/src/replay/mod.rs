//! Play a load against a policy before it meets users: the same [`decide`], a modelled service, and a score.
//!
//! ```
//! use autoscaler::Policy;
//! use autoscaler::replay::{PlantModel, Player, Trace, replay};
//!
//! // A step from 200 to 1400 requests a second, on instances that do 100 each and need 20 s to start.
//! let step = Trace::of(1_800, |second| if second < 607 { 200.0 } else { 1_400.0 });
//! let policy = Policy::balanced("rate", 70.0).bounds(2, 50);
//! let report = replay(&Player::new("balanced", policy, 5), &step, &PlantModel::default());
//! assert!(report.overload_seconds <= 25, "{report}");
//! assert_eq!(report.actions, 1, "{report}");
//! ```
//!
//! Nothing here is random: the same arguments give the same report.

mod clairvoyant;
mod picture;
mod plant;
mod report;
mod trace;

use std::time::Duration;

use crate::decide::decide;
use crate::decision::{Action, Decision};
use crate::observation::{Instance, Observation, Reading};
use crate::policy::{Policy, SignalPolicy, Target};
use crate::state::State;

pub use picture::picture;
pub use plant::PlantModel;
pub use report::{Report, Sample};
pub use trace::{Trace, TraceError};

/// A policy as it is played: with a name, and as often as it decides.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Player {
    /// Its name in reports.
    pub name: String,
    /// The policy. Its signals are given by name: `rate`, `in_flight` (with what waits), `cpu` (percent of what the
    /// instances that serve can do, at most 100; for a utilisation one by one), `p95` (seconds). A signal of another name
    /// is given the rate.
    pub policy: Policy,
    /// Seconds between two decisions.
    pub tick: usize,
}

impl Player {
    /// A policy that decides every `tick` seconds (at least one).
    pub fn new(name: impl Into<String>, policy: Policy, tick: usize) -> Self {
        Self { name: name.into(), policy, tick: tick.max(1) }
    }
}

/// Plays a trace against a policy.
///
/// The first decision is made after one tick. A stretch of the trace that can't be read gives `NoData`.
pub fn replay(player: &Player, trace: &Trace, model: &PlantModel) -> Report {
    let mut plant = plant::Plant::new(model, trace.load(0));
    let mut state = State::seeded(plant.wanted(), plant::at(0));
    let mut report = Report::new(&player.name, plant.wanted());
    for second in 0..trace.seconds() {
        let load = trace.load(second);
        let lived = plant.live(second, load);
        report.live(second, load, &lived, model);
        if second == 0 || !second.is_multiple_of(player.tick) {
            continue;
        }
        let readable = trace.is_readable(second);
        let seen = observe(&player.policy, second, load, readable, &lived, &plant);
        let (decision, next) = decide(&player.policy, &state, &seen);
        state = next;
        if let Some(to) = wish(&decision) {
            let wrong = to < seen.current && !readable;
            let killed = plant.scale(second, to, load);
            report.act(second, &decision, wrong, killed);
        }
    }
    report.finish(clairvoyant::cost(model, trace), clairvoyant::bare_cost(model, trace));
    report
}

/// Plays a trace against several policies, one after another.
pub fn compare(players: &[Player], trace: &Trace, model: &PlantModel) -> Vec<Report> {
    players.iter().map(|player| replay(player, trace, model)).collect()
}

fn wish(decision: &Decision) -> Option<u32> {
    match decision.action {
        Action::Hold | Action::DrainThen(_) => None,
        Action::ScaleTo(to) => Some(to),
    }
}

fn observe(
    policy: &Policy,
    second: usize,
    load: f64,
    readable: bool,
    lived: &plant::Second,
    plant: &plant::Plant<'_>,
) -> Observation {
    let now = plant::at(second);
    let mut seen = Observation::new(now, lived.wanted).ready(lived.ready).buffer(Some(true));
    let each = |signal: &SignalPolicy| matches!(signal.target, Target::Utilization(_));
    if policy.drain.is_some() || policy.signals.iter().any(each) {
        seen = seen.instances(plant.instances(second));
    }
    for signal in &policy.signals {
        let name = signal.reading.as_ref().unwrap_or(&signal.name);
        if seen.readings.iter().any(|(known, _)| known == name) {
            continue;
        }
        let value = match name.as_str() {
            "in_flight" => lived.in_flight,
            "cpu" => lived.busy * 100.0,
            "p95" => lived.p95,
            _ => load,
        };
        let reading = if !readable {
            Reading::NoData
        } else if each(signal) {
            let serves = |instance: &Instance| instance.ready == Some(true);
            let used = |instance| if serves(instance) { lived.busy * 100.0 } else { 0.0 };
            let samples = seen.instances.iter();
            let samples = samples.map(|i| crate::observation::Sample::new(&i.id, used(i)).of(100.0));
            Reading::PerInstance { at: now, window: CPU_WINDOW, samples: samples.collect() }
        } else {
            Reading::value(value, now)
        };
        seen = seen.reading(name, reading);
    }
    seen
}

/// What CPU is measured over, before it is read.
const CPU_WINDOW: Duration = Duration::from_secs(15);
