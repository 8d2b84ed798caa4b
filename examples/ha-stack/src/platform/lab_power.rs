//! Power for the hosts of a lab that runs on this machine.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Result, ensure};

/// The lab that a platform runs in.
pub(super) struct LabPower {
    pub(super) lab: lab::Lab,
}

impl LabPower {
    /// The running lab, if `front` is one of its hosts; `None` where the platform is somewhere else.
    pub(super) fn of(front: IpAddr) -> Option<Self> {
        // Who may not read the lab's state can't power its hosts off either: a person is asked then.
        let lab = lab::Lab::attach().ok().flatten();
        lab.filter(|lab| lab.hosts().iter().any(|host| host.addr == front)).map(|lab| Self { lab })
    }

    pub(super) fn check(&self) -> Result<()> {
        ensure!(
            rustix::process::geteuid().is_root(),
            "the power of the lab's hosts is root's: run the demo through sudo -E, or leave the power-offs out with --no-faults"
        );
        Ok(())
    }

    /// Who leads, once every cluster has a leader: in the middle of an election nobody answers, or nobody leads.
    pub(super) async fn settled_leaders(&self, with_swarm: bool) -> Result<lab::Leaders> {
        let mut leaders = self.lab.leaders().await;
        for _ in 0..LEADERS_TRIES {
            if leaders.as_ref().is_ok_and(|leaders| {
                leaders.consul.is_some()
                    && leaders.redis.is_some()
                    && (leaders.swarm.is_some() || !with_swarm)
            }) {
                break;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
            leaders = self.lab.leaders().await;
        }
        Ok(leaders?)
    }

    /// The hosts that lead Consul, Redis and, where there is one, the Swarm.
    pub(super) async fn leading_hosts(&self, with_swarm: bool) -> Result<Vec<String>> {
        let leaders = self.settled_leaders(with_swarm).await?;
        let mut hosts: Vec<String> =
            [leaders.swarm, leaders.consul, leaders.redis].into_iter().flatten().collect();
        hosts.sort();
        hosts.dedup();
        Ok(hosts)
    }

    /// The name of the host at this address.
    pub(super) fn name_of(&self, ip: IpAddr) -> Option<String> {
        self.lab.hosts().iter().find(|host| host.addr == ip).map(|host| host.name.clone())
    }

    pub(super) async fn power_off(&self, host: &str) -> Result<()> {
        Ok(self.lab.power_off(host).await?)
    }

    pub(super) async fn power_on(&self, host: &str) -> Result<()> {
        Ok(self.lab.power_on(host).await?)
    }
}

const LEADERS_TRIES: usize = 60;
