//! Three real Docker hosts on one Linux machine, each with a Consul server, a Redis and a Sentinel: a place where pulling
//! the plug of a machine is one line of a test.
//!
//! ```no_run
//! # async fn run() -> lab::Result<()> {
//! let lab = lab::Lab::up(3).await?; // root, Linux; installs what is missing
//! println!("{}", lab.hosts()[0].docker_endpoint()); // tcp://198.18.0.11:2375
//!
//! lab.power_off("h2").await?; // nobody gets a FIN from it
//! println!("{:?}", lab.leaders().await?);
//! lab.power_on("h2").await?; // back on the same disk, and in sync
//! lab.down().await?; // nothing stays
//! # Ok(())
//! # }
//! ```
//!
//! | Module | What is in it |
//! |---|---|
//! | `lab`, `build`, `status` | the verbs; up and down; the questions |
//! | `daemon`, `disk` | faults of one daemon: killed, stopped, hung; a disk that is full |
//! | `plan`, `files`, `apt` | pure: names and addresses, configuration texts, apt sources |
//! | `certificates` | TLS for the engines, if it is wanted |
//! | `host`, `net`, `process` | power, wiring, processes known by number and start time |
//! | `folder`, `state` | data on disk; the state file and the lock |
//! | `ready`, `swarm`, `consul`, `redis`, `http` | asking the daemons |
//! | `packages`, `command` | what has to be installed; the system's tools |
//! | `progress`, `error` | a line for each step; what went wrong |
//!
//! There are no features.
#![deny(missing_docs)]

mod apt;
mod build;
mod certificates;
mod command;
mod consul;
mod daemon;
mod disk;
mod error;
mod files;
mod folder;
mod host;
mod http;
mod lab;
mod net;
mod packages;
mod plan;
mod process;
mod progress;
mod ready;
mod redis;
mod state;
mod status;
mod swarm;

pub use build::Options;
pub use daemon::{Daemon, Deed};
pub use error::{Error, Result};
pub use lab::Lab;
pub use plan::{Host, MAX_HOSTS, REDIS_MASTER, VIRTUAL_ADDR};
pub use status::{HostStatus, Leaders, Part, Status};
