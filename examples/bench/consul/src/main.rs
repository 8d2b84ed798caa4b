//! `./bench.sh consul [--json]`: consul-client beside plain reqwest, rs-consul and consulrs, on one Consul agent of its own.
//!
//! Peers take turns within each round, and ratios are medians of the rounds' own ratios, because the machine's pace changes between
//! rounds by more than the clients differ. `CONSUL_BIN` or `PATH` says where Consul is.

mod agent;
mod clients;
mod connections;
mod watches;

use std::time::{Duration, Instant};

use clients::{Client, Consulrs, Ours, Reqwest, RsConsul};
use indicatif::ProgressBar;

/// Long enough for thousands of calls, short enough that a slow moment of the machine hits all peers of a round alike.
const SLICE: Duration = Duration::from_millis(700);
const ROUNDS: usize = 7;
const TASKS: [usize; 2] = [1, 32];

#[tokio::main]
async fn main() {
    let json = std::env::args().any(|argument| argument == "--json");
    let agent = agent::Agent::start().await;
    let address = agent.address();
    let (ours, reqwest) = (Ours::new(&address), Reqwest::new(&address));
    let (rs_consul, consulrs) = (RsConsul::new(&address), Consulrs::new(&address));

    // Reads find what a client of another make wrote.
    for task in 0..*TASKS.iter().max().unwrap_or(&1) {
        reqwest.put(&key(task)).await;
    }

    // One line for each kind of call and number of tasks; per round the calls a second and the CPU a call of each client.
    let mut ratios = Ratios::default();
    println!("calls a second, and microseconds of CPU a call; medians of {ROUNDS} rounds");
    let bar = ProgressBar::new((2 * TASKS.len() * (ROUNDS + 1)) as u64);
    for kind in [Kind::Get, Kind::Put] {
        for tasks in TASKS {
            let mut rounds: Vec<[Measured; 4]> = Vec::new();
            for round in 0..=ROUNDS {
                let mut measured = [Measured::default(); 4];
                // Whoever goes first finds the machine in another state.
                for i in 0..4 {
                    let who = (round + i) % 4;
                    measured[who] = match who {
                        0 => measure(&ours, kind, tasks).await,
                        1 => measure(&reqwest, kind, tasks).await,
                        2 => measure(&rs_consul, kind, tasks).await,
                        _ => measure(&consulrs, kind, tasks).await,
                    };
                }
                bar.inc(1);
                // The first round fills pools and caches.
                if round > 0 {
                    rounds.push(measured);
                }
            }
            bar.suspend(|| ratios.add(kind, tasks, &rounds));
        }
    }

    bar.finish_and_clear();
    let failures = connections::failures(&address, 400, 8000).await;
    println!("failures of 8000 calls by 400 tasks: {failures}");
    let subscribers = connections::for_subscribers(&address, 1000).await;
    println!("connections for 1000 subscribers of one service: {subscribers}");
    let watch = watches::compare(&address).await;
    println!(
        "watch, from the write to the decoded value, p50: consul-client {:.0} us, reqwest {:.0} us",
        watch.ours * 1e6,
        watch.reqwest * 1e6
    );
    if json {
        let line = serde_json::json!({
            "get_ratio_reqwest": round2(ratios.get_reqwest),
            "put_ratio_reqwest": round2(ratios.put_reqwest),
            "get_ratio_rs_consul": round2(ratios.get_rs_consul),
            "cpu_ratio_consulrs": round2(ratios.cpu_consulrs),
            "failures_400_concurrent": failures,
            "connections_for_1000_subscribers": subscribers,
            "watch_p50_ratio_reqwest": round2(watch.ours / watch.reqwest),
        });
        println!("{line}");
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    Get,
    Put,
}

#[derive(Debug, Clone, Copy, Default)]
struct Measured {
    rate: f64,
    /// Seconds of CPU a call.
    cpu: f64,
}

/// No key is the prefix of another, for rs-consul reads whole prefixes.
fn key(task: usize) -> String {
    format!("bench/{task:02}/key")
}

/// Calls for a slice of time, by so many tasks.
async fn measure<C: Client>(client: &C, kind: Kind, tasks: usize) -> Measured {
    let (began, cpu) = (Instant::now(), cpu_seconds());
    let ends = began + SLICE;
    let workers = (0..tasks).map(|task| {
        let client = client.clone();
        tokio::spawn(async move {
            let key = key(task);
            let mut calls = 0_u64;
            while Instant::now() < ends {
                match kind {
                    Kind::Get => assert_eq!(client.get(&key).await, clients::VALUE.len(), "{}", C::NAME),
                    Kind::Put => client.put(&key).await,
                }
                calls += 1;
            }
            calls
        })
    });
    // All start before any is awaited.
    let workers: Vec<_> = workers.collect();
    let mut calls = 0;
    for worker in workers {
        calls += worker.await.expect("a worker ends well");
    }
    let calls = calls as f64;
    Measured { rate: calls / began.elapsed().as_secs_f64(), cpu: (cpu_seconds() - cpu) / calls }
}

/// The lower of the ratios at 1 and 32 tasks, each a median over the rounds; of CPU the higher.
struct Ratios {
    get_reqwest: f64,
    put_reqwest: f64,
    get_rs_consul: f64,
    cpu_consulrs: f64,
}

impl Default for Ratios {
    fn default() -> Self {
        Self { get_reqwest: f64::MAX, put_reqwest: f64::MAX, get_rs_consul: f64::MAX, cpu_consulrs: 0.0 }
    }
}

impl Ratios {
    fn add(&mut self, kind: Kind, tasks: usize, rounds: &[[Measured; 4]]) {
        let over = |peer: usize| median(rounds.iter().map(|round| round[0].rate / round[peer].rate));
        let rate = |who: usize| median(rounds.iter().map(|round| round[who].rate));
        let cpu = |who: usize| median(rounds.iter().map(|round| round[who].cpu)) * 1e6;
        println!(
            "{kind:?} by {tasks:2}: consul-client {:6.0} ({:3.0} us) | reqwest {:6.0} ({:3.0} us), ratio {:.2} | rs-consul {:6.0} ({:3.0} us), {:.2} | consulrs {:6.0} ({:3.0} us), {:.2}",
            rate(0),
            cpu(0),
            rate(1),
            cpu(1),
            over(1),
            rate(2),
            cpu(2),
            over(2),
            rate(3),
            cpu(3),
            over(3)
        );
        match kind {
            Kind::Get => {
                self.get_reqwest = self.get_reqwest.min(over(1));
                self.get_rs_consul = self.get_rs_consul.min(over(2));
            }
            Kind::Put => self.put_reqwest = self.put_reqwest.min(over(1)),
        }
        // With one task the clock of the kernel is too coarse, and waking threads is most of the cost.
        if tasks > 1 {
            let ratio = median(rounds.iter().map(|round| round[0].cpu / round[3].cpu));
            self.cpu_consulrs = self.cpu_consulrs.max(ratio);
        }
    }
}

pub fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn round2(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

/// Of this process, all threads, user and system; the kernel counts in hundredths of a second.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("/proc is there");
    // The name, in parentheses, may hold spaces.
    let fields: Vec<_> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<f64>().ok()).expect("a number");
    (ticks(11) + ticks(12)) / 100.0
}
