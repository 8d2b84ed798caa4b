//! Where the stack runs: the small set of verbs that `up`, `demo`, `scale` and `status` need, and who provides them.
//!
//! [`local`] starts replicas as child processes of this machine; [`swarm`] runs everything as services of a Docker
//! Swarm; [`engines`] runs it on plain engines, without Swarm mode.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::Result;
use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::progress::Progress;

mod args;
pub mod engines;
mod front;
#[cfg(target_os = "linux")]
mod lab_power;
pub mod local;
mod sessions;
pub mod swarm;

/// A place where the stack runs.
#[async_trait]
pub trait Platform: Send + Sync {
    /// `local`, `swarm` or `engines`.
    fn name(&self) -> &'static str;

    /// Starts web replicas, gateway, registrar and scaler, and returns when the site answers.
    async fn start(&self, progress: &Progress) -> Result<()>;

    /// Ends everything that [`Platform::start`] started.
    async fn stop(&self, progress: &Progress) -> Result<()>;

    /// The site as users reach it, for example `http://127.0.0.1:8080`.
    fn site(&self) -> String;

    /// The replicas as the site's gateway sees them at this moment: quick enough to time changes with.
    async fn replicas(&self) -> Result<Vec<Replica>>;

    /// The whole stack at this moment.
    async fn status(&self) -> Result<Status>;

    /// Sets the number of replicas by hand. The scaler keeps off for `hold`.
    async fn scale(&self, replicas: u32, hold: Duration) -> Result<()>;

    /// Hands the number of replicas back to the scaler.
    async fn release(&self) -> Result<()>;

    /// Lets the site go to zero replicas when nobody has come for so long, or keeps its least number again.
    ///
    /// # Errors
    /// When the platform has no means to.
    async fn idle_to_zero(&self, idle: Option<Duration>) -> Result<()> {
        let _ = idle;
        anyhow::bail!("the platform {} has no labels by which its site could go to zero", self.name())
    }

    /// What the scaler decided, oldest first: changes, and holds whose reason was new.
    async fn decisions(&self) -> Result<Vec<Decided>>;

    /// The services that the stack stands on, and whether they answer. Never fails: an error is a state here.
    async fn backends(&self) -> Vec<Backend> {
        Vec::new()
    }

    /// What the gateway that serves this site saw happen to its replicas lately, oldest first.
    async fn events(&self) -> Result<Vec<Happening>> {
        Ok(Vec::new())
    }

    /// Moves the replicas of a host elsewhere and keeps new ones off it, or takes it into use again.
    async fn drain(&self, host: &str, on: bool) -> Result<()> {
        let verb = if on { "drained" } else { "taken into use" };
        anyhow::bail!("{host} can't be {verb} on the platform {}: it has no means to", self.name())
    }

    /// The means to power a host off and on; `None` where only a person can.
    fn faults(&self) -> Option<&dyn Faults>;
}

/// Power off, power on.
#[async_trait]
pub trait Faults: Send + Sync {
    /// Whether this process may pull the plug at all.
    ///
    /// # Errors
    /// When it may not, with what to do.
    fn check(&self) -> Result<()> {
        Ok(())
    }

    /// Hosts that lead something (Swarm, Consul, Redis), whose loss is another story.
    async fn leading_hosts(&self) -> Result<Vec<String>>;

    /// Keeps replicas of the site on hosts that lead nothing, or lets them go anywhere again.
    async fn keep_off(&self, hosts: &[String]) -> Result<()>;

    /// Takes the power from a host. Returns when it is gone.
    async fn power_off(&self, host: &str) -> Result<()>;

    /// Gives the power back. Returns when the host is a full member again.
    async fn power_on(&self, host: &str) -> Result<()>;

    /// What a reader must know about this kind of power-off; `None` when it is the real thing.
    fn caveat(&self) -> Option<&'static str>;
}

/// The stack at one moment.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Status {
    /// `local`, `swarm` or `engines`.
    pub platform: String,
    /// The service that users see.
    pub service: String,
    /// Replicas wanted.
    pub wanted: u32,
    /// Why the scaler keeps off, where it does.
    pub hold: Option<String>,
    /// The machines.
    pub hosts: Vec<Host>,
    /// Replicas as the gateway that serves this site sees them.
    pub replicas: Vec<Replica>,
    /// The gateways, one on each host where the platform has hosts of its own.
    pub gateways: Vec<GatewayStatus>,
    /// The scaler's newest decision.
    pub decision: Option<String>,
}

/// Those that take traffic.
pub fn usable(replicas: &[Replica]) -> impl Iterator<Item = &Replica> {
    replicas.iter().filter(|r| r.usable)
}

/// The hosts of those that take traffic.
pub fn hosts(replicas: &[Replica]) -> BTreeSet<String> {
    usable(replicas).map(|r| r.host.clone()).collect()
}

/// A machine.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Host {
    /// Its name.
    pub name: String,
    /// Its address.
    pub address: String,
    /// Whether it is there.
    pub up: bool,
    /// What it leads: `swarm`, `consul`, `redis`.
    pub leads: Vec<String>,
    /// Whether a person keeps replicas off it.
    #[serde(default)]
    pub drained: bool,
}

/// A service that the stack stands on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Backend {
    /// `swarm`, `consul`, `sessions`, `scaler`, ...
    pub name: String,
    /// Whether it answers and can do its work.
    pub ok: bool,
    /// What it says of itself, or why it does not.
    pub detail: String,
}

/// Something that happened to a replica, as a gateway saw it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Happening {
    /// Seconds since 1970.
    pub at: f64,
    /// `ejected`, `recovered`, `added`, `removed`, `draining`, ...
    pub kind: String,
    /// As one sentence.
    pub text: String,
}

/// One replica of the site as a gateway sees it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Replica {
    /// The task: `web.1.a7f3`.
    pub instance: String,
    /// The machine that it runs on.
    pub host: String,
    /// Where it listens.
    pub address: String,
    /// Whether requests go to it.
    pub usable: bool,
    /// Its state in one word, and the reason where there is one.
    pub state: String,
    /// Requests under way on it.
    pub in_flight: u64,
    /// Why it is in its state, as a sentence.
    #[serde(default)]
    pub why: String,
    /// How long it has been in it.
    #[serde(default)]
    pub for_seconds: f64,
    /// How long until it is tried again, where that is by time.
    #[serde(default)]
    pub retry_in_seconds: Option<f64>,
    /// The gateway's estimate of its latency; `None` before its first answer.
    #[serde(default)]
    pub latency_ms: Option<f64>,
    /// Requests that it was picked for.
    #[serde(default)]
    pub requests: u64,
    /// Those of them that failed.
    #[serde(default)]
    pub failures: u64,
}

/// A gateway, and what it has to do.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct GatewayStatus {
    /// The host, or `here`.
    pub name: String,
    /// Where users reach it.
    pub address: String,
    /// Requests under way, waiting ones included.
    pub in_flight: u64,
    /// Requests a second over the last seconds.
    pub rate: f64,
    /// The 95th percentile of the latency, in milliseconds.
    pub p95_ms: f64,
    /// Why nothing is known of it, where nothing is.
    pub error: Option<String>,
    /// Requests that wait for a replica.
    #[serde(default)]
    pub waiting: u64,
    /// The median of the latency, in milliseconds; `None` without an answer in the last seconds.
    #[serde(default)]
    pub p50_ms: Option<f64>,
    /// The 99th percentile of the latency, in milliseconds; `None` without an answer in the last seconds.
    #[serde(default)]
    pub p99_ms: Option<f64>,
    /// Requests since it started.
    #[serde(default)]
    pub requests_total: u64,
    /// Answers of 500 and above since it started.
    #[serde(default)]
    pub errors_total: u64,
    /// Requests that it refused since it started.
    #[serde(default)]
    pub rejected_total: u64,
    /// Requests that it sent to another replica since it started.
    #[serde(default)]
    pub retries_total: u64,
}

/// A decision of the scaler.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Decided {
    /// Seconds since 1970 when it was made.
    pub at: f64,
    /// Replicas before.
    pub from: u32,
    /// Replicas after; the same in a hold.
    pub to: u32,
    /// The decision as one sentence.
    pub sentence: String,
}

/// The stack's shape, the same on every platform.
#[derive(Clone, Debug)]
pub struct StackSpec {
    /// The name of the service that users see.
    pub service: String,
    /// Fewest replicas that the scaler leaves.
    pub min: u32,
    /// Most replicas that the scaler starts.
    pub max: u32,
    /// Requests in flight that one replica should have, on average.
    pub target_in_flight: f64,
    /// How long the load must have been low before replicas are removed.
    pub calm: Duration,
    /// Most replicas that are removed within a minute, in percent of those there.
    pub down_percent_a_minute: u32,
    /// How long a replica serves on after it was told to stop.
    pub drain: Duration,
    /// How long a request may wait for a replica to come.
    pub wait: Duration,
    /// Idle lifetime of a session.
    pub session_lifetime: Duration,
    /// Whether replicas can be made slow or failing, for a test.
    pub faults: bool,
}

impl StackSpec {
    /// The scaling policy of this shape: in-flight requests as the signal, fast up, calm down.
    pub fn policy(&self) -> autoscaler::Policy {
        let down =
            autoscaler::RateLimit::Percent { p: self.down_percent_a_minute, period: Duration::from_secs(60) };
        autoscaler::Policy::balanced(IN_FLIGHT, self.target_in_flight)
            .bounds(self.min, self.max)
            .burst(Some(autoscaler::Burst::new(self.calm, BURST_PERCENT)))
            .down(autoscaler::Direction::new().stabilization(self.calm).limit(down))
    }
}

/// A load that needs twice the replicas at once is a burst: nothing is removed until it has been over for `calm`.
const BURST_PERCENT: u32 = 200;
/// The signal that the gateways give: requests under way, waiting ones included.
pub const IN_FLIGHT: &str = "in_flight";

impl Default for StackSpec {
    fn default() -> Self {
        Self {
            service: "web".into(),
            min: 2,
            max: 6,
            // A replica of the demo site answers /work in 100 ms: 10 in flight are 100 requests a second.
            target_in_flight: 10.0,
            calm: Duration::from_secs(60),
            // Half of them: a load that comes back within the minute finds enough.
            down_percent_a_minute: 50,
            // Longer than the slowest feed needs to notice that a replica is leaving (1 s between health checks).
            drain: Duration::from_secs(5),
            // Longer than Swarm needs to replace the only replica of a dead host (about 5 s).
            wait: Duration::from_secs(20),
            session_lifetime: Duration::from_secs(3000),
            faults: false,
        }
    }
}

/// A hold for people: why, and for how long still.
pub(crate) fn hold_line(hold: &autoscaler::Hold, now: Duration) -> String {
    match hold.until {
        Some(until) => format!("{}, for {} s more", hold.reason, until.saturating_sub(now).as_secs()),
        None => hold.reason.clone(),
    }
}
