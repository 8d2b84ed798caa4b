//! Power-offs of plain engines in the lab, and where replicas may go meanwhile.

use std::time::Duration;

use anyhow::{Context, Result};
use async_trait::async_trait;
use swarm_client::engines::Discovery;

use super::EnginesPlatform;
use super::discovery::{ConsulNodes, PREFIX};
use crate::platform::Faults;
use crate::platform::lab_power::LabPower;

impl EnginesPlatform {
    fn lab(&self) -> Result<&LabPower> {
        self.lab.as_ref().context("these engines do not run in a lab")
    }
}

#[async_trait]
impl Faults for EnginesPlatform {
    fn check(&self) -> Result<()> {
        self.lab()?.check()
    }

    async fn leading_hosts(&self) -> Result<Vec<String>> {
        let mut hosts = self.lab()?.leading_hosts(false).await?;
        // The gateway that the users of the story go through stays too; the watchdog and the scaler that lead are there as well.
        hosts.push(self.host_at(self.front.ip));
        hosts.sort();
        hosts.dedup();
        Ok(hosts)
    }

    async fn keep_off(&self, hosts: &[String]) -> Result<()> {
        self.records
            .modify(&self.spec.service, |record| {
                record.kept_off = hosts.iter().cloned().collect();
                record.place()
            })
            .await
    }

    async fn power_off(&self, host: &str) -> Result<()> {
        self.lab()?.power_off(host).await
    }

    async fn power_on(&self, host: &str) -> Result<()> {
        self.lab()?.power_on(host).await?;
        // Its engine starts its containers again; the one that joins it makes it a member.
        let nodes = ConsulNodes::new(self.consul.clone(), PREFIX);
        let engine = self.hosts.iter().find(|known| known.name == host).map(|known| known.engine.clone());
        for _ in 0..JOIN_TRIES {
            if nodes.engines().await.is_ok_and(|joined| engine.as_ref().is_some_and(|e| joined.contains(e))) {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
        anyhow::bail!("{host} has power, and has not joined the pool within {} s", JOIN_TRIES / 4)
    }

    fn caveat(&self) -> Option<&'static str> {
        None
    }
}

/// Every 250 ms: longer than the session of its former life lasts at most, twice its TTL of 10 s.
const JOIN_TRIES: usize = 160;
