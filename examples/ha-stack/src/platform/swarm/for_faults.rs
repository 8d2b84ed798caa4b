//! What `ha-stack faults` needs of a stack that runs in a lab, beyond the platform's own verbs.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use futures_util::future::join_all;
use lab::{Lab, Leaders};
use swarm_client::model::{Mount, TaskSpec};

use super::{STABLE_FOR, SwarmPlatform, services};
use crate::images::rootfs;
use crate::platform::Replica;
use crate::roles::coordination::Coordination;

impl SwarmPlatform {
    /// The lab that this Swarm runs in.
    ///
    /// # Errors
    /// When it runs somewhere else.
    pub fn lab(&self) -> Result<&Lab> {
        Ok(&self.lab.as_ref().context("this Swarm does not run in a lab: bring one up with `lab up`")?.lab)
    }

    /// The name of the service that users see.
    pub fn service(&self) -> &str {
        &self.spec.service
    }

    /// The stack's Consul.
    ///
    /// # Errors
    /// When it runs without one.
    pub fn consul(&self) -> Result<&consul_client::Client> {
        match &self.by {
            Coordination::Consul(consul) => Ok(consul),
            Coordination::Swarm { .. } => bail!("this stack runs without Consul (--discovery swarm)"),
        }
    }

    /// Who leads, once every cluster has a leader: in the middle of an election nobody answers, or nobody leads.
    ///
    /// # Errors
    /// When it is still so after a while.
    pub async fn settled_leaders(&self) -> Result<Leaders> {
        let power = self.lab.as_ref().context("this Swarm does not run in a lab")?;
        power.settled_leaders(true).await
    }

    /// The replicas as each gateway that answers sees them.
    ///
    /// # Errors
    /// When this Swarm does not run in a lab.
    pub async fn gateway_views(&self) -> Result<Vec<Vec<Replica>>> {
        let hosts = self.lab()?.hosts().iter();
        let asked = hosts.map(|host| async move {
            self.front.seen_at(host.addr.into()).await.map(|seen| seen.replicas())
        });
        Ok(join_all(asked).await.into_iter().flatten().collect())
    }

    /// Rolls the site out with another environment.
    ///
    /// # Errors
    /// When the Swarm refuses.
    pub async fn update_site(&self, change: impl Fn(&mut Vec<String>) + Send) -> Result<()> {
        let services = self.swarm.services();
        let changed = services.modify(&self.spec.service, move |spec| {
            change(&mut spec.task_template.container_spec.get_or_insert_default().env);
        });
        changed.await.map(drop).context("the site can't be updated")
    }

    /// Spreads the site's replicas evenly over the hosts again; what was moved.
    ///
    /// # Errors
    /// When the Swarm can't be asked, or a replica that is to be one more does not come up.
    pub async fn rebalance(&self, deadline: Duration) -> Result<String> {
        let mut plan = self.swarm.plan_rebalance().await?;
        plan.moves.retain(|step| step.service == self.spec.service);
        self.swarm.apply_rebalance(&plan, deadline).await?;
        Ok(plan.to_string())
    }

    /// Has every component of the stack take its time from [`CLOCK_FOLDER`], or from the kernel again, and waits until
    /// each runs so.
    ///
    /// # Errors
    /// When the library for that is not installed, or an update does not come to its end.
    pub async fn fake_clocks(&self, on: bool) -> Result<()> {
        let library = rootfs::faketime().context(
            "libfaketime is not on this machine, so the images have it not: apt-get install libfaketime",
        )?;
        let names = [
            self.spec.service.as_str(),
            services::REGISTRAR,
            crate::roles::labels::GATEWAYS,
            services::SCALER,
        ];
        let services = self.swarm.services();
        for name in names {
            let changed = services.modify(name, |spec| fake(&mut spec.task_template, &library, on));
            changed.await.with_context(|| format!("the clock of {name}"))?;
        }
        for name in names {
            let rollout = self.swarm.services().rollout(name).stable_for(STABLE_FOR);
            let outcome = rollout.wait(CLOCK_DEADLINE).await?;
            ensure!(outcome.is_success(), "the clock of {name}: {outcome}");
        }
        Ok(())
    }
}

fn fake(task: &mut TaskSpec, library: &str, on: bool) {
    let container = task.container_spec.get_or_insert_default();
    container.env.retain(|env| !env.starts_with("LD_PRELOAD=") && !env.starts_with("FAKETIME"));
    container.mounts.retain(|mount| mount.target.as_deref() != Some(CLOCK_FOLDER));
    if on {
        // Monotonic time stays: what steps here is the time of day, as where somebody sets a clock.
        let settings = ["FAKETIME_DONT_FAKE_MONOTONIC=1".into(), "FAKETIME_CACHE_DURATION=1".into()];
        let file = format!("FAKETIME_TIMESTAMP_FILE={CLOCK_FOLDER}/clock");
        container.env.extend(settings);
        container.env.extend([file, format!("LD_PRELOAD=/{library}")]);
        container.mounts.push(Mount {
            kind: Some("bind".into()),
            source: Some(CLOCK_FOLDER.into()),
            target: Some(CLOCK_FOLDER.into()),
            read_only: Some(true),
            ..Mount::default()
        });
    }
}

/// A folder of each host with the file `clock`: `+300` is five minutes ahead. On the host's disk, so that it is there
/// after a loss of power too.
pub const CLOCK_FOLDER: &str = "/etc/ha-stack-clock";
const CLOCK_DEADLINE: Duration = Duration::from_secs(120);
