//! The loop, on paused time, with everything outside of it faked.
#![cfg(feature = "controller")]

mod fakes;
mod faults;
mod leadership;
mod loops;
