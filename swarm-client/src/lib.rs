//! A typed client of Docker Swarm: updates that lose nothing, conflicts retried, rollouts as values, several managers.
//!
//! ```no_run
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! use std::time::Duration;
//! use swarm_client::{Client, ServiceSpec};
//!
//! let swarm = Client::from_env().await?; // DOCKER_HOST, or the local socket
//! let spec = ServiceSpec::builder("web", "web:1").replicas(2).publish_host(80, None).dnsrr().build();
//! swarm.services().create(&spec).await?;
//! swarm.services().scale("web", 5).await?; // nothing else of the service changes
//! let outcome = swarm.services().rollout("web").wait(Duration::from_secs(60)).await?;
//! println!("{outcome}"); // "converged: 5 running"
//! for endpoint in swarm.services().endpoints("web").await? {
//!     println!("{} on {}", endpoint.addr, endpoint.node_name);
//! }
//! # Ok(()) }
//! ```
//!
//! # Modules
//! The types that carry the work stand at the root: [`Client`] and what it hands out ([`Services`], [`Nodes`], [`Tasks`],
//! [`SwarmApi`], [`Rollout`]), [`Error`] with the questions to ask it, [`Outcome`] and [`TaskEndpoint`].
//! - [`stack`]: a set of services, networks, secrets and configs, planned, applied and pruned as one.
//! - [`watch`]: streams of changes, a local store fed by them, and waiting for a [condition](conditions).
//! - [`model`]: the engine's objects as its JSON has them, with every unknown field kept.
//! - `engines` (feature): a pool of plain engines, without Swarm mode.
//!
//! # Features
//! | feature | default | adds |
//! |---|---|---|
//! | `tls` | no | TLS to the engine with certificates on both sides (rustls with aws-lc-rs) |
//! | `compose` | no | reads compose files (version 3, as `docker stack deploy` does) into a [`stack::Stack`] |
//! | `bollard` | no | re-exports the engine client `bollard` for containers, images, networks and statistics, and connects it to the endpoints of a [`Client`] |
//! | `engines` | no | a pool of plain engines: discovery, a scheduler without I/O, verbs, a watchdog; takes `bollard` in, and a regular expression engine |
//!
//! # Tracing
//! Each request is a `debug` event with `endpoint`, `method`, `path` and `status`; an endpoint that is passed over is a `warn`
//! event with `endpoint`, `what` and `error`. Bodies, tokens and values of users are never part of an event.

#![forbid(unsafe_code)]
#![deny(missing_docs)]

pub mod conditions;
#[cfg(feature = "engines")]
pub mod engines;
pub mod model;
pub mod stack;
pub mod watch;

mod backoff;
mod blobs;
#[cfg(feature = "bollard")]
mod bollard_client;
mod client;
mod client_builder;
mod convergence;
mod drain;
mod drain_marks;
mod endpoint;
mod error;
mod hold;
mod images;
mod logs;
mod managers;
mod modify;
mod networks;
mod nodes;
mod outcome;
mod pending;
mod placement;
mod placement_guard;
mod reach;
mod reach_network;
mod reason;
mod rebalance;
mod registry;
mod request;
mod rollback;
mod rollout;
mod rotate;
mod service_verbs;
mod services;
mod swarm;
mod swarm_keys;
mod tasks;
#[cfg(feature = "tls")]
mod tls;
#[cfg(feature = "tls")]
mod tls_refusal;
mod transport;

#[cfg(feature = "bollard")]
pub use bollard;

pub use blobs::{Configs, Secrets};
pub use client::Client;
pub use client_builder::ClientBuilder;
pub use drain::{DrainOptions, Drained};
pub use endpoint::Endpoint;
pub use error::{Error, ModifyError, Result};
pub use hold::{HOLD_LABEL, Hold};
pub use images::PinnedImage;
#[doc(hidden)]
pub use logs::LogDecoder;
pub use logs::{LogLine, LogOptions, LogStream, Logs};
pub use model::{
    Availability, Config, ConfigId, ConfigSpec, EndpointMode, EngineInfo, FailureAction, Healthcheck,
    JoinToken, LocalNodeState, Nanos, Network, NetworkId, NetworkSpec, Node, NodeId, NodeSpec, Role, Secret,
    SecretId, SecretSpec, Service, ServiceId, ServiceSpec, ServiceSpecBuilder, Swarm, SwarmInfo, SwarmSpec,
    Task, TaskId, TaskState, UnlockKey, UpdateConfig, UpdateOrder,
};
pub use modify::Modified;
pub use networks::Networks;
pub use nodes::Nodes;
pub use outcome::{Diagnosis, Outcome, RolloutProgress};
pub use pending::{Clause, PendingReason};
pub use reach::{TaskEndpoint, endpoints, reachable_ports};
pub use reach_network::{
    IngressEndpoint, TaskAddress, VirtualAddress, ingress_endpoints, task_addresses, virtual_addresses,
};
pub use reason::Reason;
pub use rebalance::{Move, RebalancePlan};
pub use registry::RegistryAuth;
pub use rollback::{ROLLBACK_LABEL, RollbackSource};
pub use rollout::{Progress, Rollout};
pub use rotate::{ROTATION_LABEL, Rotation};
pub use service_verbs::{RollbackOptions, RolledBack};
pub use services::Services;
pub use swarm::{InitOptions, JoinOptions, SwarmApi};
pub use swarm_keys::Quorum;
pub use tasks::Tasks;
#[cfg(feature = "tls")]
pub use tls::Tls;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
