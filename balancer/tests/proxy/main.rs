//! The gateway against backends on loopback that die, hang, drain and come back.
#![cfg(feature = "proxy")]
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

mod attacks;
mod edge;
#[cfg(feature = "tls")]
mod endpoint_tls;
mod failures;
#[cfg(all(unix, feature = "handover"))]
mod handover;
mod hedge;
mod http2;
mod mutations;
mod patience;
mod routes;
mod spans;
mod support;
mod switch;
#[cfg(feature = "tls")]
mod tls;
mod waiting;
mod wire;
