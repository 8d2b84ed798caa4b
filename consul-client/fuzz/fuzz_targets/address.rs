#![no_main]

libfuzzer_sys::fuzz_target!(|data: &str| consul_client::fuzzing::address(data));
