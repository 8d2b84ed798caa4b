//! What comes with every read: how fresh it is, and how fresh it was asked to be.

use std::time::Duration;

use http::HeaderValue;

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
    /// The agent answers from its own cache where the endpoint has one (health and catalog of a service, and a few more), and keeps
    /// the cache fresh in the background for a while. The others answer as for [`Leader`](Self::Leader).
    Cached {
        /// Fetch anew what is older; as old as it may be when `None`.
        max_age: Option<Duration>,
        /// When fetching fails, take what is not older than this.
        stale_if_error: Option<Duration>,
    },
}

impl Consistency {
    pub(crate) fn flag(self) -> Option<&'static str> {
        match self {
            Consistency::Leader => None,
            Consistency::Consistent => Some("consistent"),
            Consistency::Stale => Some("stale"),
            Consistency::Cached { .. } => Some("cached"),
        }
    }

    /// The `Cache-Control` header, in whole seconds as HTTP has it.
    pub(crate) fn cache_control(self) -> Option<HeaderValue> {
        let Consistency::Cached { max_age, stale_if_error } = self else {
            return None;
        };
        let directive =
            |name: &str, age: Option<Duration>| age.map(|age| format!("{name}={}", age.as_secs()));
        let parts = [directive("max-age", max_age), directive("stale-if-error", stale_if_error)];
        let text = parts.into_iter().flatten().collect::<Vec<_>>().join(", ");
        HeaderValue::try_from(text).ok().filter(|text| !text.is_empty())
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
    /// Whether the agent's cache answered (`X-Cache`).
    pub cache_hit: Option<bool>,
    /// How old the cached answer was (`Age`, whole seconds).
    pub age: Option<Duration>,
}

impl Meta {
    pub(crate) fn from_headers(headers: &http::HeaderMap) -> Self {
        let mut meta = Self::default();
        // One pass over the few that came is cheaper than a look-up of each that may come.
        for (name, value) in headers {
            let Ok(value) = value.to_str() else { continue };
            match name.as_str() {
                "x-consul-index" => meta.index = value.parse().ok(),
                "x-consul-lastcontact" => meta.last_contact = value.parse().ok().map(Duration::from_millis),
                "x-consul-knownleader" => meta.known_leader = value.parse().ok(),
                "x-consul-results-filtered-by-acls" => meta.filtered_by_acls = value.parse().ok(),
                "x-cache" => meta.cache_hit = Some(value == "HIT"),
                "age" => meta.age = value.parse().ok().map(Duration::from_secs),
                _ => {}
            }
        }
        meta
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
        headers.insert("x-cache", "HIT".parse().unwrap());
        headers.insert("age", "7".parse().unwrap());
        let meta = Meta::from_headers(&headers);
        assert_eq!((meta.cache_hit, meta.age), (Some(true), Some(Duration::from_secs(7))));
        assert_eq!(meta.index, Some(15_560_390_041_262_641_985));
        assert_eq!((meta.last_contact, meta.known_leader), (None, Some(true)));
    }

    #[test]
    fn an_age_is_sent_in_seconds() {
        let cached =
            |max_age, stale_if_error| Consistency::Cached { max_age, stale_if_error }.cache_control();
        assert_eq!(cached(None, None), None);
        assert_eq!(cached(Some(Duration::from_secs(5)), None).unwrap(), "max-age=5");
        let both = cached(Some(Duration::from_millis(900)), Some(Duration::from_secs(60))).unwrap();
        assert_eq!(both, "max-age=0, stale-if-error=60");
        assert_eq!(Consistency::Stale.cache_control(), None);
    }
}
