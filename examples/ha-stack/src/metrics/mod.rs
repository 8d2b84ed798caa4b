//! Figures for Prometheus: one endpoint per role, `GET /metrics`.
//!
//! - [`text`]: the exposition format; pure.
//! - [`gateway`]: what a gateway does, made of its own report; pure.
//! - [`scaler`]: what a scaler decides, told by the journal that it writes anyway.
//! - [`registrar`]: how its rounds go.
//! - [`stack`]: a whole stack as `up` sees it; pure.
//! - [`server`]: an address for the roles that have no other.
//!
//! Names begin with `ha_` and the role, have base units (seconds) and end in `_total` where they only grow. Labels are
//! few and bounded: no path, no user, no session.

pub mod gateway;
pub mod registrar;
pub mod scaler;
pub mod server;
pub mod stack;
pub mod text;
