//! Any text as a recorded load: read within bounds, or refused.
#![no_main]

use autoscaler::replay::Trace;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(trace) = Trace::from_csv(text, 60.0) {
        assert!(trace.seconds() >= 1 && trace.peak().is_finite() && trace.peak() >= 0.0);
    }
});
