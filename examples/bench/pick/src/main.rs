//! What one pick costs, beside pingora's and tower's, in one run on one core.
//!
//! Cases take turns; each sample is a batch of some milliseconds, and a case's figure is the median of its samples.
//! `pick` is the pick alone; `pick+finish` is the pick and all that the end of its request costs.

mod ours;
mod peers;

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Runs so many picks and returns how long they took.
type Batch = Box<dyn FnMut(u32) -> Duration>;

struct Case {
    name: String,
    batch: Batch,
    iterations: u32,
    samples: Vec<f64>,
}

fn main() -> Result<()> {
    let mut json = false;
    let mut samples = 21;
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match (argument.as_str(), argument.as_str() == "--samples") {
            ("--json", _) => json = true,
            (_, true) => samples = arguments.next().unwrap_or_default().parse()?,
            (other, _) => bail!("there is no {other}; options: --json --samples N"),
        }
    }
    let mut cases = Vec::new();
    for n in [10, 1000] {
        let all = ours::cases(n)?.into_iter().chain(peers::cases(n)?);
        cases.extend(all.map(|(name, batch)| Case {
            name: format!("{name}_{n}"),
            batch,
            iterations: 100,
            samples: Vec::new(),
        }));
    }
    for case in &mut cases {
        // Long enough that the clock's own time does not count, short enough that neighbours seldom meet it.
        while (case.batch)(case.iterations) < Duration::from_millis(3) {
            case.iterations *= 2;
        }
    }
    for _ in 0..samples {
        for case in &mut cases {
            let took = (case.batch)(case.iterations);
            case.samples.push(took.as_nanos() as f64 / f64::from(case.iterations));
        }
    }
    let mut figures = serde_json::Map::new();
    for case in &mut cases {
        case.samples.sort_by(f64::total_cmp);
        let median = case.samples[case.samples.len() / 2];
        println!("{:34} {:8.1} ns (fastest {:.1})", case.name, median, case.samples[0]);
        figures.insert(case.name.clone(), ((median * 10.0).round() / 10.0).into());
    }
    if json {
        println!("{}", serde_json::Value::Object(figures));
    }
    Ok(())
}

/// Times `work` over so many rounds.
fn timed(rounds: u32, mut work: impl FnMut(u32)) -> Duration {
    let began = Instant::now();
    for round in 0..rounds {
        work(round);
    }
    began.elapsed()
}
