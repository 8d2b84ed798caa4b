//! The measurements. The engine is in this process; each measured client is a process of its own, on one thread, so that its peak of
//! memory and its processor time are its own.

mod child;
mod engine;

use std::process::Command;
use std::time::Duration;

use engine::Engine;

/// Runs all measurements, or one of them as a child.
pub(crate) fn run() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let Some(at) = args.iter().position(|arg| arg == "--child") {
        child::run(&args[at + 1..]);
        return;
    }
    let json = args.iter().any(|arg| arg == "--json");
    let mut ratio = 0.0;
    for tasks in [1_000, 10_000] {
        let engine = Engine::start(tasks);
        println!("{tasks} tasks, {:.1} MB of JSON", engine.size() as f64 / 1e6);
        let (mut ours, mut theirs, mut text) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            // In turn, so that whatever else the machine does hits both.
            ours.push(Listed::of(&engine, "swarm-client"));
            theirs.push(Listed::of(&engine, "bollard"));
            text.push(Listed::of(&engine, "nothing"));
        }
        let [ours, theirs, text] = [ours, theirs, text].map(Listed::median);
        for (name, listed) in [("swarm-client", ours), ("bollard", theirs), ("the bytes alone", text)] {
            println!("  {name:<16} {:>8.1} ms a list, {:>7.1} MB at the peak", listed.ms, listed.peak_mb);
        }
        ratio = ours.ms / theirs.ms;
        println!("  time: {ratio:.2} of bollard's; memory: {:.2}", ours.peak_mb / theirs.peak_mb);
    }
    let engine = Engine::start(10_000);
    engine.change_every(Duration::from_millis(500), 100);
    let seconds = "25";
    let before = engine.lists();
    let out = child(&engine, &["watch", seconds]);
    let polls = engine.lists() - before;
    let cpu_ms = out[0] / polls as f64;
    let (p50, p99, worst, seen) = (out[1], out[2], out[3], out[4]);
    println!("a watch of 10000 tasks, 1 % of them changed each 500 ms, no events, {seconds} s:");
    println!("  {polls} polls, {cpu_ms:.1} ms of processor each, {:.1} MB at the peak", out[5]);
    println!("  {seen:.0} changes seen after {p50:.0} ms (median), {p99:.0} ms (99 %), {worst:.0} ms (all)");
    if json {
        println!(
            "{{\"list_10k_ratio_to_bollard\":{ratio:.3},\"watch_cpu_ms_per_poll_10k\":{cpu_ms:.2},\"change_seen_ms_p99\":{p99:.1}}}"
        );
    }
}

#[derive(Clone, Copy)]
struct Listed {
    ms: f64,
    peak_mb: f64,
}

impl Listed {
    fn of(engine: &Engine, client: &str) -> Self {
        let out = child(engine, &["list", client]);
        Self { ms: out[0], peak_mb: out[1] }
    }

    fn median(all: Vec<Self>) -> Self {
        let middle = |of: fn(&Self) -> f64| {
            let mut values: Vec<f64> = all.iter().map(of).collect();
            values.sort_by(f64::total_cmp);
            values[values.len() / 2]
        };
        Self { ms: middle(|l| l.ms), peak_mb: middle(|l| l.peak_mb) }
    }
}

/// Runs this program again for one measurement; gives the numbers that it prints.
fn child(engine: &Engine, args: &[&str]) -> Vec<f64> {
    let mut command = Command::new(std::env::current_exe().unwrap());
    let output = command.arg("--child").arg(engine.url()).args(args).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    text.split_whitespace().map(|word| word.parse().unwrap()).collect()
}

const ROUNDS: usize = 7;
