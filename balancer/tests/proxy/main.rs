//! The gateway against backends on loopback that die, hang, drain and come back.
#![cfg(feature = "proxy")]
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

mod attacks;
mod edge;
mod failures;
#[cfg(all(unix, feature = "handover"))]
mod handover;
mod http2;
mod patience;
mod routes;
mod support;
mod switch;
#[cfg(feature = "tls")]
mod tls;
mod waiting;
mod wire;
