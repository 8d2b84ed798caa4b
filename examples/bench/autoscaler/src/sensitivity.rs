//! What each constant of the default policy is worth: halved and doubled, on the shapes that the bounds are about and on the
//! family. A policy that was fitted falls apart when a constant moves.

use std::time::Duration;

use autoscaler::replay::{Player, replay};
use autoscaler::{Policy, RateLimit};
use serde_json::{Map, Value};

use crate::{family, scenarios};

type Change = fn(&mut Policy, f64);

fn times(duration: &mut Duration, by: f64) {
    *duration = Duration::from_secs_f64((duration.as_secs_f64() * by).round());
}

fn scaled(number: u32, by: f64) -> u32 {
    (f64::from(number) * by).round() as u32
}

fn limits(limits: &mut [RateLimit], by: f64) {
    for limit in limits {
        match limit {
            RateLimit::Count { n, .. } => *n = scaled(*n, by).max(1),
            RateLimit::Percent { p, .. } => *p = scaled(*p, by).max(1),
        }
    }
}

/// Every constant by its name.
const CONSTANTS: &[(&str, Change)] = &[
    ("tolerance (10 %)", |policy, by| {
        let tolerance = &mut policy.signals[0].tolerance;
        (tolerance.up, tolerance.down) = (scaled(tolerance.up, by), scaled(tolerance.down, by));
    }),
    ("up limits (900 %, 4 in 15 s)", |policy, by| limits(&mut policy.behavior.up.limits, by)),
    ("down limit (75 % in 30 s)", |policy, by| {
        for limit in &mut policy.behavior.down.limits {
            if let RateLimit::Percent { p, .. } = limit {
                *p = scaled(*p, by).min(100);
            }
        }
    }),
    ("down window (60 s)", |policy, by| times(&mut policy.behavior.down.stabilization, by)),
    ("burst window (60 s)", |policy, by| {
        policy.burst.iter_mut().for_each(|burst| times(&mut burst.window, by));
    }),
    ("burst threshold (200 %)", |policy, by| {
        policy.burst.iter_mut().for_each(|burst| burst.threshold = scaled(burst.threshold, by).max(110));
    }),
    ("calm: longest (300 s)", |policy, by| {
        policy.calm.iter_mut().for_each(|calm| times(&mut calm.longest, by));
    }),
    ("calm: period (3600 s)", |policy, by| {
        policy.calm.iter_mut().for_each(|calm| times(&mut calm.period, by));
    }),
    ("calm: known (10 s)", |policy, by| policy.calm.iter_mut().for_each(|calm| times(&mut calm.known, by))),
    ("surge patience (180 s)", |policy, by| {
        policy.surge.iter_mut().for_each(|surge| times(&mut surge.patience, by));
    }),
    ("flap turns (6 in 600 s)", |policy, by| {
        policy.flap_budget.iter_mut().for_each(|budget| budget.turns = scaled(budget.turns, by));
    }),
    ("forecast step (10 s)", |policy, by| {
        policy.forecast.iter_mut().for_each(|forecast| times(&mut forecast.step, by));
    }),
    ("forecast horizon (30 s)", |policy, by| {
        policy.forecast.iter_mut().for_each(|forecast| times(&mut forecast.horizon, by));
    }),
    ("forecast batch (120 s)", |policy, by| {
        policy.forecast.iter_mut().for_each(|forecast| times(&mut forecast.batch, by));
    }),
    ("no forecast", |policy, _| policy.forecast = None),
    ("no calm", |policy, _| policy.calm = None),
];

/// Prints the table, on `count` members of the family from `first` on.
pub fn run(first: u64, count: u64) -> Result<Value, String> {
    const SHAPES: [&str; 5] = ["step", "flash", "sawtooth", "square", "nasa95"];
    println!(
        "\n| overload s / cost / up+down | {} | family |\n|---|{}",
        SHAPES.join(" | "),
        "---|".repeat(6)
    );
    let all = scenarios::all();
    let mut rows = Map::new();
    let mut row = |name: String, change: &dyn Fn(&mut Policy)| -> Result<(), String> {
        let mut cells = Map::new();
        for shape in SHAPES {
            let scenario = all.iter().find(|scenario| scenario.name == shape).ok_or("a shape is gone")?;
            let mut player: Player = scenarios::players().swap_remove(0);
            change(&mut player.policy);
            player.policy.validate().map_err(|errors| format!("{name}: {errors}"))?;
            let play = |delay: &usize| replay(&player, &(scenario.trace)(*delay), &scenario.plant);
            let reports: Vec<_> = scenario.delays.iter().map(play).collect();
            cells.insert(shape.into(), family::figures(&reports));
        }
        cells.insert("family".into(), family::with(first, count, change));
        let told = |cell: &Value| {
            let of = |figure: &str| cell[figure].as_f64().unwrap_or(f64::NAN);
            let (overload, cost) = (of("overload_seconds"), of("cost_ratio"));
            format!("{overload:.0} / {cost:.2} / {:.0}+{:.0}", of("ups"), of("downs"))
        };
        let line: Vec<String> = SHAPES.iter().chain(&["family"]).map(|shape| told(&cells[*shape])).collect();
        println!("| {name} | {} |", line.join(" | "));
        rows.insert(name, Value::Object(cells));
        Ok(())
    };
    row("as it is".to_owned(), &|_| {})?;
    for (name, change) in CONSTANTS {
        if name.starts_with("no ") {
            row((*name).to_owned(), &|policy| change(policy, 0.0))?;
            continue;
        }
        for by in [0.5, 2.0] {
            row(format!("{name} × {by}"), &|policy| change(policy, by))?;
        }
    }
    Ok(Value::Object(rows))
}
