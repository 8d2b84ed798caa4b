//! The reference deployment: the only place where the five libraries meet.
//!
//! - [`cli`]: the commands and their flags.
//! - [`roles`]: what runs in a container: gateway, registrar, scaler.
//! - [`platform`]: where the stack runs: child processes of this machine, services of a Docker Swarm, or plain engines.
//! - [`dashboard`]: the page that shows all of it, and what may be changed there; [`metrics`]: the same for Prometheus.
//! - [`render`]: the same membership for nginx and HAProxy.
//! - [`images`]: the roles' images, built from the running program; [`deploy`]: the whole stack from one stack file.
//! - [`demo`]: the story, its users and the verdict.
//! - `faults` (Linux): what goes wrong in a lab, and what users see of it.
//! - [`control`]: how `status`, `scale` and `top` reach a stack that `up` runs; [`load`]: the load generator; [`settings`], [`progress`].

pub mod cli;
pub mod control;
pub mod dashboard;
pub mod demo;
pub mod deploy;
#[cfg(target_os = "linux")]
pub mod faults;
pub mod images;
pub mod load;
pub mod metrics;
pub mod platform;
pub mod progress;
pub mod render;
pub mod roles;
pub mod settings;
