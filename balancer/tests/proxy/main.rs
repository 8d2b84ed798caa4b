//! The gateway against backends on loopback that die, hang, drain and come back.
#![cfg(feature = "proxy")]
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

mod failures;
mod patience;
mod support;
mod waiting;
mod wire;
