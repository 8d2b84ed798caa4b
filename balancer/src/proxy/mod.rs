//! The HTTP/1.1 data plane: a gateway in front of a [`Pool`](crate::Pool).
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
//! Not here yet: HTTP/2, TLS, upgrades (answered 501), trailers, routing by host.

mod attempt;
mod body;
mod client_io;
mod config;
mod forward;
mod gateway;
mod headers;
mod probe;
mod room;
mod serve;

mod stats;
mod upstream;

pub use config::{Config, Probe};
pub use gateway::{Gateway, Load, LoggedEvent};
pub use serve::DrainReport;
