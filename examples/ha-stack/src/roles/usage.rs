//! How much CPU the containers of a host use: measured where they run, by the registrar, for the scalers that ask.
//!
//! An engine counts a container's CPU time from its start; what is used is the difference of two looks, over the time
//! between them. So the first look at a container is no figure, and neither is one after its counter fell (it was
//! started again) or after a long pause: no figure is not a zero.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use axum::routing::get;
use axum::{Json, Router};
use futures_util::StreamExt;
use serde::{Deserialize, Serialize};
use swarm_client::bollard::models::ContainerStatsResponse;
use swarm_client::bollard::query_parameters::StatsOptionsBuilder;
use swarm_client::{NodeId, Service, Task, bollard};

use super::registrar::instance;
use super::scaler_policy;

/// What a container used, as a scaler is told.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Usage {
    /// The replica, as the gateways know it.
    pub instance: String,
    /// Its service.
    pub service: String,
    /// Processors used, on average.
    pub cores: f64,
    /// Processors that it may use: its limit, else its reservation, else all of its host.
    pub of: f64,
    /// Over how long that was measured.
    pub over_ms: u64,
    /// How long ago that was.
    pub age_ms: u64,
}

/// One look at a container's counter.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Look {
    /// CPU time since its start.
    pub total: Duration,
    /// When, on any clock that only goes forward.
    pub at: Duration,
}

/// The last look at each container.
#[derive(Debug, Default)]
pub struct Meter {
    seen: BTreeMap<String, Look>,
}

impl Meter {
    /// Processors used since the last look, and over how long; `None` where that can't be said.
    pub fn take(&mut self, container: &str, look: Look) -> Option<(f64, Duration)> {
        let last = self.seen.insert(container.to_owned(), look)?;
        let over = look.at.checked_sub(last.at)?;
        // Counters that are read twice at once divide noise by nothing; those of a minute ago tell of another time.
        if !(LEAST..=MOST).contains(&over) {
            return None;
        }
        let used = look.total.checked_sub(last.total)?;
        Some((used.as_secs_f64() / over.as_secs_f64(), over))
    }

    /// Forgets all others.
    pub fn keep(&mut self, there: impl Fn(&str) -> bool) {
        self.seen.retain(|container, _| there(container));
    }
}

/// What was measured last of each replica of this host.
#[derive(Clone, Default)]
pub struct Board {
    figures: Arc<Mutex<BTreeMap<String, (Usage, Instant)>>>,
}

impl Board {
    /// `GET /usage`: all figures, each with its age.
    pub fn routes(&self) -> Router {
        let board = self.clone();
        Router::new().route("/usage", get(move || async move { Json(board.figures()) }))
    }

    fn figures(&self) -> Vec<Usage> {
        let figures = self.figures.lock().unwrap_or_else(PoisonError::into_inner);
        let aged = |(usage, since): &(Usage, Instant)| Usage {
            age_ms: u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX),
            ..usage.clone()
        };
        figures.values().map(aged).collect()
    }
}

/// What is to be measured.
#[derive(Clone, Debug, PartialEq)]
struct Measured {
    container: String,
    instance: String,
    service: String,
    /// Its limit or reservation, if it has one.
    of: Option<f64>,
}

/// Measures the containers of this node for ever.
pub(super) async fn watch(swarm: &swarm_client::Client, node: &NodeId, board: &Board) {
    let (mut meter, began) = (Meter::default(), Instant::now());
    loop {
        if let Err(error) = round(swarm, node, board, &mut meter, began).await {
            tracing::warn!(error = format!("{error:#}"), "no CPU is measured this time");
        }
        tokio::time::sleep(EVERY).await;
    }
}

async fn round(
    swarm: &swarm_client::Client,
    node: &NodeId,
    board: &Board,
    meter: &mut Meter,
    began: Instant,
) -> Result<()> {
    // Of who is not scaled nobody asks.
    let services = swarm.services().list_labelled(scaler_policy::SCALE).await?;
    let tasks = if services.is_empty() { Vec::new() } else { swarm.tasks().list_for_node(node).await? };
    let measured = measured(&services, &tasks);
    meter.keep(|container| measured.iter().any(|measured| measured.container == container));
    {
        let mut figures = board.figures.lock().unwrap_or_else(PoisonError::into_inner);
        figures.retain(|name, _| measured.iter().any(|measured| measured.instance == *name));
    }
    if measured.is_empty() {
        return Ok(());
    }
    let engine = swarm.bollard().context("the engine of this host can't be reached")?;
    let looked = measured.iter().map(|measured| {
        let look = tokio::time::timeout(STATS_DEADLINE, look(&engine, &measured.container, began));
        async move { (measured, look.await.ok().flatten()) }
    });
    for (measured, look) in futures_util::future::join_all(looked).await {
        // One that does not answer keeps its last figure, which grows old.
        let Some((look, cpus)) = look else { continue };
        let Some((cores, over)) = meter.take(&measured.container, look) else { continue };
        let usage = Usage {
            instance: measured.instance.clone(),
            service: measured.service.clone(),
            cores,
            of: measured.of.unwrap_or(cpus),
            over_ms: u64::try_from(over.as_millis()).unwrap_or(u64::MAX),
            age_ms: 0,
        };
        let mut figures = board.figures.lock().unwrap_or_else(PoisonError::into_inner);
        figures.insert(measured.instance.clone(), (usage, Instant::now()));
    }
    Ok(())
}

/// The running tasks of services that are scaled.
fn measured(services: &[Service], tasks: &[Task]) -> Vec<Measured> {
    let running = tasks.iter().filter(|task| task.is_running());
    running
        .filter_map(|task| {
            let service = services.iter().find(|service| *service.id() == task.service_id)?;
            let container = task.status.container_status.as_ref()?.container_id.clone();
            let resources = task.spec.resources.as_ref();
            let cpus = |of: Option<&swarm_client::model::ResourceLimits>| {
                of.and_then(|of| of.nano_cpus).filter(|nano| *nano > 0).map(|nano| nano as f64 / 1e9)
            };
            let limit = cpus(resources.and_then(|resources| resources.limits.as_ref()));
            let reserved = cpus(resources.and_then(|resources| resources.reservations.as_ref()));
            Some(Measured {
                container,
                instance: instance(service.name(), task),
                service: service.name().to_owned(),
                of: limit.or(reserved),
            })
        })
        .collect()
}

async fn look(engine: &bollard::Docker, container: &str, began: Instant) -> Option<(Look, f64)> {
    let options = StatsOptionsBuilder::new().stream(false).one_shot(true).build();
    let answer = Box::pin(engine.stats(container, Some(options))).next().await?.ok()?;
    read(&answer, began.elapsed())
}

/// The counter of one answer, and the host's processors; `None` where the engine tells nothing, as of a container that
/// has just ended.
fn read(answer: &ContainerStatsResponse, at: Duration) -> Option<(Look, f64)> {
    let cpu = answer.cpu_stats.as_ref()?;
    let usage = cpu.cpu_usage.as_ref()?;
    let total = usage.total_usage.filter(|total| *total > 0)?;
    // An old engine gives the number of processors only as the length of this list.
    let listed = usage.percpu_usage.as_ref().and_then(|each| u32::try_from(each.len()).ok());
    let cpus = cpu.online_cpus.filter(|cpus| *cpus > 0).or(listed).filter(|cpus| *cpus > 0)?;
    Some((Look { total: Duration::from_nanos(total), at }, cpus.into()))
}

/// Short enough for a scaler that decides every second, and a counter's steps of 10 ms are half a percent of it.
const EVERY: Duration = Duration::from_secs(2);
const STATS_DEADLINE: Duration = Duration::from_secs(2);
const LEAST: Duration = Duration::from_millis(500);
const MOST: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn at(total_ms: u64, at_ms: u64) -> Look {
        Look { total: Duration::from_millis(total_ms), at: Duration::from_millis(at_ms) }
    }

    #[test]
    fn what_is_used_is_the_difference_of_two_looks() {
        let mut meter = Meter::default();
        assert_eq!(meter.take("a", at(500, 0)), None, "the first look is no figure");
        assert_eq!(meter.take("a", at(1500, 2000)), Some((0.5, Duration::from_secs(2))));
        // More than one processor, and none at all, which is a figure too.
        assert_eq!(meter.take("a", at(5500, 4000)), Some((2.0, Duration::from_secs(2))));
        assert_eq!(meter.take("a", at(5500, 6000)), Some((0.0, Duration::from_secs(2))));
        assert_eq!(meter.take("b", at(1, 6000)), None);
    }

    #[test]
    fn what_can_t_be_said_is_not_said() {
        let mut meter = Meter::default();
        meter.take("a", at(5000, 0));
        assert_eq!(meter.take("a", at(10, 2000)), None, "it was started again");
        assert_eq!(meter.take("a", at(1010, 4000)), Some((0.5, Duration::from_secs(2))));
        assert_eq!(meter.take("a", at(1020, 4001)), None, "too near");
        assert_eq!(meter.take("a", at(2020, 64_001)), None, "too far");
        meter.keep(|_| false);
        assert_eq!(meter.take("a", at(3020, 66_001)), None, "forgotten");
    }

    fn answer(cpu: serde_json::Value) -> ContainerStatsResponse {
        serde_json::from_value(json!({"cpu_stats": cpu, "precpu_stats": {}})).unwrap()
    }

    #[test]
    fn an_engine_that_tells_nothing_is_no_zero() {
        let now = Duration::from_secs(9);
        let full = json!({"cpu_usage": {"total_usage": 7_000_000_000_u64}, "online_cpus": 2});
        assert_eq!(read(&answer(full), now), Some((at(7000, 9000), 2.0)));
        let old = json!({"cpu_usage": {"total_usage": 1, "percpu_usage": [1, 0, 0, 0]}, "online_cpus": 0});
        assert_eq!(read(&answer(old), now).unwrap().1, 4.0);
        // What docker answers of a container that has just ended.
        assert_eq!(read(&answer(json!({"cpu_usage": {"total_usage": 0}, "online_cpus": 0})), now), None);
        assert_eq!(read(&answer(json!(null)), now), None);
    }

    #[test]
    fn a_share_is_one_of_the_limit_else_of_the_reservation() {
        let service: Service =
            serde_json::from_value(json!({"ID": "s", "Version": {"Index": 1}, "Spec": {"Name": "jobs"}}))
                .unwrap();
        let task = |id: &str, resources: serde_json::Value, state: &str| -> Task {
            serde_json::from_value(
                json!({"ID": id, "ServiceID": "s", "Slot": 1, "NodeID": "n", "DesiredState": "running",
                "Status": {"State": state, "ContainerStatus": {"ContainerID": format!("c-{id}")}},
                "Spec": {"Resources": resources}}),
            )
            .unwrap()
        };
        let half = json!({"NanoCPUs": 500_000_000});
        let tasks = [
            task("a", json!({"Limits": half, "Reservations": {"NanoCPUs": 100}}), "running"),
            task("b", json!({"Limits": {"NanoCPUs": 0}, "Reservations": half}), "running"),
            task("c", json!({}), "running"),
            task("d", json!({}), "starting"),
        ];
        let found = measured(&[service], &tasks);
        let told: Vec<(&str, &str, Option<f64>)> =
            found.iter().map(|m| (m.instance.as_str(), m.container.as_str(), m.of)).collect();
        assert_eq!(
            told,
            [("jobs.1.a", "c-a", Some(0.5)), ("jobs.1.b", "c-b", Some(0.5)), ("jobs.1.c", "c-c", None)]
        );
    }
}
