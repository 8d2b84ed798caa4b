//! What runs in a container: the gateway, the registrar, the scaler, and on plain engines the watchdog.
//!
//! Each role serves until SIGTERM or SIGINT, then ends in order. A role that loses Swarm or Consul goes on with what it
//! last knew and says so in its log.

pub mod access;
pub mod admin;
mod consul_lease;
pub mod coordination;
pub mod discovery;
pub mod docker_stats;
pub mod drain;
mod engine_ports;
pub mod engines_target;
pub mod fence;
pub mod follow;
pub mod gateway;
pub mod journal;
pub mod labels;
pub mod leader;
pub mod liveness;
pub mod members;
mod plain;
pub mod prometheus;
pub mod registrar;
mod route_records;
pub mod routes;
pub mod scaler;
mod scaler_fleet;
pub mod scaler_policy;
pub mod services;
mod swarm_feed;
pub mod swarm_register;
pub mod swarm_target;
#[cfg(feature = "otel")]
mod trace;
pub mod usage;
pub mod watchdog;
