//! What stands between a record and the bytes that a store keeps: nothing, or authenticated encryption (feature `encryption`).
//!
//! An encrypted record is `SES`, `0x81`, the key's number (4 bytes), a random nonce (24), and XChaCha20-Poly1305 of the [codec](crate::codec)'s bytes
//! with the beginning and the session's key as associated data: what was moved to another session, or changed in any bit, does not open. A nonce of
//! 192 random bits may be drawn without counting. Tombstones are not encrypted: they say no more than that a session is over.
//!
//! It hides values and users from who reads the store or its backups, and keeps who can write to it from making up a log-in. It cannot keep such
//! a writer from deleting sessions or from putting an earlier state of the *same* session back. The names of a user's index are plain SHA-256
//! of the user: who guesses a name can tell whether it has sessions.

use crate::{codec, error::StoreError, id::StoreKey, record::Record};
#[cfg(feature = "encryption")]
use crate::{
    op::Gone,
    record::{Head, State},
};
#[cfg(feature = "encryption")]
use chacha20poly1305::{
    XChaCha20Poly1305,
    aead::{Aead, KeyInit, Payload},
};
#[cfg(feature = "encryption")]
use std::{fmt, sync::Arc};

/// The keys that a store's records are encrypted under. All instances need the same ones.
///
/// To change the key: give every instance the new one as [`also`](Self::also), then make it the first and the old one `also`, and drop the old one once
/// the longest absolute lifetime has passed. A key that others may know: [`retire`](Self::retire) it, and every session under it is over at once.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let (new, old) = ([1; 32], [2; 32]);
/// let keys = session_store::Keyring::new(2, &new).also(1, &old); // writes under 2, reads both
/// let options = session_store::StoreOptions::new().keys(keys);
/// # drop(options); Ok(()) }
/// ```
#[cfg(feature = "encryption")]
#[derive(Clone)]
pub struct Keyring {
    /// The first one writes.
    keys: Vec<(u32, Arc<XChaCha20Poly1305>)>,
    retired: Vec<u32>,
    takes_plain: bool,
}

#[cfg(feature = "encryption")]
impl Keyring {
    /// Writes and reads under one key of 256 random bits. Its number tells it from others, and is no secret.
    #[must_use]
    pub fn new(number: u32, key: &[u8; 32]) -> Self {
        Self { keys: Vec::new(), retired: Vec::new(), takes_plain: false }.also(number, key)
    }

    /// Also reads what was written under this key.
    #[must_use]
    pub fn also(mut self, number: u32, key: &[u8; 32]) -> Self {
        self.keys.push((number, Arc::new(XChaCha20Poly1305::new(&(*key).into()))));
        self
    }

    /// Takes sessions under this number for ended: their users log in again.
    #[must_use]
    pub fn retire(mut self, number: u32) -> Self {
        self.retired.push(number);
        self
    }

    /// Also reads records that are not encrypted, for the time until those from before encryption have ended. Until then who can write to the store
    /// can make up a log-in.
    #[must_use]
    pub fn accept_plain(mut self) -> Self {
        self.takes_plain = true;
        self
    }

    fn seal(&self, key: &StoreKey, plain: &[u8]) -> Result<Vec<u8>, StoreError> {
        let failed = || StoreError::Decode { reason: "it could not be encrypted" };
        let (number, cipher) = self.keys.first().ok_or_else(failed)?;
        let mut out = Vec::with_capacity(OPENING + NONCE + plain.len() + TAG);
        out.extend_from_slice(&SEALED);
        out.extend_from_slice(&number.to_be_bytes());
        let nonce: [u8; NONCE] = rand::random();
        let aad = [&out, &key.as_bytes()[..]].concat();
        let sealed =
            cipher.encrypt(&nonce.into(), Payload { msg: plain, aad: &aad }).map_err(|_| failed())?;
        out.extend_from_slice(&nonce);
        out.extend_from_slice(&sealed);
        Ok(out)
    }

    fn open(&self, key: &StoreKey, bytes: &[u8]) -> Result<Record, StoreError> {
        let cut = || StoreError::Decode { reason: "it is cut off" };
        if bytes.len() > codec::MAX_RECORD + OPENING + NONCE + TAG {
            return Err(StoreError::Decode { reason: "it is larger than any record" });
        }
        let (opening, rest) = bytes.split_first_chunk::<OPENING>().ok_or_else(cut)?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE>().ok_or_else(cut)?;
        let number = opening.last_chunk::<4>().copied().map(u32::from_be_bytes).unwrap_or_default();
        if self.retired.contains(&number) {
            return Ok(Record::revoked(crate::lifetime::unix_now()));
        }
        let aad = [&opening[..], &key.as_bytes()[..]].concat();
        let known = self.keys.iter().filter(|(known, _)| *known == number);
        let mut reason = "it is encrypted under a key that this store was not given";
        for (_, cipher) in known {
            match cipher.decrypt(&(*nonce).into(), Payload { msg: sealed, aad: &aad }) {
                Ok(plain) => return codec::decode(&plain),
                Err(_) => reason = "it does not open: the key is another one, or it was changed or moved",
            }
        }
        Err(StoreError::Decode { reason })
    }
}

#[cfg(feature = "encryption")]
impl fmt::Debug for Keyring {
    /// Shows the keys' numbers.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let numbers = self.keys.iter().map(|(number, _)| number).collect::<Vec<_>>();
        f.debug_struct("Keyring")
            .field("keys", &numbers)
            .field("retired", &self.retired)
            .field("takes_plain", &self.takes_plain)
            .finish()
    }
}

/// How a store writes and reads its records.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seal {
    #[cfg(feature = "encryption")]
    pub(crate) keys: Option<Keyring>,
}

impl Seal {
    pub(crate) fn encode(&self, key: &StoreKey, record: &Record, stamp: u64) -> Result<Vec<u8>, StoreError> {
        let plain = codec::encode(record, stamp)?;
        #[cfg(feature = "encryption")]
        if let Some(keys) = &self.keys
            && !is_tombstone(record)
        {
            return keys.seal(key, &plain);
        }
        let _ = key;
        Ok(plain)
    }

    pub(crate) fn decode(&self, key: &StoreKey, bytes: &[u8]) -> Result<Record, StoreError> {
        #[cfg(feature = "encryption")]
        if let Some(keys) = &self.keys {
            let mut record = if is_sealed(bytes) { keys.open(key, bytes)? } else { codec::decode(bytes)? };
            if !is_sealed(bytes) && !keys.takes_plain && !is_tombstone(&record) {
                return Err(StoreError::Decode {
                    reason: "it is not encrypted, as this store's records are",
                });
            }
            record.head = Head::of(bytes);
            return Ok(record);
        }
        let _ = key;
        if is_sealed(bytes) {
            return Err(StoreError::Decode { reason: "it is encrypted, and this store was given no keys" });
        }
        codec::decode(bytes)
    }
}

fn is_sealed(bytes: &[u8]) -> bool {
    bytes.starts_with(&SEALED) || bytes.starts_with(&SEALED_BEFORE)
}

/// A plain tombstone can be made up by who can write to the store, and so can a deletion. It may lead nowhere else.
#[cfg(feature = "encryption")]
fn is_tombstone(record: &Record) -> bool {
    matches!(record.state, State::Ended { reason: Gone::Deleted, to: None, .. }) && record.principal.is_none()
}

/// What no plain record begins with; the last byte rises with the codec's format.
pub(crate) const SEALED: [u8; 4] = *b"SES\x81";
const SEALED_BEFORE: [u8; 4] = *b"SES\x80";
#[cfg(feature = "encryption")]
const OPENING: usize = 8;
#[cfg(feature = "encryption")]
const NONCE: usize = 24;
#[cfg(feature = "encryption")]
const TAG: usize = 16;

#[cfg(all(test, feature = "encryption"))]
mod tests {
    use super::*;
    use crate::{Lifetime, Op, Patch, SessionId, apply_op};
    use proptest::prelude::*;

    fn seal(keys: Keyring) -> Seal {
        Seal { keys: Some(keys) }
    }

    fn sample() -> Record {
        let record = Record::new(Lifetime::default(), Some("ada".into()), 1_000);
        apply_op(Some(record), &Patch::new().set("cart", *b"secret").commit(), 2_000)
            .write
            .expect("a commit on a live session writes")
    }

    #[test]
    fn keys_are_changed_without_ending_sessions() {
        let (key, record) = (SessionId::random().key(), sample());
        let old = seal(Keyring::new(1, &[1; 32]));
        let bytes = old.encode(&key, &record, 0).unwrap();
        for part in ["ada", "cart", "secret"] {
            assert!(!bytes.windows(part.len()).any(|window| window == part.as_bytes()), "{part} is readable");
        }
        let new = seal(Keyring::new(2, &[2; 32]).also(1, &[1; 32]));
        assert_eq!(new.decode(&key, &bytes).unwrap(), record);
        let newer = new.encode(&key, &record, 0).unwrap();
        assert!(old.decode(&key, &newer).is_err(), "written under the old key");
        assert_eq!(new.decode(&key, &newer).unwrap(), record);
        assert!(!format!("{new:?}").contains("[2, 2"), "keys are shown");
    }

    #[test]
    fn nothing_opens_under_another_key_number_session_or_without_keys() {
        let (key, record) = (SessionId::random().key(), sample());
        let right = seal(Keyring::new(1, &[1; 32]));
        let bytes = right.encode(&key, &record, 0).unwrap();
        let wrong = seal(Keyring::new(1, &[9; 32]));
        let other = seal(Keyring::new(2, &[1; 32]));
        for (seal, key) in
            [(&wrong, &key), (&other, &key), (&right, &SessionId::random().key()), (&Seal::default(), &key)]
        {
            let error = seal.decode(key, &bytes).unwrap_err();
            assert!(!error.is_retryable(), "{error}");
        }
        let ended = seal(Keyring::new(2, &[2; 32]).retire(1)).decode(&key, &bytes).unwrap();
        assert_eq!(ended.gone(0), Some(Gone::Deleted), "a session under a retired key lives on");
    }

    #[test]
    fn plain_records_are_taken_only_where_that_is_allowed() {
        let (key, record) = (SessionId::random().key(), sample());
        let strict = seal(Keyring::new(1, &[1; 32]));
        let plain = codec::encode(&record, 0).unwrap();
        assert!(strict.decode(&key, &plain).is_err(), "a made-up record is a log-in");
        assert_eq!(seal(Keyring::new(1, &[1; 32]).accept_plain()).decode(&key, &plain).unwrap(), record);
        let ended = apply_op(Some(record.clone()), &Op::Delete, 3_000).write.unwrap();
        assert_eq!(strict.decode(&key, &codec::encode(&ended, 0).unwrap()).unwrap(), ended);
        let lead = Op::Rotate {
            to: SessionId::random().key(),
            principal: None,
            patch: Patch::new(),
            grace: std::time::Duration::from_secs(9),
            id: None,
        };
        let pointer = apply_op(Some(record), &lead, 3_000).write.unwrap();
        assert!(
            strict.decode(&key, &codec::encode(&pointer, 0).unwrap()).is_err(),
            "a made-up pointer is followed"
        );
        assert_eq!(strict.decode(&key, &strict.encode(&key, &pointer, 0).unwrap()).unwrap(), pointer);
    }

    #[test]
    fn records_sealed_by_the_version_before_open() {
        let (key, record) = (SessionId::random().key(), sample());
        let keys = Keyring::new(1, &[1; 32]);
        let (_, cipher) = &keys.keys[0];
        let opening = [&SEALED_BEFORE[..], &1_u32.to_be_bytes()].concat();
        let aad = [&opening[..], &key.as_bytes()[..]].concat();
        let plain = codec::encode(&record, 0).unwrap();
        let sealed = cipher.encrypt(&[7; NONCE].into(), Payload { msg: &plain, aad: &aad }).unwrap();
        let bytes = [opening, vec![7; NONCE], sealed].concat();
        assert_eq!(seal(keys).decode(&key, &bytes).unwrap(), record);
        assert!(Seal::default().decode(&key, &bytes).is_err());
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_seen() {
        let (key, seal) = (SessionId::random().key(), seal(Keyring::new(1, &[1; 32])));
        let bytes = seal.encode(&key, &sample(), 7).unwrap();
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(seal.decode(&key, &bad).is_err(), "bit {bit}");
        }
        for end in 0..bytes.len() {
            assert!(seal.decode(&key, &bytes[..end]).is_err(), "cut at {end}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]
        #[test]
        fn any_bytes_are_read_without_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..200), opening in any::<bool>()) {
            if opening && bytes.len() > 8 {
                bytes[..4].copy_from_slice(&SEALED);
                bytes[4..8].copy_from_slice(&1_u32.to_be_bytes());
            }
            let seal = seal(Keyring::new(1, &[1; 32]));
            prop_assert!(seal.decode(&StoreKey::from_bytes([0; 32]), &bytes).is_err());
        }
    }
}
