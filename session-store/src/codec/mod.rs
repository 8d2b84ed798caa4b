//! A record's bytes: `SES`, format (1 byte), checksum (8), stamp (8), body; numbers big-endian, texts with their length before them. The format
//! rises when the layout changes, and older ones are read; the body begins with the application's own schema number.
//!
//! The checksum (the first 8 bytes of SHA-256 over stamp and body) turns damage into an error instead of a different session. It is no
//! authentication: who can write the store can write a session. The stamp is random for each write, so that a compare-and-set on the
//! first [`HEAD`] bytes cannot mistake one history of a key for another after a failover threw writes away.

mod wire;

use crate::{
    error::StoreError,
    id::CommitId,
    lifetime::Lifetime,
    record::{AppliedId, Entry, Head, Record, Value},
    rule::REMEMBERED_OWN,
    sorted::Sorted,
};
use sha2::{Digest, Sha256};
use std::{collections::VecDeque, sync::Arc, time::Duration};
use wire::{Reader, Writer, broken};

/// The largest record in bytes. Sessions are read on every request: 64 KiB is generous.
pub const MAX_RECORD: usize = 64 * 1024;
/// The longest key of a value, in bytes.
pub const MAX_KEY: usize = 128;
/// The most values of a session.
pub const MAX_VALUES: usize = 256;
/// The longest principal, in bytes.
pub const MAX_PRINCIPAL: usize = 256;
/// Bytes that differ between any two writes of a key.
pub const HEAD: usize = 20;

/// The bytes of a record. `stamp` is a random number.
///
/// # Errors
/// [`StoreError::TooLarge`] past a limit of this module.
pub fn encode(record: &Record, stamp: u64) -> Result<Vec<u8>, StoreError> {
    limit("the user's name", record.principal.as_ref().map_or(0, |name| name.len()), MAX_PRINCIPAL)?;
    limit("the number of values", record.entries.len(), MAX_VALUES)?;
    let mut out = Writer(Vec::with_capacity(size_hint(record)));
    out.0.extend_from_slice(MAGIC);
    out.0.extend_from_slice(&[FORMAT, 0, 0, 0, 0, 0, 0, 0, 0]);
    out.u64(stamp);
    out.0.extend_from_slice(&record.schema.to_be_bytes());
    out.u64(record.version);
    out.u64(record.created_at);
    out.u64(record.touched_at);
    out.u64(crate::lifetime::millis(record.lifetime.idle));
    out.u64(crate::lifetime::millis(record.lifetime.absolute));
    out.state(record.state);
    out.0.push(u8::from(record.principal.is_some()));
    out.bytes(record.principal.as_deref().unwrap_or_default().as_bytes());
    out.length(record.entries.len());
    for (key, entry) in record.entries.iter() {
        limit("the key of a value", key.len(), MAX_KEY)?;
        out.bytes(key.as_bytes());
        out.u64(entry.version);
        match &entry.value {
            Value::Bytes(bytes) => {
                out.0.push(0);
                out.bytes(bytes);
            }
            Value::Counter(number) => {
                out.0.push(1);
                out.0.extend_from_slice(&number.to_be_bytes());
            }
        }
    }
    out.u64(record.removed_floor);
    out.length(record.removed.len());
    for (key, version) in &record.removed {
        out.bytes(key.as_bytes());
        out.u64(*version);
    }
    out.length(record.applied.len());
    for applied in record.applied.iter() {
        out.u64(applied.id);
        let behind = record.version.saturating_sub(applied.version).min(u64::MAX >> 2);
        out.number(behind << 2 | u64::from(applied.merged) << 1 | u64::from(applied.own));
        out.number(record.touched_at.saturating_sub(applied.at) / 1000);
    }
    limit("the record in bytes", out.0.len(), MAX_RECORD)?;
    let sum = checksum(out.0.get(SUMMED..).unwrap_or_default());
    if let Some(place) = out.0.get_mut(MAGIC.len() + 1..SUMMED) {
        place.copy_from_slice(&sum);
    }
    Ok(out.0)
}

/// Reads a record. Any bytes are allowed; what is not exactly a record is an error.
///
/// # Errors
/// [`StoreError::Decode`].
pub fn decode(bytes: &[u8]) -> Result<Record, StoreError> {
    if bytes.len() > MAX_RECORD {
        return Err(broken("it is larger than any record"));
    }
    let mut input = Reader(bytes);
    if input.take(MAGIC.len())? != MAGIC {
        return Err(broken("it does not begin like one"));
    }
    let format = input.u8()?;
    if !(FIRST_FORMAT..=FORMAT).contains(&format) {
        return Err(broken("its format is of another version of this library"));
    }
    if input.array::<8>()? != checksum(input.0) {
        return Err(broken("its checksum does not fit"));
    }
    let _stamp = input.u64()?;
    let schema = if format == FIRST_FORMAT { 0 } else { u16::from_be_bytes(input.array()?) };
    let version = input.u64()?;
    let (created_at, touched_at) = (input.u64()?, input.u64()?);
    let (idle, absolute) = (Duration::from_millis(input.u64()?), Duration::from_millis(input.u64()?));
    let state = input.state()?;
    let logged_in = input.flag()?;
    let principal = Some(input.text(MAX_PRINCIPAL)?).filter(|_| logged_in);
    let count = input.length(MAX_VALUES)?;
    let mut entries = Vec::with_capacity(count);
    for _ in 0..count {
        let key = input.text(MAX_KEY)?;
        let version = input.u64()?;
        let value = match input.u8()? {
            0 => Value::Bytes(input.bytes(MAX_RECORD)?.into()),
            1 => Value::Counter(i64::from_be_bytes(input.array()?)),
            _ => return Err(broken("a value is of an unknown kind")),
        };
        entries.push((key.into(), Entry { version, value }));
    }
    let removed_floor = input.u64()?;
    let mut removed = VecDeque::new();
    for _ in 0..input.length(MAX_RECORD)? {
        removed.push_back((input.text(MAX_KEY)?.into(), input.u64()?));
    }
    let count = input.length(MAX_RECORD)?;
    let mut applied = Vec::with_capacity(count.min(REMEMBERED_OWN));
    for _ in 0..count {
        applied.push(match format {
            FIRST_FORMAT => {
                let id = CommitId::from_bytes(input.array()?);
                AppliedId::new(id, input.u64()?, input.flag()?, touched_at)
            }
            SECOND_FORMAT => {
                let (id, number, age) = (input.u64()?, input.u32()?, input.u32()?);
                let (behind, merged) = (u64::from(number >> 1), number & 1 == 1);
                let at = touched_at.saturating_sub(u64::from(age) * 1000);
                AppliedId { id, version: version.saturating_sub(behind), merged, at, own: false }
            }
            _ => {
                let (id, number, age) = (input.u64()?, input.number()?, input.number()?);
                let (merged, own) = (number & 2 == 2, number & 1 == 1);
                let at = touched_at.saturating_sub(age.saturating_mul(1000));
                AppliedId { id, version: version.saturating_sub(number >> 2), merged, at, own }
            }
        });
    }
    if !input.0.is_empty() {
        return Err(broken("it goes on after its end"));
    }
    Ok(Record {
        version,
        schema,
        created_at,
        touched_at,
        lifetime: Lifetime { idle, absolute },
        principal: principal.map(Into::into),
        state,
        entries: Sorted::from_list(entries),
        removed,
        removed_floor,
        applied: Arc::new(applied),
        head: Head::of(bytes),
    })
}

/// Of usual records not less than their size, so that they are written into memory that is large enough.
fn size_hint(record: &Record) -> usize {
    let values = record.entries.iter().map(|(key, entry)| {
        key.len() + 24 + if let Value::Bytes(bytes) = &entry.value { bytes.len() } else { 0 }
    });
    192 + values.sum::<usize>() + record.applied.len() * 13 + record.removed.len() * 64
}

fn checksum(bytes: &[u8]) -> [u8; 8] {
    let digest: [u8; 32] = Sha256::digest(bytes).into();
    let mut sum = [0; 8];
    sum.iter_mut().zip(digest).for_each(|(to, from)| *to = from);
    sum
}

fn limit(what: &'static str, size: usize, limit: usize) -> Result<(), StoreError> {
    if size > limit { Err(StoreError::TooLarge { what, size, limit }) } else { Ok(()) }
}

const MAGIC: &[u8] = b"SES";
/// Without a schema number.
const FIRST_FORMAT: u8 = 1;
/// With remembered commits of a fixed length, all of one kind; indexes held exact deadlines.
const SECOND_FORMAT: u8 = 2;
pub(crate) const FORMAT: u8 = 3;
/// Where the checksum ends and what it covers begins.
const SUMMED: usize = 12;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Op, Patch, SessionId, apply_op};
    use proptest::prelude::*;

    fn sample() -> Record {
        let mut record = Record::new(Lifetime::default(), Some("ada".into()), 1_000);
        let patches = [
            Patch::new().schema(0).set("cart", *b"[1,2]").add("views", -3).set("x", *b"1"),
            Patch::new().remove("x").add("views", 9),
        ];
        for patch in patches {
            record = apply_op(Some(record), &patch.commit(), 2_000).write.unwrap();
        }
        record
    }

    #[test]
    fn a_record_survives_its_bytes() {
        let live = sample();
        let rotate = Op::Rotate {
            to: SessionId::random().key(),
            principal: None,
            patch: Patch::new(),
            grace: Duration::from_secs(5),
            id: None,
        };
        let moved = apply_op(Some(live.clone()), &rotate, 3_000).write.unwrap();
        let ended = apply_op(Some(live.clone()), &Op::Delete, 3_000).write.unwrap();
        for record in [live, moved, ended] {
            assert_eq!(decode(&encode(&record, 7).unwrap()).unwrap(), record);
        }
    }

    #[test]
    fn a_record_of_the_first_format_is_read() {
        let record = sample();
        let mut bytes = encode(&record, 7).unwrap();
        bytes.drain(HEAD..HEAD + 2);
        // Its commits were kept whole: an id of 16 bytes, a version, a flag.
        bytes.truncate(bytes.len() - 2 * 10);
        for (version, half) in [(1_u64, 5_u64), (2, 6)] {
            bytes.extend_from_slice(&[[0; 8], half.to_be_bytes()].concat());
            bytes.extend_from_slice(&version.to_be_bytes());
            bytes.push(0);
        }
        let mut read = decode(&of_format(FIRST_FORMAT, bytes)).unwrap();
        assert_eq!(
            read.applied.iter().map(|applied| (applied.id, applied.version)).collect::<Vec<_>>(),
            [(5, 1), (6, 2)]
        );
        read.applied.clone_from(&record.applied);
        assert_eq!(read, record);
    }

    #[test]
    fn a_record_of_the_second_format_is_read() {
        let record = sample();
        let mut bytes = encode(&record, 7).unwrap();
        bytes.truncate(bytes.len() - 2 * 10);
        for (half, number, age) in [(5_u64, 1_u32 << 1, 1_u32), (6, 1, 0)] {
            bytes.extend_from_slice(&half.to_be_bytes());
            bytes.extend_from_slice(&[number.to_be_bytes(), age.to_be_bytes()].concat());
        }
        let mut read = decode(&of_format(SECOND_FORMAT, bytes)).unwrap();
        let seen = |applied: &AppliedId| (applied.id, applied.version, applied.merged, applied.at);
        assert_eq!(
            read.applied.iter().map(seen).collect::<Vec<_>>(),
            [(5, 1, false, 1_000), (6, 2, true, 2_000)]
        );
        read.applied.clone_from(&record.applied);
        assert_eq!(read, record);
    }

    fn of_format(format: u8, mut bytes: Vec<u8>) -> Vec<u8> {
        bytes[3] = format;
        let sum = checksum(&bytes[SUMMED..]);
        bytes[4..SUMMED].copy_from_slice(&sum);
        bytes
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_seen() {
        let bytes = encode(&sample(), 7).unwrap();
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&bad).is_err(), "bit {bit}");
        }
        for end in 0..bytes.len() {
            assert!(decode(&bytes[..end]).is_err(), "cut at {end}");
        }
    }

    #[test]
    fn too_large_is_an_error_that_names_the_limit() {
        let op = Patch::new().set("big", vec![0; MAX_RECORD]).commit();
        let record = apply_op(Some(sample()), &op, 2_000).write.unwrap();
        let error = encode(&record, 0).unwrap_err();
        assert!(error.is_too_large() && error.to_string().contains("65536"), "{error}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]
        /// A real record with some bytes replaced, cut or repeated, whose checksum is right again, as somebody who can write the store would make one:
        /// no panic, and what is read can be written again or is too large.
        #[test]
        fn forged_records_are_read_without_panic(
            changes in prop::collection::vec((0_usize..400, any::<u8>()), 0..6), cut in prop::option::of(0_usize..400), tail in prop::collection::vec(any::<u8>(), 0..8),
        ) {
            let mut bytes = encode(&sample(), 7).unwrap();
            for (place, byte) in changes {
                if let Some(at) = bytes.get_mut(place.max(SUMMED)) {
                    *at = byte;
                }
            }
            bytes.truncate(cut.unwrap_or(usize::MAX).max(SUMMED));
            bytes.extend_from_slice(&tail);
            let sum = checksum(&bytes[SUMMED..]);
            bytes[4..SUMMED].copy_from_slice(&sum);
            if let Ok(record) = decode(&bytes) {
                let _ = record.gone(u64::MAX);
                let _ = apply_op(Some(record.clone()), &Patch::new().set("cart", *b"1").add("views", 1).commit(), u64::MAX);
                if let Ok(again) = encode(&record, 7) {
                    // Times of commits are kept to the second: a forged one may move once, and then stays.
                    prop_assert_eq!(encode(&decode(&again).unwrap(), 7).unwrap(), again);
                }
            }
        }

        #[test]
        fn any_bytes_are_read_without_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..300), right_sum in any::<bool>(), format in FIRST_FORMAT..=FORMAT) {
            if right_sum && bytes.len() > SUMMED {
                bytes[..3].copy_from_slice(MAGIC);
                bytes[3] = format;
                let sum = checksum(&bytes[SUMMED..]);
                bytes[4..SUMMED].copy_from_slice(&sum);
            }
            let _ = decode(&bytes);
        }
    }
}
