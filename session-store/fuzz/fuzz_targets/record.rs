//! Any bytes in a store, as they are and behind a right opening: no panic, and what is read can be written again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use session_store::{Patch, apply_op, codec};
use sha2::{Digest, Sha256};

fuzz_target!(|bytes: &[u8]| {
    read(bytes);
    // The checksum keeps a fuzzer out; who can write to the store can make one.
    if let Some((format, body)) = bytes.split_first() {
        let sum = Sha256::digest(body);
        read(&[b"SES", &[format % 4][..], &sum[..8], body].concat());
    }
});

fn read(bytes: &[u8]) {
    let Ok(record) = codec::decode(bytes) else { return };
    let _ = record.gone(u64::MAX);
    let _ = apply_op(Some(record.clone()), &Patch::new().set("a", *b"1").add("b", 1).commit(), u64::MAX);
    if let Ok(again) = codec::encode(&record, 0) {
        // Times of commits are kept to the second: a forged one may move once, and then stays.
        let read = codec::decode(&again).expect("what was written is read");
        assert_eq!(codec::encode(&read, 0).expect("what was read is written"), again);
    }
}
