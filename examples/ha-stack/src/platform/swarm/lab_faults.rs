//! Power-offs of a Swarm in the lab, and where replicas may go meanwhile.

use anyhow::{Context, Result};
use async_trait::async_trait;

use super::SwarmPlatform;
use crate::platform::Faults;
use crate::platform::lab_power::LabPower;

impl SwarmPlatform {
    fn power(&self) -> Result<&LabPower> {
        self.lab.as_ref().context("this Swarm does not run in a lab")
    }
}

#[async_trait]
impl Faults for SwarmPlatform {
    fn check(&self) -> Result<()> {
        self.power()?.check()
    }

    async fn leading_hosts(&self) -> Result<Vec<String>> {
        let lab = self.power()?;
        let mut hosts = lab.leading_hosts(true).await?;
        // The gateway that the users of the story go through stays too.
        hosts.extend(lab.name_of(self.front.ip).filter(|front| !hosts.contains(front)));
        Ok(hosts)
    }

    async fn keep_off(&self, hosts: &[String]) -> Result<()> {
        let services = self.swarm.services();
        let changed = services.modify(&self.spec.service, |spec| {
            let placement = spec.task_template.placement.get_or_insert_default();
            placement.constraints.retain(|constraint| !constraint.starts_with(KEEP_OFF));
            placement.constraints.extend(hosts.iter().map(|host| format!("{KEEP_OFF}{host}")));
        });
        changed.await.context("the placement of the site can't be changed")?;
        Ok(())
    }

    async fn power_off(&self, host: &str) -> Result<()> {
        self.power()?.power_off(host).await
    }

    async fn power_on(&self, host: &str) -> Result<()> {
        self.power()?.power_on(host).await
    }

    fn caveat(&self) -> Option<&'static str> {
        None
    }
}

const KEEP_OFF: &str = "node.hostname!=";
