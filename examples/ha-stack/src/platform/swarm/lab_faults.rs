//! Power for the hosts of a lab that runs on this machine.

use std::net::IpAddr;

use anyhow::{Context, Result, ensure};
use async_trait::async_trait;

use super::SwarmPlatform;
use crate::platform::Faults;

/// The lab that the Swarm runs in.
pub(super) struct LabFaults {
    pub(super) lab: lab::Lab,
}

impl LabFaults {
    /// The running lab, if `front` is one of its hosts; `None` where the Swarm is somewhere else.
    pub(super) fn of(front: IpAddr) -> Result<Option<Self>> {
        // Who may not read the lab's state can't power its hosts off either: a person is asked then.
        let lab = lab::Lab::attach().ok().flatten();
        Ok(lab.filter(|lab| lab.hosts().iter().any(|host| host.addr == front)).map(|lab| Self { lab }))
    }
}

#[async_trait]
impl Faults for SwarmPlatform {
    fn check(&self) -> Result<()> {
        ensure!(
            rustix::process::geteuid().is_root(),
            "the power of the lab's hosts is root's: run the demo through sudo -E, or leave the power-offs out with --no-faults"
        );
        Ok(())
    }

    async fn leading_hosts(&self) -> Result<Vec<String>> {
        let lab = self.lab()?;
        let leaders = self.settled_leaders().await?;
        // The gateway that the users of the story go through stays too.
        let front = lab.hosts().iter().find(|host| host.addr == self.front).map(|host| host.name.clone());
        let mut hosts: Vec<String> =
            [leaders.swarm, leaders.consul, leaders.redis, front].into_iter().flatten().collect();
        hosts.sort();
        hosts.dedup();
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
        Ok(self.lab()?.power_off(host).await?)
    }

    async fn power_on(&self, host: &str) -> Result<()> {
        Ok(self.lab()?.power_on(host).await?)
    }

    fn caveat(&self) -> Option<&'static str> {
        None
    }
}

const KEEP_OFF: &str = "node.hostname!=";
