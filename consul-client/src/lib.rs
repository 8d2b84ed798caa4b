//! A typed client for [Consul](https://developer.hashicorp.com/consul/api-docs): watches that follow Consul's index rules by
//! themselves, locks with a fence that say when they are lost, and errors that say whether a write may have happened.
//!
//! ```no_run
//! # async fn run() -> consul_client::Result<()> {
//! use consul_client::Client;
//!
//! let mut web = Client::from_env()?.health().service("web").passing().watch();
//! while let Some(snapshot) = web.next().await {
//!     // The whole set, each time it changes. Never ends, survives elections, is never empty because of an outage.
//!     for instance in &snapshot.items {
//!         println!("{} {}:{}", instance.service.id, instance.address(), instance.service.port);
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! | Module | Holds |
//! |---|---|
//! | `client`, `builder` | [`Client`], its settings, the raw escape hatch |
//! | `agent`, `registration` | register, deregister, TTL checks, members |
//! | `health`, `catalog` | which instances are healthy; what is registered |
//! | `kv`, `sessions` | keys, compare-and-set, sessions |
//! | `watch` | [`Watch`]: an endless stream of [`Snapshot`]s with a [`WatchState`] beside it |
//! | `lock` | [`Lock`]: held, renewed, lost, released; [`Fence`] |
//! | `status`, `operator` | leader, peers, Raft configuration |
//! | `error` | [`Error`]: sorted by what the caller can do |
//!
//! | Feature | Adds |
//! |---|---|
//! | (none yet) | |
//!
//! A call is built by a pure function, sent by one file (`transport`), decoded by a pure function. Waits have deadlines, repetitions
//! have jitter and end with the call's deadline, connections are capped below the server's limit per address. Events go to
//! `tracing`: `consul call is repeated` (debug), `consul watch failed` (warn) and `consul watch recovered`, `consul lock acquired` (info)
//! and `consul lock lost` (warn), with the fields `endpoint` or `key`, and `error`, `why`, `fence`, `delay_ms` or `seconds`.

#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod address;
mod agent;
mod backoff;
mod builder;
mod catalog;
mod classify;
mod client;
mod error;
mod escape;
mod health;
mod kv;
mod lock;
mod operator;
mod registration;
mod request;
mod response;
mod sessions;
mod status;
mod transport;
mod types;
mod watch;

pub use agent::{Agent, AgentInfo, Member, MemberStatus};
pub use builder::ClientBuilder;
pub use catalog::{Catalog, CatalogService};
pub use client::{Client, RawResponse};
pub use error::{Answer, Error, Result};
pub use health::{Health, ServiceEntry, ServiceQuery};
pub use kv::{Kv, KvPair};
pub use lock::{Fence, Lock, LockBuilder, Lost};
pub use operator::{Operator, RaftPeer};
pub use registration::{Check, ServiceRegistration};
pub use response::{Consistency, Meta, Response};
pub use sessions::{Behavior, Session, SessionOptions, Sessions};
pub use status::StatusApi;
pub use types::{AgentService, HealthCheck, Node, Status};
pub use watch::{Snapshot, Watch, WatchState};
