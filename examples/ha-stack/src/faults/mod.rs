//! The stack under faults: each one in turn, under steady load from users who retry nothing, and a table of what came of it.
//!
//! - [`catalog`]: the faults, and what is promised under each of them.
//! - [`strike`]: how each is brought about in a lab, and taken back.
//! - [`redundancy`]: how long the stack had fewer good replicas than it wants.
//! - [`run`]: one fault after the other, or drawn at random from a seed.
//! - [`report`]: the table, as text, JSON and HTML.

pub mod catalog;
pub mod redundancy;
pub mod report;
pub mod run;
pub mod strike;

pub use catalog::Fault;
pub use report::Report;
