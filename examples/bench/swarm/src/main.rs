//! swarm-client beside bollard. The measurements are those of `cargo bench -p swarm-client`.

#[path = "../../../../swarm-client/benches/support/mod.rs"]
mod support;

fn main() {
    support::run();
}
