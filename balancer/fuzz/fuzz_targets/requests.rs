//! A stranger's request: it is refused, or an endpoint gets headers that mean what they say.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Err(wrong) = balancer::proxy::fuzzing::request(bytes) {
        panic!("{wrong}");
    }
});
