//! A world of queues: endpoints with workers, gateways that share nothing, requests at random. What each policy makes of
//! it, and that the default one is the best or close to it in each scenario.
//!
//! Times are simulated, so that neither this machine nor its neighbours matter; the same seed gives the same figures.
//! `HA_STACK_LONG=1` runs four times as many requests; `cargo test -p balancer --test core simulation -- --nocapture`
//! prints the table.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::Duration;

use balancer::{Config, Health, Lease, Outcome, PickRequest, Policy, Pool, Random, Update};

use crate::support::*;

#[derive(Clone, Copy)]
struct World {
    endpoints: usize,
    gateways: usize,
    workers: usize,
    /// Of what all workers together can do.
    load: f64,
    requests: usize,
    /// Endpoint 0 takes this many times as long.
    slow: f64,
    /// Endpoint 0 fails in 1 ms.
    fails: bool,
    /// Whether endpoints are ever taken out.
    ejects: bool,
}

impl Default for World {
    fn default() -> Self {
        let long = std::env::var("HA_STACK_LONG").is_ok_and(|long| long == "1");
        let requests = if long { 240_000 } else { 60_000 };
        Self {
            endpoints: 10,
            gateways: 4,
            workers: 8,
            load: 0.7,
            requests,
            slow: 1.0,
            fails: false,
            ejects: false,
        }
    }
}

struct Found {
    p99: f64,
    p999: f64,
    failed: f64,
    /// Failed after the first second.
    failed_later: f64,
}

/// A small generator of the test's own.
struct Dice(u64);

impl Dice {
    fn unit(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let mut z = self.0 ^ (self.0 >> 33);
        z = z.wrapping_mul(0xFF51_AFD7_ED55_8CCD);
        ((z ^ (z >> 33)) >> 11) as f64 / (1u64 << 53) as f64
    }

    fn exponential(&mut self, mean: f64) -> f64 {
        -mean * (1.0 - self.unit()).ln()
    }
}

struct Job {
    lease: Lease,
    arrived: f64,
    fails: bool,
}

#[derive(Default)]
struct Server {
    busy: usize,
    queue: VecDeque<Job>,
}

/// 20 ms for a request, exponentially distributed, as in the table of the anchors.
const MEAN: f64 = 0.020;

fn run(world: World, policy: &Policy) -> Found {
    let mut health = Health::default();
    if !world.ejects {
        (health.server_errors, health.success_rate) = (u32::MAX, None);
    }
    let config = Config::default().policy(policy.clone()).health(health);
    let pools: Vec<_> = (0..world.gateways)
        .map(|seed| {
            let pool = Pool::new(config.clone(), seed as u64 + 1).unwrap();
            pool.apply(Update::reset((0..world.endpoints).map(endpoint)), ms(0));
            pool
        })
        .collect();
    let mut dice = Dice(7);
    let mut servers: Vec<Server> = (0..world.endpoints).map(|_| Server::default()).collect();
    // Times in nanoseconds, then a number that keeps the order of equal ones, then the server whose worker is done.
    let mut done: BinaryHeap<Reverse<(u64, u64, usize)>> = BinaryHeap::new();
    let mut running: std::collections::HashMap<u64, Job> = std::collections::HashMap::new();
    let mut latencies = Vec::with_capacity(world.requests);
    let (mut failed, mut failed_later, mut later, mut number) = (0usize, 0usize, 0usize, 0u64);
    let gap = MEAN / (world.endpoints * world.workers) as f64 / world.load;
    let nanos = |seconds: f64| (seconds * 1e9) as u64;
    let at = |seconds: f64| Duration::from_nanos(nanos(seconds));
    let (mut arrival, mut sent) = (0.0f64, 0usize);
    // A third of the requests finds the queues empty: only what comes after them is measured.
    let warm = world.requests / 3;
    loop {
        let next = done.peek().map(|Reverse((time, ..))| *time as f64 / 1e9);
        if sent < world.requests && next.is_none_or(|next| arrival <= next) {
            let pool = &pools[(dice.unit() * world.gateways as f64) as usize % world.gateways];
            for (id, _) in pool.load_probes() {
                let n: usize = id.as_str()[4..].parse().unwrap();
                let has = servers[n].busy + servers[n].queue.len();
                let waits = (has as f64 / world.workers as f64).max(1.0)
                    * MEAN
                    * if n == 0 { world.slow } else { 1.0 };
                pool.load_report(&id, has as u32, at(waits), at(arrival));
            }
            let key = PickRequest::default().key(balancer::hash((sent as u64).to_le_bytes()));
            if let Ok(lease) = pool.pick(&key, at(arrival)) {
                let n: usize = lease.endpoint().id.as_str()[4..].parse().unwrap();
                let job = Job { lease, arrived: arrival, fails: world.fails && n == 0 };
                number += 1;
                if job.fails {
                    done.push(Reverse((nanos(arrival + 0.001), number, usize::MAX)));
                    running.insert(number, job);
                } else if servers[n].busy < world.workers {
                    servers[n].busy += 1;
                    let takes = dice.exponential(MEAN) * if n == 0 { world.slow } else { 1.0 };
                    done.push(Reverse((nanos(arrival + takes), number, n)));
                    running.insert(number, job);
                } else {
                    servers[n].queue.push_back(job);
                }
            }
            sent += 1;
            arrival += dice.exponential(gap);
            continue;
        }
        let Some(Reverse((time, which, server))) = done.pop() else { break };
        let now = time as f64 / 1e9;
        let job = running.remove(&which).unwrap();
        later += usize::from(job.arrived > 1.0);
        if job.fails {
            failed += 1;
            failed_later += usize::from(job.arrived > 1.0);
            job.lease.finish(Outcome::Status(500), at(now));
        } else {
            if latencies.len() + failed >= warm || job.arrived > 0.0 && sent >= warm {
                latencies.push(now - job.arrived);
            }
            job.lease.finish(Outcome::Status(200), at(now));
        }
        if let Some(server_at) = servers.get_mut(server) {
            server_at.busy -= 1;
            if let Some(job) = server_at.queue.pop_front() {
                server_at.busy += 1;
                number += 1;
                let takes = dice.exponential(MEAN) * if server == 0 { world.slow } else { 1.0 };
                done.push(Reverse((nanos(now + takes), number, server)));
                running.insert(number, job);
            }
        }
    }
    latencies.sort_by(f64::total_cmp);
    let quantile = |q: f64| latencies[((latencies.len() - 1) as f64 * q) as usize] * 1000.0;
    for pool in &pools {
        assert_eq!(pool.load().in_flight, 0);
    }
    Found {
        p99: quantile(0.99),
        p999: quantile(0.999),
        failed: failed as f64 / world.requests as f64,
        failed_later: failed_later as f64 / later.max(1) as f64,
    }
}

/// Each policy's figure in a scenario, the default policy's first; prints the row.
fn table(what: &str, world: World, figure: impl Fn(&Found) -> f64) -> Vec<(&'static str, f64)> {
    let found = policies().into_iter().map(|policy| {
        let found = run(world, &policy);
        println!(
            "{what}: {:17} p99 {:8.1} ms, p99.9 {:8.1} ms, failed {:6.3} %",
            policy.name(),
            found.p99,
            found.p999,
            found.failed * 100.0
        );
        (policy.name(), figure(&found))
    });
    found.collect()
}

fn best_or_close(what: &str, figures: &[(&'static str, f64)]) {
    let best = figures.iter().map(|(_, figure)| *figure).fold(f64::INFINITY, f64::min);
    assert!(
        figures[0].1 <= best * 1.1,
        "{what}: the default has {:.2}, the best {best:.2}: {figures:?}",
        figures[0].1
    );
}

#[test]
fn all_alike() {
    let figures = table("all alike", World::default(), |found| found.p99);
    best_or_close("all alike", &figures);
    // The anchors' range for policies that look at load.
    assert!((70.0..125.0).contains(&figures[0].1), "{figures:?}");
}

#[test]
fn one_is_ten_times_slower() {
    let figures = table("one slow", World { slow: 10.0, ..World::default() }, |found| found.p99);
    best_or_close("one slow", &figures);
    let of = |name: &str| figures.iter().find(|(policy, _)| *policy == name).unwrap().1;
    assert!(
        of("round_robin") > of("p2c_peak_ewma") * 5.0,
        "the queue of the slow one grows without end: {figures:?}"
    );
}

#[test]
fn one_fails_at_once() {
    let world = World { fails: true, load: 0.6, ..World::default() };
    let figures = table("one fails", world, |found| found.failed);
    let of = |name: &str| figures.iter().find(|(policy, _)| *policy == name).unwrap().1;
    // Without ejection: a count of requests in flight takes failing for free; the penalty does not.
    assert!(of("least_pending") > 0.2 && of("p2c_least_pending") > 0.12, "{figures:?}");
    assert!((0.08..0.13).contains(&of("round_robin")), "{figures:?}");
    assert!(of("p2c_peak_ewma") < 0.002, "{figures:?}");
    best_or_close("one fails", &figures);
}

#[test]
fn one_that_fails_gets_a_thousandth_from_the_first_second_on() {
    for gateways in [1, 4] {
        for ejects in [false, true] {
            let world = World { fails: true, load: 0.6, gateways, ejects, ..World::default() };
            let found = run(world, &Policy::default());
            println!(
                "{gateways} gateways, ejecting {ejects}: {:.4} % failed later",
                found.failed_later * 100.0
            );
            assert!(found.failed_later <= 0.001, "{} with {gateways}, {ejects}", found.failed_later);
        }
    }
}

#[test]
fn one_that_is_slow_costs_the_tail_at_most_a_tenth() {
    // At a load that the others can carry with ease, as it is wherever an endpoint may fail.
    let world = World { load: 0.5, ..World::default() };
    let (without, with) =
        (run(world, &Policy::default()), run(World { slow: 10.0, ..world }, &Policy::default()));
    println!("p99 {:.1} ms, with a slow one {:.1} ms", without.p99, with.p99);
    assert!(with.p99 <= without.p99 * 1.1, "{:.1} ms after {:.1} ms", with.p99, without.p99);
}

#[test]
fn from_three_to_ten_thousand_endpoints() {
    for (endpoints, gateways) in [(3, 1), (30, 3), (300, 8), (1000, 8), (10_000, 16)] {
        let workers = if endpoints > 300 { 2 } else { 8 };
        let requests = World::default().requests.max(endpoints * 10).min(100_000);
        let world = World { endpoints, gateways, workers, requests, load: 0.6, ..World::default() };
        let (default, random) = (run(world, &Policy::default()), run(world, &Random::default().into()));
        println!(
            "{endpoints} endpoints, {gateways} gateways: p99 {:.1} ms, at random {:.1} ms",
            default.p99, random.p99
        );
        assert!(default.p99 <= random.p99 * 1.02, "{:.1} {:.1}", default.p99, random.p99);
    }
}
