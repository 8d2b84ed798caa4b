//! Keeps the wanted number of replicas running as child processes, spread over hosts that are loopback addresses.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
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
    /// Whether a person keeps replicas off it.
    pub drained: bool,
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

/// A replica that was not told to stop, and where it listens.
pub type Staying = (Placed, SocketAddr);

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
            if self.reconcile().await {
                continue;
            }
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

    /// The replicas that were not told to stop, and where each listens.
    pub async fn staying(&self) -> Vec<Staying> {
        let state = self.state.lock().await;
        let staying = state.replicas.iter().filter(|r| r.stopping.is_none());
        staying.map(|r| (r.placed.clone(), r.address)).collect()
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
        host_mut(&mut state, host)?.up = on;
        if !on {
            for replica in state.replicas.iter_mut().filter(|r| r.placed.host == host) {
                replica.kill();
            }
        }
        drop(state);
        self.nudge.notify_one();
        Ok(())
    }

    /// Keeps replicas off a host, or lets them come again. Those that run there serve on until as many run elsewhere.
    ///
    /// # Errors
    /// When there is no such host, or no other one could take the replicas.
    pub async fn drain(&self, host: &str, on: bool) -> Result<()> {
        let mut state = self.state.lock().await;
        let others = state.hosts.iter().any(|h| h.name != host && h.up && !h.drained);
        let found = host_mut(&mut state, host)?;
        if on && !others {
            bail!("{host} is the last host that can run replicas: take another one into use first");
        }
        found.drained = on;
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

    /// One pass; true if there is more to do at once.
    async fn reconcile(&self) -> bool {
        let next = {
            let mut state = self.state.lock().await;
            self.reap(&mut state);
            self.stop_surplus(&mut state);
            self.next_start(&mut state)
        };
        // Started without the lock: a replica that takes its time holds nobody up.
        let Some((placed, ip)) = next else { return false };
        let log = self.log(&placed.instance);
        let spec = ReplicaSpec {
            placed,
            ip,
            sessions: &self.spec.sessions,
            session_lifetime: self.spec.session_lifetime,
            drain: self.spec.drain,
            log: &log,
        };
        let started = Replica::start(spec).await;
        let mut state = self.state.lock().await;
        match started {
            Ok(mut replica) => {
                let Placed { instance, host, .. } = replica.placed.clone();
                if !state.hosts.iter().any(|h| h.name == host && h.up) {
                    // Its host lost power meanwhile.
                    replica.kill();
                }
                tracing::info!(%instance, %host, address = %replica.address, "replica started");
                (self.tell)(Change::Started { instance, host, address: replica.address });
                state.replicas.push(replica);
            }
            Err(error) => self.start_failed(&mut state, format!("{error:#}")),
        }
        true
    }

    fn reap(&self, state: &mut State) {
        let overdue = self.spec.drain + STOP_GRACE;
        let mut ended = Vec::new();
        let hosts = &state.hosts;
        state.replicas.retain_mut(|replica| {
            if replica.stopping.is_some_and(|since| since.elapsed() > overdue) {
                tracing::warn!(instance = %replica.placed.instance, "did not end in time and is killed");
                replica.kill();
            }
            let gone = replica.has_ended();
            if gone {
                let powered = hosts.iter().any(|h| h.name == replica.placed.host && h.up);
                let by_itself = replica.stopping.is_none() && powered;
                let soon = replica.started.elapsed() < STEADY_AFTER;
                ended.push((replica.placed.instance.clone(), by_itself && soon));
            }
            !gone
        });
        if state.replicas.iter().any(|replica| replica.started.elapsed() >= STEADY_AFTER) {
            state.failures = 0;
            state.last_error = None;
        }
        for (instance, failed) in ended {
            tracing::info!(%instance, "replica ended");
            if failed {
                let log = std::fs::read_to_string(self.log(&instance)).unwrap_or_default();
                let last = log.lines().last().unwrap_or("it wrote nothing to its log");
                self.start_failed(
                    state,
                    format!("replica {instance} ended as soon as it had started: {last}"),
                );
            }
            (self.tell)(Change::Ended { instance });
        }
    }

    fn start_failed(&self, state: &mut State, error: String) {
        tracing::warn!(%error, "a replica did not start");
        state.last_error = Some(error);
        state.failures = (state.failures + 1).min(6);
        state.not_before = Instant::now() + START_BACKOFF * 2_u32.pow(state.failures);
    }

    fn log(&self, instance: &str) -> PathBuf {
        self.spec.logs.join(format!("{instance}.log"))
    }

    fn stop_surplus(&self, state: &mut State) {
        for instance in surplus(state) {
            // The gateway hears of it first, and sends nothing new before the replica is told.
            (self.tell)(Change::Draining { instance: instance.clone() });
            for replica in state.replicas.iter_mut().filter(|r| r.placed.instance == instance) {
                replica.stop();
            }
        }
    }

    /// Where the next replica goes, if one is missing and there is a host for it.
    fn next_start(&self, state: &mut State) -> Option<(Placed, IpAddr)> {
        let staying = placed(state);
        // A replica on a drained host does not count: another one comes before it goes.
        let elsewhere = staying.iter().filter(|p| !is_drained(state, &p.host)).count();
        if elsewhere >= state.wanted as usize || Instant::now() < state.not_before {
            return None;
        }
        let may_run = |host: &&FleetHost| host.up && !host.drained && !state.avoid.contains(&host.name);
        let hosts: Vec<String> = state.hosts.iter().filter(may_run).map(|h| h.name.clone()).collect();
        let host = placement::host_for_next(&hosts, &staying)?;
        let ip = state.hosts.iter().find(|h| h.name == host).map(|h| h.ip)?;
        let slot = placement::free_slot(&staying);
        state.started += 1;
        let instance = format!("{}.{slot}.{:04x}", self.spec.service, state.started);
        Some((Placed { instance, slot, host }, ip))
    }
}

/// The replicas that stay: those that were not told to stop.
fn placed(state: &State) -> Vec<Placed> {
    state.replicas.iter().filter(|r| r.stopping.is_none()).map(|r| r.placed.clone()).collect()
}

/// The replicas that are too many: those on drained hosts first, and those not before the others have settled.
fn surplus(state: &State) -> Vec<String> {
    let wanted = state.wanted as usize;
    let (leaving, staying): (Vec<Placed>, Vec<Placed>) =
        placed(state).into_iter().partition(|p| is_drained(state, &p.host));
    let of = |instance: &str| state.replicas.iter().find(|r| r.placed.instance == instance);
    let settled = |p: &&Placed| of(&p.instance).is_some_and(|r| r.started.elapsed() >= SETTLED_AFTER);
    let serving = if leaving.is_empty() { staying.len() } else { staying.iter().filter(settled).count() };
    let keep = wanted.saturating_sub(serving);
    let mut surplus = placement::victims(&leaving, keep);
    surplus.extend(placement::victims(&staying, wanted));
    surplus
}

fn is_drained(state: &State, host: &str) -> bool {
    state.hosts.iter().any(|h| h.name == host && h.drained)
}

fn host_mut<'a>(state: &'a mut State, name: &str) -> Result<&'a mut FleetHost> {
    let names: Vec<String> = state.hosts.iter().map(|h| h.name.clone()).collect();
    let found = state.hosts.iter_mut().find(|h| h.name == name);
    found.with_context(|| format!("there is no host {name}; there are {}", names.join(", ")))
}

/// `h1` is 127.0.0.2 and so on; all are 127.0.0.1 where only that one exists (macOS).
fn loopback_hosts(count: usize) -> Vec<FleetHost> {
    let second = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
    let several = std::net::TcpListener::bind(SocketAddr::new(second, 0)).is_ok();
    let ip = |n: usize| match u8::try_from(n + 1) {
        Ok(last) if several => IpAddr::V4(Ipv4Addr::new(127, 0, 0, last)),
        _ => IpAddr::V4(Ipv4Addr::LOCALHOST),
    };
    (1..=count).map(|n| FleetHost { name: format!("h{n}"), ip: ip(n), up: true, drained: false }).collect()
}

/// How often ended processes are looked for.
const POLL: Duration = Duration::from_millis(50);
/// What a replica may need after its drain to finish the requests in flight.
const STOP_GRACE: Duration = Duration::from_secs(10);
/// A replica that has run so long has started well.
const STEADY_AFTER: Duration = Duration::from_secs(3);
/// By then the gateway's probe has passed, so that the replica it replaces can go.
const SETTLED_AFTER: Duration = Duration::from_secs(1);
/// The first pause after a failed start is twice this, the longest 64 times.
const START_BACKOFF: Duration = Duration::from_millis(100);
