//! What the sawtooth costs at best with so many changes of the count: the exact minimum, so that a figure that can't be
//! reached is shown to be one.

use autoscaler::replay::{PlantModel, Trace, replay};
use serde_json::{Map, Value, json};

use crate::scenarios;

/// The cheapest plans of one that knows the whole load, and of one that knows it from the third tooth on (nothing recurs
/// before it came twice) and until then does what one of the policies does.
pub fn run() -> Result<Value, String> {
    let scenarios = scenarios::all();
    let saw = scenarios.iter().find(|scenario| scenario.name == "sawtooth").ok_or("there is no sawtooth")?;
    let (trace, plant) = ((saw.trace)(0), &saw.plant);
    let clairvoyant =
        |report: &autoscaler::replay::Report| report.instance_seconds as f64 / report.cost_ratio;
    let mut rows = Map::new();
    for (name, each) in
        [("target and tolerance (77)", 1.1 * plant.target), ("capacity (100)", plant.capacity)]
    {
        println!("\nsawtooth, never more than {name} an instance: cost by changes each way at most");
        println!("  {:<34} {}", "known from", BUDGETS.map(|budget| format!("{budget:>6}")).join(" "));
        let mut lines = Map::new();
        let mut first = 0.0;
        for player in scenarios::players() {
            let report = replay(&player, &trace, plant);
            first = clairvoyant(&report);
            let before: Vec<_> = report.log.iter().filter(|(second, _)| *second < KNOWN as u64).collect();
            let (mut count, mut spent, mut at) = (plant.needed(trace.load(0)), 0u64, 0u64);
            let (mut ups, mut downs) = (0, 0);
            for (second, decision) in before {
                spent += u64::from(count) * (second - at);
                (ups, downs) = if decision.replicas() > count { (ups + 1, downs) } else { (ups, downs + 1) };
                (count, at) = (decision.replicas(), *second);
            }
            spent += u64::from(count) * (KNOWN as u64 - at);
            let costs = BUDGETS.map(|budget| {
                let left = (budget.checked_sub(ups)?, budget.checked_sub(downs)?);
                Some((spent + cheapest(&trace, plant, each, KNOWN, Some(count), left)?) as f64 / first)
            });
            let name = format!("the third tooth, {} before", player.name);
            lines.insert(name.clone(), told(&name, &costs));
        }
        let all = BUDGETS
            .map(|budget| Some(cheapest(&trace, plant, each, 0, None, (budget, budget))? as f64 / first));
        lines.insert("the beginning".into(), told("the beginning", &all));
        rows.insert(name.into(), Value::Object(lines));
    }
    Ok(Value::Object(rows))
}

fn told(name: &str, costs: &[Option<f64>]) -> Value {
    let cells = costs.iter().map(|cost| cost.map_or("     -".into(), |cost| format!("{cost:>6.2}")));
    println!("  {name:<34} {}", cells.collect::<Vec<_>>().join(" "));
    json!(costs.iter().map(|cost| cost.map(crate::round)).collect::<Vec<_>>())
}

/// Instance-seconds of the cheapest plan from a second on with at most so many changes up and down, under which no
/// instance has more than `each`; a start is paid for. Looks at every plan.
fn cheapest(
    trace: &Trace,
    plant: &PlantModel,
    each: f64,
    from: usize,
    count: Option<u32>,
    (ups, downs): (usize, usize),
) -> Option<u64> {
    let need = |second: usize| ((trace.load(second) / each).ceil() as usize).max(plant.min as usize);
    let most = (from..trace.seconds()).map(need).max()?.max(count.unwrap_or(0) as usize);
    let cell = |up: usize, down: usize, count: usize| (up * (downs + 1) + down) * (most + 1) + count;
    let mut costs = vec![u64::MAX; (ups + 1) * (downs + 1) * (most + 1)];
    for first in 0..=most {
        if count.is_none_or(|count| count as usize == first) {
            costs[cell(0, 0, first)] = 0;
        }
    }
    for second in from..trace.seconds() {
        let mut next = vec![u64::MAX; costs.len()];
        for up in 0..=ups {
            for down in 0..=downs {
                for to in need(second)..=most {
                    let mut best = costs[cell(up, down, to)];
                    let start = |less: usize| ((to - less) * plant.start_seconds) as u64;
                    if up > 0 {
                        let before =
                            (0..to).map(|less| costs[cell(up - 1, down, less)].saturating_add(start(less)));
                        best = best.min(before.min().unwrap_or(u64::MAX));
                    }
                    if down > 0 {
                        let before = (to + 1..=most).map(|more| costs[cell(up, down - 1, more)]);
                        best = best.min(before.min().unwrap_or(u64::MAX));
                    }
                    next[cell(up, down, to)] = best.saturating_add(to as u64);
                }
            }
        }
        costs = next;
    }
    costs.into_iter().min().filter(|cost| *cost < u64::MAX)
}

/// Two teeth.
const KNOWN: usize = 480;
const BUDGETS: [usize; 7] = [4, 6, 8, 10, 12, 16, 20];
