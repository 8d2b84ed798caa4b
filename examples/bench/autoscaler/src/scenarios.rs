//! The shapes of load, the service they meet, what costs are measured against, and who plays: the one file that every
//! policy runs through.

use autoscaler::replay::{PlantModel, Player, Trace};
use autoscaler::{Policy, SignalPolicy, Target};

/// A load and the service that it meets.
pub struct Scenario {
    pub name: &'static str,
    pub what: &'static str,
    pub plant: PlantModel,
    /// The load, delayed by some seconds: where in a policy's tick a change falls is luck, so that each scenario is
    /// played once for each of [`DELAYS`] and the mean is told.
    pub trace: Box<dyn Fn(usize) -> Trace>,
    pub delays: &'static [usize],
}

/// In seconds; spread over the longest tick but one.
const DELAYS: &[usize] = &[0, 3, 6, 9, 12];

/// 100 requests/s an instance, 20 s from the decision until it serves, minimum 2. Costs are divided by the cheapest plan
/// that knows the whole load, pays starting times, and has ceil(load / 70) instances serving in each second
/// (`PlantModel::needed`): the same headroom that the policies are asked for. `bare_cost_ratio` divides by the same
/// without headroom.
fn plant() -> PlantModel {
    PlantModel::default()
}

pub fn all() -> Vec<Scenario> {
    let shape = |name, what, seconds: usize, load: fn(usize) -> f64| Scenario {
        name,
        what,
        plant: plant(),
        trace: Box::new(move |delay| Trace::of(seconds + delay, |s| load(s.saturating_sub(delay)))),
        delays: DELAYS,
    };
    let mut all =
        vec![
            shape("step", "200 to 1400 requests/s at 10 min, 30 min", 1800, |s| {
                if s < 600 { 200.0 } else { 1400.0 }
            }),
            shape("flash", "140, tenfold for 120 s, 1 h", 3600, |s| {
                if (900..1020).contains(&s) { 1400.0 } else { 140.0 }
            }),
            shape("sawtooth", "200 rising to 1400 in 4 min, ten times", 2400, |s| {
                200.0 + 1200.0 * (s % 240) as f64 / 240.0
            }),
            shape("square", "200 and 900, 3 min each, ten times", 3600, |s| {
                if s % 360 < 180 { 200.0 } else { 900.0 }
            }),
            shape("ramp", "200 to 1400 in 30 min and back, 1 h", 3600, |s| {
                200.0 + 1200.0 * (1.0 - s.abs_diff(1800).min(1800) as f64 / 1800.0)
            }),
            shape("diurnal", "200 to 1400 as a sine of 4 h, 10 % noise, 8 h", 8 * 3600, |s| {
                let wave = 800.0 - 600.0 * (s as f64 * std::f64::consts::TAU / 14_400.0).cos();
                wave * (0.9 + 0.2 * noise(s as u64 / 10))
            }),
            shape("noise", "700, 25 % noise, 1 h", 3600, |s| 700.0 * (0.75 + 0.5 * noise(s as u64 / 10))),
        ];
    all.push(Scenario {
        name: "outage",
        what: "1400; nothing can be read for 3 min while it falls to 200, 30 min",
        plant: plant(),
        trace: Box::new(|delay| {
            let load = |s: usize| if s < 660 + delay { 1400.0 } else { 200.0 };
            Trace::of(1800 + delay, load).blind(600 + delay, 780 + delay)
        }),
        delays: DELAYS,
    });
    for (name, what, start) in [
        ("cold_5s", "the step, instances that start in 5 s", 5),
        ("cold_60s", "the step, instances that start in 60 s", 60),
    ] {
        let mut cold = shape(name, what, 1800, |s| if s < 600 { 200.0 } else { 1400.0 });
        cold.plant.start_seconds = start;
        all.push(cold);
    }
    for (name, what, text) in [
        ("worldcup98", "a week of the 1998 World Cup site, peak 40 instances", WORLD_CUP),
        ("nasa95", "a week of a space centre's site, peak 40 instances", NASA),
    ] {
        let trace = recorded(text).scaled_to_peak(40.0 * plant().target);
        all.push(Scenario {
            name,
            what,
            plant: plant(),
            trace: Box::new(move |_| trace.clone()),
            delays: &[0],
        });
    }
    all
}

/// Who plays. Each decides as often as the original does; ours as often as its controller does.
pub fn players() -> Vec<Player> {
    players_of(plant().target, 60)
}

/// The same for services of another target, and at most so many instances.
pub fn players_of(target: f64, max: u32) -> Vec<Player> {
    let rate = |policy: Policy| policy.bounds(2, max);
    let each = Target::AveragePerInstance(target);
    let cpu = SignalPolicy::new("cpu", Target::Utilization(70)).readiness(Some(Default::default()));
    vec![
        Player::new("balanced", rate(Policy::balanced("rate", target).guard("p95", 0.5)), 5),
        Player::new("hpa_cpu", rate(Policy::hpa(cpu)), 15),
        Player::new("hpa_rate", rate(Policy::hpa(SignalPolicy::new("rate", each))), 15),
        Player::new("kpa", rate(Policy::kpa("rate", target)), 2),
        // One more from 85 % CPU on, one less below 25 %, every half minute.
        Player::new("threshold", rate(Policy::threshold("cpu", 25.0, 85.0)), 30),
    ]
}

/// Requests of each minute, spread evenly over it.
fn recorded(text: &str) -> Trace {
    let minutes: Vec<f64> = text.lines().filter_map(|line| line.trim().parse().ok()).collect();
    Trace::of(minutes.len() * 60, |s| minutes.get(s / 60).copied().unwrap_or(0.0) / 60.0)
}

/// 0 to 1, from a number (SplitMix64).
pub fn noise(number: u64) -> f64 {
    let z = number.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (z ^ (z >> 31)) as f64 / u64::MAX as f64
}

const WORLD_CUP: &str = include_str!("../data/worldcup98-week.txt");
const NASA: &str = include_str!("../data/nasa95-week.txt");
