//! Any refusal of an engine, and any reason of its scheduler.
#![no_main]

use libfuzzer_sys::fuzz_target;
use swarm_client::{PendingReason, Reason};

fuzz_target!(|input: (u16, &str)| {
    assert!(!Reason::of(input.0, input.1).to_string().is_empty());
    for reason in PendingReason::parse(input.1) {
        let _ = reason.to_string();
    }
});
