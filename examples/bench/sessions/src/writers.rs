//! Two processes that write to one SQLite file: how long a commit takes in the worst of a thousand.

use crate::ours;
use anyhow::{Context, Result, bail};
use std::{
    fmt,
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

/// The argument that makes this program a writer.
pub const CHILD: &str = "--writer";

pub struct Found {
    pub p999_ms: f64,
    commits: usize,
    longest_ms: f64,
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { p999_ms, commits, longest_ms } = self;
        write!(f, "p99.9 {p999_ms:.1} ms, longest {longest_ms:.1} ms, {commits} commits")
    }
}

/// Writes from two processes at once, and merges what they saw.
pub async fn run(folder: &Path, time: Duration) -> Result<Found> {
    let folder = tempfile::tempdir_in(folder)?;
    let url = format!("sqlite:{}", folder.path().join("two.db").display());
    let program = std::env::current_exe()?;
    let children = (0..2).map(|_| {
        Command::new(&program)
            .args([CHILD, &url, &time.as_secs_f64().to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
    });
    let children = children.collect::<Result<Vec<_>, _>>().context("cannot start a second process")?;
    let mut micros = Vec::<u64>::new();
    for child in children {
        let out = child.wait_with_output()?;
        if !out.status.success() {
            bail!("a writing process failed: {}", out.status);
        }
        micros.extend(serde_json::from_slice::<Vec<u64>>(&out.stdout)?);
    }
    micros.sort_unstable();
    let at = |share: f64| {
        let place = ((micros.len() as f64 * share) as usize).min(micros.len().saturating_sub(1));
        micros.get(place).map(|time| *time as f64 / 1000.0).context("nothing was written")
    };
    Ok(Found { p999_ms: at(0.999)?, longest_ms: at(1.0)?, commits: micros.len() })
}

/// The second process: prints how many microseconds each of its commits took.
pub async fn child(url: &str, time: Duration) -> Result<()> {
    let store = session_store::connect(url).await?;
    let mut keys = Vec::new();
    for _ in 0..SESSIONS {
        keys.push(ours::create(&*store).await?);
    }
    let keys: Arc<[_]> = keys.into();
    let start = Instant::now();
    let tasks = (0..TASKS).map(|_| {
        let (store, keys) = (store.clone(), keys.clone());
        tokio::spawn(async move {
            let mut micros = Vec::new();
            while start.elapsed() < time {
                let begin = Instant::now();
                ours::commit(&*store, &keys[rand::random_range(0..SESSIONS)]).await?;
                micros.push(u64::try_from(begin.elapsed().as_micros())?);
            }
            anyhow::Ok(micros)
        })
    });
    let mut all = Vec::new();
    for task in tasks.collect::<Vec<_>>() {
        all.extend(task.await??);
    }
    println!("{}", serde_json::to_string(&all)?);
    Ok(())
}

/// Of each process: a small service's requests at once.
const TASKS: usize = 16;
const SESSIONS: usize = 400;
