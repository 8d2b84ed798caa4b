//! Any text as a policy: read and valid, or refused with a reason.
#![no_main]

use autoscaler::Policy;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| match Policy::from_toml(text) {
    Ok(policy) => assert!(policy.validate().is_ok()),
    Err(error) => assert!(!error.to_string().is_empty()),
});
