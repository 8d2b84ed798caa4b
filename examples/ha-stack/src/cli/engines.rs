//! `ha-stack engines`: a pool of plain engines, as the classic manager and a person at its command line had it.

use std::fmt::Write as _;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use swarm_client::engines::{
    ContainerSpec, Discovery, DiscoveryUrl, Engine, EnginePool, Filter, Located, Scheduler, Strategy,
};
use tokio_util::sync::CancellationToken;

use crate::platform::engines::discovery::{ConsulNodes, PREFIX, join};
use crate::platform::engines::record::Records;
use crate::platform::engines::{pool_of, with_tls_from_env};
use crate::roles::watchdog;
use crate::settings::Backends;

/// Where the pool is.
#[derive(Args, Clone, Debug)]
pub struct PoolArgs {
    /// The engines: nodes://IP:2375,..., file:///PATH or consul://HOST:8500/PREFIX [default: those of --engines]
    #[arg(long, env = "HA_STACK_DISCOVERY", value_name = "URL")]
    discovery: Option<String>,
    /// Where containers go: spread, binpack or random
    #[arg(long, default_value = "spread")]
    strategy: Strategy,
    /// Filters to use, health always [default: all]
    #[arg(long, value_delimiter = ',', value_name = "NAME,...")]
    filters: Option<Vec<String>>,
}

/// What to do with a pool of plain engines.
#[derive(Subcommand, Debug)]
pub enum EnginesCommand {
    /// Role: keep this host's engine in the pool, by a key in Consul that vanishes with the host
    #[command(
        after_help = "Example:\n  ha-stack engines join --advertise 198.18.0.11:2375 --discovery consul://127.0.0.1:8500/ha-stack/engines"
    )]
    Join {
        #[command(flatten)]
        pool: PoolArgs,
        /// Where the others reach this host's engine
        #[arg(long, value_name = "IP:PORT")]
        advertise: String,
    },
    /// Show strategy, filters, and each engine: containers, reserved processors and memory, labels
    #[command(after_help = "Example:\n  ha-stack engines info --discovery nodes://198.18.0.[11:13]:2375")]
    Info(PoolArgs),
    /// List the containers of every engine as host/name
    #[command(after_help = "Example:\n  ha-stack engines ps --discovery nodes://198.18.0.[11:13]:2375")]
    Ps {
        #[command(flatten)]
        pool: PoolArgs,
        /// Those that ended too
        #[arg(short, long)]
        all: bool,
    },
    /// Choose an engine and start a container there
    #[command(
        after_help = "Example:\n  ha-stack engines run --name front -p 80:80 -c storage==~ssd --reschedule nginx:1"
    )]
    Run(Box<RunArgs>),
    /// Set the number of a service's replicas
    #[command(after_help = "Example:\n  ha-stack engines scale web 4")]
    Scale {
        #[command(flatten)]
        pool: PoolArgs,
        /// The service, as given to `run --service`
        service: String,
        /// How many replicas
        #[arg(value_parser = clap::value_parser!(u32).range(..=1000))]
        replicas: u32,
        /// Where a scaler is at work: how long it keeps off
        #[arg(long, default_value_t = 300, value_name = "SECONDS")]
        hold: u64,
    },
    /// Stop and remove containers, by host/name, name or id
    #[command(after_help = "Example:\n  ha-stack engines rm h2/web.3")]
    Rm {
        #[command(flatten)]
        pool: PoolArgs,
        /// The containers
        #[arg(required = true)]
        containers: Vec<String>,
    },
    /// Role: start elsewhere what a lost engine took with it, and keep services at their numbers
    #[command(
        after_help = "Example:\n  ha-stack engines watch --discovery consul://127.0.0.1:8500/ha-stack/engines"
    )]
    Watch {
        #[command(flatten)]
        pool: PoolArgs,
        /// What this watchdog is called where it leads
        #[arg(long, default_value = "here")]
        name: String,
    },
}

/// Flags of `engines run`.
#[derive(Args, Debug)]
pub struct RunArgs {
    #[command(flatten)]
    pool: PoolArgs,
    /// Its name [default: the service's, numbered, or the image's]
    #[arg(long)]
    name: Option<String>,
    /// The service that it is a replica of; with Consul (--discovery consul://, --consul) watchdogs keep it and scalers change it
    #[arg(long)]
    service: Option<String>,
    /// How many replicas of the service
    #[arg(long, default_value_t = 1, requires = "service", value_parser = clap::value_parser!(u32).range(1..=1000))]
    replicas: u32,
    /// Its host name: what gateways route by
    #[arg(long, value_name = "NAME")]
    hostname: Option<String>,
    /// Publish a port: INSIDE, or OUTSIDE:INSIDE
    #[arg(short, long = "publish", value_name = "PORT")]
    ports: Vec<String>,
    /// A variable; {{.Name}}, {{.Instance}} and {{.Host}} are filled in
    #[arg(short = 'e', long = "env", value_name = "NAME=VALUE")]
    vars: Vec<String>,
    /// A label
    #[arg(short, long = "label", value_name = "NAME=VALUE")]
    labels: Vec<String>,
    /// A condition on the engine: node==h1, storage!=hdd, zone==~a (a wish)
    #[arg(short, long = "constraint", value_name = "EXPR")]
    constraints: Vec<String>,
    /// A condition on what runs there: container==front, image==~redis
    #[arg(short, long = "affinity", value_name = "EXPR")]
    affinities: Vec<String>,
    /// Memory to reserve, in MiB
    #[arg(short, long, default_value_t = 0, value_name = "MIB")]
    memory: u64,
    /// Processors to reserve
    #[arg(long, default_value_t = 0.0, value_name = "N")]
    cpus: f64,
    /// Live in the host's own network
    #[arg(long)]
    network_host: bool,
    /// Have a watchdog start it elsewhere when its engine is lost
    #[arg(long)]
    reschedule: bool,
    /// The image; it must be on the engine
    image: String,
    /// Arguments of its program
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<String>,
}

/// Does it.
///
/// # Errors
/// When the pool or Consul can't be reached, or an engine refuses.
pub async fn run(command: EnginesCommand, backends: Backends, stop: CancellationToken) -> Result<ExitCode> {
    match command {
        EnginesCommand::Join { pool, advertise } => {
            let (consul, prefix) = pool.consul(&backends)?;
            join(&consul, &prefix, &advertise, &stop, || println!("{advertise} has joined")).await?;
        }
        EnginesCommand::Info(args) => {
            let pool = args.pool(&backends)?;
            print!("{}", info(&pool, &pool.refresh().await?));
        }
        EnginesCommand::Ps { pool, all } => print!("{}", table(&pool.pool(&backends)?.list().await?, all)),
        EnginesCommand::Run(args) => {
            let pool = args.pool.pool(&backends)?;
            let spec = args.spec()?;
            match &args.service {
                Some(service) => run_service(&pool, &args, &backends, service, &spec).await?,
                None => println!("{}", pool.run(spec).await?),
            }
        }
        EnginesCommand::Scale { pool, service, replicas, hold } => {
            scale(&pool, &backends, &service, replicas, hold).await?;
        }
        EnginesCommand::Rm { pool, containers } => {
            let pool = pool.pool(&backends)?;
            for name in containers {
                let there = pool.find(&name).await?;
                pool.remove_at(&there, None).await?;
                println!("{there}");
            }
        }
        EnginesCommand::Watch { pool, name } => {
            let (consul, _) = pool.consul(&backends)?;
            return watchdog::run(pool.pool(&backends)?, consul, name).await;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Starts replicas; where Consul is known, leaves a record by which watchdogs keep them and scalers change them.
async fn run_service(
    pool: &EnginePool,
    args: &RunArgs,
    backends: &Backends,
    service: &str,
    spec: &ContainerSpec,
) -> Result<()> {
    let there = pool.list().await?.iter().filter(|there| args.is_replica(there)).count();
    let there = u32::try_from(there).unwrap_or(u32::MAX);
    let records = args.pool.consul(backends).ok().map(|(consul, _)| Records::new(consul));
    if let Some(records) = &records
        && records.read(service).await?.0.is_some()
        && let Some(leader) = records.leader().await?
    {
        // Two who start the same replicas would start them twice.
        let wanted = records.add(service, spec, there, args.replicas).await?;
        println!("{service} is to have {wanted} replicas; the watchdog {leader} starts them");
        return Ok(());
    }
    for placed in pool.scale(service, there.saturating_add(args.replicas), Some(spec)).await?.started {
        println!("{placed}");
    }
    if let Some(records) = &records {
        records.add(service, spec, there, args.replicas).await?;
    }
    Ok(())
}

async fn scale(args: &PoolArgs, backends: &Backends, service: &str, replicas: u32, hold: u64) -> Result<()> {
    // A service that a watchdog keeps has a record; what is done past it would be undone.
    let kept = match args.consul(backends) {
        Ok((consul, _)) => {
            let records = Records::new(consul);
            let kept = records.read(service).await?.0.is_some();
            kept.then_some(records)
        }
        Err(_) => None,
    };
    let Some(records) = kept else {
        let scaled = args.pool(backends)?.scale(service, replicas, None).await?;
        scaled.started.iter().for_each(|placed| println!("started {placed}"));
        scaled.removed.iter().for_each(|name| println!("removed {name}"));
        return Ok(());
    };
    let until =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs().saturating_add(hold);
    records
        .modify(service, |record| {
            (record.replicas, record.hold_until) = (replicas, Some(until));
            Ok(())
        })
        .await?;
    println!(
        "{service} is to have {replicas} replicas; a watchdog does it, and the scaler keeps off for {hold} s"
    );
    Ok(())
}

impl PoolArgs {
    fn url(&self) -> Result<Option<DiscoveryUrl>> {
        let text = self.discovery.as_deref().filter(|text| !text.trim().is_empty());
        text.map(|text| text.parse().context("--discovery (HA_STACK_DISCOVERY)")).transpose()
    }

    /// The Consul that the discovery names, and the prefix there; `--consul`, where that is set, without a discovery.
    fn consul(&self, backends: &Backends) -> Result<(consul_client::Client, String)> {
        match self.url()? {
            Some(DiscoveryUrl::Consul { host, prefix }) => {
                let host = if host.contains(':') { host } else { format!("{host}:8500") };
                let named = Backends { consul: Some(format!("http://{host}")), ..backends.clone() };
                Ok((named.consul()?, prefix))
            }
            None if backends.consul.as_deref().is_some_and(|url| !url.trim().is_empty()) => {
                Ok((backends.consul()?, PREFIX.to_owned()))
            }
            _ => {
                bail!(
                    "--discovery (HA_STACK_DISCOVERY) names no Consul: write consul://HOST:8500/PREFIX, or set --consul"
                )
            }
        }
    }

    fn pool(&self, backends: &Backends) -> Result<EnginePool> {
        let discovery: Arc<dyn Discovery> = match self.url()? {
            None => return Ok(pool_of(backends)?.with_scheduler(self.scheduler()?)),
            Some(DiscoveryUrl::Nodes(nodes)) => Arc::new(nodes),
            Some(DiscoveryUrl::File(file)) => Arc::new(file),
            Some(_) => {
                let (consul, prefix) = self.consul(backends)?;
                Arc::new(ConsulNodes::new(consul, &prefix))
            }
        };
        with_tls_from_env(EnginePool::new(discovery, self.scheduler()?))
    }

    fn scheduler(&self) -> Result<Scheduler> {
        let scheduler = Scheduler::new(self.strategy);
        let Some(names) = &self.filters else { return Ok(scheduler) };
        let known = |name: &String| {
            Filter::ALL.into_iter().find(|filter| filter.to_string() == *name).with_context(|| {
                let all: Vec<String> = Filter::ALL.iter().map(ToString::to_string).collect();
                format!("--filters has {name:?}; the filters are {}", all.join(", "))
            })
        };
        let filters = names.iter().map(known).collect::<Result<Vec<_>>>()?;
        Ok(scheduler.filters(&filters))
    }
}

impl RunArgs {
    fn is_replica(&self, there: &Located) -> bool {
        let service = there.container.labels.get(swarm_client::engines::labels::SERVICE);
        service.is_some() && service == self.service.as_ref() && there.container.state.holds()
    }

    fn spec(&self) -> Result<ContainerSpec> {
        let image = self.image.rsplit('/').next().unwrap_or(&self.image);
        let image = image.split([':', '@']).next().unwrap_or(image);
        let name = self.name.as_deref().or(self.service.as_deref()).unwrap_or(image);
        let mut spec = ContainerSpec::new(name, &self.image);
        if !self.args.is_empty() {
            spec = spec.args(&self.args);
        }
        if let Some(hostname) = &self.hostname {
            spec = spec.hostname(hostname);
        }
        for port in &self.ports {
            let (outside, inside) = port.split_once(':').map_or((None, port.as_str()), |(o, i)| (Some(o), i));
            let number = |text: &str| text.parse::<u16>().ok().filter(|port| *port != 0);
            let inside = number(inside)
                .with_context(|| format!("--publish is {port:?}; write INSIDE or OUTSIDE:INSIDE"))?;
            let outside = match outside {
                None => None,
                Some(text) => Some(
                    number(text)
                        .with_context(|| format!("--publish is {port:?}; write INSIDE or OUTSIDE:INSIDE"))?,
                ),
            };
            spec = spec.publish(inside, outside);
        }
        let pair = |flag: &str, text: &str| {
            let pair = text.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
            pair.filter(|(name, _)| !name.is_empty()).with_context(|| format!("{flag}: write NAME=VALUE"))
        };
        for text in &self.vars {
            let (name, value) = pair("--env", text)?;
            spec = spec.env(&name, value);
        }
        for text in &self.labels {
            let (name, value) = pair("--label", text)?;
            spec = spec.label(&name, value);
        }
        spec = self.constraints.iter().fold(spec, |spec, expr| spec.constraint(expr));
        spec = self.affinities.iter().fold(spec, |spec, expr| spec.affinity(expr));
        if self.memory > 0 {
            spec = spec.memory(self.memory.saturating_mul(1 << 20));
        }
        if self.cpus > 0.0 && self.cpus.is_finite() {
            spec = spec.nano_cpus(
                Duration::from_secs_f64(self.cpus.min(1e6)).as_nanos().try_into().unwrap_or(u64::MAX),
            );
        }
        if self.network_host {
            spec = spec.network_host();
        }
        if let Some(service) = &self.service {
            spec = spec.service(service);
        }
        Ok(if self.reschedule { spec.reschedule() } else { spec })
    }
}

/// What the classic manager's `docker info` showed.
fn info(pool: &EnginePool, engines: &[Engine]) -> String {
    let scheduler = pool.scheduler();
    let filters: Vec<String> = scheduler.used_filters().iter().map(ToString::to_string).collect();
    let containers: usize = engines.iter().map(|engine| engine.containers.len()).sum();
    let mut out = String::new();
    // Writing to a string can't fail.
    let _ = writeln!(out, "Containers: {containers}");
    let _ = writeln!(out, "Strategy: {}", scheduler.strategy());
    let _ = writeln!(out, "Filters: {}", filters.join(", "));
    let _ = writeln!(out, "Nodes: {}", engines.len());
    for engine in engines {
        let status = match (engine.reached, engine.failures) {
            (true, 0) => "healthy".to_owned(),
            (true, failures) => format!("healthy again, after {failures} failures"),
            (false, failures) => format!("NOT REACHED ({failures} failures)"),
        };
        let cpus = |nanos: u64| nanos as f64 / 1e9;
        let gib = |bytes: u64| bytes as f64 / f64::from(1 << 30);
        let labels: Vec<String> = engine.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let _ = writeln!(out, " {}: {}", engine.name, engine.id.addr());
        let _ = writeln!(out, "  └ Status: {status}");
        let _ = writeln!(
            out,
            "  └ Containers: {} ({} hold room)",
            engine.containers.len(),
            engine.holding().count()
        );
        let _ = writeln!(
            out,
            "  └ Reserved CPUs: {:.2} / {:.0}",
            cpus(engine.reserved_nano_cpus()),
            cpus(engine.nano_cpus)
        );
        let _ = writeln!(
            out,
            "  └ Reserved Memory: {:.2} GiB / {:.2} GiB",
            gib(engine.reserved_memory()),
            gib(engine.memory)
        );
        let _ = writeln!(out, "  └ Labels: {}", labels.join(", "));
    }
    out
}

fn table(all: &[Located], ended: bool) -> String {
    let mut out = format!("{:<34} {:<34} {:<9} PORTS\n", "CONTAINER", "IMAGE", "STATE");
    for there in all.iter().filter(|there| ended || there.container.state.holds()) {
        let container = &there.container;
        let ports: Vec<String> = container.ports.iter().map(ToString::to_string).collect();
        let state = if there.reached { container.state.to_string() } else { "unknown".to_owned() };
        let _ = writeln!(
            out,
            "{:<34} {:<34} {state:<9} {}",
            there.to_string(),
            container.image,
            ports.join(", ")
        );
    }
    out
}
