//! What the gateway reads itself beside hyper: heads, chains of addresses, cookies.
#![no_main]

use balancer::proxy::fuzzing;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = (fuzzing::head(bytes), fuzzing::chain(bytes), fuzzing::cookie(bytes));
});
