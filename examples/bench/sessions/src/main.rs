//! `./bench.sh sessions [--json] [--rounds N] [--seconds S] [--only PEER]`: what a session costs, beside peers on the same Redis.
//!
//! 64 tasks in one process, 3,200 sessions of about 256 bytes, each task one session at a time, chosen at random. Peers take turns
//! within each round, so that what else the machine does hits all of them; a ratio is the median over the rounds of the ratio within one.
//! Absolute figures say something about this machine only.

mod load;
mod ours;
mod raw;
mod server;
mod tower;
mod writers;

use anyhow::{Context, Result, bail};
use std::time::Duration;

struct Settings {
    json: bool,
    rounds: usize,
    time: Duration,
    only: Option<String>,
}

/// Requests per second of each peer in one round.
#[derive(Clone, Copy, Debug)]
struct Round {
    raw_cas: f64,
    ours: f64,
    tower: f64,
    read: f64,
    sqlite: f64,
}

fn main() -> Result<()> {
    let arguments = std::env::args().skip(1).collect::<Vec<_>>();
    // The benchmark starts itself as the second writing process.
    if let [mode, path, seconds] = arguments.as_slice()
        && mode == writers::CHILD
    {
        return runtime()?.block_on(writers::child(path, Duration::from_secs_f64(seconds.parse()?)));
    }
    let settings = Settings::parse(&arguments)?;
    runtime()?.block_on(run(&settings))
}

/// Two workers: client and server share two cores in the figures that the README quotes.
fn runtime() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?)
}

async fn run(settings: &Settings) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let server = server::Server::start(folder.path())?;
    let url = format!("redis://127.0.0.1:{}", server.port);
    let raw = raw::Raw::new(&url).await?;
    let redis = ours::Ours::new(session_store::connect(&url).await?, ours::Step::Commit).await?;
    let read = redis.with(ours::Step::Read);
    let tower = tower::Tower::new(&url).await?;
    let path = format!("sqlite:{}", folder.path().join("sessions.db").display());
    let sqlite = ours::Ours::new(session_store::connect(&path).await?, ours::Step::Commit).await?;

    if let Some(only) = &settings.only {
        // For a profiler.
        let rate = match only.as_str() {
            "raw" => load::rate(&raw, settings.time).await?,
            "redis" => load::rate(&redis, settings.time).await?,
            "read" => load::rate(&read, settings.time).await?,
            "tower" => load::rate(&tower, settings.time).await?,
            "sqlite" => load::rate(&sqlite, settings.time).await?,
            _ => bail!("there is no peer {only:?}; it is raw, redis, read, tower or sqlite"),
        };
        println!("{only}: {rate:.0} requests a second");
        return Ok(());
    }
    let mut rounds = Vec::new();
    for number in 0..=settings.rounds {
        let round = Round {
            raw_cas: load::rate(&raw, settings.time).await?,
            ours: load::rate(&redis, settings.time).await?,
            tower: load::rate(&tower, settings.time).await?,
            read: load::rate(&read, settings.time).await?,
            sqlite: load::rate(&sqlite, settings.time).await?,
        };
        // The first one fills caches and scripts.
        if number > 0 {
            eprintln!("round {number} of {}: {round:.0?}", settings.rounds);
            rounds.push(round);
        }
    }
    drop(server);
    let mut slow = Vec::new();
    for number in 1..=WRITER_RUNS {
        let found = writers::run(folder.path(), settings.time).await?;
        eprintln!("two writing processes, run {number} of {WRITER_RUNS}: {found}");
        slow.push(found.p999_ms);
    }

    let ratio = |of: fn(&Round) -> f64, to: fn(&Round) -> f64| {
        median(rounds.iter().map(|round| of(round) / to(round)).collect())
    };
    let commit_raw = ratio(|round| round.ours, |round| round.raw_cas);
    let commit_tower = ratio(|round| round.ours, |round| round.tower);
    let read_tower = ratio(|round| round.read, |round| round.tower);
    let sqlite_redis = ratio(|round| round.sqlite, |round| round.raw_cas);
    let p999 = median(slow);
    let rate = |of: fn(&Round) -> f64| median(rounds.iter().map(of).collect()) / 1000.0;

    println!("thousand requests a second, {} tasks, medians of {} rounds:", load::TASKS, settings.rounds);
    println!("  GET + compare-and-set script, raw redis-rs   {:7.1}", rate(|round| round.raw_cas));
    println!("  load + versioned commit, Redis               {:7.1}  {commit_raw:.2} of raw redis-rs", rate(|round| round.ours));
    println!("  load + save, tower-sessions                  {:7.1}  ours: {commit_tower:.2} of it", rate(|round| round.tower));
    println!("  load, Redis                                  {:7.1}  {read_tower:.2} of tower-sessions' load + save", rate(|round| round.read));
    println!("  load + versioned commit, SQLite              {:7.1}  {sqlite_redis:.2} of raw redis-rs", rate(|round| round.sqlite));
    println!("p99.9 of a commit, two processes writing to one SQLite file: {p999:.1} ms (median of {WRITER_RUNS} runs)");
    if settings.json {
        let round = |number: f64| (number * 1000.0).round() / 1000.0;
        println!(
            "{}",
            serde_json::json!({
                "commit_ratio_raw_cas": round(commit_raw),
                "commit_ratio_tower_sessions": round(commit_tower),
                "read_ratio_tower_load_save": round(read_tower),
                "sqlite_ratio_redis": round(sqlite_redis),
                "sqlite_p999_ms": round(p999),
            })
        );
    }
    Ok(())
}

impl Settings {
    fn parse(arguments: &[String]) -> Result<Self> {
        let mut settings = Self { json: false, rounds: 9, time: Duration::from_millis(1500), only: None };
        let mut rest = arguments.iter();
        while let Some(argument) = rest.next() {
            let mut value = || rest.next().with_context(|| format!("{argument} needs a value after it"));
            match argument.as_str() {
                "--json" => settings.json = true,
                "--only" => settings.only = Some(value()?.clone()),
                "--rounds" => settings.rounds = value()?.parse().context("--rounds is no whole number")?,
                "--seconds" => {
                    let seconds = value()?.parse().context("--seconds is no number")?;
                    settings.time = Duration::try_from_secs_f64(seconds).context("--seconds is no duration")?;
                }
                _ => bail!("there is no {argument:?}; use --json, --rounds N, --seconds S"),
            }
        }
        if settings.rounds == 0 || settings.time.is_zero() {
            bail!("--rounds and --seconds must be more than 0");
        }
        Ok(settings)
    }
}

fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers.get(numbers.len() / 2).copied().unwrap_or(f64::NAN)
}

const WRITER_RUNS: usize = 5;
