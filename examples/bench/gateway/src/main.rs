//! CPU per proxied request, latency and lost requests, beside nginx, HAProxy and pingora, in one run.
//!
//! Each proxy has core 0 for itself, one worker; the load (wrk, 64 keep-alive connections) and three nginx backends are
//! on core 1. Proxies take turns inside of each round, so that a neighbour's work meets all of them; CPU time is read
//! from /proc and so mostly survives neighbours, requests a second do not. Figures are medians over the rounds.

mod load;
mod parts;
mod plot;

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use indicatif::ProgressBar;

use crate::load::{Load, Seen};
use crate::parts::{Backends, Proxy};
use crate::plot::Panel;

/// Rounds of the comparison, seconds of each measurement in it, and connections.
struct Plan {
    rounds: usize,
    seconds: u64,
    json: bool,
    skip_lost: bool,
    only: Option<String>,
    svg: Option<String>,
}

fn main() -> Result<()> {
    let plan = plan()?;
    parts::build()?;
    let folder = tempfile::tempdir()?;
    let backends = Backends::start(folder.path(), 9100)?;
    let mut proxies: Vec<Proxy> = Vec::new();
    for (name, port) in [("ours", 9201), ("nginx", 9202), ("haproxy", 9203), ("pingora", 9204)] {
        if plan.only.as_deref().is_none_or(|only| only == name || name == "ours") {
            proxies.push(Proxy::start(name, port, folder.path(), &backends.addresses())?);
        }
    }
    let mut seen: Vec<Vec<Measured>> = proxies.iter().map(|_| Vec::new()).collect();
    let bar = ProgressBar::new((plan.rounds * proxies.len()) as u64);
    for round in 0..plan.rounds {
        let count = proxies.len();
        for turn in 0..count {
            let which = (turn + round) % count;
            let (proxy, row) = (&proxies[which], &mut seen[which]);
            let measured = measure(proxy, plan.seconds)?;
            bar.inc(1);
            bar.suspend(|| {
                println!(
                    "round {round}: {:8} {:8.0} req/s, {:6.2} us CPU per request, p50 {:6.2} ms, p99 {:6.2} ms",
                    proxy.name, measured.rate, measured.cpu, measured.p50, measured.p99
                );
            });
            row.push(measured);
        }
    }
    bar.finish_and_clear();
    let of = |name: &str, figure: fn(&Measured) -> f64| {
        let which = proxies.iter().position(|proxy| proxy.name == name)?;
        Some(median(seen[which].iter().map(figure)))
    };
    // The ratio of each round, then the median: neighbours come and go between rounds.
    let ratio = |name: &str, figure: fn(&Measured) -> f64| {
        let which = proxies.iter().position(|proxy| proxy.name == name)?;
        Some(median(seen[0].iter().zip(&seen[which]).map(|(ours, peer)| figure(ours) / figure(peer))))
    };
    for proxy in &proxies {
        let name = proxy.name;
        println!(
            "{name:8} {:6.2} us CPU per request, p50 {:5.2} ms, p99 {:5.2} ms, {:6.0} req/s; ours to it: CPU {:.2}, p99 {:.2}",
            of(name, |m| m.cpu).unwrap_or(f64::NAN),
            of(name, |m| m.p50).unwrap_or(f64::NAN),
            of(name, |m| m.p99).unwrap_or(f64::NAN),
            of(name, |m| m.rate).unwrap_or(f64::NAN),
            ratio(name, |m| m.cpu).unwrap_or(f64::NAN),
            ratio(name, |m| m.p99).unwrap_or(f64::NAN),
        );
    }
    if let Some(file) = &plan.svg {
        let bars = |figure: fn(&Measured) -> f64| {
            proxies.iter().filter_map(|proxy| Some((proxy.name, of(proxy.name, figure)?))).collect()
        };
        let panels = [
            Panel { title: "CPU per proxied request", unit: "us", bars: bars(|m| m.cpu) },
            Panel { title: "99th percentile, 64 connections", unit: "ms", bars: bars(|m| m.p99) },
        ];
        std::fs::write(file, plot::svg(&panels)).with_context(|| format!("--svg is {file}"))?;
    }
    let idle = parts::idle_connection_kib(&proxies[0])?;
    println!("an idle client connection of ours: {idle:.1} KiB");
    let mut lost = Vec::new();
    if !plan.skip_lost {
        for (port, what) in [(9110, "kill"), (9120, "stop"), (9130, "hang"), (9140, "churn")] {
            let found = lose(what, port, folder.path())?;
            println!("lost when backends {what}: {} of {} GETs", found.lost, found.requests);
            lost.push((what, found));
        }
    }
    if plan.json {
        let figure = |value: Option<f64>| value.map(|value| (value * 1000.0).round() / 1000.0);
        let gone = |what: &str| lost.iter().find(|(name, _)| *name == what).map(|(_, seen)| seen.lost);
        println!(
            "{}",
            serde_json::json!({
                "cpu_ratio_nginx": figure(ratio("nginx", |m| m.cpu)),
                "cpu_ratio_haproxy": figure(ratio("haproxy", |m| m.cpu)),
                "cpu_ratio_pingora": figure(ratio("pingora", |m| m.cpu)),
                "p99_ratio_nginx": figure(ratio("nginx", |m| m.p99)),
                "lost_kill": gone("kill"),
                "lost_stop": gone("stop"),
                "lost_hang": gone("hang"),
                "lost_churn": gone("churn"),
                "requests_each": lost.iter().map(|(_, seen)| seen.requests).min(),
            })
        );
    }
    Ok(())
}

struct Measured {
    rate: f64,
    /// Microseconds per request.
    cpu: f64,
    p50: f64,
    p99: f64,
}

fn measure(proxy: &Proxy, seconds: u64) -> Result<Measured> {
    // Connections and caches first.
    Load::start(proxy.port, 1)?.finish()?;
    let before = proxy.cpu()?;
    let seen = Load::start(proxy.port, seconds)?.finish()?;
    let spent = proxy.cpu()? - before;
    if seen.lost > 0 {
        bail!(
            "{} lost {} of {} requests with nobody dying: its figures mean nothing",
            proxy.name,
            seen.lost,
            seen.requests
        );
    }
    Ok(Measured {
        rate: seen.requests as f64 / seconds as f64,
        cpu: spent.as_secs_f64() * 1e6 / seen.requests as f64,
        p50: seen.p50,
        p99: seen.p99,
    })
}

/// One of three backends fails while GETs go on, and comes back; or the set changes every 100 ms for 8 s. Until there
/// were 200,000 requests.
fn lose(what: &str, port: u16, folder: &std::path::Path) -> Result<Seen> {
    let mut backends = Backends::start(folder, port)?;
    let mut proxy = Proxy::start("ours", port + 5, folder, &backends.addresses())?;
    let mut sum = Seen::default();
    for _ in 0..10 {
        let load = Load::start(proxy.port, 9)?;
        std::thread::sleep(Duration::from_secs(1));
        match what {
            "kill" => backends.kill(1)?,
            "stop" => backends.stop(1)?,
            "hang" => backends.hang(1)?,
            _ => churn(&mut proxy, &backends.addresses())?,
        }
        std::thread::sleep(Duration::from_secs(3));
        match what {
            "kill" | "stop" => backends.restart(1)?,
            "hang" => backends.wake(1)?,
            _ => {}
        }
        let seen = load.finish()?;
        sum.requests += seen.requests;
        sum.lost += seen.lost;
        if sum.requests >= 200_000 {
            return Ok(sum);
        }
    }
    bail!("no 200,000 requests in 90 s, only {}: is the machine busy?", sum.requests)
}

fn churn(proxy: &mut Proxy, addresses: &[String]) -> Result<()> {
    let began = Instant::now();
    for step in 0.. {
        if began.elapsed() > Duration::from_secs(8) {
            break;
        }
        let part =
            addresses.iter().enumerate().filter(|(n, _)| (step + n) % 3 != 0).map(|(_, addr)| addr.as_str());
        proxy.tell(&part.collect::<Vec<_>>().join(" "))?;
        std::thread::sleep(Duration::from_millis(100));
    }
    proxy.tell(&addresses.join(" "))
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<_> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn plan() -> Result<Plan> {
    let mut plan = Plan { rounds: 5, seconds: 4, json: false, skip_lost: false, only: None, svg: None };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut number = || -> Result<u64> {
            let value = arguments.next().with_context(|| format!("{argument} needs a number"))?;
            value.parse().with_context(|| format!("{argument} {value} is no number"))
        };
        match argument.as_str() {
            "--json" => plan.json = true,
            "--skip-lost" => plan.skip_lost = true,
            "--rounds" => plan.rounds = number()? as usize,
            "--seconds" => plan.seconds = number()?,
            "--only" => plan.only = arguments.next(),
            "--svg" => plan.svg = Some(arguments.next().context("--svg needs a file")?),
            other => {
                bail!("there is no {other}; options: --json --rounds N --seconds N --skip-lost --only PEER --svg FILE")
            }
        }
    }
    Ok(plan)
}
