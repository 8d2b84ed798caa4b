//! The stack as services of a Docker Swarm: sessions in Redis, discovery through Consul, every component an image.
//!
//! Each host runs a gateway and a registrar (global services in the host's own network) beside a Consul agent that
//! listens on 127.0.0.1:8500; two scalers run somewhere, of which one leads. With `--discovery swarm` there is no Consul:
//! gateways and scalers ask the managers.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use async_trait::async_trait;
use autoscaler::controller::now;
use swarm_client::Node;
use swarm_client::model::Availability;

use super::front::{Front, check_consul, check_redis};
#[cfg(target_os = "linux")]
use super::lab_power::LabPower;
use super::{Backend, Decided, Faults, Happening, Host, Platform, Replica, StackSpec, Status};
use crate::images::{Bundle, engines};
use crate::progress::Progress;
use crate::roles::admin::LoadSeen;
use crate::roles::coordination::{Coordination, Discovery};
use crate::roles::{labels, scaler_policy, swarm_target};
use crate::settings::Backends;

mod find;
#[cfg(target_os = "linux")]
mod for_faults;
pub(crate) mod health;
#[cfg(target_os = "linux")]
mod lab_faults;
mod services;
mod teardown;

#[cfg(target_os = "linux")]
pub use for_faults::CLOCK_FOLDER;

/// The stack on a Swarm.
pub struct SwarmPlatform {
    spec: StackSpec,
    backends: Backends,
    swarm: swarm_client::Client,
    by: Coordination,
    engines: BTreeMap<String, String>,
    /// The Swarm's leader, which is never the one that loses power.
    front: Front,
    /// The value of our services' label: what another run started is not ours to end.
    run: String,
    /// Whether a service of this run may have been created.
    creating: AtomicBool,
    #[cfg(target_os = "linux")]
    lab: Option<LabPower>,
}

impl SwarmPlatform {
    /// Reaches Swarm and Consul; starts nothing.
    ///
    /// # Errors
    /// When one of them can't be reached, or the engine is not a manager; with the setting and what to do.
    pub async fn connect(spec: StackSpec, backends: Backends, discovery: Discovery) -> Result<Self> {
        Self::reach(Some(spec), backends, discovery).await
    }

    /// The stack that runs there, whatever the service that users see is called; starts nothing.
    ///
    /// # Errors
    /// As [`Self::connect`]; when no stack runs there, or several.
    pub async fn find(backends: Backends, discovery: Discovery) -> Result<Self> {
        Self::reach(None, backends, discovery).await
    }

    async fn reach(spec: Option<StackSpec>, backends: Backends, discovery: Discovery) -> Result<Self> {
        let swarm = backends.swarm().await?;
        let info = swarm.info().await?;
        let endpoint = swarm.endpoint().to_string();
        ensure!(
            info.swarm.control_available,
            "the engine at {endpoint} (--docker-host, DOCKER_HOST) is not a Swarm manager: run `docker swarm init` \
             there, or name a manager"
        );
        let by = match discovery {
            Discovery::Consul => {
                let consul = backends.consul()?;
                check_consul(&consul, &backends).await?;
                Coordination::Consul(consul)
            }
            Discovery::Swarm => {
                Coordination::Swarm { swarm: swarm.clone(), gateways: labels::GATEWAYS.to_owned() }
            }
        };
        let nodes = swarm.nodes().list().await?;
        let front = nodes.iter().find(|node| node.is_leader()).and_then(Node::addr);
        let front = front
            .with_context(|| format!("the Swarm at {endpoint} does not say the address of its leader"))?;
        let public = backends.front()?;
        let spec = match spec {
            Some(spec) => spec,
            None => {
                let service = find::site(&swarm.services().list().await?)?;
                StackSpec { service, ..StackSpec::default() }
            }
        };
        Ok(Self {
            engines: backends.engines()?,
            #[cfg(target_os = "linux")]
            lab: LabPower::of(front),
            backends,
            swarm,
            by,
            front: Front::new(front, public, &spec.service)?,
            spec,
            run: format!("{:016x}", rand::random::<u64>()),
            creating: AtomicBool::new(false),
        })
    }

    /// The view of the front gateway; of another one where that is gone.
    async fn seen(&self) -> Result<LoadSeen> {
        let front = self.front.seen().await;
        if front.is_ok() {
            return front;
        }
        let nodes = self.swarm.nodes().list().await?;
        let others = ready(&nodes).into_iter().map(|(_, ip)| ip).collect();
        self.front.seen_elsewhere(others).await.map_or(front, Ok)
    }

    /// Every node must be a manager that we can put images on.
    async fn check_nodes(&self) -> Result<()> {
        let nodes = self.swarm.nodes().list().await?;
        let workers: Vec<&str> = nodes.iter().filter(|node| !node.is_manager()).map(Node::hostname).collect();
        ensure!(
            workers.is_empty(),
            "the nodes {} are workers: a registrar asks the engine of its own host for tasks, which only a manager \
             answers; promote them with `docker node promote`",
            workers.join(", ")
        );
        ensure!(
            self.engines.len() >= nodes.len(),
            "the Swarm has {} nodes, and --engines (HA_STACK_ENGINES) names {} of their engines: each needs the images",
            nodes.len(),
            self.engines.len()
        );
        Ok(())
    }
}

/// The nodes that can be asked, by name.
fn ready(nodes: &[Node]) -> Vec<(String, IpAddr)> {
    let ready = nodes.iter().filter(|node| node.is_ready());
    ready.filter_map(|node| Some((node.hostname().to_owned(), node.addr()?))).collect()
}

/// Why a service is not scaled by hand.
#[derive(Debug)]
enum Refusal {
    NotReplicated,
    NotOurs,
    /// A drain or rebalance counts its tasks.
    Held(swarm_client::Hold),
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NotReplicated => f.write_str("it is not a replicated service"),
            Self::NotOurs => f.write_str("it is not a service of this stack"),
            Self::Held(hold) => {
                let until = hold.until.as_secs();
                write!(f, "it is held by {} until {until} s after 1970; wait for its end", hold.by)
            }
        }
    }
}

impl std::error::Error for Refusal {}

#[async_trait]
impl Platform for SwarmPlatform {
    fn name(&self) -> &'static str {
        "swarm"
    }

    async fn start(&self, progress: &Progress) -> Result<()> {
        let there = self.existing().await?;
        ensure!(
            there.is_empty(),
            "a stack is in this Swarm already ({}): end the `ha-stack up` that runs it, or remove the services",
            there.into_keys().collect::<Vec<_>>().join(", ")
        );
        let redis = check_redis(&self.backends, self.name()).await?;
        self.spec.policy().validate().context("the scaling policy was refused")?;
        self.check_nodes().await?;
        let bundle = Bundle::of_this_program()?;
        engines::load(&bundle.builds()?, &self.engines, progress).await?;
        self.by.forget(&self.spec.service).await?;

        let roles = services::all(
            &self.spec,
            &bundle,
            redis,
            self.backends.consul_token(),
            &self.run,
            self.by.discovery(),
        );
        self.creating.store(true, Ordering::Relaxed);
        for spec in &roles {
            self.swarm.services().create(spec).await.with_context(|| format!("the service {}", spec.name))?;
        }
        for spec in &roles {
            let step = progress.counted(format!("service {}", spec.name), spec.replicas().unwrap_or(0));
            let rollout = self.swarm.services().rollout(&spec.name).stable_for(STABLE_FOR);
            let outcome = rollout.wait_telling(ROLLOUT_DEADLINE, |lacks| step.lacks(lacks)).await?;
            ensure!(
                outcome.is_success(),
                "service {}: {outcome}; `docker service logs {}` says more",
                spec.name,
                spec.name
            );
            step.done(outcome);
        }
        let step = progress.step(format!("the site at {}", self.site()));
        self.front.wait_for_site().await?;
        step.done("it answers");
        Ok(())
    }

    async fn stop(&self, progress: &Progress) -> Result<()> {
        Box::pin(self.take_down(progress)).await
    }

    fn site(&self) -> String {
        self.front.site()
    }

    async fn replicas(&self) -> Result<Vec<Replica>> {
        Ok(self.seen().await?.replicas())
    }

    async fn status(&self) -> Result<Status> {
        let nodes = self.swarm.nodes().list().await?;
        let service = self.swarm.services().get(&self.spec.service).await.with_context(|| {
            format!(
                "no service {} in this Swarm: start the stack with `ha-stack up --platform swarm`",
                self.spec.service
            )
        })?;
        let consul_leader = match &self.by {
            Coordination::Consul(consul) => consul.status().leader().await?,
            Coordination::Swarm { .. } => None,
        };
        let hosts = nodes.iter().map(|node| {
            let address = node.addr().map(|ip| ip.to_string()).unwrap_or_default();
            let leads_consul =
                consul_leader.as_ref().is_some_and(|leader| leader.starts_with(&format!("{address}:")));
            let leads = [(node.is_leader(), "swarm"), (leads_consul, "consul")];
            Host {
                name: node.hostname().into(),
                address,
                up: node.is_ready(),
                leads: leads.into_iter().filter(|(leads, _)| *leads).map(|(_, what)| what.into()).collect(),
                drained: node.availability() == Availability::Drain,
            }
        });
        let hold = swarm_target::hold(&service, now());
        Ok(Status {
            platform: self.name().into(),
            service: self.spec.service.clone(),
            wanted: service.replicas().and_then(|n| u32::try_from(n).ok()).unwrap_or(0),
            hold: hold.map(|hold| super::hold_line(&hold, now())),
            hosts: hosts.collect(),
            replicas: self.replicas().await?,
            gateways: self.front.gateways(ready(&nodes)).await,
            decision: self.decisions().await?.pop().map(|decided| decided.sentence),
        })
    }

    async fn scale(&self, replicas: u32, hold: Duration) -> Result<()> {
        let until = SystemTime::now().duration_since(UNIX_EPOCH)?.saturating_add(hold).as_secs();
        let services = self.swarm.services();
        let scaled = services.try_modify(&self.spec.service, |service, spec| {
            if service.label(labels::STACK).is_none() {
                return Err(Refusal::NotOurs);
            }
            if let Some(hold) = service.hold(now()) {
                return Err(Refusal::Held(hold));
            }
            spec.labels.insert(labels::HOLD_UNTIL.into(), until.to_string());
            if spec.set_replicas(replicas.into()) { Ok(()) } else { Err(Refusal::NotReplicated) }
        });
        scaled.await.map(drop).with_context(|| format!("{} can't be scaled to {replicas}", self.spec.service))
    }

    async fn release(&self) -> Result<()> {
        let services = self.swarm.services();
        let released = services.modify(&self.spec.service, |spec| {
            spec.labels.remove(labels::HOLD_UNTIL);
        });
        released.await.map(drop).with_context(|| format!("{} can't be handed back", self.spec.service))
    }

    async fn idle_to_zero(&self, idle: Option<Duration>) -> Result<()> {
        let services = self.swarm.services();
        let changed = services.modify(&self.spec.service, |spec| {
            for label in [scaler_policy::MIN, scaler_policy::IDLE] {
                spec.labels.remove(label);
            }
            if let Some(idle) = idle {
                spec.labels.insert(scaler_policy::MIN.into(), "0".into());
                spec.labels.insert(scaler_policy::IDLE.into(), idle.as_secs().to_string());
            }
        });
        changed.await.map(drop).context("the site's labels can't be changed")
    }

    async fn decisions(&self) -> Result<Vec<Decided>> {
        self.by.decisions(&self.spec.service).await
    }

    async fn backends(&self) -> Vec<Backend> {
        Box::pin(self.health()).await
    }

    async fn events(&self) -> Result<Vec<Happening>> {
        self.front.events().await
    }

    async fn drain(&self, host: &str, on: bool) -> Result<()> {
        let availability = if on { Availability::Drain } else { Availability::Active };
        let set = self.swarm.nodes().set_availability(host, availability).await;
        set.map(drop).with_context(|| format!("the availability of {host} can't be changed"))
    }

    #[cfg(target_os = "linux")]
    fn faults(&self) -> Option<&dyn Faults> {
        self.lab.is_some().then_some(self)
    }

    #[cfg(not(target_os = "linux"))]
    fn faults(&self) -> Option<&dyn Faults> {
        None
    }
}

const ROLLOUT_DEADLINE: Duration = Duration::from_secs(60);
/// The site's own probes tell whether it serves; this only has to outlast a container that ends at once.
const STABLE_FOR: Duration = Duration::from_secs(1);
