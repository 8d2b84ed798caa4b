//! The scaler: reads how busy the gateways are, decides, and writes the number of replicas to Swarm.
//!
//! Any number of scalers may run; the one that holds a lock in Consul acts. Its term, the lock's fence, goes into each
//! write, so that one that was paused and wakes up can't write over its successor.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use async_trait::async_trait;
use autoscaler::Reading;
use autoscaler::controller::{
    Controller, Held, Lease, LeaseError, Mode, ScaleTarget, SignalSource, Term, now,
};
use clap::Args;
use consul_client::Status;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::admin::LoadSeen;
use super::drain::GatewayDrains;
use super::engines_target::EnginesTarget;
use super::journal::ConsulJournal;
use super::labels;
use super::prometheus::{Prometheus, Query, Together};
use super::scaler_policy::{self, Buffered};
use super::swarm_target::SwarmTarget;
use crate::cli::SpecArgs;
use crate::load;
use crate::metrics::{self, scaler::Counted};
use crate::platform::IN_FLIGHT;
use crate::settings::Backends;

/// Flags of `scaler`.
#[derive(Args, Clone, Debug)]
pub struct ScalerArgs {
    /// The Swarm service to scale
    #[arg(long, default_value = "web")]
    service: String,
    #[command(flatten)]
    spec: SpecArgs,
    /// Most replicas to remove within a minute, in percent of those there
    #[arg(long, default_value_t = 50, value_name = "PERCENT")]
    down_percent: u32,
    /// How often to decide
    #[arg(long, default_value_t = 1, value_name = "SECONDS")]
    tick: u64,
    /// A policy as TOML; instead of the flags above and of the service's labels. Signals: in_flight, rate, p95_ms
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// A Prometheus endpoint to ask for more signals
    #[arg(long, value_name = "URL", requires = "signal")]
    prometheus: Option<reqwest::Url>,
    /// A signal of the policy and the query that gives it; may be repeated
    #[arg(long, value_name = "NAME=PROMQL", requires_all = ["prometheus", "policy"])]
    signal: Vec<Query>,
    /// Decide and tell, but write nothing
    #[arg(long)]
    shadow: bool,
    /// Where to answer /metrics for Prometheus; nowhere by default
    #[arg(long, value_name = "ADDR")]
    metrics: Option<SocketAddr>,
    /// The service runs on plain engines: scale its record in Consul
    #[arg(long)]
    plain: bool,
}

/// Scales until told to stop.
///
/// # Errors
/// When a setting is wrong, or Swarm can't be reached. Consul may come later.
pub async fn run(args: ScalerArgs, backends: &Backends) -> Result<ExitCode> {
    ensure!((1..=60).contains(&args.tick), "--tick is {}; it must be 1 to 60", args.tick);
    ensure!(
        (1..=100).contains(&args.down_percent),
        "--down-percent is {}; it must be 1 to 100",
        args.down_percent
    );
    let mut spec = args.spec.spec()?;
    spec.down_percent_a_minute = args.down_percent;
    let file = args.policy.as_deref().map(scaler_policy::from_file).transpose()?;
    let by_labels = file.is_none() && !args.shadow;
    let consul = backends.consul()?;
    let (swarm, target): (_, Arc<dyn ScaleTarget>) = if args.plain {
        (None, Arc::new(EnginesTarget::new(consul.clone(), &args.service)))
    } else {
        let swarm = backends.swarm().await?;
        (Some(swarm.clone()), Arc::new(SwarmTarget::new(swarm, &args.service)))
    };
    let drains = GatewayDrains { consul: consul.clone(), http: load::client(GATEWAY_TIMEOUT)? };
    let all_answer = Arc::new(AtomicBool::new(false));
    let http = load::client(GATEWAY_TIMEOUT)?;
    let (journal, figures) = Counted::new(ConsulJournal::new(consul.clone(), &args.service), &args.service);
    let stop = CancellationToken::new();
    metrics::server::serve(args.metrics, Arc::new(move || figures.page()), stop.clone());
    let gateways = Gateways { consul: consul.clone(), http, all_answer: Arc::clone(&all_answer) };
    let mut sources: Vec<Box<dyn SignalSource>> = vec![Box::new(gateways)];
    if let Some(base) = args.prometheus {
        let http = load::client(PROMETHEUS_TIMEOUT)?;
        sources.push(Box::new(Prometheus { base, http, queries: args.signal }));
    }
    let mut policy = scaler_policy::careful(file.unwrap_or_else(|| spec.policy()), UNSEEN);
    if args.plain {
        // Which replicas go is the scheduler's choice, made when they do: nobody could name them to the gateways before.
        policy.drain = None;
    }
    let controller = Controller::new(
        &args.service,
        policy,
        Together(sources),
        Buffered { target, gateways: all_answer },
        Arc::new(ConsulLease {
            consul: consul.clone(),
            key: lock_key(&args.service),
            held: Mutex::default(),
        }),
        Arc::new(journal),
    )
    .context("the scaling policy was refused")?
    .tick(Duration::from_secs(args.tick))
    .drainer(drains)
    .mode(if args.shadow { Mode::Shadow } else { Mode::Active });

    // On plain engines a service has no labels of its own.
    if let (true, Some(swarm)) = (by_labels, swarm) {
        let (flags, handle) = (spec.policy(), controller.policy_handle());
        let (service, until) = (args.service.clone(), stop.clone());
        tokio::spawn(scaler_policy::follow_labels(swarm, service, flags, UNSEEN, handle, until));
    }
    let signal = crate::cli::shutdown_signal()?;
    let told = stop.clone();
    tokio::spawn(async move {
        signal.await;
        told.cancel();
    });
    controller.run(stop).await;
    Ok(ExitCode::SUCCESS)
}

/// The key in Consul whose lock the leading scaler holds.
pub(crate) fn lock_key(service: &str) -> String {
    format!("ha-stack/scaler/{service}/leader")
}

/// Requests in flight at the gateways that Consul knows.
///
/// Two signals: the sum over the gateways that answered, and what is in flight at those that did not. The second is
/// zero when all answered, and unknown otherwise: then replicas may be added for what is seen, and none is removed.
struct Gateways {
    consul: consul_client::Client,
    http: reqwest::Client,
    /// Whether all of them did when they were asked last.
    all_answer: Arc<AtomicBool>,
}

/// The gateways that Consul knows: the host, and where each says how busy it is.
pub(super) async fn gateways(consul: &consul_client::Client) -> Result<Vec<(String, String)>> {
    let registered = consul.health().service(labels::GATEWAYS).list().await?.value;
    // A gateway that fails its check may just have too much to do; only its host's end takes it out of the sum.
    let there = registered.iter().filter(|gateway| {
        let failed = |check: &consul_client::HealthCheck| {
            check.check_id == HOST_CHECK && check.status == Status::Critical
        };
        !gateway.checks.iter().any(failed)
    });
    let place = |gateway: &consul_client::ServiceEntry| {
        let port = gateway.service.meta.get(labels::META_ADMIN_PORT).map_or("", String::as_str);
        (gateway.node.node.clone(), format!("{}:{port}", gateway.address()))
    };
    Ok(there.map(place).collect())
}

#[derive(Debug, Default, PartialEq)]
struct Seen {
    sum: u64,
    /// Requests a second, of all gateways together.
    rate: f64,
    /// The highest of the gateways' 95th percentiles.
    p95_ms: f64,
    answered: usize,
    silent: Vec<String>,
}

impl Gateways {
    async fn look(&self) -> Result<Seen> {
        let asked = gateways(&self.consul).await?.into_iter().map(|(host, address)| async move {
            let seen = LoadSeen::fetch(&self.http, &address).await;
            (host, seen)
        });
        let mut seen = Seen::default();
        for (host, answer) in futures_util::future::join_all(asked).await {
            match answer {
                Ok(load) => {
                    let status = load.status("", "");
                    seen.rate += status.rate;
                    seen.p95_ms = seen.p95_ms.max(status.p95_ms);
                    seen.sum += load.in_flight;
                    seen.answered += 1;
                }
                Err(error) => {
                    tracing::debug!(%host, error = format!("{error:#}"), "a gateway is silent");
                    seen.silent.push(host);
                }
            }
        }
        Ok(seen)
    }
}

impl Seen {
    fn readings(&self, at: Duration) -> Vec<(String, Reading)> {
        let sum = match (self.answered, self.silent.len()) {
            (0, 0) => Reading::NoData,
            (0, _) => Reading::error(format!("no answer from the gateways on {}", self.silent.join(", "))),
            _ => Reading::value(self.sum as f64, at),
        };
        let unseen = if self.silent.is_empty() {
            Reading::value(0.0, at)
        } else {
            Reading::error(format!("no answer from the gateways on {}", self.silent.join(", ")))
        };
        let with = |value: f64| match sum {
            Reading::Value { .. } => Reading::value(value, at),
            _ => sum.clone(),
        };
        let (rate, p95) = (with(self.rate), with(self.p95_ms));
        vec![(IN_FLIGHT.into(), sum), (UNSEEN.into(), unseen), (RATE.into(), rate), (P95.into(), p95)]
    }
}

#[async_trait]
impl SignalSource for Gateways {
    async fn read(&self, _service: &str) -> Vec<(String, Reading)> {
        let looked = self.look().await;
        let all = looked.as_ref().is_ok_and(|seen| seen.answered > 0 && seen.silent.is_empty());
        self.all_answer.store(all, Ordering::Relaxed);
        match looked {
            Ok(seen) => seen.readings(now()),
            Err(error) => vec![(IN_FLIGHT.into(), Reading::error(format!("{error:#}")))],
        }
    }
}

/// Leadership by a lock in Consul; the term is the lock's fence.
struct ConsulLease {
    consul: consul_client::Client,
    key: String,
    held: Mutex<Option<(CancellationToken, JoinHandle<()>)>>,
}

#[async_trait]
impl Lease for ConsulLease {
    async fn acquire(&self) -> Result<Held, LeaseError> {
        let lock = self.consul.lock(&self.key).ttl(LOCK_TTL).lock_delay(LOCK_DELAY).acquire().await;
        let lock =
            lock.map_err(|e| LeaseError::unavailable(format!("acquiring the Consul lock {}", self.key), e))?;
        let held = Held { term: Term(lock.fence().0), lost: CancellationToken::new() };
        let release = CancellationToken::new();
        let (lost, told) = (held.lost.clone(), release.clone());
        let keeper = tokio::spawn(async move {
            tokio::select! {
                why = lock.lost() => {
                    tracing::warn!(%why, "no longer the leader");
                    lost.cancel();
                }
                () = told.cancelled() => {
                    lost.cancel();
                    if let Err(error) = lock.release().await {
                        tracing::warn!(%error, "the leader's lock was not released; it ends with its session");
                    }
                }
            }
        });
        *self.held.lock().await = Some((release, keeper));
        Ok(held)
    }

    async fn release(&self, _held: &Held) {
        if let Some((release, keeper)) = self.held.lock().await.take() {
            release.cancel();
            // Returns when the lock is free: this process may end right after.
            let _ = keeper.await;
        }
    }
}

/// The shortest that Consul offers. A leader whose host is lost is gone sooner, by Consul's own failure detection.
const LOCK_TTL: Duration = Duration::from_secs(10);
/// Two leaders at once are harmless, for the older one's term is refused: no need for the default of 15 s.
const LOCK_DELAY: Duration = Duration::from_secs(1);
/// A gateway that takes longer is silent; well below the time that the controller gives all signals together.
const GATEWAY_TIMEOUT: Duration = Duration::from_millis(250);
/// Below the second that the controller gives all signals together.
const PROMETHEUS_TIMEOUT: Duration = Duration::from_millis(800);
/// What is in flight at gateways that did not answer: zero, or unknown.
const UNSEEN: &str = "in_flight_unseen";
/// Requests a second, and the 95th percentile of their latency in milliseconds; for policies of one's own.
const RATE: &str = "rate";
const P95: &str = "p95_ms";
/// Consul's own check of a host.
const HOST_CHECK: &str = "serfHealth";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_gateway_adds_nothing_and_forbids_removal() {
        let at = Duration::from_secs(9);
        let all = Seen { sum: 7, answered: 2, ..Seen::default() }.readings(at);
        assert_eq!(
            all[..2],
            [(IN_FLIGHT.into(), Reading::value(7.0, at)), (UNSEEN.into(), Reading::value(0.0, at))]
        );
        let some = Seen { sum: 7, answered: 1, silent: vec!["h2".into()], ..Seen::default() }.readings(at);
        assert_eq!(some[0].1, Reading::value(7.0, at));
        assert!(matches!(&some[1].1, Reading::Error(why) if why.contains("h2")), "{some:?}");
        let none = Seen { silent: vec!["h2".into()], ..Seen::default() }.readings(at);
        assert!(matches!(&none[0].1, Reading::Error(_)), "{none:?}");
        assert_eq!(Seen::default().readings(at)[0].1, Reading::NoData);
    }
}
