//! Keeps the wanted number of replicas running as child processes, spread over hosts that are loopback addresses.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use tokio::sync::{Mutex, Notify};
use tokio_util::sync::CancellationToken;

use super::placement::{self, Placed};
use super::replica::{Replica, ReplicaSpec};

/// What the fleet tells the gateway: the platform's discovery, in process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A replica listens; whether it is ready is for the gateway's own probe to find out.
    Started { instance: String, host: String, address: SocketAddr },
    /// A replica is about to be told to stop.
    Draining { instance: String },
    /// A replica has ended.
    Ended { instance: String },
}

/// A host of the fleet.
#[derive(Clone, Debug)]
pub struct FleetHost {
    /// `h1`, `h2`, ...
    pub name: String,
    /// The loopback address that stands for it.
    pub ip: IpAddr,
    /// Whether it has power.
    pub up: bool,
}

/// What the replicas have in common.
#[derive(Clone, Debug)]
pub struct FleetSpec {
    /// The name of the service.
    pub service: String,
    /// The URL of the session store.
    pub sessions: String,
    /// Idle lifetime of a session.
    pub session_lifetime: Duration,
    /// How long a replica serves on after it was told to stop.
    pub drain: Duration,
    /// The folder of the replicas' logs.
    pub logs: PathBuf,
}

/// The replicas and their hosts.
pub struct Fleet {
    spec: FleetSpec,
    tell: Box<dyn Fn(Change) + Send + Sync>,
    state: Mutex<State>,
    nudge: Notify,
}

struct State {
    wanted: u32,
    hosts: Vec<FleetHost>,
    avoid: BTreeSet<String>,
    replicas: Vec<Replica>,
    started: u64,
    /// Set while replicas end as soon as they start, so that a broken one is not restarted in a tight loop.
    failures: u32,
    not_before: Instant,
    last_error: Option<String>,
}

impl Fleet {
    /// A fleet of `hosts` hosts without a replica yet. `tell` hears of each change as it happens.
    pub fn new(spec: FleetSpec, hosts: usize, tell: impl Fn(Change) + Send + Sync + 'static) -> Self {
        let state = State {
            wanted: 0,
            hosts: loopback_hosts(hosts),
            avoid: BTreeSet::new(),
            replicas: Vec::new(),
            started: 0,
            failures: 0,
            not_before: Instant::now(),
            last_error: None,
        };
        Self { spec, tell: Box::new(tell), state: Mutex::new(state), nudge: Notify::new() }
    }

    /// Reconciles until `stop`; run it as one task.
    pub async fn run(&self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            self.reconcile().await;
            tokio::select! {
                () = self.nudge.notified() => {}
                () = tokio::time::sleep(POLL) => {}
                () = stop.cancelled() => {}
            }
        }
    }

    /// Sets the number of replicas.
    pub async fn scale(&self, wanted: u32) {
        self.state.lock().await.wanted = wanted;
        self.nudge.notify_one();
    }

    /// Replicas wanted, and those that run and are not about to stop.
    pub async fn count(&self) -> (u32, u32) {
        let state = self.state.lock().await;
        let running = state.replicas.iter().filter(|r| r.stopping.is_none()).count();
        (state.wanted, u32::try_from(running).unwrap_or(u32::MAX))
    }

    /// The hosts as they are now.
    pub async fn hosts(&self) -> Vec<FleetHost> {
        self.state.lock().await.hosts.clone()
    }

    /// Why the newest start failed, if it did.
    pub async fn last_error(&self) -> Option<String> {
        self.state.lock().await.last_error.clone()
    }

    /// Keeps new replicas off these hosts.
    pub async fn avoid(&self, hosts: &[String]) {
        self.state.lock().await.avoid = hosts.iter().cloned().collect();
    }

    /// Kills every process of a host; none is started there until the power is back.
    ///
    /// # Errors
    /// When there is no such host.
    pub async fn power(&self, host: &str, on: bool) -> Result<()> {
        let mut state = self.state.lock().await;
        let Some(found) = state.hosts.iter_mut().find(|h| h.name == host) else {
            let names: Vec<String> = state.hosts.iter().map(|h| h.name.clone()).collect();
            bail!("there is no host {host}; there are {}", names.join(", "));
        };
        found.up = on;
        if !on {
            for replica in state.replicas.iter_mut().filter(|r| r.placed.host == host) {
                replica.kill();
            }
        }
        drop(state);
        self.nudge.notify_one();
        Ok(())
    }

    /// Ends all replicas at once.
    pub async fn shut_down(&self) {
        let mut state = self.state.lock().await;
        state.wanted = 0;
        for replica in &mut state.replicas {
            replica.kill();
        }
        let deadline = Instant::now() + Duration::from_secs(2);
        while Instant::now() < deadline {
            state.replicas.retain_mut(|r| !r.has_ended());
            if state.replicas.is_empty() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        // What is left is killed once more as it is dropped.
        state.replicas.clear();
    }

    async fn reconcile(&self) {
        let mut state = self.state.lock().await;
        self.reap(&mut state);
        self.stop_surplus(&mut state);
        self.start_missing(&mut state).await;
    }

    fn reap(&self, state: &mut State) {
        let overdue = self.spec.drain + STOP_GRACE;
        let mut ended = Vec::new();
        state.replicas.retain_mut(|replica| {
            if replica.stopping.is_some_and(|since| since.elapsed() > overdue) {
                tracing::warn!(instance = %replica.placed.instance, "did not end in time and is killed");
                replica.kill();
            }
            let gone = replica.has_ended();
            if gone {
                ended.push(replica.placed.instance.clone());
            }
            !gone
        });
        for instance in ended {
            tracing::info!(%instance, "replica ended");
            (self.tell)(Change::Ended { instance });
        }
    }

    fn stop_surplus(&self, state: &mut State) {
        let staying = placed(state);
        for instance in placement::victims(&staying, state.wanted as usize) {
            // The gateway hears of it first, and sends nothing new before the replica is told.
            (self.tell)(Change::Draining { instance: instance.clone() });
            for replica in state.replicas.iter_mut().filter(|r| r.placed.instance == instance) {
                replica.stop();
            }
        }
    }

    async fn start_missing(&self, state: &mut State) {
        while placed(state).len() < state.wanted as usize && Instant::now() >= state.not_before {
            let may_run = |host: &&FleetHost| host.up && !state.avoid.contains(&host.name);
            let hosts: Vec<String> = state.hosts.iter().filter(may_run).map(|h| h.name.clone()).collect();
            let staying = placed(state);
            let Some(host) = placement::host_for_next(&hosts, &staying) else { return };
            let Some(ip) = state.hosts.iter().find(|h| h.name == host).map(|h| h.ip) else { return };
            let slot = placement::free_slot(&staying);
            state.started += 1;
            let instance = format!("{}.{slot}.{:04x}", self.spec.service, state.started);
            let log = self.spec.logs.join(format!("{instance}.log"));
            let spec = ReplicaSpec {
                placed: Placed { instance, slot, host },
                ip,
                sessions: &self.spec.sessions,
                session_lifetime: self.spec.session_lifetime,
                drain: self.spec.drain,
                log: &log,
            };
            match Replica::start(spec).await {
                Ok(replica) => {
                    let Placed { instance, host, .. } = replica.placed.clone();
                    tracing::info!(%instance, %host, address = %replica.address, "replica started");
                    (self.tell)(Change::Started { instance, host, address: replica.address });
                    state.replicas.push(replica);
                    state.failures = 0;
                    state.last_error = None;
                }
                Err(error) => {
                    tracing::warn!(error = format!("{error:#}"), "a replica did not start");
                    state.last_error = Some(format!("{error:#}"));
                    state.failures = (state.failures + 1).min(6);
                    state.not_before = Instant::now() + START_BACKOFF * 2_u32.pow(state.failures);
                }
            }
        }
    }
}

/// The replicas that stay: those that were not told to stop.
fn placed(state: &State) -> Vec<Placed> {
    state.replicas.iter().filter(|r| r.stopping.is_none()).map(|r| r.placed.clone()).collect()
}

/// `h1` is 127.0.0.2 and so on; all are 127.0.0.1 where only that one exists (macOS).
fn loopback_hosts(count: usize) -> Vec<FleetHost> {
    let second = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
    let several = std::net::TcpListener::bind(SocketAddr::new(second, 0)).is_ok();
    let ip = |n: usize| match u8::try_from(n + 1) {
        Ok(last) if several => IpAddr::V4(Ipv4Addr::new(127, 0, 0, last)),
        _ => IpAddr::V4(Ipv4Addr::LOCALHOST),
    };
    (1..=count).map(|n| FleetHost { name: format!("h{n}"), ip: ip(n), up: true }).collect()
}

/// How often ended processes are looked for.
const POLL: Duration = Duration::from_millis(50);
/// What a replica may need after its drain to finish the requests in flight.
const STOP_GRACE: Duration = Duration::from_secs(10);
/// The first pause after a failed start is twice this, the longest 64 times.
const START_BACKOFF: Duration = Duration::from_millis(100);
