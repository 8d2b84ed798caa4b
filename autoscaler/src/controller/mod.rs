//! The async loop around the core, for one service: read, decide, write, tell.
//!
//! Everything outside is a trait with one to three methods: a [`SignalSource`] reads load, a [`ScaleTarget`] reads
//! and writes the count, a [`Lease`] says who may write, a [`Journal`] keeps what was decided. Run one
//! [`Controller`] per service, on as many machines as should survive each other: all wait for the lease, one acts.
//!
//! A lease alone does not make a single writer: a leader that was paused wakes up believing in it. So every lease
//! carries a [`Term`], and the target refuses a write when a higher term has written, in the same compare-and-set.
//!
//! # Tracing
//! Events have the target `autoscaler` and the fields `service` and `term`: `scaled` (info), `decided` (debug, or
//! info in shadow mode), `leading` (info), `lease lost`, `fenced`, `lease failed`, `target failed`,
//! `journal failed` and `write failed` (warn). The decision's sentence is the field `decision`, an error's
//! chain `error`.

mod clock;
mod error;
mod handle;
mod journal;
mod lease;
mod memory;
mod pass;
mod recorder;
mod run;
mod target;

pub use clock::now;
pub use error::{BoxError, JournalError, LeaseError, ScaleError};
pub use handle::{Mode, PolicyHandle};
pub use journal::{Event, Journal, JournalEntry, Outcome};
pub use lease::{AlwaysLeader, Held, Lease, Term};
pub use memory::MemoryJournal;
pub use run::Controller;
pub use target::{ScaleTarget, SignalSource, TargetStatus, Written};
