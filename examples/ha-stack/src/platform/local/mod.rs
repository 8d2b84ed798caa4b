//! The embedded default: replicas are child processes, hosts are loopback addresses, sessions are in SQLite, discovery
//! is in process. Needs neither root nor Docker, Consul or Redis.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use async_trait::async_trait;
use autoscaler::controller::{
    AlwaysLeader, Controller, MemoryJournal, ScaleError, ScaleTarget, SignalSource, TargetStatus, Term,
    Written, now,
};
use autoscaler::{Decision, Drain, Hold, Reading};
use balancer::proxy::Gateway;
use balancer::{Endpoint, EndpointId, Update};
use tempfile::TempDir;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use self::drain::GatewayDrain;
use self::fleet::{Change, Fleet, FleetSpec};
use super::{Backend, Decided, Faults, Happening, Host, IN_FLIGHT, Platform, Replica, StackSpec, Status};
use crate::progress::Progress;
use crate::roles::admin::LoadSeen;
use crate::roles::{admin, gateway, journal};

pub mod drain;
pub mod fleet;
mod health;
pub mod placement;
pub mod replica;

/// The stack on this machine.
pub struct LocalPlatform {
    spec: StackSpec,
    listen: SocketAddr,
    running: Mutex<Option<Arc<Running>>>,
    site: std::sync::OnceLock<String>,
}

struct Running {
    fleet: Arc<Fleet>,
    gateway: Gateway,
    journal: Arc<MemoryJournal>,
    hold: Arc<Mutex<Option<Hold>>>,
    stop: CancellationToken,
    tasks: Mutex<Vec<JoinHandle<()>>>,
    /// The URL of the session store.
    sessions: String,
    // The session store and the logs; removed at the end.
    _folder: TempDir,
}

impl LocalPlatform {
    /// A stack of this shape whose gateway will listen there; port 0 takes a free one.
    pub fn new(spec: StackSpec, listen: SocketAddr) -> Self {
        Self { spec, listen, running: Mutex::default(), site: std::sync::OnceLock::new() }
    }

    async fn running(&self) -> Result<Arc<Running>> {
        self.running.lock().await.clone().context("the stack has not been started")
    }
}

#[async_trait]
impl Platform for LocalPlatform {
    fn name(&self) -> &'static str {
        "local"
    }

    async fn start(&self, progress: &Progress) -> Result<()> {
        let listener = gateway::bind("--listen", self.listen).await?;
        let address = listener.local_addr().context("the gateway's address can't be read")?;
        let folder =
            tempfile::Builder::new().prefix("ha-stack-").tempdir().context("no folder for the sessions")?;
        let sessions = format!("sqlite:{}", folder.path().join("sessions.db").display());
        let gateway = gateway::build("/healthz", self.spec.wait, rand::random())?;
        let feed = gateway.clone();
        let fleet = Fleet::new(
            FleetSpec {
                service: self.spec.service.clone(),
                sessions: sessions.clone(),
                session_lifetime: self.spec.session_lifetime,
                drain: self.spec.drain,
                logs: folder.path().to_owned(),
            },
            HOSTS,
            move |change| feed.apply(update(change)),
        );
        let fleet = Arc::new(fleet);
        let hold = Arc::new(Mutex::new(None));
        let journal = Arc::new(MemoryJournal::new(DECISIONS_KEPT));
        let controller = Controller::new(
            &self.spec.service,
            self.spec.policy().drain(Some(Drain { deadline: DRAIN_DEADLINE })),
            Arc::new(InProcess { gateway: gateway.clone() }),
            Arc::new(FleetTarget {
                service: self.spec.service.clone(),
                fleet: Arc::clone(&fleet),
                gateway: gateway.clone(),
                hold: Arc::clone(&hold),
            }),
            Arc::new(AlwaysLeader::new()),
            Arc::clone(&journal) as Arc<dyn autoscaler::controller::Journal>,
        )
        .context("the scaling policy was refused")?
        .tick(Duration::from_secs(1))
        .drainer(GatewayDrain::new(gateway.clone(), Arc::clone(&fleet)));

        let stop = CancellationToken::new();
        let (reconciled, served) = (Arc::clone(&fleet), gateway.clone());
        let (stop_fleet, stop_gateway) = (stop.clone(), stop.clone());
        let tasks = vec![
            tokio::spawn(async move { reconciled.run(stop_fleet).await }),
            tokio::spawn(async move {
                if let Err(error) = served.serve(listener, stop_gateway.cancelled_owned()).await {
                    tracing::error!(%error, "the gateway stopped listening");
                }
            }),
            tokio::spawn(controller.run(stop.clone())),
        ];
        let running = Running {
            fleet,
            gateway,
            journal,
            hold,
            stop,
            tasks: Mutex::new(tasks),
            sessions,
            _folder: folder,
        };
        let running = Arc::new(running);
        *self.running.lock().await = Some(Arc::clone(&running));
        let site = self.site.get_or_init(|| format!("http://{address}"));
        progress.line(format!("gateway and scaler run in this process; the gateway listens at {site}"));

        let step =
            progress.step(format!("{} replicas of {} as child processes", self.spec.min, self.spec.service));
        running.fleet.scale(self.spec.min).await;
        let wanted = self.spec.min as usize;
        while step.elapsed() < START_DEADLINE {
            if super::usable(&self.replicas().await?).count() >= wanted {
                step.done("they answer");
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        match running.fleet.last_error().await {
            Some(error) => bail!("the replicas did not start: {error}"),
            None => bail!("{wanted} replicas did not become ready within {} s", START_DEADLINE.as_secs()),
        }
    }

    async fn stop(&self, _progress: &Progress) -> Result<()> {
        let Some(running) = self.running.lock().await.take() else { return Ok(()) };
        running.stop.cancel();
        // The reconciler ends first, or it would start what is being ended; the gateway has nobody left to drain for.
        let mut tasks = std::mem::take(&mut *running.tasks.lock().await).into_iter();
        if let Some(reconciler) = tasks.next() {
            let _ = tokio::time::timeout(Duration::from_secs(6), reconciler).await;
        }
        tasks.for_each(|task| task.abort());
        running.fleet.shut_down().await;
        Ok(())
    }

    fn site(&self) -> String {
        self.site.get().cloned().unwrap_or_else(|| format!("http://{}", self.listen))
    }

    async fn replicas(&self) -> Result<Vec<Replica>> {
        Ok(LoadSeen::of(&self.running().await?.gateway)?.replicas())
    }

    async fn status(&self) -> Result<Status> {
        let running = self.running().await?;
        let seen = LoadSeen::of(&running.gateway)?;
        let hosts = running.fleet.hosts().await;
        let hosts = hosts.into_iter().map(|host| Host {
            name: host.name,
            address: host.ip.to_string(),
            up: host.up,
            leads: Vec::new(),
            drained: host.drained,
        });
        let hold = running.hold.lock().await.clone().filter(|hold| hold.is_active(now()));
        Ok(Status {
            platform: self.name().into(),
            service: self.spec.service.clone(),
            wanted: running.fleet.count().await.0,
            hold: hold.map(|hold| super::hold_line(&hold, now())),
            hosts: hosts.collect(),
            replicas: seen.replicas(),
            gateways: vec![seen.status("here", &self.site())],
            decision: running.journal.entries().iter().rev().find_map(journal::decided).map(|d| d.sentence),
        })
    }

    async fn scale(&self, replicas: u32, hold: Duration) -> Result<()> {
        let running = self.running().await?;
        let mut held = running.hold.lock().await;
        *held = Some(Hold::until(now().saturating_add(hold), "scaled by hand"));
        running.fleet.scale(replicas).await;
        Ok(())
    }

    async fn release(&self) -> Result<()> {
        *self.running().await?.hold.lock().await = None;
        Ok(())
    }

    async fn decisions(&self) -> Result<Vec<Decided>> {
        Ok(self.running().await?.journal.entries().iter().filter_map(journal::decided).collect())
    }

    async fn backends(&self) -> Vec<Backend> {
        match self.running.lock().await.as_ref() {
            Some(running) => health::of(running, &self.spec).await,
            None => Vec::new(),
        }
    }

    async fn events(&self) -> Result<Vec<Happening>> {
        Ok(admin::happenings(&self.running().await?.gateway))
    }

    async fn drain(&self, host: &str, on: bool) -> Result<()> {
        self.running().await?.fleet.drain(host, on).await
    }

    fn faults(&self) -> Option<&dyn Faults> {
        Some(self)
    }
}

#[async_trait]
impl Faults for LocalPlatform {
    async fn leading_hosts(&self) -> Result<Vec<String>> {
        // Gateway and scaler are in this process, which is on none of the hosts.
        Ok(Vec::new())
    }

    async fn keep_off(&self, hosts: &[String]) -> Result<()> {
        self.running().await?.fleet.avoid(hosts).await;
        Ok(())
    }

    async fn power_off(&self, host: &str) -> Result<()> {
        self.running().await?.fleet.power(host, false).await
    }

    async fn power_on(&self, host: &str) -> Result<()> {
        self.running().await?.fleet.power(host, true).await
    }

    fn caveat(&self) -> Option<&'static str> {
        Some(
            "a local power-off is SIGKILL: it closes connections, which a host without power does not do; \
             the run on Swarm is the real one",
        )
    }
}

fn update(change: Change) -> Update {
    match change {
        Change::Started { instance, host, address } => {
            Update::Add(Endpoint::new(instance.as_str(), address).host(host.as_str()))
        }
        Change::Draining { instance } => Update::Drain(EndpointId::new(instance)),
        Change::Ended { instance } => Update::Remove(EndpointId::new(instance)),
    }
}

/// The load of the gateway in this process.
struct InProcess {
    gateway: Gateway,
}

#[async_trait]
impl SignalSource for InProcess {
    async fn read(&self, _service: &str) -> Vec<(String, Reading)> {
        let reading = match LoadSeen::of(&self.gateway) {
            Ok(seen) => Reading::value(seen.in_flight as f64, now()),
            Err(error) => Reading::error(format!("{error:#}")),
        };
        vec![(IN_FLIGHT.into(), reading)]
    }
}

/// The number of replicas of the fleet.
struct FleetTarget {
    service: String,
    fleet: Arc<Fleet>,
    gateway: Gateway,
    hold: Arc<Mutex<Option<Hold>>>,
}

#[async_trait]
impl ScaleTarget for FleetTarget {
    async fn read(&self) -> Result<TargetStatus, ScaleError> {
        let (wanted, _) = self.fleet.count().await;
        let seen = LoadSeen::of(&self.gateway);
        let seen = seen.map_err(|e| {
            ScaleError::unavailable(&self.service, "reading the gateway", e.into_boxed_dyn_error())
        })?;
        let ready = super::usable(&seen.replicas()).count();
        Ok(TargetStatus {
            wanted,
            ready: u32::try_from(ready).unwrap_or(u32::MAX),
            hold: self.hold.lock().await.clone(),
            instances: drain::instances(&self.fleet).await,
            // The gateway's waiting room is in this process.
            buffer: Some(true),
            ..TargetStatus::default()
        })
    }

    async fn write(&self, replicas: u32, _term: Term, because: &Decision) -> Result<Written, ScaleError> {
        // Looked at again under the lock that a person's scale takes: a hold never loses to a decision made before it.
        let hold = self.hold.lock().await;
        if hold.as_ref().is_some_and(|hold| hold.is_active(now())) {
            return Err(ScaleError::Refused {
                service: self.service.clone(),
                tried: format!("scaling to {replicas}"),
                why: "a person has scaled it meanwhile".into(),
            });
        }
        let (wanted, _) = self.fleet.count().await;
        if wanted != because.current {
            return Err(ScaleError::Conflict {
                service: self.service.clone(),
                why: format!("it has {wanted} replicas by now"),
            });
        }
        self.fleet.scale(replicas).await;
        Ok(Written::default())
    }
}

/// How long a replica that will be removed may finish what is in flight on it; longer than the demo site's slowest answer.
const DRAIN_DEADLINE: Duration = Duration::from_secs(10);
const HOSTS: usize = 3;
const DECISIONS_KEPT: usize = 1000;
const START_DEADLINE: Duration = Duration::from_secs(20);
