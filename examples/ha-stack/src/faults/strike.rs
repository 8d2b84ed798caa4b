//! How each fault is brought about in a lab, and taken back.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use lab::{Daemon, Deed, Lab};
use swarm_client::bollard::Docker;
use swarm_client::bollard::query_parameters::{KillContainerOptionsBuilder, ListContainersOptionsBuilder};

use super::catalog::Fault;
use super::redundancy::Lost;
use crate::load;
use crate::platform::swarm::SwarmPlatform;
use crate::platform::{Platform, Replica, usable};
use crate::roles::coordination::lock_key;
use crate::roles::labels;

/// What faults are done to.
pub struct World<'a> {
    /// The stack.
    pub platform: &'a SwarmPlatform,
    /// Its hosts.
    pub lab: Lab,
    /// Replicas that the stack is to have when nothing else is said.
    pub replicas: u32,
}

/// A fault that has been brought about.
#[derive(Debug)]
pub struct Struck {
    /// What was hit: `h2`, `web.1.q7ld... on h2`.
    pub victim: String,
    /// What can't answer any more.
    pub lost: Lost,
    /// Replicas that are wanted from now on.
    pub wanted: u32,
    /// Whether the Swarm's leader lost its power.
    pub led_swarm: bool,
    undo: Undo,
}

/// How a fault is taken back.
#[derive(Debug)]
enum Undo {
    Nothing,
    PowerOn(String),
    Heal(String),
    Daemons(Vec<(String, Daemon, Deed)>),
    Signal { host: String, container: String, signal: &'static str },
    Well { address: String },
    Free(String),
    Clock(String),
    Scale(u32),
}

impl World<'_> {
    /// Brings a fault about. Returns when it has happened.
    ///
    /// # Errors
    /// When the lab or an engine refuses, or nobody fits.
    pub async fn strike(&self, fault: Fault) -> Result<Struck> {
        let leaders = self.platform.settled_leaders().await?;
        let led =
            |who: &Option<String>, what: &str| who.clone().with_context(|| format!("{what} has no leader"));
        let power_off = async |host: String| {
            let led_swarm = leaders.swarm.as_ref() == Some(&host);
            Ok(Struck { led_swarm, ..self.power_off(host).await? })
        };
        match fault {
            Fault::WorkerOff => power_off(self.bystander().await?).await,
            Fault::SwarmLeaderOff => power_off(led(&leaders.swarm, "the Swarm")?).await,
            Fault::GatewayHostOff => power_off(self.gateway_host().await?).await,
            Fault::RedisMasterOff => power_off(led(&leaders.redis, "Redis")?).await,
            Fault::ConsulLeaderOff => power_off(led(&leaders.consul, "Consul")?).await,
            Fault::CablePulled => {
                let host = self.bystander().await?;
                self.lab.cut(&host).await?;
                Ok(self.struck(&host, Lost::host(&host), Undo::Heal(host.clone())))
            }
            Fault::ReplicaKilled => {
                let replica = self.replica().await?;
                let (container, name) = self.container_of(&replica).await?;
                self.signal(&replica.host, &container, "SIGKILL").await?;
                Ok(self.struck(&name, Lost::instance(&replica.instance), Undo::Nothing))
            }
            Fault::ReplicaHung => {
                let replica = self.replica().await?;
                let (container, name) = self.container_of(&replica).await?;
                self.signal(&replica.host, &container, "SIGSTOP").await?;
                let undo = Undo::Signal { host: replica.host.clone(), container, signal: "SIGCONT" };
                Ok(self.struck(&name, Lost::instance(&replica.instance), undo))
            }
            Fault::ReplicaSlow => self.worsen("slow=10").await,
            Fault::ReplicaFailing => self.worsen("status=500").await,
            Fault::GatewayRestarted => {
                self.end_role(labels::GATEWAYS, "SIGTERM", self.gateway_host().await?).await
            }
            Fault::GatewayKilled => {
                self.end_role(labels::GATEWAYS, "SIGKILL", self.gateway_host().await?).await
            }
            Fault::RegistrarKilled => self.end_role(REGISTRAR, "SIGKILL", self.replica().await?.host).await,
            Fault::ScalerKilled => self.end_role(SCALER, "SIGKILL", self.scaler_host().await?).await,
            Fault::ScalerHung => {
                let host = self.scaler_host().await?;
                let container = self.container(&host, SCALER).await?;
                self.signal(&host, &container, "SIGSTOP").await?;
                let undo = Undo::Signal { host: host.clone(), container, signal: "SIGCONT" };
                Ok(self.struck(&format!("the scaler on {host}"), Lost::default(), undo))
            }
            Fault::RedisMasterKilled => {
                self.daemon(led(&leaders.redis, "Redis")?, Daemon::Redis, Deed::Stop, Deed::Start).await
            }
            Fault::RedisMasterHung => {
                self.daemon(led(&leaders.redis, "Redis")?, Daemon::Redis, Deed::Pause, Deed::Resume).await
            }
            Fault::ConsulLeaderKilled => {
                self.daemon(led(&leaders.consul, "Consul")?, Daemon::Consul, Deed::Stop, Deed::Start).await
            }
            Fault::EngineHung => {
                self.daemon(led(&leaders.swarm, "the Swarm")?, Daemon::Engine, Deed::Pause, Deed::Resume)
                    .await
            }
            Fault::ConsulDown => {
                let mut undo = Vec::new();
                for host in self.lab.hosts() {
                    self.lab.daemon(&host.name, Daemon::Consul, Deed::Stop).await?;
                    undo.push((host.name.clone(), Daemon::Consul, Deed::Start));
                }
                Ok(self.struck("Consul on every host", Lost::default(), Undo::Daemons(undo)))
            }
            Fault::RollingUpdate => {
                // As a new image would: each replica is replaced, new before old.
                let version = format!("VERSION={:016x}", rand::random::<u64>());
                self.platform
                    .update_site(|env| {
                        env.retain(|pair| !pair.starts_with("VERSION="));
                        env.push(version.clone());
                    })
                    .await?;
                Ok(self.struck("every replica", Lost::default(), Undo::Nothing))
            }
            Fault::ScaleIn => {
                let wanted = self.replicas.saturating_sub(1).max(2);
                self.platform.scale(wanted, HOLD).await?;
                let undo = Undo::Scale(self.replicas);
                let victim = format!("from {} to {wanted} replicas", self.replicas);
                Ok(Struck { wanted, ..self.struck(&victim, Lost::default(), undo) })
            }
            Fault::ClockAhead => {
                let host = self.bystander().await?;
                self.set_clock(&host, "+300").await?;
                Ok(self.struck(&host, Lost::default(), Undo::Clock(host.clone())))
            }
            Fault::DiskFull => {
                let host = self.bystander().await?;
                self.lab.fill_disk(&host).await?;
                Ok(self.struck(&host, Lost::default(), Undo::Free(host.clone())))
            }
        }
    }

    /// Takes a fault back. Returns when that is done; a host that got its power back is a full member then.
    ///
    /// # Errors
    /// When the lab or an engine refuses.
    pub async fn undo(&self, struck: Struck) -> Result<()> {
        match struck.undo {
            Undo::Nothing => {}
            Undo::PowerOn(host) => self.lab.power_on(&host).await?,
            Undo::Heal(host) => self.lab.heal(&host).await?,
            Undo::Daemons(daemons) => {
                for (host, daemon, deed) in daemons {
                    self.lab.daemon(&host, daemon, deed).await?;
                }
            }
            // A replica that was ended meanwhile has nothing to resume.
            Undo::Signal { host, container, signal } => drop(self.signal(&host, &container, signal).await),
            Undo::Well { address } => drop(self.set_fault(&address, "").await),
            Undo::Free(host) => self.lab.free_disk(&host).await?,
            Undo::Clock(host) => self.set_clock(&host, "+0").await?,
            Undo::Scale(replicas) => self.platform.scale(replicas, HOLD).await?,
        }
        Ok(())
    }

    /// Sees to what must be there before a fault can be brought about. Whether that changed the stack.
    ///
    /// # Errors
    /// When it can't be, with the reason.
    pub async fn prepare(&self, fault: Fault) -> Result<bool> {
        let of_a_bystander =
            matches!(fault, Fault::WorkerOff | Fault::CablePulled | Fault::DiskFull | Fault::ClockAhead);
        let moved = of_a_bystander && self.free_a_bystander().await?;
        if fault != Fault::ClockAhead {
            return Ok(moved);
        }
        for host in self.lab.hosts() {
            self.set_clock(&host.name, "+0").await?;
        }
        self.platform.fake_clocks(true).await?;
        Ok(true)
    }

    /// Takes back what [`World::prepare`] did.
    ///
    /// # Errors
    /// When the Swarm refuses.
    pub async fn tidy(&self, fault: Fault) -> Result<()> {
        if fault == Fault::ClockAhead {
            self.platform.fake_clocks(false).await?;
        }
        Ok(())
    }

    fn struck(&self, victim: &str, lost: Lost, undo: Undo) -> Struck {
        Struck { victim: victim.into(), lost, wanted: self.replicas, led_swarm: false, undo }
    }

    async fn power_off(&self, host: String) -> Result<Struck> {
        self.lab.power_off(&host).await?;
        Ok(self.struck(&host, Lost::host(&host), Undo::PowerOn(host.clone())))
    }

    async fn daemon(&self, host: String, daemon: Daemon, deed: Deed, undo: Deed) -> Result<Struck> {
        self.lab.daemon(&host, daemon, deed).await?;
        let victim = format!("{} on {host}", daemon.name());
        Ok(self.struck(&victim, Lost::default(), Undo::Daemons(vec![(host, daemon, undo)])))
    }

    async fn end_role(&self, service: &str, signal: &'static str, host: String) -> Result<Struck> {
        let container = self.container(&host, service).await?;
        self.signal(&host, &container, signal).await?;
        Ok(self.struck(&format!("{service} on {host}"), Lost::default(), Undo::Nothing))
    }

    async fn worsen(&self, fault: &str) -> Result<Struck> {
        let replica = self.replica().await?;
        self.set_fault(&replica.address, fault).await?;
        let victim = format!("{} on {}", replica.instance, replica.host);
        Ok(self.struck(&victim, Lost::default(), Undo::Well { address: replica.address }))
    }

    /// A host with a replica that leads nothing and does not hold the users' address; one that holds it where there is
    /// no other.
    async fn bystander(&self) -> Result<String> {
        let leaders = self.platform.settled_leaders().await?;
        let leads = |host: &str| leaders.includes(host);
        let with_replicas = crate::platform::hosts(&self.platform.replicas().await?);
        let holder = self.lab.address_holder().await?;
        let idle: Vec<&String> = with_replicas.iter().filter(|host| !leads(host)).collect();
        let best = idle.iter().find(|host| Some(host.as_str()) != holder.as_deref());
        let found = best.or(idle.first()).map(|host| (*host).clone());
        found.with_context(|| format!("each host with a replica leads something: {leaders:?}"))
    }

    /// Where each host with a replica leads something, lets another one lead Redis. Whether it had to: there is no load yet, for
    /// which such a change would be a fault of its own.
    async fn free_a_bystander(&self) -> Result<bool> {
        if self.bystander().await.is_ok() {
            return Ok(false);
        }
        let was = self.platform.settled_leaders().await?.redis.context("Redis has no leader")?;
        let sentinel = self.lab.host(&was)?.sentinel_addr();
        let (address, port) = (sentinel.ip().to_string(), sentinel.port().to_string());
        let command = ["redis-cli", "-h", &address, "-p", &port, "SENTINEL", "FAILOVER", lab::REDIS_MASTER];
        let asked = self.lab.exec(&was, &command).await?;
        let said = String::from_utf8_lossy(&asked.stdout);
        ensure!(said.trim() == "OK", "{} on {was}: {}", command.join(" "), said.trim());
        for _ in 0..HOLDER_TRIES {
            if self.platform.settled_leaders().await?.redis.is_some_and(|now| now != was) {
                self.bystander().await?;
                return Ok(true);
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        bail!("Redis' Sentinels did not move the master away from {was}")
    }

    async fn gateway_host(&self) -> Result<String> {
        for _ in 0..HOLDER_TRIES {
            if let Some(host) = self.lab.address_holder().await? {
                return Ok(host);
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        bail!("no host holds the users' address")
    }

    async fn scaler_host(&self) -> Result<String> {
        let consul = self.platform.consul()?;
        let key = lock_key(self.platform.service());
        for _ in 0..HOLDER_TRIES {
            if let Some(session) = consul.kv().get(&key).await?.value.and_then(|pair| pair.session)
                && let Some(session) = consul.sessions().info(&session).await?
                // The lock of one that was killed lives on for a while.
                && self.container(&session.node, SCALER).await.is_ok()
            {
                return Ok(session.node);
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        bail!("no scaler leads: nobody holds the lock {key}")
    }

    /// A replica, where it can be on a host that leads nothing.
    async fn replica(&self) -> Result<Replica> {
        let host = self.bystander().await.ok();
        let replicas = self.platform.replicas().await?;
        let found = usable(&replicas).max_by_key(|replica| Some(&replica.host) == host.as_ref());
        found.cloned().context("no replica takes traffic")
    }

    async fn engine(&self, host: &str) -> Result<Docker> {
        let endpoint = self.lab.host(host)?.docker_endpoint();
        Ok(swarm_client::Client::builder().endpoint(&endpoint).tls_from_env().connect().await?.bollard()?)
    }

    async fn signal(&self, host: &str, container: &str, signal: &str) -> Result<()> {
        let options = KillContainerOptionsBuilder::new().signal(signal).build();
        let sent = self.engine(host).await?.kill_container(container, Some(options)).await;
        sent.with_context(|| format!("{signal} to the container {container} on {host}"))
    }

    /// The running container of a service on a host.
    async fn container(&self, host: &str, service: &str) -> Result<String> {
        self.find(host, format!("com.docker.swarm.service.name={service}")).await
    }

    async fn container_of(&self, replica: &Replica) -> Result<(String, String)> {
        let task = replica.instance.rsplit('.').next().unwrap_or_default();
        let container = self.find(&replica.host, format!("com.docker.swarm.task.id={task}")).await?;
        Ok((container, format!("{} on {}", replica.instance, replica.host)))
    }

    async fn find(&self, host: &str, label: String) -> Result<String> {
        let filters = HashMap::from([("label".to_owned(), vec![label.clone()])]);
        let options = ListContainersOptionsBuilder::new().filters(&filters).build();
        let found = self.engine(host).await?.list_containers(Some(options)).await?;
        let container = found.into_iter().find_map(|container| container.id);
        container.with_context(|| format!("no container with {label} runs on {host}"))
    }

    async fn set_fault(&self, address: &str, fault: &str) -> Result<()> {
        let url = format!("http://{address}/fault?{fault}");
        let answer = load::client(Duration::from_secs(5))?.post(&url).send().await?;
        ensure!(answer.status().is_success(), "{url} answered {}", answer.status());
        Ok(())
    }

    async fn set_clock(&self, host: &str, offset: &str) -> Result<()> {
        let folder = crate::platform::swarm::CLOCK_FOLDER;
        // Renamed into place, so that nobody reads half of it.
        let script =
            format!("mkdir -p {folder} && echo '{offset}' > {folder}/new && mv {folder}/new {folder}/clock");
        let out = self.lab.exec(host, &["sh", "-c", &script]).await?;
        ensure!(out.status.success(), "the clock of {host}: {}", String::from_utf8_lossy(&out.stderr));
        Ok(())
    }
}

const REGISTRAR: &str = "ha-registrar";
const SCALER: &str = "ha-scaler";
const HOLDER_TRIES: usize = 50;
/// Longer than any fault: the scaler keeps off meanwhile.
const HOLD: Duration = Duration::from_secs(600);
