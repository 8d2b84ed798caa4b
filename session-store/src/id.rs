//! Session ids, the keys they are stored under, and ids of commits.
//!
//! The browser holds the id; the store holds only its SHA-256, so that a dump, a replica or a `MONITOR` yields no login.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use sha2::{Digest, Sha256};
use std::fmt;

/// A session's id: 256 random bits. `Debug` does not show it, and there is no `Display`: ask [`to_cookie_value`](Self::to_cookie_value).
#[derive(Clone, PartialEq, Eq)]
pub struct SessionId([u8; 32]);

impl SessionId {
    /// A new id from the thread's cryptographic generator.
    #[must_use]
    pub fn random() -> Self {
        Self(rand::random())
    }

    /// Reads a cookie's value: exactly 43 characters of base64url in canonical form. Anything else is `None`.
    #[must_use]
    pub fn parse(value: &str) -> Option<Self> {
        if value.len() != ENCODED {
            return None;
        }
        let mut bytes = [0; 32];
        let length = URL_SAFE_NO_PAD.decode_slice(value, &mut bytes).ok()?;
        (length == bytes.len()).then_some(Self(bytes))
    }

    /// The secret, as it goes into the cookie.
    #[must_use]
    pub fn to_cookie_value(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.0)
    }

    /// The key that the record is stored under.
    #[must_use]
    pub fn key(&self) -> StoreKey {
        StoreKey(Sha256::digest(self.0).into())
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionId(..)")
    }
}

/// Where a record is stored: the SHA-256 of the session's id. Not a secret by itself: it opens nothing.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StoreKey([u8; 32]);

impl StoreKey {
    #[cfg_attr(not(feature = "redis"), allow(dead_code, reason = "for names of Redis"))]
    pub(crate) const TEXT: usize = ENCODED;

    /// A key from its bytes, as a store read them back.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The key's bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The key as text, for a form that ends one of a user's own sessions.
    #[must_use]
    pub fn to_text(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.0)
    }

    /// As [`to_text`](Self::to_text), into memory of [`TEXT`](Self::TEXT) bytes.
    #[cfg_attr(not(feature = "redis"), allow(dead_code, reason = "for names of Redis"))]
    pub(crate) fn write_text(&self, place: &mut [u8]) {
        let written = URL_SAFE_NO_PAD.encode_slice(self.0, place);
        debug_assert_eq!(written, Ok(Self::TEXT));
    }

    /// A key from [its text](Self::to_text); anything else is `None`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        SessionId::parse(text).map(|id| Self(id.0))
    }
}

impl fmt::Debug for StoreKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StoreKey({}..)", &URL_SAFE_NO_PAD.encode(&self.0[..4]))
    }
}

/// Names one commit, so that sending it again changes nothing. It is compared within one session only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CommitId {
    bytes: [u8; 16],
    /// Made up here: nobody else can repeat it.
    pub(crate) own: bool,
}

impl CommitId {
    /// A fresh id for a commit that only this process may repeat, at once. A session remembers the last
    /// [8](crate::rule::REMEMBERED_OWN) of them, of named ones [128](crate::rule::REMEMBERED_COMMITS).
    #[must_use]
    pub fn random() -> Self {
        Self { bytes: rand::random(), own: true }
    }

    /// The id of a request or message, of any bytes and length.
    #[must_use]
    pub fn of(name: impl AsRef<[u8]>) -> Self {
        let digest: [u8; 32] = Sha256::digest(name.as_ref()).into();
        let mut bytes = [0; 16];
        bytes.iter_mut().zip(digest).for_each(|(to, from)| *to = from);
        Self::from_bytes(bytes)
    }

    /// The id of a request or message that already has one of 128 bits.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self { bytes, own: false }
    }

    /// The id's bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.bytes
    }
}

/// Characters of 32 bytes in base64url without padding.
const ENCODED: usize = 43;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_id_survives_its_cookie_and_hides_from_debug() {
        let id = SessionId::random();
        let value = id.to_cookie_value();
        assert_eq!(SessionId::parse(&value).as_ref(), Some(&id));
        assert!(!format!("{id:?}").contains(&value));
        assert_ne!(id.key().as_bytes(), &id.0);
    }

    proptest! {
        #[test]
        fn only_canonical_values_parse(value in ".{0,60}") {
            if let Some(id) = SessionId::parse(&value) {
                prop_assert_eq!(id.to_cookie_value(), value);
            }
        }
    }
}
