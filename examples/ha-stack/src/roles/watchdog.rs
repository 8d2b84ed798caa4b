//! The watchdog of plain engines: starts elsewhere what a lost engine took with it, and keeps each service at its number of
//! replicas. Any number of them may run; the one that an election in Consul made the leader acts.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use swarm_client::engines::{EnginePool, Lease, Watchdog};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::leader::Leading;
use crate::platform::engines::record::{ConsulRoster, Followed, LEADER, Records};

/// Watches until told to stop. What runs goes on without it.
///
/// # Errors
/// When signals can't be waited for.
pub async fn run(pool: EnginePool, consul: consul_client::Client, name: String) -> Result<ExitCode> {
    let stop = CancellationToken::new();
    let (signal, told) = (crate::cli::shutdown_signal()?, stop.clone());
    tokio::spawn(async move {
        signal.await;
        told.cancel();
    });
    let election = consul.election(LEADER).value(name).ttl(LOCK_TTL).lock_delay(LOCK_DELAY).campaign()?;
    let leading = Leading::default();
    let standing = tokio::spawn(leading.clone().follow(election, stop.clone()));
    let store = Arc::new(ConsulRoster::new(consul.clone()));
    let mut watchdog = Watchdog::new(pool.clone(), Arc::new(leading.clone()), store);
    let records = Arc::new(Records::new(consul).follow());
    let mut keeping: Option<JoinHandle<()>> = None;
    let mut ticks = tokio::time::interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut last = String::new();
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = stop.cancelled() => break,
        }
        let round = watchdog.round().await;
        let line = round.to_string();
        if line != last {
            tracing::info!("{line}");
            last = line;
        }
        // Beside the rounds: a replica that is removed may take its whole drain, and an engine that is lost meanwhile, with what was
        // started on it just now, has to be known.
        if round.led
            && round.engines.iter().any(|engine| engine.reached)
            && keeping.as_ref().is_none_or(JoinHandle::is_finished)
        {
            let (pool, records, leading) = (pool.clone(), Arc::clone(&records), leading.clone());
            keeping = Some(tokio::spawn(async move { keep_numbers(&pool, &records, &leading).await }));
        }
    }
    if let Some(mut keeping) = keeping
        && tokio::time::timeout(FINISH, &mut keeping).await.is_err()
    {
        keeping.abort();
    }
    // Returns when the lock is free: another one takes over at once.
    let _ = standing.await;
    Ok(ExitCode::SUCCESS)
}

/// Has each service run as often as its record wants. One that can't be brought there waits for the next round.
async fn keep_numbers(pool: &EnginePool, records: &Followed, lease: &Leading) {
    let all = match records.latest() {
        Ok(all) => all.unwrap_or_default(),
        Err(error) => {
            tracing::warn!(error = format!("{error:#}"), "no service is scaled this time");
            return;
        }
    };
    for (service, record) in all {
        if lease.term().is_none() {
            return;
        }
        match pool.scale(&service, record.replicas, Some(&record.spec)).await {
            Ok(scaled) if scaled.started.is_empty() && scaled.removed.is_empty() => {}
            Ok(scaled) => {
                let started: Vec<String> = scaled.started.iter().map(ToString::to_string).collect();
                tracing::info!(%service, ?started, removed = ?scaled.removed, "scaled to {}", record.replicas);
            }
            Err(error) => tracing::warn!(%service, %error, "not at {} replicas", record.replicas),
        }
    }
}

/// The term is the fence of the election's lock.
impl Lease for Leading {
    fn term(&self) -> Option<u64> {
        self.now().map(|leadership| leadership.fence().0)
    }
}

/// A look at engines that answer takes milliseconds; three at one that is gone make it lost, in about three seconds.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// The shortest that Consul offers; a leader whose host is lost is gone sooner, by Consul's own failure detection.
const LOCK_TTL: Duration = Duration::from_secs(10);
/// What is being started or removed has this long to end before the watchdog does, which has 15 s.
const FINISH: Duration = Duration::from_secs(12);
/// Two leaders at once are found by the next look: no need for the default of 15 s.
const LOCK_DELAY: Duration = Duration::from_secs(1);
