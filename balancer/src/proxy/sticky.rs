//! A cookie that keeps a client on its endpoint: opaque, authenticated, and soft.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use hmac::{Hmac, Mac};
use http::header::{self, HeaderMap, HeaderValue};
use sha2::Sha256;

use crate::endpoint::EndpointId;
use crate::snapshot::Snapshot;

/// Affinity by cookie.
///
/// The cookie's value is a keyed hash of the endpoint's id: it tells nothing, and nobody without the key can make one
/// that leads to an endpoint of his choice. Gateways that share the key agree. It is soft: an endpoint that drains, is
/// out, or has failed this request is left, and the cookie is set anew; sessions belong into a store.
#[derive(Clone, PartialEq, Eq)]
pub struct Sticky {
    cookie: String,
    key: Vec<u8>,
    secure: bool,
}

impl Sticky {
    /// With this cookie, and a key that all gateways share; 32 random bytes are best.
    pub fn new(cookie: impl Into<String>, key: impl Into<Vec<u8>>) -> Self {
        Self { cookie: cookie.into(), key: key.into(), secure: false }
    }

    /// With a key of this process alone: other gateways, and this one after a restart, don't know its cookies.
    pub fn with_own_key(cookie: impl Into<String>) -> Self {
        Self::new(cookie, rand::random::<[u8; 32]>())
    }

    /// Sets whether browsers send the cookie over TLS only.
    #[must_use]
    pub fn secure(mut self, secure: bool) -> Self {
        self.secure = secure;
        self
    }

    /// What is wrong with it, if anything is.
    pub(crate) fn problem(&self) -> Option<&'static str> {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        if self.cookie.is_empty() || !self.cookie.bytes().all(fits) {
            return Some("a cookie's name: letters, digits and signs such as - and _");
        }
        (self.key.len() < 16).then_some("a key of 16 bytes or more")
    }

    /// Half of the hash, in hexadecimal: 128 bits are not guessed.
    fn value(&self, id: &EndpointId) -> String {
        use std::fmt::Write;
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&self.key) else { return String::new() };
        mac.update(id.as_str().as_bytes());
        let mut text = String::with_capacity(32);
        for byte in mac.finalize().into_bytes().iter().take(16) {
            let _ = write!(text, "{byte:02x}");
        }
        text
    }
}

impl fmt::Debug for Sticky {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sticky")
            .field("cookie", &self.cookie)
            .field("key", &"[secret]")
            .finish_non_exhaustive()
    }
}

/// The cookies of the endpoints that are known.
#[derive(Debug)]
pub(crate) struct Homes {
    sticky: Sticky,
    known: RwLock<Arc<Known>>,
}

#[derive(Debug, Default)]
struct Known {
    by_value: HashMap<String, EndpointId>,
    by_id: HashMap<EndpointId, String>,
}

impl Homes {
    pub(crate) fn new(sticky: Sticky) -> Self {
        Self { sticky, known: RwLock::default() }
    }

    pub(crate) fn follow(&self, snapshot: &Snapshot) {
        let old = self.read();
        let mut known = Known::default();
        for (endpoint, ..) in snapshot.endpoints() {
            let id = endpoint.id.clone();
            let value = old.by_id.get(&id).cloned().unwrap_or_else(|| self.sticky.value(&id));
            known.by_value.insert(value.clone(), id.clone());
            known.by_id.insert(id, value);
        }
        *self.known.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(known);
    }

    /// The endpoint that a request's cookie leads to.
    pub(crate) fn find(&self, headers: &HeaderMap) -> Option<EndpointId> {
        let value = cookie(headers, &self.sticky.cookie)?;
        self.read().by_value.get(value).cloned()
    }

    /// The line that sets a cookie.
    pub(crate) fn line(&self, id: &EndpointId) -> Option<HeaderValue> {
        let known = self.read();
        let secure = if self.sticky.secure { "; Secure" } else { "" };
        let line = format!(
            "{}={}; Path=/; HttpOnly; SameSite=Lax{secure}",
            self.sticky.cookie,
            known.by_id.get(id)?
        );
        HeaderValue::from_str(&line).ok()
    }

    fn read(&self) -> Arc<Known> {
        Arc::clone(&self.known.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The value of a cookie of a request.
pub(crate) fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let lines = headers.get_all(header::COOKIE).iter().filter_map(|line| line.to_str().ok());
    let pairs = lines.flat_map(|line| line.split(';')).take(MOST_COOKIES);
    pairs.filter_map(|pair| pair.trim().split_once('=')).find(|(its, _)| *its == name).map(|(_, value)| value)
}

const MOST_COOKIES: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_is_found_only_when_it_is_ours() {
        let pool = crate::Pool::new(crate::Config::default(), 1).unwrap();
        let endpoints = (1..3).map(|n| crate::Endpoint::new(format!("web.{n}"), ([127, 0, 0, 1], n).into()));
        pool.apply(crate::Update::reset(endpoints), std::time::Duration::ZERO);
        let homes = Homes::new(Sticky::new("home", [7; 32]));
        homes.follow(&pool.snapshot());
        let line = homes.line(&"web.2".into()).unwrap();
        let line = line.to_str().unwrap();
        assert!(line.starts_with("home=") && line.ends_with("; Path=/; HttpOnly; SameSite=Lax"), "{line}");
        assert!(!line.contains("web.2"), "opaque");
        let value = &line[5..37];
        let find = |text: &str| {
            let headers = HeaderMap::from_iter([(header::COOKIE, HeaderValue::from_str(text).unwrap())]);
            homes.find(&headers)
        };
        assert_eq!(find(&format!("a=b; home={value}; c=d")), Some("web.2".into()));
        for forged in
            ["home=web.2", "home=", "home", &format!("nothome={value}"), &format!("home={}x", &value[..31])]
        {
            assert_eq!(find(forged), None, "{forged}");
        }
        let other = Homes::new(Sticky::new("home", [8; 32]));
        other.follow(&pool.snapshot());
        assert_ne!(other.line(&"web.2".into()), homes.line(&"web.2".into()), "another key, another cookie");
        assert!(!format!("{homes:?}").contains("7, 7"));
    }
}
