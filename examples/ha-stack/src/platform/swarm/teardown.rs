//! Ends a stack: its services, their tasks and their containers, and nothing that another run started.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Result, bail};
use swarm_client::{Node, Service, ServiceId, Task};

use super::SwarmPlatform;
use crate::images::engines;
use crate::progress::Progress;
use crate::roles::coordination::Discovery;
use crate::roles::labels;

impl SwarmPlatform {
    /// Removes every service of this run and waits until nothing of them is left on a host that answers.
    pub(super) async fn take_down(&self, progress: &Progress) -> Result<()> {
        if !self.creating.load(Ordering::Relaxed) {
            // What runs there was started by somebody else.
            return Ok(());
        }
        // A creation that was under way when we were interrupted comes to pass within this time.
        tokio::time::sleep(LATE).await;
        // The site first, while the registrars still take its replicas out of Consul; the gateways and scalers take
        // care of themselves.
        let step = progress.step(format!("removing {}", self.spec.service));
        Box::pin(self.remove(std::slice::from_ref(&self.spec.service))).await?;
        tokio::time::sleep(REGISTRAR_ROUND).await;
        step.done("gone");
        let roles = self.ours().await?;
        let step = progress.step(format!("removing {}", roles.join(", ")));
        Box::pin(self.remove(&roles)).await?;
        if self.by.discovery() == Discovery::Swarm {
            // Only now is nobody left who would write them again.
            self.by.forget(&self.spec.service).await?;
        }
        step.done("gone");
        for node in self.swarm.nodes().list().await?.iter().filter(|node| node.is_down()) {
            let host = node.hostname();
            progress.line(format!("{host} has no power; in a lab `lab power-on {host}` gives it back"));
        }
        Ok(())
    }

    /// The stack's services in this Swarm, of whatever run: name, and the run that made it.
    pub(super) async fn existing(&self) -> Result<BTreeMap<String, String>> {
        let services = self.swarm.services().list_labelled(labels::STACK).await?;
        let run = |service: &Service| service.label(labels::STACK).unwrap_or_default().to_owned();
        Ok(services.iter().map(|service| (service.name().to_owned(), run(service))).collect())
    }

    /// The services of this run that are still there.
    async fn ours(&self) -> Result<Vec<String>> {
        let existing = self.existing().await?.into_iter();
        Ok(existing.filter(|(_, run)| *run == self.run).map(|(name, _)| name).collect())
    }

    /// Swarm forgets the tasks of a removed service before their containers are gone.
    async fn containers_of(&self, services: &[ServiceId]) -> usize {
        let ids: Vec<String> = services.iter().map(ToString::to_string).collect();
        let asked = self.engines.values().map(|url| engines::containers_of(url, &ids));
        futures_util::future::join_all(asked).await.into_iter().sum()
    }

    /// Removes services, if they are of this run, and waits until no task of theirs is left on a host that answers.
    async fn remove(&self, services: &[String]) -> Result<()> {
        let ours = self.ours().await?;
        let mut ids = Vec::new();
        for service in services.iter().filter(|service| ours.contains(service)) {
            if let Some(found) = self.swarm.services().get_opt(service).await? {
                self.swarm.services().remove(service).await?;
                ids.push(found.id().clone());
            }
        }
        let mut left = Vec::new();
        for _ in 0..REMOVE_TRIES {
            // The tasks of a host without power are listed for a day; they are not running.
            let (tasks, nodes) = (self.swarm.tasks().list().await?, self.swarm.nodes().list().await?);
            let down = |task: &Task| {
                let node = nodes.iter().find(|node| task.node_id.as_ref() == Some(node.id()));
                node.is_none_or(Node::is_down)
            };
            left = tasks.into_iter().filter(|task| ids.contains(&task.service_id) && !down(task)).collect();
            if left.is_empty() && self.containers_of(&ids).await == 0 {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
        bail!(
            "of {} there is still something after {} s, although the services were removed: {} tasks",
            services.join(", "),
            REMOVE_TRIES / 4,
            left.len()
        )
    }
}

const LATE: Duration = Duration::from_millis(500);
/// The registrars look twice a second.
const REGISTRAR_ROUND: Duration = Duration::from_millis(1200);
/// Every 250 ms: longer than the longest stop grace.
const REMOVE_TRIES: usize = 240;
