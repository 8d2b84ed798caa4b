//! A load balancer: a core without I/O that can be proven, and an HTTP data plane built on it.
//!
//! The core is a state machine. It takes what discovery says, what became of requests and probes, and the
//! time; it answers who gets the next request, and why. It has no clock, no thread and no socket.
//!
//! ```
//! use std::time::Duration;
//! use balancer::{Config, Endpoint, Outcome, PickRequest, Pool, Update};
//!
//! let pool = Pool::new(Config::default(), 42)?;
//! let now = Duration::ZERO; // since any fixed moment
//! let a = Endpoint::new("web.1", "127.0.0.1:8001".parse()?).host("h1");
//! let b = Endpoint::new("web.2", "127.0.0.1:8002".parse()?).host("h2");
//! pool.apply(Update::reset([a, b]), now);
//!
//! let lease = pool.pick(&PickRequest::default(), now)?;
//! println!("to {}", lease.endpoint().addr);
//! lease.finish(Outcome::Status(200), now + Duration::from_millis(3));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Modules
//! | | |
//! |---|---|
//! | [`Pool`], [`Lease`], [`Snapshot`] | the pool, the claim on an endpoint, the picture that readers share |
//! | [`Endpoint`], [`Update`] | what can be picked, and how the set changes |
//! | [`State`], [`Reason`], [`Event`], [`Explanation`] | where an endpoint stands, why, what happened, why a pick went there |
//! | [`Config`], [`Health`], [`Probes`], [`Policy`] | settings: plain data |
//! | [`Limits`], [`Locality`], [`SlowStart`] | how much, how near, how soon |
//! | [`RetryBudget`], [`AdaptiveLimit`] | how many retries, and how many requests at once, are too many |
//! | [`routing`] | which service a request is for, by rules read from labels |
//! | [`hash`] | where a key belongs |
#![cfg_attr(feature = "proxy", doc = "| [`proxy`] | the HTTP gateway |")]
//!
//! # Features
//! | feature | default | what |
//! |---|---|---|
//! | `proxy` | no | the HTTP data plane on hyper and tokio |
//! | `tls` | no | TLS for clients, by rustls with aws-lc-rs |
//! | `handover` | no | the listener passes to the next process (Unix) |
//!
//! Changes of state are told as `tracing` events at level info, target `balancer`.
#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod budget;
mod config;
mod endpoint;
mod error;
mod event;
mod ewma;
mod explain;
mod group;
mod hash;
mod lease;
mod limits;
mod locality;
mod members;
mod pick;
mod policy;
mod pool;
#[cfg(feature = "proxy")]
pub mod proxy;
mod rng;
pub mod routing;
mod shared;
mod slot;
mod slow_start;
mod snapshot;
mod state;
mod work;

pub use budget::RetryBudget;
pub use config::{Config, Health, Probes, SuccessRate};
pub use endpoint::{Endpoint, EndpointId, Update};
pub use error::{Absence, ConfigError, PickError};
pub use event::{Event, EventKind};
pub use explain::{Candidate, Explanation, Verdict};
pub use hash::hash;
pub use lease::{Lease, Outcome, PickRequest, Priority};
pub use limits::{Adaptive, AdaptiveLimit, Limits};
pub use locality::Locality;
pub use policy::{
    Ketama, LeastPending, Maglev, P2cLeastPending, P2cPeakEwma, Policy, Prequal, Random, RoundRobin,
};
pub use pool::{Pool, PoolLoad, ProbeOutcome};
pub use slow_start::SlowStart;
pub use snapshot::{EndpointView, Snapshot};
pub use state::{Reason, State};

#[cfg(all(doctest, feature = "proxy"))]
#[doc = include_str!("../README.md")]
struct Readme;
