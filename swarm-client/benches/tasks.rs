//! Listing and watching thousands of tasks of a fake engine on loopback, beside bollard: `cargo bench -p swarm-client`.
#![allow(clippy::unwrap_used, reason = "a benchmark stops at the first surprise")]

mod support;

fn main() {
    support::run();
}
