//! The command line: what a person types, and which function does it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand};
use tokio_util::sync::CancellationToken;

use crate::platform::Platform;
use crate::platform::StackSpec;
use crate::platform::engines::EnginesPlatform;
use crate::platform::local::LocalPlatform;
use crate::platform::swarm::SwarmPlatform;
use crate::progress::Progress;
use crate::roles;
use crate::roles::coordination::Discovery;
use crate::settings::{Backends, PlatformName, Secret};

pub mod dashboard;
pub mod demo;
pub mod deploy;
pub mod engines;
#[cfg(target_os = "linux")]
pub mod faults;
pub mod images;
pub mod load;
pub mod render;
pub mod replay;
pub mod replica;
pub mod scale;
pub mod status;
pub mod top;
pub mod up;

/// A web service that survives the loss of any machine, grows and shrinks with load, and keeps its users logged in.
#[derive(Parser, Debug)]
#[command(
    version,
    after_help = "Example:\n  ha-stack demo        plays the whole story on this machine; needs nothing installed"
)]
pub struct Cli {
    #[command(flatten)]
    backends: Backends,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Start the stack and show it live until Ctrl-C, which ends it
    #[command(after_help = "Example:\n  ha-stack up --listen 127.0.0.1:8080\n  ha-stack up --platform swarm")]
    Up(up::UpArgs),
    /// Play the story: log in, scale, power off, load; ends with a verdict
    #[command(
        after_help = "Example:\n  ha-stack demo --json\n  ha-stack demo --platform swarm --no-faults\n  ha-stack demo --platform engines --json"
    )]
    Demo(demo::DemoArgs),
    /// Make a Swarm what a stack file says: the site, its roles, Consul and Redis; a second time changes nothing
    #[command(
        after_help = "Example:\n  ha-stack deploy --dry-run\n  ha-stack deploy --file shop.yml --name shop\nThe reference deployment is examples/ha-stack/deploy/ha-stack.yml: copy it and put your own site in."
    )]
    Deploy(deploy::DeployArgs),
    /// Remove a stack and the secrets that were made for it; its volumes stay
    #[command(after_help = "Example:\n  ha-stack remove --name shop")]
    Remove(deploy::RemoveArgs),
    /// Let things go wrong in a lab, one after the other under steady load, and report what users saw
    #[cfg(target_os = "linux")]
    #[command(
        after_help = "Example:\n  ha-stack faults --platform swarm --only worker-off,replica-hung\n  ha-stack faults --platform swarm --random --minutes 30 --seed 7"
    )]
    Faults(faults::FaultsArgs),
    /// Show hosts, replicas, gateways and the scaler's newest decision
    #[command(after_help = "Example:\n  ha-stack status\n  ha-stack status --platform swarm --json")]
    Status(status::StatusArgs),
    /// Show the stack live in a terminal, as its dashboard does
    #[command(after_help = "Example:\n  ha-stack top\n  ha-stack top --gateway http://h1:8081")]
    Top(top::TopArgs),
    /// Show a stack that runs already on a page; with a token, drain hosts, scale and pause the scaler there
    #[command(after_help = "Example:\n  ha-stack dashboard --platform swarm --control 127.0.0.1:7070")]
    Dashboard(dashboard::DashboardArgs),
    /// Set the number of replicas by hand, or hand it back to the scaler
    #[command(after_help = "Example:\n  ha-stack scale web 4 --hold 600\n  ha-stack scale web auto")]
    Scale(scale::ScaleArgs),
    /// Build the stack's images from this program, and put them on every engine
    #[command(
        subcommand,
        after_help = "Example:\n  ha-stack images build --out ./contexts\n  ha-stack images load"
    )]
    Images(images::ImagesCommand),
    /// Run containers on plain engines, without Swarm mode: placed, listed, scaled, watched
    #[command(
        subcommand,
        after_help = "Example:\n  ha-stack engines info --discovery nodes://198.18.0.[11:13]:2375\n  ha-stack engines run --name front -p 80:80 nginx:1\nThere is no Docker API endpoint in front of the pool: these commands are its front."
    )]
    Engines(engines::EnginesCommand),
    /// Keep an nginx or a HAProxy in step with a service's replicas
    #[command(
        after_help = "Example:\n  ha-stack render --nginx /etc/nginx/conf.d/web.conf --reload 'nginx -s reload'\n  ha-stack render --haproxy /run/haproxy/admin.sock --backend web"
    )]
    Render(render::RenderArgs),
    /// Send a bounded load, and say what came of it
    #[command(
        after_help = "Example:\n  ha-stack load --url http://127.0.0.1:8080/work?ms=100 --workers 40 --seconds 20"
    )]
    Load(load::LoadArgs),
    /// Play a recorded load against a scaling policy, and against those of others
    #[command(
        after_help = "Example:\n  ha-stack replay load.csv --policy policy.toml --against hpa,kpa,threshold --peak 40"
    )]
    Replay(replay::ReplayArgs),
    /// Role: take users' requests and send each to a replica
    #[command(
        after_help = "Example:\n  ha-stack gateway --service web --listen 0.0.0.0:8080 --admin 0.0.0.0:8081"
    )]
    Gateway(roles::gateway::GatewayArgs),
    /// Role: register this host's Swarm tasks in Consul
    #[command(after_help = "Example:\n  ha-stack registrar --consul http://127.0.0.1:8500")]
    Registrar(roles::registrar::RegistrarArgs),
    /// Role: scale a service by its load
    #[command(after_help = "Example:\n  ha-stack scaler --service web --min 2 --max 6 --target 10")]
    Scaler(roles::scaler::ScalerArgs),
    /// Role: keep Consul's policies, and the tokens of the other roles, as they should be
    #[command(after_help = "Example:\n  ha-stack access --tokens /run/secrets/consul-tokens")]
    Access(roles::access::AccessArgs),
    /// Role: the demo site
    #[command(after_help = "Example:\n  ha-stack web --session sqlite:sessions.db --listen 127.0.0.1:8080")]
    Web(web::Settings),
    /// The demo site as a child of the local platform
    #[command(hide = true)]
    Replica(web::Settings),
}

impl Cli {
    /// What this process is called where several are looked at together, as in traces.
    pub fn program(&self) -> &'static str {
        match self.command {
            Command::Gateway(_) => "gateway",
            Command::Web(_) | Command::Replica(_) => "web",
            _ => "ha-stack",
        }
    }
}

/// The platform, and where its gateway listens.
#[derive(Args, Clone, Debug)]
pub struct PlatformArgs {
    /// Where the stack runs
    #[arg(long, value_enum, default_value = "local")]
    pub platform: PlatformName,
    /// Platform local: where the gateway listens [default: 127.0.0.1:8080; a free port for demo]
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<SocketAddr>,
    /// Where `up` and `dashboard` show their page, and `up` answers `status`, `scale` and `top`
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:7070")]
    pub control: SocketAddr,
    /// Platform swarm: by what the roles find each other; without Consul, by the Swarm itself
    #[arg(long, value_enum, default_value = "consul")]
    pub discovery: Discovery,
    /// With this token the dashboard may drain, scale and pause; without one it only shows
    #[arg(long, env = "HA_STACK_TOKEN", value_name = "TOKEN", hide_env_values = true)]
    pub token: Option<Secret>,
}

/// The shape of the stack.
#[derive(Args, Clone, Debug)]
pub struct SpecArgs {
    /// Fewest replicas
    #[arg(long, default_value_t = 2)]
    pub min: u32,
    /// Most replicas
    #[arg(long, default_value_t = 6)]
    pub max: u32,
    /// Requests in flight for each replica
    #[arg(long, default_value_t = 10.0, value_name = "N")]
    pub target: f64,
    /// How long the load must have been low before replicas are removed
    #[arg(long, default_value_t = 60, value_name = "SECONDS")]
    pub calm: u64,
}

impl SpecArgs {
    /// The shape that these flags ask for.
    ///
    /// # Errors
    /// When the bounds or the target make no sense.
    pub fn spec(&self) -> Result<StackSpec> {
        anyhow::ensure!(self.min >= 1, "--min is {}; it must be at least 1", self.min);
        anyhow::ensure!(self.max >= self.min, "--max is {}, below --min, which is {}", self.max, self.min);
        anyhow::ensure!(
            self.target.is_finite() && self.target > 0.0,
            "--target is {}; it must be a number above 0",
            self.target
        );
        Ok(StackSpec {
            min: self.min,
            max: self.max,
            target_in_flight: self.target,
            calm: Duration::from_secs(self.calm),
            ..StackSpec::default()
        })
    }
}

/// What is wrong with a command line, in one line: the first paragraph of clap's text.
pub fn one_line(error: &str) -> String {
    let first = error.split("\n\n").next().unwrap_or(error);
    let words: Vec<&str> = first.trim_start_matches("error: ").split_whitespace().collect();
    words.join(" ")
}

/// Runs the command line of this process.
///
/// Exit codes: 0 done, 1 a promise was broken, 2 something is missing or wrong, 130 interrupted.
pub async fn run(cli: Cli) -> ExitCode {
    let interrupted = CancellationToken::new();
    let command = cli.command.run(cli.backends, interrupted.clone());
    match command.await {
        Ok(code) => code,
        Err(_) if interrupted.is_cancelled() => ExitCode::from(130),
        Err(error) => {
            eprintln!("ha-stack: {error:#}");
            ExitCode::from(2)
        }
    }
}

impl Command {
    async fn run(self, backends: Backends, stop: CancellationToken) -> Result<ExitCode> {
        // The roles and the site handle their signals themselves: they drain.
        match self {
            Self::Gateway(args) => return roles::gateway::run(args, &backends).await,
            Self::Registrar(args) => return roles::registrar::run(args, &backends).await,
            Self::Scaler(args) => return roles::scaler::run(args, &backends).await,
            Self::Access(args) => return roles::access::run(args, &backends).await,
            Self::Web(settings) => {
                web::run(settings).await?;
                return Ok(ExitCode::SUCCESS);
            }
            Self::Replica(settings) => return replica::run(settings).await,
            // Pure arithmetic: a signal ends it as it ends any program.
            Self::Replay(args) => return replay::run(&args),
            // A watchdog gives its lock back.
            Self::Engines(command @ engines::EnginesCommand::Watch { .. }) => {
                return engines::run(command, backends, stop).await;
            }
            _ => {}
        }
        cancel_on_signal(stop.clone())?;
        match self {
            // These two have something to take down first.
            Self::Up(args) => up::run(args, backends, stop).await,
            Self::Demo(args) => demo::run(args, backends, stop).await,
            #[cfg(target_os = "linux")]
            Self::Faults(args) => faults::run(args, backends, stop).await,
            Self::Deploy(args) => unless_interrupted(&stop, deploy::deploy(args, &backends)).await,
            Self::Remove(args) => unless_interrupted(&stop, deploy::remove(args, &backends)).await,
            Self::Load(args) => load::run(args, stop).await,
            Self::Top(args) => top::run(args, backends, stop).await,
            Self::Dashboard(args) => dashboard::run(args, backends, stop).await,
            Self::Status(args) => unless_interrupted(&stop, status::run(args, backends)).await,
            Self::Scale(args) => unless_interrupted(&stop, scale::run(args, backends)).await,
            Self::Render(args) => render::run(args, &backends, stop).await,
            Self::Engines(command) => engines::run(command, backends, stop).await,
            Self::Images(command) => unless_interrupted(&stop, images::run(command, backends)).await,
            Self::Gateway(_)
            | Self::Registrar(_)
            | Self::Scaler(_)
            | Self::Access(_)
            | Self::Web(_)
            | Self::Replica(_)
            | Self::Replay(_) => Ok(ExitCode::SUCCESS),
        }
    }
}

/// The platform that the flags name; nothing is started yet. `port` is where the gateway listens if no flag says.
///
/// # Errors
/// When what the platform needs can't be reached.
pub async fn platform(
    args: &PlatformArgs,
    port: u16,
    spec: &StackSpec,
    backends: &Backends,
) -> Result<Arc<dyn Platform>> {
    anyhow::ensure!(
        args.discovery == Discovery::Consul || args.platform == PlatformName::Swarm,
        "--discovery is swarm and --platform is not: only there are tasks to ask for; use --platform swarm"
    );
    let listen = args.listen.unwrap_or(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port));
    Ok(match args.platform {
        PlatformName::Local => Arc::new(LocalPlatform::new(spec.clone(), listen)),
        PlatformName::Swarm => {
            Arc::new(SwarmPlatform::connect(spec.clone(), backends.clone(), args.discovery).await?)
        }
        PlatformName::Engines => Arc::new(EnginesPlatform::connect(spec.clone(), backends.clone()).await?),
    })
}

/// The platform of a stack that runs already. Where no flag names the service that users see, it is found in the Swarm.
///
/// # Errors
/// When what the platform needs can't be reached; when the Swarm has no such service, or several.
pub async fn running(
    args: &PlatformArgs,
    service: Option<String>,
    backends: &Backends,
) -> Result<Arc<dyn Platform>> {
    let default = StackSpec::default();
    match (args.platform, service) {
        (PlatformName::Swarm, None) => {
            Ok(Arc::new(SwarmPlatform::find(backends.clone(), args.discovery).await?))
        }
        (_, service) => {
            let service = service.unwrap_or_else(|| default.service.clone());
            platform(args, 0, &StackSpec { service, ..default }, backends).await
        }
    }
}

/// Runs `work` until it is done or a signal comes, and stops the platform in either case.
///
/// # Errors
/// Those of `work`; those of stopping, where the work was done.
pub async fn with_platform<T>(
    platform: &dyn Platform,
    progress: &Progress,
    stop: &CancellationToken,
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    let outcome = unless_interrupted(stop, work).await;
    let stopped = platform.stop(progress).await.context("the stack could not be taken down whole");
    match (&outcome, stopped) {
        (Ok(_), Err(error)) => Err(error),
        (Err(_), Err(error)) => {
            eprintln!("ha-stack: {error:#}");
            outcome
        }
        _ => outcome,
    }
}

/// The outcome of `work`, or an error as soon as a signal comes.
///
/// # Errors
/// Those of `work`, and the interruption.
pub async fn unless_interrupted<T>(
    stop: &CancellationToken,
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    tokio::select! {
        // Work that minds the signal itself ends in its own way.
        biased;
        outcome = work => outcome,
        () = stop.cancelled() => Err(anyhow::anyhow!("interrupted")),
    }
}

/// Resolves at SIGINT or SIGTERM.
///
/// # Errors
/// When the signals can't be waited for.
pub fn shutdown_signal() -> Result<impl Future<Output = ()> + Send + 'static> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT can't be waited for")?;
    let mut terminate = signal(SignalKind::terminate()).context("SIGTERM can't be waited for")?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

fn cancel_on_signal(stop: CancellationToken) -> Result<()> {
    let signal = shutdown_signal()?;
    tokio::spawn(async move {
        signal.await;
        stop.cancel();
        if let Ok(again) = shutdown_signal() {
            again.await;
            eprintln!("ha-stack: interrupted again; what was started may be left behind");
            std::process::exit(130);
        }
    });
    Ok(())
}
