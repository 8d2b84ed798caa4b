//! The async loop around the core, for one service: read, decide, write, tell.
//!
//! Everything outside is a trait with one to three methods: a [`SignalSource`] reads load, a [`ScaleTarget`] reads
//! and writes the count, a [`Lease`] says who may write, a [`Journal`] keeps what was decided. Run one
//! [`Controller`] per service (a [`Fleet`] of them in one process), on as many machines as should survive each other: all
//! wait for the lease, one acts. Where there is no lock service, [`RegisterLease`] and [`RegisterJournal`] need no more
//! than one text with a compare-and-set. With a [`Drainer`] a removal waits for the requests in flight on those that go.
//!
//! A lease alone does not make a single writer: a leader that was paused wakes up believing in it. So every lease
//! carries a [`Term`], and the target refuses a write when a higher term has written, in the same compare-and-set.
//! (Until the new leader's first write nothing on the target tells the two apart; then both decide from the same
//! count, and the compare-and-set lets one of them through.)
//!
//! ```
//! use autoscaler::controller::*;
//! use autoscaler::{Decision, Policy, Reading};
//! use std::sync::{Arc, atomic::{AtomicU32, Ordering::SeqCst}};
//!
//! struct Gateway;
//!
//! #[async_trait::async_trait]
//! impl SignalSource for Gateway {
//!     async fn read(&self, _service: &str) -> Vec<(String, Reading)> {
//!         vec![("in_flight".into(), Reading::value(412.0, now()))]
//!     }
//! }
//!
//! struct Service(AtomicU32);
//!
//! #[async_trait::async_trait]
//! impl ScaleTarget for Service {
//!     async fn read(&self) -> Result<TargetStatus, ScaleError> {
//!         let wanted = self.0.load(SeqCst);
//!         Ok(TargetStatus { wanted, ready: wanted, ..TargetStatus::default() })
//!     }
//!
//!     async fn write(&self, n: u32, _term: Term, because: &Decision) -> Result<Written, ScaleError> {
//!         let swapped = self.0.compare_exchange(because.current, n, SeqCst, SeqCst);
//!         let conflict = |is| ScaleError::Conflict { service: "web".into(), why: format!("it is {is} now") };
//!         swapped.map(|_| Written::default()).map_err(conflict)
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let journal = Arc::new(MemoryJournal::default());
//! let mut live = journal.subscribe();
//! let policy = Policy::balanced("in_flight", 70.0).bounds(2, 10);
//! let service = Service(AtomicU32::new(4));
//! let controller = Controller::new("web", policy, Gateway, service, AlwaysLeader::new(), journal)?;
//! let shutdown = tokio_util::sync::CancellationToken::new();
//! let running = tokio::spawn(controller.run(shutdown.clone()));
//!
//! assert_eq!(live.recv().await?.event, Event::Leading);
//! let text = live.recv().await?.to_string();
//! assert!(text.starts_with("web: 4 -> 6: 412 in flight over a target of 70 each [term "));
//! shutdown.cancel();
//! running.await?;
//! # Ok(())
//! # }
//! ```
//! (A single process needs no term, so this target ignores it. A real one must not.)
//!
//! # Tracing
//! Events have the target `autoscaler` and the fields `service` and `term`: `scaled` (info), `decided` (debug, or
//! info in shadow mode), `signals unknown` (warn, at most once a minute), `leading` (info), `lease lost`, `fenced`, `lease failed`, `target failed`,
//! `journal failed` (warn at the
//! first of a row, then debug) and `write failed` (warn). The decision's sentence is the field `decision`, an error's
//! chain `error`.

mod claim;
mod clock;
mod drain;
mod error;
mod fleet;
mod handle;
mod journal;
mod lease;
mod memory;
mod pass;
mod recorder;
mod register;
mod run;
mod target;

pub use clock::{Clock, SystemClock, now};
pub use drain::Drainer;
pub use error::{BoxError, JournalError, LeaseError, ScaleError};
pub use fleet::{AlreadyRunning, Fleet};
pub use handle::{Mode, PolicyHandle};
pub use journal::{Event, Journal, JournalEntry, Outcome};
pub use lease::{AlwaysLeader, Held, Lease, Term};
pub use memory::MemoryJournal;
pub use register::{MemoryRegister, Register, RegisterJournal, RegisterLease};
pub use run::Controller;
pub use target::{ScaleTarget, SignalSource, TargetStatus, Written};
