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
//! | `client`, `builder`, `scope` | [`Client`], its settings, data centre and freshness for all calls of a handle, the raw escape hatch |
//! | `query`, `response` | [`Query`]: a list, once or for ever; [`Consistency`], [`Meta`] |
//! | `kv`, `txn` | keys, compare-and-set, transactions |
//! | `health`, `catalog`, `agent` | who is healthy, what is registered, this agent; [`Registration`] keeps one alive |
//! | `watch` | [`Watch`]: an endless stream of [`Snapshot`]s with a [`WatchState`] beside it; [`SharedWatch`], [`Changes`], [`EventWatch`] |
//! | `lock` | [`Lock`], [`Fence`], [`Election`], [`Permit`] of a semaphore, [`Ephemeral`] keys |
//! | `sessions`, `events`, `prepared`, `coordinates`, `snapshot` | sessions, user events, prepared queries, distances, backup and restore |
//! | `acl`, `config_entries`, `connect` | access control, configuration entries, intentions and the mesh |
//! | `status`, `operator` | leader, peers, Raft, autopilot, gossip keys |
//! | `error` | [`Error`]: sorted by what the caller can do |
//!
//! | Feature | Adds |
//! |---|---|
//! | `tls` | `https://` addresses and client certificates: rustls with aws-lc-rs; sets no process-wide default |
//! | `dns` | `dns`: names in Consul's DNS, over UDP and TCP |
//! | `testing` | `testing`: an in-process Consul for tests |
//!
//! A call is built by a pure function, sent by `transport` over the connections of `pool` and `dial`, decoded by a pure function. Waits have deadlines, repetitions
//! have jitter and end with the call's deadline, connections are capped below the server's limit per address.
//!
//! Events go to `tracing`, with the fields `endpoint`, `key`, `prefix` or `id`, and `error`, `why`, `fence`, `delay_ms` or `seconds`:
//! at warn `consul watch failed`, `consul lock lost`, `consul semaphore's slot lost`, `consul ephemeral key lost`, `consul election: cannot
//! stand`, `consul registration failed`, `consul token cannot be fetched anew`; at info `consul watch recovered`, `consul lock acquired`,
//! `consul registration recovered`, `consul registration: the agent forgot it, registering again`; at debug `consul call is repeated` and each
//! single attempt that failed. Values, tokens and session ids are in none.

#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod acl;
mod address;
mod agent;
mod backoff;
mod builder;
mod catalog;
mod classify;
mod client;
mod conditional;
mod config_entries;
mod connect;
mod coordinates;
mod dial;
#[cfg(feature = "dns")]
pub mod dns;
mod environment;
mod error;
mod escape;
mod events;
#[doc(hidden)]
pub mod fuzzing;
mod health;
mod kv;
mod lock;
mod operator;
mod pool;
mod prepared;
mod query;
mod request;
mod response;
mod scope;
mod sessions;
mod snapshot;
mod status;
#[cfg(feature = "testing")]
pub mod testing;
#[cfg(feature = "tls")]
mod tls;
mod token;
mod transport;
mod txn;
mod types;
mod watch;

pub use acl::{Acl, AuthMethod, BindingRule, Link, NewToken, Policy, Replication, Role, Token};
pub use agent::{
    Agent, AgentInfo, AgentToken, Check, Gauge, LocalHealth, LogStream, Member, MemberStatus, Metrics,
    Registration, RegistrationState, Sample, ServiceRegistration,
};
pub use builder::ClientBuilder;
pub use catalog::{
    Catalog, CatalogRegistration, CatalogService, Deregister, ExternalService, GatewayService, NodeServices,
    ServiceName, ServiceTags,
};
pub use client::{Client, RawResponse};
pub use config_entries::{ConfigEntries, ConfigEntry};
pub use connect::{
    Action, Authorized, CaConfig, CaRoot, CaRoots, ChainTarget, Connect, DiscoveryChain, Intention, Leaf,
    Side,
};
pub use coordinates::{Coordinate, Coordinates, DatacenterCoordinates, NodeCoordinate};
pub use error::{Answer, Error, Result};
pub use events::{Event, Events, Fire};
pub use health::{Health, ServiceEntry, Standing};
pub use kv::{Kv, KvPair};
pub use lock::{
    Fence, Lock, LockBuilder, Lost,
    election::{Election, ElectionBuilder, ElectionState, Leadership},
    ephemeral::{Ephemeral, EphemeralBuilder, EphemeralState},
    semaphore::{Permit, SemaphoreBuilder},
};
pub use operator::{AutopilotConfig, AutopilotHealth, Keyring, Operator, RaftPeer, ServerHealth};
pub use prepared::{
    Execute, Executed, PreparedQueries, PreparedQuery, QueryDns, QueryFailover, QueryService, QueryTemplate,
};
pub use query::Query;
pub use response::{Consistency, Meta, Response};
pub use sessions::{Behavior, Session, SessionOptions, Sessions};
pub use snapshot::{SnapshotStream, Snapshots};
pub use status::StatusApi;
#[cfg(feature = "tls")]
pub use tls::Tls;
pub use txn::{Indexed, Txn, TxnOutcome, TxnRefusal, TxnResult};
pub use types::{AgentService, HealthCheck, Node, Status, Weights};
pub use watch::{
    Change, Changes, EventWatch, Identity, SharedWatch, Snapshot, Subscriber, Watch, WatchState,
};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
