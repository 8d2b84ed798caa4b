#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| consul_client::fuzzing::answers(data));
