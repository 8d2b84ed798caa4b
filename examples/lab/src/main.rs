//! The lab's command line.

use std::future::Future;
use std::io::IsTerminal as _;
use std::process::ExitCode;

use bar::Bar;
use clap::{Parser, Subcommand};
use indicatif::ProgressBar;
use lab::{Daemon, Deed, Error, Lab, Options, Result, Status};
use tokio::signal::unix::{SignalKind, signal};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

mod bar;

/// Three real Docker hosts, Consul and Redis on one Linux machine.
#[derive(Parser)]
#[command(name = "lab", version, after_help = EXAMPLE)]
struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Install what is missing, saying so first; starts no daemon
    #[command(after_help = "Example:\n  eval \"$(sudo lab packages)\"    also exports CONSUL_BIN")]
    Packages,
    /// Build the lab
    #[command(after_help = "Example:\n  sudo lab up --hosts 3")]
    Up {
        /// How many hosts, 1 to 9
        #[arg(long, default_value_t = 3)]
        hosts: usize,
        /// Engines only: don't join them into a Swarm
        #[arg(long)]
        no_swarm: bool,
        /// The size of each host's disk in MiB; 0 for a folder without a limit, on a machine without loop devices
        #[arg(long, default_value_t = 4096)]
        disk: u32,
        /// Engines speak TLS alone, on port 2376, to whoever has a certificate of this lab; lab env says where it is
        #[arg(long)]
        tls: bool,
        /// An engine on each host and nothing else: no Consul, no Redis, no Sentinel
        #[arg(long)]
        bare: bool,
    },
    /// Show how every part of every host is
    #[command(after_help = "Example:\n  lab status --json")]
    Status {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Pull the plug of a host: its peers hear nothing of it
    #[command(after_help = "Example:\n  sudo lab power-off h2")]
    PowerOff {
        /// h1, h2, ...
        host: String,
    },
    /// Give a host its power back, and wait until it takes part again
    #[command(after_help = "Example:\n  sudo lab power-on h2")]
    PowerOn {
        /// h1, h2, ...
        host: String,
    },
    /// Pull the network cable of a host: everything on it runs on
    #[command(after_help = "Example:\n  sudo lab cut h3")]
    Cut {
        /// h1, h2, ...
        host: String,
    },
    /// Put the network cable of a host back
    #[command(after_help = "Example:\n  sudo lab heal h3")]
    Heal {
        /// h1, h2, ...
        host: String,
    },
    /// Kill, stop, start, pause or resume one daemon of a host: engine, consul, redis, sentinel, keepalived
    #[command(
        after_help = "Example:\n  sudo lab daemon h2 redis pause && sudo lab daemon h2 redis resume\n\nA killed daemon is started again after 1 s; a stopped one when it is told to start."
    )]
    Daemon {
        /// h1, h2, ...
        host: String,
        /// engine, consul, redis, sentinel or keepalived
        daemon: Daemon,
        /// kill, stop, start, pause or resume
        deed: Deed,
    },
    /// Fill the disk of a host to the last byte
    #[command(after_help = "Example:\n  sudo lab fill h3")]
    Fill {
        /// h1, h2, ...
        host: String,
    },
    /// Take back what fill wrote
    #[command(after_help = "Example:\n  sudo lab free h3")]
    Free {
        /// h1, h2, ...
        host: String,
    },
    /// Print what points the usual tools at the lab
    #[command(after_help = "Example:\n  eval \"$(lab env)\" && docker node ls")]
    Env,
    /// Show which host leads the Swarm, Consul and Redis
    #[command(after_help = "Example:\n  lab leaders --json")]
    Leaders {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Run a command inside a host
    #[command(after_help = "Example:\n  sudo lab exec h1 -- docker ps")]
    Exec {
        /// h1, h2, ...
        host: String,
        /// The command and its arguments
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
    /// Take the lab away, or the remains of one; only fetched packages stay
    #[command(after_help = "Example:\n  sudo lab down")]
    Down,
}

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    let bar = told(std::io::stderr().is_terminal());
    let ended = run(args.verb).await;
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    match ended {
        Ok(code) => code,
        Err(error) => {
            eprintln!("lab: {error}");
            ExitCode::from(if error.is_refusal() { 2 } else { 1 })
        }
    }
}

/// Has progress told: by a bar at a terminal, which is given back, else by lines.
fn told(at_a_terminal: bool) -> Option<ProgressBar> {
    if at_a_terminal {
        let bar = Bar::new();
        let handle = bar.handle();
        tracing_subscriber::registry().with(bar.with_filter(LevelFilter::DEBUG)).init();
        return Some(handle);
    }
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .without_time()
        .with_level(false)
        .with_target(false)
        .init();
    None
}

async fn run(verb: Verb) -> Result<ExitCode> {
    match verb {
        Verb::Packages => {
            let missing = Lab::missing_packages()?;
            let consul = Lab::install_packages().await?;
            if missing.is_empty() {
                eprintln!("nothing is missing");
            }
            // For tests that start an agent of their own.
            println!("export CONSUL_BIN='{}'", consul.display());
        }
        Verb::Up { hosts, no_swarm, disk, tls, bare } => {
            let options = Options::default().hosts(hosts).swarm(!no_swarm).disk(disk).tls(tls).bare(bare);
            return up(&options).await;
        }
        Verb::Status { json } => {
            let status = attach()?.status().await?;
            if json {
                print_json(&status);
            } else {
                print_status(&status);
            }
            return Ok(ExitCode::from(u8::from(!status.is_healthy())));
        }
        Verb::PowerOff { host } => attach()?.power_off(&host).await?,
        Verb::PowerOn { host } => attach()?.power_on(&host).await?,
        Verb::Cut { host } => attach()?.cut(&host).await?,
        Verb::Heal { host } => attach()?.heal(&host).await?,
        Verb::Daemon { host, daemon, deed } => attach()?.daemon(&host, daemon, deed).await?,
        Verb::Fill { host } => attach()?.fill_disk(&host).await?,
        Verb::Free { host } => attach()?.free_disk(&host).await?,
        Verb::Env => {
            let vars = attach()?.env();
            if !vars.iter().any(|(key, _)| key == TLS[0]) {
                // Those of another lab, or of an engine elsewhere, would have the tools speak TLS to this one.
                println!("unset {}", TLS.join(" "));
            }
            for (key, value) in vars {
                println!("export {key}='{value}'");
            }
        }
        Verb::Leaders { json } => {
            let leaders = attach()?.leaders().await?;
            if json {
                print_json(&leaders);
            } else {
                for (what, who) in
                    [("swarm", &leaders.swarm), ("consul", &leaders.consul), ("redis", &leaders.redis)]
                {
                    println!("{what:<8}{}", who.as_deref().unwrap_or("-"));
                }
            }
        }
        Verb::Exec { host, command } => return exec(&host, &command),
        Verb::Down => {
            if !Lab::clear().await? {
                eprintln!("no lab was up");
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Ctrl-C at any moment leaves nothing behind.
async fn up(options: &Options) -> Result<ExitCode> {
    let built = tokio::select! {
        built = Lab::up_with(options) => Some(built),
        () = interrupted() => None,
    };
    match built {
        Some(lab) => {
            lab?;
            eprintln!(
                "the lab is up: eval \"$(lab env)\" points docker and consul at it; lab status; lab down"
            );
            Ok(ExitCode::SUCCESS)
        }
        None => {
            eprintln!("broken off: cleaning up");
            Lab::clear().await?;
            Ok(ExitCode::from(130))
        }
    }
}

fn exec(host: &str, command: &[String]) -> Result<ExitCode> {
    let args = attach()?.exec_args(host)?;
    let status = std::process::Command::new("nsenter")
        .args(args)
        .args(command)
        .current_dir("/")
        // The engine to talk to is the host's own, whatever the shell points at.
        .env_remove("DOCKER_HOST")
        .env_remove(TLS[0])
        .env_remove(TLS[1])
        .env_remove("CONSUL_HTTP_ADDR")
        .status()
        .map_err(|source| Error::File { what: "run", path: "nsenter".into(), source })?;
    Ok(ExitCode::from(u8::try_from(status.code().unwrap_or(1)).unwrap_or(1)))
}

fn attach() -> Result<Lab> {
    Lab::attach()?.ok_or(Error::NotUp)
}

fn interrupted() -> impl Future<Output = ()> {
    async fn one(kind: SignalKind) {
        match signal(kind) {
            Ok(mut stream) => drop(stream.recv().await),
            Err(_) => std::future::pending().await,
        }
    }
    async {
        tokio::select! {
            () = one(SignalKind::interrupt()) => {}
            () = one(SignalKind::terminate()) => {}
            () = one(SignalKind::hangup()) => {}
        }
    }
}

fn print_json(value: &impl serde::Serialize) {
    match serde_json::to_string(value) {
        Ok(text) => println!("{text}"),
        Err(error) => eprintln!("lab: cannot print the answer: {error}"),
    }
}

fn print_status(status: &Status) {
    println!(
        "{:<5}{:<14}{:<7}{:<9}{:<9}{:<9}{:<9}REDIS",
        "HOST", "ADDRESS", "POWER", "CABLE", "ENGINE", "SWARM", "CONSUL"
    );
    for host in &status.hosts {
        let word = |on: bool, yes: &'static str, no: &'static str| if on { yes } else { no };
        let asked = host.power && host.cable;
        let part = |part: &lab::Part| match (part.ok, asked) {
            (true, _) => part.is.clone(),
            (false, true) => "BAD".to_owned(),
            (false, false) => "-".to_owned(),
        };
        println!(
            "{:<5}{:<14}{:<7}{:<9}{:<9}{:<9}{:<9}{}",
            host.name,
            host.addr,
            word(host.power, "on", "off"),
            word(host.cable, "in", "pulled"),
            part(&host.engine),
            part(&host.swarm),
            part(&host.consul),
            part(&host.redis),
        );
        if asked {
            for (what, part) in [
                ("engine", &host.engine),
                ("swarm", &host.swarm),
                ("consul", &host.consul),
                ("redis", &host.redis),
            ] {
                if !part.ok {
                    println!("     {what}: {}", part.is);
                }
            }
        }
    }
}

const TLS: [&str; 2] = ["DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH"];
const EXAMPLE: &str = "Example:\n  sudo lab up && eval \"$(lab env)\" && docker node ls && sudo lab down\n\n\
    Data and logs live in /var/lib/ha-stack-lab, or in LAB_DIR. CONSUL_BIN names a consul program of your own.\n\
    Exit codes: 0 done, 1 failed (status: something is not well), 2 refused, nothing changed.";
