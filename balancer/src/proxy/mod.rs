//! The HTTP data plane: a gateway in front of a [`Pool`](crate::Pool).
//!
//! ```no_run
//! use std::sync::Arc;
//! use balancer::{Config, Endpoint, Pool, Update, proxy};
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let pool = Arc::new(Pool::new(Config::default(), 42)?);
//! let gateway = proxy::Gateway::new(pool, proxy::Config::default().probe("/healthz"))?;
//! gateway.apply(Update::reset([Endpoint::new("web.1", "127.0.0.1:8001".parse()?)]));
//!
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:8080").await?;
//! let shutdown = std::future::pending(); // or a signal
//! println!("{:?}", gateway.serve(listener, shutdown).await?);
//! # Ok(()) }
//! ```
//!
//! A request is picked for, sent, and answered as a stream. What fails before the answer's head is tried
//! elsewhere when that can't do harm: always when nothing was sent; else for GET, HEAD, OPTIONS, PUT, DELETE
//! and TRACE whose body, if any, still fits the replay buffer. While no endpoint is usable it waits, in a bounded
//! room and up to a deadline. When an endpoint turns unreachable, requests that wait for its answer and can be repeated
//! are taken away from it at once: a machine without power sends no reset. The others wait on: a suspicion is not
//! worth a sure 502.
//!
//! Once all endpoints have been tried, the next round comes after a rest that grows, so that what is only starting anew
//! has time, and probes too: they then send the request to the waiting room.
//!
//! With [`Config::hedge`] a GET that takes longer than nearly all others is sent to a second endpoint too, within a budget.
//!
//! Clients come by HTTP/1.1 or HTTP/2, in clear or (feature `tls`) over TLS; endpoints are spoken to by HTTP/1.1, or by
//! HTTP/2 ([`Protocol`]), which gRPC needs. Trailers pass. A client may switch to WebSocket ([`Config::upgrades`]); such a
//! tunnel is never retried, counts as in flight, and has until the drain's deadline.
//!
//! A [`Router`] puts several gateways behind one listener, by host and path; see [`routing`](crate::routing) for rules
//! and labels. [`Gateway::metrics`] renders figures for Prometheus; [`Config::access_log`] tells of requests as `tracing`
//! events of target `balancer::access`.
//!
//! Spans, target `balancer`, level debug: `request` (`request_id`, `method`, `status`, `endpoint`, `attempts`) until the head
//! of the answer, and in it an `attempt` (`endpoint`, `status` or `failure`) for each endpoint that was asked. No value of
//! a user is among the fields. `traceparent` and the like pass to endpoints as any header does, unless a
//! [`TraceContext`] says what the gateway's own spans belong to and what belongs to them.

mod access;
mod attempt;
mod body;
mod client_io;
mod config;
#[cfg(feature = "tls")]
mod endpoint_tls;
mod forward;
#[doc(hidden)]
pub mod fuzzing;
mod gateway;
#[cfg(all(unix, feature = "handover"))]
pub mod handover;
mod headers;
mod hedge;
mod metrics;
mod probe;
mod refusal;
mod room;
mod router;
mod serve;
mod sticky;
#[cfg(feature = "tls")]
mod tls;
mod trace;
mod tries;
mod trust;
mod tunnel;
mod visit;

mod stats;
mod upstream;

pub use config::{AccessLog, Config, Forwarding, HashBy, Probe, Protocol};
#[cfg(feature = "tls")]
pub use endpoint_tls::EndpointTls;
pub use gateway::{Gateway, Load, LoggedEvent};
pub use hedge::Hedge;
pub use router::{Route, Router};
pub use serve::DrainReport;
pub use sticky::Sticky;
#[cfg(feature = "tls")]
pub use tls::{Tls, TlsError};
pub use trace::{Trace, TraceContext};
pub use trust::{Cidr, CidrError};
