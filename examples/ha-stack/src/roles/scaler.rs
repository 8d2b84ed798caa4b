//! The scaler: reads how busy the gateways are, decides, and writes the number of replicas to Swarm.
//!
//! Any number of scalers may run; the one that holds a lease (by an election in Consul, or in the Swarm itself) acts. Its
//! term goes into each write, so that one that was paused and wakes up can't write over its successor.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use async_trait::async_trait;
use autoscaler::controller::{Controller, Mode, ScaleTarget, SignalSource, now};
use autoscaler::{Policy, Reading};
use clap::Args;
use tokio_util::sync::CancellationToken;

use super::admin::LoadSeen;
use super::coordination::{Coordination, Discovery, Peer};
use super::docker_stats::DockerStats;
use super::drain::GatewayDrains;
use super::engines_target::EnginesTarget;
use super::labels;
use super::leader::Leading;
use super::prometheus::{Prometheus, Query, Together};
use super::scaler_fleet;
use super::scaler_policy::{self, Buffered};
use super::swarm_target::SwarmTarget;
use crate::cli::SpecArgs;
use crate::load;
use crate::metrics::{self, scaler::AllFigures, scaler::Counted};
use crate::platform::IN_FLIGHT;
use crate::settings::Backends;

/// Flags of `scaler`.
#[derive(Args, Clone, Debug)]
pub struct ScalerArgs {
    /// The Swarm service to scale
    #[arg(long, default_value = "web")]
    service: String,
    /// Scale every service that has the label ha-stack.scale, each by its own labels
    #[arg(long, conflicts_with_all = ["service", "policy", "plain"])]
    labelled: bool,
    /// With --labelled: a folder of policies; SERVICE.toml is followed in place of that service's labels
    #[arg(long, value_name = "DIR", requires = "labelled")]
    policies: Option<PathBuf>,
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
    /// By what scalers find the gateways, elect their leader and keep their journal
    #[arg(long, value_enum, default_value = "consul", conflicts_with = "plain")]
    discovery: Discovery,
    /// With --discovery swarm: the service whose tasks are the gateways
    #[arg(long, default_value = labels::GATEWAYS, value_name = "SERVICE")]
    gateways: String,
    /// The service whose tasks are the registrars, which measure the CPU (signal cpu, in percent of what a replica may use)
    #[arg(long, default_value = "ha-registrar", value_name = "SERVICE")]
    registrars: String,
    /// The port of the registrars' --metrics
    #[arg(long, default_value_t = 8082, value_name = "PORT")]
    registrar_port: u16,
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
    let flags = spec.policy();
    let file = args.policy.as_deref().map(scaler_policy::from_file).transpose()?;
    let maker = Maker::of(&args, backends).await?;
    let stop = CancellationToken::new();
    let figures = Arc::clone(&maker.figures);
    metrics::server::serve(args.metrics, Arc::new(move || figures.page()), stop.clone());
    let signal = crate::cli::shutdown_signal()?;
    let told = stop.clone();
    tokio::spawn(async move {
        signal.await;
        told.cancel();
    });
    if args.labelled {
        let swarm = maker.swarm.clone().context("--labelled looks for services of a Swarm")?;
        scaler_fleet::run(swarm, maker, &flags, args.policies.as_deref(), stop).await;
        return Ok(ExitCode::SUCCESS);
    }
    let by_labels = file.is_none() && !args.shadow;
    let mut policy = scaler_policy::careful(file.unwrap_or_else(|| flags.clone()), UNSEEN);
    if args.plain {
        // Which replicas go is the scheduler's choice, made when they do: nobody could name them to the gateways before.
        policy.drain = None;
    }
    let (controller, cpu) = maker.controller(&args.service, policy)?;
    // On plain engines a service has no labels of its own.
    if let (true, Some(swarm)) = (by_labels, maker.swarm.clone()) {
        let (handle, service, until) = (controller.policy_handle(), args.service.clone(), stop.clone());
        tokio::spawn(scaler_policy::follow_labels(swarm, service, flags, UNSEEN, handle, cpu, until));
    }
    controller.run(stop).await;
    Ok(ExitCode::SUCCESS)
}

/// Makes the controllers of services.
pub(super) struct Maker {
    by: Coordination,
    swarm: Option<swarm_client::Client>,
    /// Where services are, if not in a Swarm.
    consul: Option<consul_client::Client>,
    /// How people know this scaler among the others: by its host.
    name: String,
    gateways: reqwest::Client,
    others: reqwest::Client,
    prometheus: Option<(reqwest::Url, Vec<Query>)>,
    registrars: (String, u16),
    tick: Duration,
    shadow: bool,
    figures: Arc<AllFigures>,
}

impl Maker {
    async fn of(args: &ScalerArgs, backends: &Backends) -> Result<Self> {
        let by = Coordination::of(args.discovery, &args.gateways, backends).await?;
        let (swarm, consul) =
            if args.plain { (None, Some(backends.consul()?)) } else { (Some(backends.swarm().await?), None) };
        let name = match &swarm {
            Some(swarm) => swarm.info().await.map_or_else(|_| "an unknown host".into(), |info| info.name),
            None => String::new(),
        };
        Ok(Self {
            by,
            swarm,
            consul,
            name,
            gateways: load::client(GATEWAY_TIMEOUT)?,
            others: load::client(OTHERS_TIMEOUT)?,
            prometheus: args.prometheus.clone().map(|base| (base, args.signal.clone())),
            registrars: (args.registrars.clone(), args.registrar_port),
            tick: Duration::from_secs(args.tick),
            shadow: args.shadow,
            figures: Arc::default(),
        })
    }

    /// What every service's figures are on.
    pub(super) fn figures(&self) -> &AllFigures {
        &self.figures
    }

    /// A controller, and what is to be set when its policy begins or ends to look at the CPU.
    ///
    /// # Errors
    /// When the policy is refused.
    pub(super) fn controller(&self, service: &str, policy: Policy) -> Result<(Controller, Arc<AtomicBool>)> {
        let leading = Leading::default();
        let all_answer = Arc::new(AtomicBool::new(false));
        let cpu = Arc::new(AtomicBool::new(scaler_policy::wants_cpu(&policy)));
        let gateways = Gateways {
            by: self.by.clone(),
            http: self.gateways.clone(),
            all_answer: Arc::clone(&all_answer),
        };
        let mut sources: Vec<Box<dyn SignalSource>> = vec![Box::new(gateways)];
        if let Some((base, queries)) = self.prometheus.clone() {
            sources.push(Box::new(Prometheus { base, http: self.others.clone(), queries }));
        }
        let target: Arc<dyn ScaleTarget> = match (&self.swarm, &self.consul) {
            (Some(swarm), _) => {
                let (registrars, port) = self.registrars.clone();
                let (swarm, http) = (swarm.clone(), self.others.clone());
                let source = DockerStats { swarm: swarm.clone(), http, registrars, port };
                sources.push(Box::new(While { wanted: Arc::clone(&cpu), source }));
                Arc::new(SwarmTarget::new(swarm, service))
            }
            (None, Some(consul)) => Arc::new(EnginesTarget::new(consul.clone(), service, leading.clone())),
            (None, None) => bail!("there is neither a Swarm nor a Consul to scale in"),
        };
        let (journal, figures) = Counted::new(self.by.journal(service, &leading), service);
        let controller = Controller::new(
            service,
            policy,
            Together(sources),
            Buffered { target, gateways: all_answer },
            self.by.lease(service, &self.name, &leading),
            journal,
        )
        .with_context(|| format!("the scaling policy of {service} was refused"))?;
        self.figures.add(service, figures);
        let drains = GatewayDrains { by: self.by.clone(), http: self.gateways.clone() };
        let mode = if self.shadow { Mode::Shadow } else { Mode::Active };
        Ok((controller.tick(self.tick).drainer(drains).mode(mode), cpu))
    }

    /// Whether what is decided is only told.
    pub(super) fn is_shadow(&self) -> bool {
        self.shadow
    }
}

/// A source that is asked only while somebody wants to know.
struct While<S> {
    wanted: Arc<AtomicBool>,
    source: S,
}

#[async_trait]
impl<S: SignalSource> SignalSource for While<S> {
    async fn read(&self, service: &str) -> Vec<(String, Reading)> {
        if self.wanted.load(Ordering::Relaxed) { self.source.read(service).await } else { Vec::new() }
    }
}

/// Requests of a service that are in flight at the gateways.
///
/// Two signals: the sum over the gateways that answered, and what is in flight at those that did not. The second is
/// zero when all answered, and unknown otherwise: then replicas may be added for what is seen, and none is removed.
struct Gateways {
    by: Coordination,
    http: reqwest::Client,
    /// Whether all of them did when they were asked last.
    all_answer: Arc<AtomicBool>,
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
    async fn look(&self, service: &str) -> Result<Seen> {
        let asked = self.by.peers().await?.into_iter().map(|peer| async move {
            let seen = LoadSeen::fetch_service(&self.http, &peer.admin, service).await;
            (peer, seen)
        });
        let mut seen = Seen::default();
        for (Peer { host, up, .. }, answer) in futures_util::future::join_all(asked).await {
            match answer {
                // Another service's gateway. One that is silent may be of this one.
                Ok(None) => {}
                Ok(Some(load)) => {
                    let status = load.status("", "");
                    seen.rate += status.rate;
                    seen.p95_ms = seen.p95_ms.max(status.p95_ms);
                    seen.sum += load.in_flight;
                    seen.answered += 1;
                }
                // Nothing is in flight on a lost machine; it may be only its agent that is lost, so it was asked.
                Err(_) if !up => {}
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
    async fn read(&self, service: &str) -> Vec<(String, Reading)> {
        let looked = self.look(service).await;
        let all = looked.as_ref().is_ok_and(|seen| seen.answered > 0 && seen.silent.is_empty());
        self.all_answer.store(all, Ordering::Relaxed);
        match looked {
            Ok(seen) => seen.readings(now()),
            Err(error) => vec![(IN_FLIGHT.into(), Reading::error(format!("{error:#}")))],
        }
    }
}

/// A gateway that takes longer is silent; well below the time that the controller gives all signals together.
const GATEWAY_TIMEOUT: Duration = Duration::from_millis(250);
/// For Prometheus and the registrars; below the second that the controller gives all signals together.
const OTHERS_TIMEOUT: Duration = Duration::from_millis(800);
/// What is in flight at gateways that did not answer: zero, or unknown.
pub(super) const UNSEEN: &str = "in_flight_unseen";
/// Requests a second, and the 95th percentile of their latency in milliseconds; for policies of one's own.
const RATE: &str = "rate";
/// The 95th percentile of the answers' latency in milliseconds, at the slowest gateway.
pub const P95: &str = "p95_ms";

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
