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
//! | `toml` | no | policies from TOML text, refused with line, field, value and rule |
#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod changes;
#[cfg(feature = "controller")]
pub mod controller;
mod decide;
mod decision;
mod diff;
mod expect;
mod explain;
mod limits;
mod millis;
mod observation;
mod path;
mod per_instance;
pub mod policy;
pub mod replay;
mod seconds;
mod series;
mod state;
mod victims;
mod vote;

pub use decide::decide;
pub use decision::{Action, Ballot, Decision, Expected, Reason, Stage, StageName, Vote};
pub use diff::{Difference, Differences};
pub use observation::{Hold, Instance, Observation, Phase, Reading, Sample};
pub use policy::{
    Behavior, Burst, BurstOf, Calm, Compat, Cron, CronError, Direction, Drain, DuringUpdate, Fallback,
    FallbackReplicas, FlapBudget, Forecast, ForecastMode, Model, Pause, Policy, PolicyError, PolicyErrors,
    RateLimit, Readiness, ScheduleWindow, Select, SignalPolicy, Step, Surge, Target, Threshold, Tolerance,
    Zero,
};
#[cfg(feature = "toml")]
pub use policy::{PolicyFileError, PolicyMistake};
pub use state::State;
pub use victims::victims;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
