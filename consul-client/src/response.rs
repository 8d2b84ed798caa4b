//! What comes with every read: how fresh it is, and how fresh it was asked to be.

use std::time::Duration;

/// How fresh a read must be.
///
/// One choice, because Consul refuses `stale` and `consistent` together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
#[non_exhaustive]
pub enum Consistency {
    /// The leader answers from its own state. Reads your own writes, but for a moment after a leader was cut off.
    #[default]
    Leader,
    /// The leader asks a quorum first. One round trip more; never old.
    Consistent,
    /// Any server answers, even without a leader. Can miss acknowledged writes for seconds during an election.
    Stale,
}

impl Consistency {
    pub(crate) fn flag(self) -> Option<&'static str> {
        match self {
            Consistency::Leader => None,
            Consistency::Consistent => Some("consistent"),
            Consistency::Stale => Some("stale"),
        }
    }
}

/// The value of a read, and what the server said about it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Response<T> {
    /// The value.
    pub value: T,
    /// Index and freshness.
    pub meta: Meta,
}

impl<T> Response<T> {
    pub(crate) fn new(value: T, meta: Meta) -> Self {
        Self { value, meta }
    }

    /// Only the value.
    pub fn into_inner(self) -> T {
        self.value
    }

    /// The same freshness, another value.
    pub fn map<U>(self, f: impl FnOnce(T) -> U) -> Response<U> {
        Response { value: f(self.value), meta: self.meta }
    }
}

/// What Consul's headers say. A missing header is `None`, never a guess: newer servers leave some out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Meta {
    /// `X-Consul-Index`.
    pub index: Option<u64>,
    /// How long ago the answering server heard from the leader (milliseconds on the wire).
    pub last_contact: Option<Duration>,
    /// Whether the answering server knew a leader.
    pub known_leader: Option<bool>,
    /// Whether the server left something out that the token may not see. Servers before 1.12 do not tell.
    pub filtered_by_acls: Option<bool>,
}

impl Meta {
    pub(crate) fn from_headers(headers: &http::HeaderMap) -> Self {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        Self {
            index: text("x-consul-index").and_then(|value| value.parse().ok()),
            last_contact: text("x-consul-lastcontact")
                .and_then(|v| v.parse().ok())
                .map(Duration::from_millis),
            known_leader: text("x-consul-knownleader").and_then(|value| value.parse().ok()),
            filtered_by_acls: text("x-consul-results-filtered-by-acls").and_then(|value| value.parse().ok()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_optional_and_garbage_is_none() {
        let mut headers = http::HeaderMap::new();
        assert_eq!(Meta::from_headers(&headers), Meta::default());
        headers.insert("x-consul-index", "15560390041262641985".parse().unwrap());
        headers.insert("x-consul-lastcontact", "many".parse().unwrap());
        headers.insert("x-consul-knownleader", "true".parse().unwrap());
        let meta = Meta::from_headers(&headers);
        assert_eq!(meta.index, Some(15_560_390_041_262_641_985));
        assert_eq!((meta.last_contact, meta.known_leader), (None, Some(true)));
    }
}
