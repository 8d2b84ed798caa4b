//! Any bytes as a service's logs, in pieces.
#![no_main]

use libfuzzer_sys::fuzz_target;
use swarm_client::LogDecoder;

fuzz_target!(|input: (bool, u8, &[u8])| {
    let (tty, piece, bytes) = input;
    let mut decoder = LogDecoder::new(tty);
    for piece in bytes.chunks(usize::from(piece) + 1) {
        if decoder.push(piece).is_err() {
            return;
        }
    }
    let _ = decoder.finish();
});
