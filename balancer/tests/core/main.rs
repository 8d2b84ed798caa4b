//! What the core promises, whatever happens in whatever order.
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

mod allocation;
mod examples;
mod interleaving;
mod shares;
mod simulation;
mod states;
mod support;
