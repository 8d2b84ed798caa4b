//! A small model of a service: instances that take a while to start, and a load spread over those that are ready.

use std::time::Duration;

use autoscaler::{Action, Observation, Policy, Reading, State, decide};

/// Offered load a second, by time; `None` while nobody can read it.
pub(crate) type Load = fn(u64) -> (f64, bool);

pub(crate) struct Plant {
    /// What one instance can do.
    pub(crate) capacity: f64,
    /// Seconds until an instance is ready.
    pub(crate) start: u64,
    /// Seconds between decisions.
    pub(crate) tick: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// When and to what the count changed.
    pub(crate) actions: Vec<(u64, u32)>,
    /// Seconds in which the ready instances could not do the load.
    pub(crate) overload: u64,
    /// Sum of wanted instances over all seconds.
    pub(crate) instance_seconds: u64,
    /// Removals while the load could not be read.
    pub(crate) wrong_way: u32,
}

impl Outcome {
    pub(crate) fn turns(&self, from: u32) -> usize {
        let mut last = from;
        let directions = self.actions.iter().map(|&(_, to)| {
            let up = to > last;
            last = to;
            up
        });
        let directions: Vec<bool> = directions.collect();
        directions.windows(2).filter(|pair| pair[0] != pair[1]).count()
    }

    pub(crate) fn last(&self) -> u32 {
        self.actions.last().map_or(0, |&(_, to)| to)
    }
}

/// Plays `seconds` of load against a policy, beginning with `count` ready instances.
pub(crate) fn play(plant: &Plant, policy: &Policy, load: Load, count: u32, seconds: u64) -> Outcome {
    let mut outcome = Outcome::default();
    let mut started = vec![0u64; count as usize];
    let mut state = State::seeded(count, Duration::ZERO);
    for second in 0..seconds {
        let (offered, readable) = load(second);
        let ready = started.iter().filter(|&&at| at <= second).count();
        outcome.overload += u64::from((ready as f64) * plant.capacity < offered);
        outcome.instance_seconds += started.len() as u64;
        if second == 0 || !second.is_multiple_of(plant.tick) {
            continue;
        }
        let now = Duration::from_secs(second);
        let reading = if readable { Reading::value(offered, now) } else { Reading::NoData };
        let current = u32::try_from(started.len()).unwrap();
        let seen =
            Observation::new(now, current).ready(u32::try_from(ready).unwrap()).reading("rate", reading);
        let (decision, next) = decide(policy, &state, &seen);
        state = next;
        if let Action::ScaleTo(to) = decision.action {
            outcome.wrong_way += u32::from(to < current && !readable);
            outcome.actions.push((second, to));
            started.resize(to as usize, second + plant.start);
        }
    }
    outcome
}
