//! The gateway: follows Consul's health or the Swarm's tasks, sends users' requests to the replicas of one or several
//! services, and says how busy it is.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use balancer::Pool;
use balancer::proxy::{self, Gateway, Hedge, Tls};
use clap::{Args, ValueEnum};
use consul_client::{Check, Registration, ServiceRegistration};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::coordination::{Coordination, Discovery};
use super::services::Services;
use super::swarm_feed::Which;
use super::{admin, follow, labels};
use crate::dashboard::source::GatewaySource;

use crate::settings::Backends;

/// Flags of `gateway`.
#[derive(Args, Clone, Debug)]
pub struct GatewayArgs {
    /// The service, of Consul or of the Swarm, whose replicas get the requests that no other service's labels claim
    #[arg(long, default_value = "web")]
    service: String,
    /// Which services get requests
    #[arg(long, value_enum, default_value_t = Routes::Mixed, value_name = "WHICH")]
    routes: Routes,
    /// A file with 16 bytes or more that all gateways share, for the cookies of sticky routes; otherwise each makes its own
    #[arg(long, value_name = "FILE")]
    sticky_key: Option<PathBuf>,
    /// Where users reach the gateway
    #[arg(long, default_value = "127.0.0.1:8080", value_name = "ADDR")]
    listen: SocketAddr,
    /// Where the gateway answers /healthz and /load and shows its dashboard; not for users
    #[arg(long, default_value = "127.0.0.1:8081", value_name = "ADDR")]
    admin: SocketAddr,
    /// The path by which replicas are probed
    #[arg(long, default_value = "/healthz", value_name = "PATH")]
    probe: String,
    /// How long a request may wait while no replica is there
    #[arg(long, default_value_t = 20, value_name = "SECONDS")]
    wait: u64,
    /// Statuses of an answer to a GET that is not passed on while another replica can be asked
    #[arg(long, value_name = "STATUS,...", value_delimiter = ',')]
    retry_on: Vec<u16>,
    /// Send a GET that takes longer than 95 % of the others to a second replica too; at most one request in twenty
    #[arg(long)]
    hedge: bool,
    /// Serve --listen by TLS (HTTP/2 and HTTP/1.1): a certificate chain as PEM; may be repeated. Read again when it changes
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Vec<PathBuf>,
    /// The key of each --tls-cert, in the same order
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Vec<PathBuf>,
    /// Register this gateway in Consul, so that a scaler finds it
    #[arg(long)]
    register: bool,
    /// Who says which replicas there are: Consul, or a manager of the Swarm (--docker-host) by the service's tasks
    #[arg(long, value_enum, default_value = "consul")]
    discovery: Discovery,
    /// With --discovery swarm: the service whose tasks are the gateways, for the dashboard
    #[arg(long, default_value = labels::GATEWAYS, value_name = "SERVICE")]
    gateways: String,
}

/// Which services a gateway serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Routes {
    /// Those with routing labels by these, and --service for everything else, unless it has such labels too
    Mixed,
    /// Those with routing labels alone; everything else is answered 404
    Labels,
    /// --service alone, whatever labels others have
    Off,
}

impl GatewayArgs {
    /// The services, of which the one that gets the rest is there already.
    fn services(&self) -> Result<Services> {
        let mut config =
            config(&self.probe, Duration::from_secs(self.wait)).retry_statuses(self.retry_on.iter().copied());
        config.hedge = self.hedge.then(Hedge::default);
        #[cfg(feature = "otel")]
        {
            config = config.trace(super::trace::W3c);
        }
        let key = self.sticky_key.as_ref().map(|path| {
            let key = std::fs::read(path)
                .with_context(|| format!("--sticky-key is {}: it can't be read", path.display()))?;
            anyhow::ensure!(
                key.len() >= 16,
                "--sticky-key is {}: it has {} bytes; it must have 16 or more",
                path.display(),
                key.len()
            );
            Ok(key)
        });
        Services::new(config, self.rest(), key.transpose()?)
    }

    /// Who gets what no route covers.
    fn rest(&self) -> Option<&str> {
        (self.routes != Routes::Labels).then_some(self.service.as_str())
    }

    /// The certificates, if users are served by TLS.
    fn tls(&self) -> Result<Option<Tls>> {
        anyhow::ensure!(
            self.tls_cert.len() == self.tls_key.len(),
            "--tls-cert is given {} times and --tls-key {} times: each certificate needs its key",
            self.tls_cert.len(),
            self.tls_key.len()
        );
        if self.tls_cert.is_empty() {
            return Ok(None);
        }
        let pairs = self.tls_cert.iter().zip(&self.tls_key);
        Tls::from_files(pairs).map(Some).context("--tls-cert and --tls-key can't be used")
    }
}

/// Serves until told to stop, then drains.
///
/// # Errors
/// When an address can't be bound or a setting is wrong. Consul may come later.
pub async fn run(args: GatewayArgs, backends: &Backends) -> Result<ExitCode> {
    let tls = args.tls()?;
    let services = args.services()?;
    let listener = bind("--listen", args.listen).await?;
    let admin = bind("--admin", args.admin).await?;
    anyhow::ensure!(
        !args.register || args.discovery == Discovery::Consul,
        "--register is for Consul: with --discovery swarm gateways are found as tasks of their service; leave it out"
    );
    let by = Coordination::of(args.discovery, &args.gateways, backends).await?;
    let stop = CancellationToken::new();

    let rest = args.rest().map(str::to_owned);
    let feed = match by.clone() {
        Coordination::Consul(consul) if args.routes == Routes::Off => {
            tokio::spawn(follow::one(consul, args.service.clone(), args.probe.clone(), services.clone()))
        }
        Coordination::Consul(consul) => {
            tokio::spawn(follow::all(consul, rest, args.probe.clone(), services.clone()))
        }
        Coordination::Swarm { swarm, .. } => {
            let which = match args.routes {
                Routes::Off => Which::One(args.service.clone()),
                Routes::Mixed | Routes::Labels => Which::Labelled(rest),
            };
            tokio::spawn(super::swarm_feed::follow(swarm, which, services.clone()))
        }
    };
    let scheme = if tls.is_some() { "https" } else { "http" };
    let here = format!("{scheme}://{}", args.listen);
    let source = GatewaySource::new(services.clone(), by.clone(), &args.service, here)?;
    let dashboard = crate::dashboard::of_a_gateway(source, args.admin, stop.clone());
    let side = tokio::spawn(admin::serve(
        admin,
        services.clone(),
        admin::Standing::until(stop.clone()),
        args.service.clone(),
        dashboard,
    ));
    let registration = match by {
        Coordination::Consul(consul) if args.register => {
            Some(tokio::spawn(keep_registered(consul, args.listen.port(), args.admin.port(), stop.clone())))
        }
        _ => None,
    };

    let signal = crate::cli::shutdown_signal()?;
    let told = stop.clone();
    let shutdown = async move {
        signal.await;
        told.cancel();
    };
    let served = match tls {
        Some(tls) => services.router().serve_tls(listener, &tls, shutdown).await,
        None => services.router().serve(listener, shutdown).await,
    };
    let served = served.context("the gateway can't go on listening");
    feed.abort();
    side.abort();
    if let Some(registration) = registration {
        // Deregisters; bounded by the client's own deadline.
        let _ = registration.await;
    }
    let report = served?;
    tracing::info!(?report, "drained");
    Ok(ExitCode::SUCCESS)
}

/// A gateway that probes its replicas at `probe` and lets requests wait while there is none.
///
/// # Errors
/// When a setting is refused.
pub fn build(probe: &str, wait: Duration, seed: u64) -> Result<Gateway> {
    let pool = Pool::new(balancer::Config::default().probes(balancer::Probes::default()), seed)?;
    Gateway::new(Arc::new(pool), config(probe, wait)).context("the gateway's settings were refused")
}

pub(crate) fn config(probe: &str, wait: Duration) -> proxy::Config {
    proxy::Config::default().probe(probe).waiting_timeout(wait).drain_delay(DRAIN_DELAY)
}

/// Binds an address, or says which flag named it.
///
/// # Errors
/// When the address can't be bound.
pub async fn bind(flag: &str, address: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| {
        format!(
            "{flag} is {address}: it can't be bound; stop what listens there, or choose another with {flag}"
        )
    })
}

/// Registers with the agent of this host and stays registered; deregisters at the end.
async fn keep_registered(consul: consul_client::Client, port: u16, admin: u16, stop: CancellationToken) {
    let registration = loop {
        match register(&consul, port, admin).await {
            Ok(registration) => break registration,
            Err(error) => {
                tracing::warn!(error = format!("{error:#}"), "the gateway is not registered in Consul yet");
            }
        }
        tokio::select! {
            () = tokio::time::sleep(REGISTER_RETRY) => {}
            () = stop.cancelled() => return,
        }
    };
    stop.cancelled().await;
    if let Err(error) = registration.deregister().await {
        tracing::warn!(%error, "the gateway could not be deregistered; Consul's check will find it gone");
    }
}

async fn register(consul: &consul_client::Client, port: u16, admin: u16) -> Result<Registration> {
    let node = consul.agent().self_info().await?.node_name;
    let here = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), admin);
    let check = Check::http(format!("http://{here}/healthz"))
        .interval(Duration::from_secs(1))
        .timeout(Duration::from_secs(1))
        .deregister_critical_after(Duration::from_secs(60));
    let service = ServiceRegistration::new(labels::GATEWAYS, format!("{}-{node}", labels::GATEWAYS))
        .port(port)
        .meta(labels::META_ADMIN_PORT, admin.to_string())
        .check(check);
    Ok(consul.agent().keep_registered(service).await?)
}

/// The front looks once a second, at what turns away 0.7 s late, and then moves the users' address.
const DRAIN_DELAY: Duration = Duration::from_secs(3);
const REGISTER_RETRY: Duration = Duration::from_secs(1);
