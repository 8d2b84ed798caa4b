//! A scaling decision engine without I/O: fast up, calm down, every decision explained.
//!
//! ```
//! use autoscaler::{Observation, Policy, Reading, State, decide};
//! use std::time::Duration;
//!
//! let policy = Policy::balanced("in_flight", 70.0).bounds(2, 10);
//! let now = Duration::from_secs(1_000);
//! let state = State::seeded(4, now);
//!
//! let seen = Observation::new(now, 4).reading("in_flight", Reading::value(412.0, now));
//! let (decision, _state) = decide(&policy, &state, &seen);
//! assert_eq!(decision.to_string(), "4 -> 6: 412 in flight over a target of 70 each");
//! ```
//!
//! # Modules
//! Everything of the core stands at the root: [`decide`], what it reads ([`Policy`], [`State`], [`Observation`]) and
//! what it answers ([`Decision`]). The async loop around it is `controller`.
//!
//! # Features
//! | feature | default | what it adds |
//! |---|---|---|
//! | `controller` | no | the async loop over traits: signal sources, a target, a lease, a journal (needs tokio) |
#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod behavior;
mod changes;
#[cfg(feature = "controller")]
pub mod controller;
mod decide;
mod decision;
mod explain;
mod limits;
mod observation;
mod policy;
mod seconds;
mod state;
mod validate;
mod vote;

pub use behavior::{Behavior, Direction, RateLimit, Select};
pub use decide::decide;
pub use decision::{Action, Ballot, Decision, Reason, Stage, StageName, Vote};
pub use observation::{Hold, Observation, Reading};
pub use policy::{Burst, DuringUpdate, Policy, SignalPolicy, Target, Tolerance};
pub use state::State;
pub use validate::{PolicyError, PolicyErrors};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
