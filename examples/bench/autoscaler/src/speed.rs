//! How long ten thousand decisions take, and how large a state grows.

use std::time::{Duration, Instant};

use autoscaler::{Decision, Observation, Policy, Reading, State, decide};

pub struct Speed {
    pub services: usize,
    pub rounds: usize,
    pub median: Duration,
    pub slowest: Duration,
    pub state_bytes: usize,
}

/// Ten thousand services under our default policy, with a guard, each with a load of its own, an hour of five-second
/// ticks before the first measured round; all forecasts close their steps in the same ticks, the worst case.
pub fn measure() -> Speed {
    let policy = Policy::balanced("rate", 70.0).guard("p95", 0.5).bounds(2, 60);
    let mut fleet: Vec<(u32, State)> = vec![(4, State::default()); SERVICES];
    let mut rounds = Vec::with_capacity(ROUNDS);
    for tick in 0..WARM_UP + ROUNDS {
        let now = Duration::from_secs(1_000_000 + tick as u64 * 5);
        let seen: Vec<Observation> = fleet
            .iter()
            .enumerate()
            .map(|(service, (count, _))| {
                let phase = (tick * 5 + service * 7) % 1200;
                let load = 200.0 + 1200.0 * phase as f64 / 1200.0;
                let rate = Reading::value(load, now);
                Observation::new(now, *count).reading("rate", rate).reading("p95", Reading::value(0.1, now))
            })
            .collect();
        let began = Instant::now();
        for ((count, state), seen) in fleet.iter_mut().zip(&seen) {
            let (decision, next): (Decision, State) = decide(&policy, state, seen);
            *count = decision.replicas();
            *state = next;
        }
        if tick >= WARM_UP {
            rounds.push(began.elapsed());
        }
    }
    rounds.sort_unstable();
    let largest =
        fleet.iter().map(|(_, state)| serde_json::to_string(state).map_or(0, |json| json.len())).max();
    Speed {
        services: SERVICES,
        rounds: rounds.len(),
        median: rounds[rounds.len() / 2],
        slowest: rounds[rounds.len() - 1],
        state_bytes: largest.unwrap_or(0),
    }
}

const SERVICES: usize = 10_000;
/// Ticks until every memory is full: 40 minutes and more.
const WARM_UP: usize = 520;
const ROUNDS: usize = 24;
