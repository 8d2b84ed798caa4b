//! The signal `cpu`: what the containers of a service use, as the registrar of each host measures it.
//!
//! One number for each replica, beside what it may use, so that the policy's rules for missing and starting replicas
//! apply: a replica that nobody measured is missing, not idle.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use async_trait::async_trait;
use autoscaler::controller::{SignalSource, now};
use autoscaler::{Reading, Sample};

use super::coordination::task_peers;
use super::usage::Usage;

/// The signal's name in a policy.
pub const CPU: &str = "cpu";

/// The registrars, found as the tasks of their service.
pub struct DockerStats {
    /// A client of the managers.
    pub swarm: swarm_client::Client,
    /// With a deadline below that of the controller's calls.
    pub http: reqwest::Client,
    /// The registrars' service.
    pub registrars: String,
    /// Where they answer `/usage`.
    pub port: u16,
}

/// What one host answered.
type Answer = (String, Result<Vec<Usage>>);

impl DockerStats {
    async fn look(&self) -> Result<Vec<Answer>> {
        let services = self.swarm.services();
        let (tasks, nodes) = (services.tasks(&self.registrars).await, self.swarm.nodes().list().await?);
        let tasks =
            tasks.with_context(|| format!("the registrars' service {} can't be asked", self.registrars))?;
        let peers = task_peers(&tasks, &nodes, 0, self.port).into_iter().filter(|peer| peer.up);
        let asked = peers.map(|peer| async move { (peer.host, self.ask(&peer.admin).await) });
        Ok(futures_util::future::join_all(asked).await)
    }

    async fn ask(&self, address: &str) -> Result<Vec<Usage>> {
        let mut answer = self.http.get(format!("http://{address}/usage")).send().await?.error_for_status()?;
        let mut bytes = Vec::new();
        while let Some(chunk) = answer.chunk().await? {
            ensure!(bytes.len() + chunk.len() <= MAX_ANSWER, "the answer has more than {MAX_ANSWER} bytes");
            bytes.extend_from_slice(&chunk);
        }
        serde_json::from_slice(&bytes).context("it is no list of figures")
    }
}

#[async_trait]
impl SignalSource for DockerStats {
    async fn read(&self, service: &str) -> Vec<(String, Reading)> {
        let reading = match self.look().await {
            Ok(answers) => reading(&answers, service, now()),
            Err(error) => Reading::error(format!("{error:#}")),
        };
        vec![(CPU.into(), reading)]
    }
}

/// What the hosts' answers say of a service.
fn reading(answers: &[Answer], service: &str, now: Duration) -> Reading {
    let silent: Vec<&str> =
        answers.iter().filter(|(_, answer)| answer.is_err()).map(|(host, _)| host.as_str()).collect();
    let all: Vec<&Usage> = answers
        .iter()
        .filter_map(|(_, answer)| answer.as_ref().ok())
        .flatten()
        .filter(|usage| usage.service == service)
        .collect();
    let age = |usage: &Usage| Duration::from_millis(usage.age_ms);
    let fresh: Vec<&Usage> = all.iter().copied().filter(|usage| age(usage) <= OLDEST).collect();
    let Some(oldest) = fresh.iter().map(|usage| age(usage)).max() else {
        return match all.iter().map(|usage| age(usage)).min() {
            Some(youngest) => Reading::Stale { at: now.saturating_sub(youngest) },
            None if answers.is_empty() => Reading::error("no registrar runs, so no CPU is measured"),
            // Its replicas may be on the very hosts that said nothing.
            None if !silent.is_empty() => {
                Reading::error(format!("no answer from the registrars on {}", silent.join(", ")))
            }
            None => Reading::NoData,
        };
    };
    let window = fresh.iter().map(|usage| usage.over_ms).min().unwrap_or(0);
    let samples = fresh.iter().map(|usage| Sample::new(&usage.instance, usage.cores).of(usage.of)).collect();
    Reading::PerInstance { at: now.saturating_sub(oldest), window: Duration::from_millis(window), samples }
}

/// A few rounds of a registrar: what is older is of another time.
const OLDEST: Duration = Duration::from_secs(8);
/// Thousands of replicas on one host.
const MAX_ANSWER: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(instance: &str, service: &str, cores: f64, age_ms: u64) -> Usage {
        Usage { instance: instance.into(), service: service.into(), cores, of: 0.5, over_ms: 2000, age_ms }
    }

    fn host(name: &str, figures: Vec<Usage>) -> Answer {
        (name.into(), Ok(figures))
    }

    fn silent(name: &str) -> Answer {
        (name.into(), Err(anyhow::anyhow!("refused")))
    }

    const NOW: Duration = Duration::from_secs(100);

    #[test]
    fn each_replica_has_a_number_of_its_own_and_an_old_one_is_missing() {
        let answers = [
            host("h1", vec![usage("jobs.1.a", "jobs", 0.4, 1000), usage("web.1.b", "web", 0.1, 0)]),
            host("h2", vec![usage("jobs.2.c", "jobs", 0.2, 3000), usage("jobs.3.d", "jobs", 0.0, 60_000)]),
            silent("h3"),
        ];
        let samples = vec![Sample::new("jobs.1.a", 0.4).of(0.5), Sample::new("jobs.2.c", 0.2).of(0.5)];
        let (at, window) = (Duration::from_secs(97), Duration::from_secs(2));
        assert_eq!(reading(&answers, "jobs", NOW), Reading::PerInstance { at, window, samples });
    }

    #[test]
    fn old_none_and_no_answer_are_three_things() {
        let old = [host("h1", vec![usage("jobs.1.a", "jobs", 0.4, 9000)])];
        assert_eq!(reading(&old, "jobs", NOW), Reading::Stale { at: Duration::from_secs(91) });
        assert_eq!(reading(&[host("h1", Vec::new())], "jobs", NOW), Reading::NoData);
        let lost = reading(&[host("h1", Vec::new()), silent("h2")], "jobs", NOW);
        assert!(matches!(&lost, Reading::Error(why) if why.ends_with("on h2")), "{lost:?}");
        assert!(matches!(reading(&[], "jobs", NOW), Reading::Error(_)));
    }
}
