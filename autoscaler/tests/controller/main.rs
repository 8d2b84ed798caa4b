//! The loop, on paused time, with everything outside of it faked.
#![cfg(feature = "controller")]
// Helpers of tests may stop at the first surprise, as tests may.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod drains;
mod fakes;
mod faults;
mod fleets;
mod leadership;
mod loops;
mod registers;
