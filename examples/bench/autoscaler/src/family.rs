//! A family of loads that no constant was looked at with: shape, period, height, noise, start time and capacity come from a
//! seed. It shows whether the scoreboard's figures are those of its shapes, or of the policies.
//!
//! A change of the default policy is tried on other seeds (`--family 1000`) than those that are told (`--family 0`).

use autoscaler::Policy;
use autoscaler::replay::{PlantModel, Player, Report, Trace, replay};
use serde_json::{Map, Value, json};

use crate::scenarios::{self, noise};

/// One load and the service that it meets.
pub struct Member {
    pub shape: &'static str,
    pub trace: Trace,
    pub plant: PlantModel,
}

/// The member of a seed: an hour and a half, every figure drawn anew.
pub fn member(seed: u64) -> Member {
    let mut drawn = 0u64;
    let mut draw = |low: f64, high: f64| {
        drawn += 1;
        low + (high - low) * noise(seed.wrapping_mul(1_000_003) ^ drawn << 40)
    };
    let capacity = (10f64.powf(draw(1.3, 2.7))).round();
    let start = draw(5.0, 60.0) as usize;
    let plant =
        PlantModel { capacity, target: 0.7 * capacity, start_seconds: start, ..PlantModel::default() };
    let base = capacity * draw(1.0, 6.0);
    let height = base * draw(0.5, 6.0);
    let period = draw(120.0, 1_500.0);
    let jitter = draw(0.0, 0.2);
    let share = draw(0.1, 0.7);
    let phase = draw(0.0, period);
    let kinds = ["saw", "sine", "square", "triangle", "fall", "walk", "steps", "pulses"];
    let shape = kinds[draw(0.0, kinds.len() as f64) as usize % kinds.len()];
    let load = move |second: usize| {
        let time = second as f64 + phase;
        let (round, part) = ((time / period) as u64, (time / period).fract());
        let own = |number: u64| noise(seed ^ 0x5eed ^ number << 20);
        let level = match shape {
            "saw" => part,
            "fall" => 1.0 - part,
            "sine" => 0.5 - 0.5 * (part * std::f64::consts::TAU).cos(),
            "square" => f64::from(u8::from(part < share)),
            "triangle" => 1.0 - (2.0 * part - 1.0).abs(),
            // Nothing recurs in the last three.
            "walk" => own(round) * (1.0 - part) + own(round + 1) * part,
            "steps" => own(round),
            _ => f64::from(u8::from(part > own(round) && part < own(round) + 0.25 * share)),
        };
        let noisy = 1.0 + jitter * (2.0 * own(1 << 30 | second as u64 / 10) - 1.0);
        (base + height * level) * noisy
    };
    Member { shape, trace: Trace::of(5_400, load), plant }
}

/// Plays as many members against every policy.
pub fn run(first: u64, count: u64) -> Value {
    let members: Vec<Member> = (first..first + count).map(member).collect();
    let mut rows = Map::new();
    println!("\nfamily: seeds {first} to {}, mean of all", first + count - 1);
    let mut all: Vec<(String, Vec<Report>)> = Vec::new();
    let names: Vec<String> = scenarios::players().into_iter().map(|player| player.name).collect();
    for (index, name) in names.into_iter().enumerate() {
        let play = |member: &Member| replay(&player(index, &member.plant), &member.trace, &member.plant);
        all.push((name, members.iter().map(play).collect()));
    }
    for (name, reports) in &all {
        let figures = figures(reports);
        println!("  {}", line(name, &figures));
        rows.insert(name.clone(), figures);
    }
    let kinds: std::collections::BTreeSet<&str> = members.iter().map(|member| member.shape).collect();
    for kind in kinds {
        println!("  {kind}:");
        for (name, reports) in &all {
            let of_kind = reports.iter().zip(&members).filter(|(_, member)| member.shape == kind);
            let of_kind: Vec<Report> = of_kind.map(|(report, _)| report.clone()).collect();
            println!("    {}", line(name, &figures(&of_kind)));
        }
    }
    Value::Object(rows)
}

/// One of the scoreboard's policies with the target of this service.
fn player(index: usize, plant: &PlantModel) -> Player {
    scenarios::players_of(plant.target, 400).swap_remove(index)
}

/// The means of the figures that the bounds are about.
pub fn figures(reports: &[Report]) -> Value {
    let mean = |of: fn(&Report) -> f64| reports.iter().map(of).sum::<f64>() / reports.len().max(1) as f64;
    json!({
        "overload_seconds": crate::round(mean(|r| r.overload_seconds as f64)),
        "beyond_percent": crate::round(mean(|r| r.beyond_percent)),
        "cost_ratio": crate::round(mean(|r| r.cost_ratio)),
        "ups": crate::round(mean(|r| r.ups.into())),
        "downs": crate::round(mean(|r| r.downs.into())),
        "wrong_way": crate::round(mean(|r| r.wrong_way.into())),
    })
}

fn line(name: &str, figures: &Value) -> String {
    let of = |figure: &str| figures[figure].as_f64().unwrap_or(f64::NAN);
    format!(
        "{name:<10} overload {:>7.1} s ({:>5.2} %)  cost {:>5.3}  {:>6.1} up {:>6.1} down",
        of("overload_seconds"),
        of("beyond_percent"),
        of("cost_ratio"),
        of("ups"),
        of("downs")
    )
}

/// The default policy on the family, with a change.
pub fn with(first: u64, count: u64, change: &dyn Fn(&mut Policy)) -> Value {
    let play = |seed: u64| {
        let member = member(seed);
        let mut player = player(0, &member.plant);
        change(&mut player.policy);
        replay(&player, &member.trace, &member.plant)
    };
    figures(&(first..first + count).map(play).collect::<Vec<_>>())
}
