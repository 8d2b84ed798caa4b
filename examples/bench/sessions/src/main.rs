//! `./bench.sh sessions [--json] [--rounds N] [--seconds S] [--only PEER]`: what a session costs, beside peers on the same Redis.
//!
//! 64 tasks in one process, 3,200 sessions of about 256 bytes, each task one session at a time, chosen at random. Peers take turns
//! within each round, so that what else the machine does hits all of them; a ratio is the median over the rounds of the ratio within one.
//!
//! Each round is a process of its own with a Redis of its own. The process has one core and its Redis another one, as where Redis is another host:
//! left alone on two cores, the kernel moves the three threads about, and a peer's rate changes by a factor of up to two within a second,
//! with which of them share a core. SQLite has no server, so its process has all cores. Absolute figures say something about this machine only.

mod load;
mod ours;
mod raw;
mod server;
mod tower;
mod writers;

use anyhow::{Context, Result, bail};
use indicatif::ProgressBar;
use std::{
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

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
    // And for each round.
    if let [mode, peers, core, seconds] = arguments.as_slice()
        && mode == ROUND
    {
        let (core, time) = (core.parse().ok(), Duration::from_secs_f64(seconds.parse()?));
        let rates = runtime()?.block_on(async {
            if peers == "sqlite" { sqlite_round(time).await } else { redis_round(core, time).await }
        })?;
        println!("{}", serde_json::to_string(&rates)?);
        return Ok(());
    }
    let settings = Settings::parse(&arguments)?;
    runtime()?.block_on(run(&settings))
}

/// Two workers, also where they share a core.
fn runtime() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?)
}

/// The peers on one Redis, which is ended when they are dropped.
struct Peers {
    raw: raw::Raw,
    redis: ours::Ours,
    read: ours::Ours,
    tower: tower::Tower,
    _server: server::Server,
}

impl Peers {
    async fn new(folder: &Path, core: Option<usize>) -> Result<Self> {
        let server = server::Server::start(folder, core)?;
        let url = format!("redis://127.0.0.1:{}", server.port);
        let raw = raw::Raw::new(&url).await?;
        let redis = ours::Ours::new(session_store::connect(&url).await?, ours::Step::Commit).await?;
        let read = redis.with(ours::Step::Read);
        let tower = tower::Tower::new(&url).await?;
        Ok(Self { raw, redis, read, tower, _server: server })
    }

    async fn rates(&self, time: Duration) -> Result<[f64; 4]> {
        Ok([
            load::rate(&self.raw, time).await?,
            load::rate(&self.redis, time).await?,
            load::rate(&self.tower, time).await?,
            load::rate(&self.read, time).await?,
        ])
    }
}

async fn sqlite(folder: &Path) -> Result<ours::Ours> {
    let path = format!("sqlite:{}", folder.join("sessions.db").display());
    ours::Ours::new(session_store::connect(&path).await?, ours::Step::Commit).await
}

/// Raw, ours, tower-sessions and reads, after a short round that fills caches and scripts.
async fn redis_round(core: Option<usize>, time: Duration) -> Result<Vec<f64>> {
    let folder = tempfile::tempdir()?;
    let peers = Peers::new(folder.path(), core).await?;
    peers.rates(time / 5).await?;
    Ok(peers.rates(time).await?.to_vec())
}

async fn sqlite_round(time: Duration) -> Result<Vec<f64>> {
    let folder = tempfile::tempdir()?;
    let peer = sqlite(folder.path()).await?;
    load::rate(&peer, time / 5).await?;
    Ok(vec![load::rate(&peer, time).await?])
}

/// Has processes of their own do one round.
fn round_apart(time: Duration) -> Result<Round> {
    // One core for the client and one for its server, where there are two.
    let apart = std::thread::available_parallelism()?.get() > 1;
    let [raw_cas, ours, tower, read] = apart_on("redis", apart, time)?[..] else { bail!("a round is not whole") };
    let [sqlite] = apart_on("sqlite", false, time)?[..] else { bail!("a round is not whole") };
    Ok(Round { raw_cas, ours, tower, read, sqlite })
}

fn apart_on(peers: &str, apart: bool, time: Duration) -> Result<Vec<f64>> {
    let program = std::env::current_exe()?;
    let mut child = if apart { Command::new("taskset") } else { Command::new(&program) };
    if apart {
        child.args(["-c", "0"]).arg(&program);
    }
    child.args([ROUND, peers, if apart { "1" } else { "-" }, &time.as_secs_f64().to_string()]);
    let out = child.stdin(Stdio::null()).stderr(Stdio::inherit()).output();
    let out = out.context("cannot start a process for a round; is taskset (package util-linux) there?")?;
    if !out.status.success() {
        bail!("a round failed: {}", out.status);
    }
    Ok(serde_json::from_slice(&out.stdout)?)
}

async fn only(peer: &str, time: Duration) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let rate = if peer == "sqlite" {
        load::rate(&sqlite(folder.path()).await?, time).await?
    } else {
        let peers = Peers::new(folder.path(), None).await?;
        match peer {
            "raw" => load::rate(&peers.raw, time).await?,
            "redis" => load::rate(&peers.redis, time).await?,
            "read" => load::rate(&peers.read, time).await?,
            "tower" => load::rate(&peers.tower, time).await?,
            _ => bail!("there is no peer {peer:?}; it is raw, redis, read, tower or sqlite"),
        }
    };
    println!("{peer}: {rate:.0} requests a second");
    Ok(())
}

async fn run(settings: &Settings) -> Result<()> {
    if let Some(peer) = &settings.only {
        // For a profiler.
        return only(peer, settings.time).await;
    }
    let folder = tempfile::tempdir()?;
    let bar = ProgressBar::new((settings.rounds + WRITER_RUNS) as u64);
    let mut rounds = Vec::new();
    for number in 1..=settings.rounds {
        let round = round_apart(settings.time)?;
        bar.inc(1);
        bar.suspend(|| eprintln!("round {number} of {}: {round:.0?}", settings.rounds));
        rounds.push(round);
    }
    let mut slow = Vec::new();
    for number in 1..=WRITER_RUNS {
        let found = writers::run(folder.path(), settings.time).await?;
        bar.inc(1);
        bar.suspend(|| eprintln!("two writing processes, run {number} of {WRITER_RUNS}: {found}"));
        slow.push(found.p999_ms);
    }
    bar.finish_and_clear();

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
                _ => bail!("there is no {argument:?}; use --json, --rounds N, --seconds S, --only PEER"),
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
/// The argument that makes this program do one round.
const ROUND: &str = "--round";
