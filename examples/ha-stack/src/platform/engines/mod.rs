//! The stack on plain engines, without Swarm mode: the shape of the original system. Each host joins a pool through Consul, a
//! watchdog keeps the site's replicas running on it, and a container's host name says which service it serves.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use async_trait::async_trait;
use autoscaler::controller::now;
use swarm_client::Tls;
use swarm_client::engines::{Discovery, EnginePool, Scheduler, StaticNodes, Strategy};

use self::containers::{PoolHost, Run};
use self::discovery::{ConsulNodes, PREFIX};
use self::record::{ConsulRoster, Records, ServiceRecord};
use super::front::{Front, check_consul, check_redis};
#[cfg(target_os = "linux")]
use super::lab_power::LabPower;
use super::{Backend, Decided, Faults, Happening, Host, Platform, Replica, StackSpec, Status};
use crate::images::{Bundle, engines};
use crate::progress::Progress;
use crate::roles::fence;
use crate::roles::journal::ConsulJournal;
use crate::settings::Backends;

mod containers;
pub mod discovery;
#[cfg(target_os = "linux")]
mod faults;
mod health;
pub mod record;
mod teardown;

/// The stack on plain engines.
pub struct EnginesPlatform {
    spec: StackSpec,
    backends: Backends,
    pool: EnginePool,
    consul: consul_client::Client,
    records: Records,
    hosts: Vec<PoolHost>,
    /// The host whose gateway the story goes through: where Consul or Redis is led, if this is a lab.
    front: Front,
    run: String,
    /// Whether a container of this run may have been created.
    creating: AtomicBool,
    #[cfg(target_os = "linux")]
    lab: Option<LabPower>,
}

impl EnginesPlatform {
    /// Reaches the engines and Consul; starts nothing.
    ///
    /// # Errors
    /// When one of them can't be reached; with the setting and what to do.
    pub async fn connect(spec: StackSpec, backends: Backends) -> Result<Self> {
        ensure!(
            Tls::from_env()?.is_none(),
            "the platform engines has its roles ask the engines of all hosts, and gives them no certificate: \
             DOCKER_TLS_VERIFY must not be set; the platform swarm and `ha-stack engines` speak TLS"
        );
        let pool = pool_of(&backends)?;
        let mut hosts = Vec::new();
        for engine in pool.refresh().await? {
            let addr = engine.id.addr();
            ensure!(
                engine.reached,
                "no Docker engine at tcp://{addr} (--engines, HA_STACK_ENGINES): is one running there?"
            );
            let socket: SocketAddr = addr.parse().with_context(|| {
                format!("--engines (HA_STACK_ENGINES) has {addr}: the platform engines needs each host's IP address")
            })?;
            hosts.push(PoolHost { name: engine.name, ip: socket.ip(), engine: addr.to_owned() });
        }
        ensure!(
            hosts.len() >= 2,
            "the platform engines needs at least two hosts in --engines (HA_STACK_ENGINES), and there are {}",
            hosts.len()
        );
        let consul = backends.consul()?;
        check_consul(&consul, &backends).await?;
        #[cfg(target_os = "linux")]
        let lab = LabPower::of(hosts[0].ip);
        #[cfg(target_os = "linux")]
        let leads = match &lab {
            Some(lab) => lab.leading_hosts(false).await?.pop(),
            None => None,
        };
        #[cfg(not(target_os = "linux"))]
        let leads: Option<String> = None;
        // What leads nothing can be powered off: the fewer hosts lead, the better.
        let front = hosts.iter().find(|host| Some(&host.name) == leads.as_ref()).unwrap_or(&hosts[0]).ip;
        Ok(Self {
            records: Records::new(consul.clone()),
            front: Front::new(front, backends.front()?, &spec.service)?,
            #[cfg(target_os = "linux")]
            lab,
            spec,
            backends,
            pool,
            consul,
            hosts,
            run: format!("{:016x}", rand::random::<u64>()),
            creating: AtomicBool::new(false),
        })
    }

    fn host_at(&self, ip: IpAddr) -> String {
        self.hosts.iter().find(|host| host.ip == ip).map(|host| host.name.clone()).unwrap_or_default()
    }

    async fn wait_until_all_joined(&self) -> Result<()> {
        let nodes = ConsulNodes::new(self.consul.clone(), PREFIX);
        let mut joined = 0;
        for _ in 0..JOIN_TRIES {
            joined = nodes.engines().await?.len();
            if joined >= self.hosts.len() {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
        bail!(
            "{joined} of {} hosts have joined the pool; `docker logs ha-join.HOST` says more",
            self.hosts.len()
        )
    }

    /// How the replicas are seen; through another gateway where the front one is gone.
    async fn seen(&self) -> Result<crate::roles::admin::LoadSeen> {
        let front = self.front.seen().await;
        if front.is_ok() {
            return front;
        }
        let others = self.hosts.iter().map(|host| host.ip).collect();
        self.front.seen_elsewhere(others).await.map_or(front, Ok)
    }
}

/// A pool of the engines that the settings name.
///
/// # Errors
/// When one of them is not reached over TCP.
pub fn pool_of(backends: &Backends) -> Result<EnginePool> {
    let mut list = Vec::new();
    for (name, url) in backends.engines()? {
        let addr = url.strip_prefix("tcp://").with_context(|| {
            format!(
                "the engine {name} is at {}: a pool needs engines that every host can reach, tcp://IP:2375 in --engines \
                 (HA_STACK_ENGINES)",
                crate::settings::shown(&url)
            )
        })?;
        list.push(addr.trim_end_matches('/').to_owned());
    }
    let nodes = StaticNodes::new(&list.join(",")).context("--engines (HA_STACK_ENGINES)")?;
    with_tls_from_env(EnginePool::new(Arc::new(nodes), Scheduler::new(Strategy::Spread)))
}

/// The same pool, reached by TLS where `DOCKER_TLS_VERIFY` is set.
///
/// # Errors
/// When it is, and the folder of `DOCKER_CERT_PATH` has no certificates that can be used.
pub fn with_tls_from_env(pool: EnginePool) -> Result<EnginePool> {
    Ok(match Tls::from_env()? {
        Some(tls) => pool.with_tls(tls),
        None => pool,
    })
}

#[async_trait]
impl Platform for EnginesPlatform {
    fn name(&self) -> &'static str {
        "engines"
    }

    async fn start(&self, progress: &Progress) -> Result<()> {
        let there = self.existing().await?;
        ensure!(
            there.is_empty(),
            "a stack is on these engines already ({}): end the `ha-stack up` that runs it, or remove its containers \
             with `ha-stack engines rm`",
            there.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
        );
        let redis = check_redis(&self.backends, self.name()).await?;
        self.spec.policy().validate().context("the scaling policy was refused")?;
        let bundle = Bundle::of_this_program()?;
        engines::load(&bundle.builds()?, &self.backends.engines()?, progress).await?;
        ConsulJournal::new(self.consul.clone(), &self.spec.service).clear().await?;
        self.records.delete(&self.spec.service).await?;
        ConsulRoster::new(self.consul.clone()).clear().await?;

        let token = self.backends.consul_token();
        let run = Run { spec: &self.spec, bundle: &bundle, consul_token: token, id: &self.run };
        self.creating.store(true, Ordering::Relaxed);
        let step = progress.step("gateways and registrars; each host joins the pool");
        let roles = self.hosts.iter().flat_map(|host| run.of_host(host));
        for placed in futures_util::future::join_all(roles.map(|role| self.pool.run(role))).await {
            placed?;
        }
        self.wait_until_all_joined().await?;
        step.done(format!("{} hosts", self.hosts.len()));

        let step = progress.step("watchdogs and scalers");
        let front = self.hosts.iter().find(|host| host.ip == self.front.ip).unwrap_or(&self.hosts[0]);
        let other = self.hosts.iter().find(|host| host.ip != front.ip).unwrap_or(front);
        // One after the other: the first to come leads.
        let mut leaders = Vec::new();
        for role in run.leaders(front, other) {
            leaders.push(self.pool.run(role).await?.to_string());
        }
        step.done(leaders.join(", "));

        let record = ServiceRecord::new(run.web(redis), self.spec.min);
        ensure!(
            self.records.write(&self.spec.service, &record, 0).await?,
            "another one has just started the service {} in this Consul",
            self.spec.service
        );
        let step = progress.step(format!("the site at {}", self.site()));
        self.front.wait_for_site().await?;
        step.done("it answers");
        Ok(())
    }

    async fn stop(&self, progress: &Progress) -> Result<()> {
        self.take_down(progress).await
    }

    fn site(&self) -> String {
        self.front.site()
    }

    async fn replicas(&self) -> Result<Vec<Replica>> {
        Ok(self.seen().await?.replicas())
    }

    async fn status(&self) -> Result<Status> {
        let (record, _) = self.records.read(&self.spec.service).await?;
        let record = record.with_context(|| {
            format!(
                "no service {} on these engines: start the stack with `ha-stack up --platform engines`",
                self.spec.service
            )
        })?;
        let engines = self.pool.refresh().await?;
        let consul_leader = self.consul.status().leader().await?;
        let watchdog = self.records.leader().await?;
        let is_up =
            |host: &PoolHost| engines.iter().any(|engine| engine.reached && engine.id.addr() == host.engine);
        let hosts = self.hosts.iter().map(|host| {
            let consul =
                consul_leader.as_ref().is_some_and(|leader| leader.starts_with(&format!("{}:", host.ip)));
            let leads = [(consul, "consul"), (watchdog.as_ref() == Some(&host.name), "watchdog")];
            Host {
                name: host.name.clone(),
                address: host.ip.to_string(),
                up: is_up(host),
                leads: leads.into_iter().filter(|(leads, _)| *leads).map(|(_, what)| what.into()).collect(),
                drained: record.drained.contains(&host.name),
            }
        });
        let gateways = self.hosts.iter().filter(|host| is_up(host)).map(|host| (host.name.clone(), host.ip));
        let hold = record.hold_until.map(fence::hold_until).filter(|hold| hold.is_active(now()));
        Ok(Status {
            platform: self.name().into(),
            service: self.spec.service.clone(),
            wanted: record.replicas,
            hold: hold.map(|hold| super::hold_line(&hold, now())),
            hosts: hosts.collect(),
            replicas: self.replicas().await?,
            gateways: self.front.gateways(gateways.collect()).await,
            decision: self.decisions().await?.pop().map(|decided| decided.sentence),
        })
    }

    async fn scale(&self, replicas: u32, hold: Duration) -> Result<()> {
        let until = SystemTime::now().duration_since(UNIX_EPOCH)?.saturating_add(hold).as_secs();
        self.records
            .modify(&self.spec.service, |record| {
                (record.replicas, record.hold_until) = (replicas, Some(until));
                Ok(())
            })
            .await
    }

    async fn release(&self) -> Result<()> {
        self.records
            .modify(&self.spec.service, |record| {
                record.hold_until = None;
                Ok(())
            })
            .await
    }

    async fn decisions(&self) -> Result<Vec<Decided>> {
        Ok(ConsulJournal::new(self.consul.clone(), &self.spec.service).decisions().await?)
    }

    async fn backends(&self) -> Vec<Backend> {
        Box::pin(self.health()).await
    }

    async fn events(&self) -> Result<Vec<Happening>> {
        self.front.events().await
    }

    async fn drain(&self, host: &str, on: bool) -> Result<()> {
        ensure!(
            self.hosts.iter().any(|known| known.name == host),
            "there is no host {host}; the hosts are {}",
            self.hosts.iter().map(|known| known.name.as_str()).collect::<Vec<_>>().join(", ")
        );
        self.records
            .modify(&self.spec.service, |record| {
                if on {
                    record.drained.insert(host.to_owned());
                } else {
                    record.drained.remove(host);
                }
                record.place()
            })
            .await
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

/// Every 250 ms: a container starts in a second, and Consul answers at once.
const JOIN_TRIES: usize = 120;
