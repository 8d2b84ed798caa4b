//! A call as data: built by pure functions, sent by `transport.rs`, decoded by pure functions.

use std::{fmt, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Method};
use serde::{Serialize, de::DeserializeOwned};

use crate::{Consistency, Error, Meta, Response, Result, escape};

/// One request, without address and token.
#[derive(Clone)]
pub(crate) struct Request {
    pub(crate) method: Method,
    /// Escaped, from `/v1/` on.
    pub(crate) path: String,
    /// Stands in messages instead of a path that holds a session id.
    shown: Option<&'static str>,
    /// A name alone is a presence flag: Consul takes even `?recurse=false` for true.
    query: Vec<(String, Option<String>)>,
    pub(crate) body: Option<Bytes>,
    /// How fresh, when it says so itself.
    pub(crate) consistency: Option<Consistency>,
    /// Another token than the client's; marked sensitive.
    pub(crate) token: Option<HeaderValue>,
    /// Whether a second sending does no harm.
    pub(crate) repeatable: bool,
    /// A 404 with an index is data ("no such key").
    pub(crate) absent_ok: bool,
    /// Other statuses that are data: 409 for a refused transaction, 429 and 503 for what ails.
    pub(crate) also_ok: &'static [u16],
    /// Whether the server may hold it, so that it belongs to the pool of such calls.
    pub(crate) blocking: bool,
    /// Whether it comes between such calls of a watch: it goes over their connection where that is free.
    pub(crate) beside_blocking: bool,
    /// One attempt within this limit: the caller repeats by rules of its own.
    pub(crate) once: Option<Duration>,
    /// Another limit than the client's for all attempts together.
    pub(crate) deadline: Option<Duration>,
}

impl Request {
    pub(crate) fn get(path: impl Into<String>) -> Self {
        Self::new(Method::GET, path).repeatable()
    }

    pub(crate) fn put(path: impl Into<String>) -> Self {
        Self::new(Method::PUT, path)
    }

    pub(crate) fn delete(path: impl Into<String>) -> Self {
        Self::new(Method::DELETE, path)
    }

    pub(crate) fn new(method: Method, path: impl Into<String>) -> Self {
        Self {
            method,
            path: path.into(),
            shown: None,
            query: Vec::new(),
            body: None,
            consistency: None,
            token: None,
            repeatable: false,
            absent_ok: false,
            also_ok: &[],
            blocking: false,
            beside_blocking: false,
            once: None,
            deadline: None,
        }
    }

    pub(crate) fn repeatable(mut self) -> Self {
        self.repeatable = true;
        self
    }

    pub(crate) fn absent_ok(mut self) -> Self {
        self.absent_ok = true;
        self
    }

    pub(crate) fn also_ok(mut self, statuses: &'static [u16]) -> Self {
        self.also_ok = statuses;
        self
    }

    pub(crate) fn shown_as(mut self, path: &'static str) -> Self {
        self.shown = Some(path);
        self
    }

    pub(crate) fn within(mut self, deadline: Duration) -> Self {
        self.deadline = Some(deadline);
        self
    }

    pub(crate) fn once(mut self, limit: Duration) -> Self {
        self.once = Some(limit);
        self
    }

    pub(crate) fn flag(mut self, name: &str) -> Self {
        self.query.push((name.to_owned(), None));
        self
    }

    pub(crate) fn param(mut self, name: &str, value: impl fmt::Display) -> Self {
        self.query.push((name.to_owned(), Some(value.to_string())));
        self
    }

    /// A parameter that is only sent when there is a value.
    pub(crate) fn maybe(self, name: &str, value: Option<impl fmt::Display>) -> Self {
        match value {
            Some(value) => self.param(name, value),
            None => self,
        }
    }

    pub(crate) fn has_param(&self, name: &str) -> bool {
        self.query.iter().any(|(other, _)| other == name)
    }

    pub(crate) fn consistency(mut self, consistency: Consistency) -> Self {
        self.consistency = Some(consistency);
        self
    }

    /// Makes it a blocking query by content: answer when it no longer has this hash, or after `wait`.
    pub(crate) fn blocking_hash(mut self, hash: &str, wait: Duration) -> Self {
        let wait = wait.clamp(Duration::from_millis(1), MAX_WAIT);
        self.once = Some(wait + wait / 16 + BLOCKING_GRACE);
        self.blocking = true;
        self.param("hash", hash).param("wait", millis(wait))
    }

    /// Makes it a blocking query: answer when the index passes `index`, or after `wait`.
    pub(crate) fn blocking(mut self, index: u64, wait: Duration) -> Self {
        // `wait=0s` would mean Consul's default of five minutes.
        let wait = wait.clamp(Duration::from_millis(1), MAX_WAIT);
        // The server adds up to a sixteenth of its own.
        self.once = Some(wait + wait / 16 + BLOCKING_GRACE);
        self.blocking = true;
        self.param("index", index).param("wait", millis(wait))
    }

    pub(crate) fn beside_blocking(mut self) -> Self {
        self.beside_blocking = true;
        self
    }

    pub(crate) fn bytes(mut self, body: Bytes) -> Self {
        self.body = Some(body);
        self
    }

    pub(crate) fn json<T: Serialize + ?Sized>(self, body: &T) -> Result<Self> {
        match serde_json::to_vec(body) {
            Ok(bytes) => Ok(self.bytes(bytes.into())),
            Err(error) => Err(Error::invalid("body", "", format!("cannot be written as JSON: {error}"))),
        }
    }

    pub(crate) fn is_write(&self) -> bool {
        self.method != Method::GET && self.method != Method::HEAD
    }

    /// Method and path for messages: no query, which can hold values, and no session id.
    pub(crate) fn endpoint(&self) -> String {
        format!("{} {}", self.method, self.shown.unwrap_or(&self.path))
    }

    /// The query, escaped; `None` without one.
    pub(crate) fn query(&self) -> Option<String> {
        let flag = self.consistency.and_then(Consistency::flag);
        if self.query.is_empty() && flag.is_none() {
            return None;
        }
        let mut query = String::new();
        let own = self.query.iter().map(|(name, value)| (name.as_str(), value.as_deref()));
        for (name, value) in own.chain(flag.map(|flag| (flag, None))) {
            if !query.is_empty() {
                query.push('&');
            }
            escape::encode_into(&mut query, name, b"");
            if let Some(value) = value {
                query.push('=');
                escape::encode_into(&mut query, value, b"/");
            }
        }
        Some(query)
    }

    /// Path and query, escaped.
    #[cfg(test)]
    pub(crate) fn target(&self) -> String {
        self.query().map_or_else(|| self.path.clone(), |query| format!("{}?{query}", self.path))
    }

    /// Reads an answer that Consul means to be there.
    pub(crate) fn decode<T: DeserializeOwned>(&self, raw: &Raw) -> Result<Response<T>> {
        self.parse(raw).map(|value| Response::new(value, raw.meta))
    }

    /// Reads an answer whose absence (404 with an index) is data.
    pub(crate) fn decode_optional<T: DeserializeOwned>(&self, raw: &Raw) -> Result<Response<Option<T>>> {
        if raw.status == 404 {
            return Ok(Response::new(None, raw.meta));
        }
        self.parse(raw).map(|value| Response::new(Some(value), raw.meta))
    }

    fn parse<T: DeserializeOwned>(&self, raw: &Raw) -> Result<T> {
        serde_json::from_slice(&raw.body).map_err(|error| {
            let kind = match error.classify() {
                serde_json::error::Category::Eof => "ends too early",
                serde_json::error::Category::Data => "is JSON of another shape",
                _ => "is not JSON",
            };
            let html =
                if raw.body.trim_ascii_start().starts_with(b"<") { " (it looks like HTML)" } else { "" };
            let reason = format!(
                "the body of {} bytes {kind} at line {} column {}{html}",
                raw.body.len(),
                error.line(),
                error.column()
            );
            Error::Decode { endpoint: self.endpoint(), reason, write: self.is_write() }
        })
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.endpoint())
    }
}

/// An answer as it came, within the size limit.
#[derive(Clone)]
pub(crate) struct Raw {
    pub(crate) status: u16,
    pub(crate) meta: Meta,
    pub(crate) body: Bytes,
    /// `X-Consul-ContentHash`, where answers are told apart by content.
    pub(crate) hash: Option<String>,
}

impl Raw {
    #[cfg(test)]
    pub(crate) fn of(status: u16, body: impl Into<Bytes>) -> Self {
        Self { status, meta: Meta::default(), body: body.into(), hash: None }
    }
}

/// A duration as Consul reads it, in milliseconds; never rounded to zero.
pub(crate) fn millis(duration: Duration) -> String {
    format!("{}ms", duration.as_millis().max(u128::from(!duration.is_zero())))
}

/// On top of the wait and its jitter: the way there and back, and a busy server.
const BLOCKING_GRACE: Duration = Duration::from_secs(3);
/// The server's own limit.
const MAX_WAIT: Duration = Duration::from_secs(600);

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(status: u16, body: &'static str) -> Raw {
        Raw::of(status, body)
    }

    #[test]
    fn flags_stand_alone_and_values_are_escaped() {
        let request = Request::get("/v1/kv/a")
            .flag("recurse")
            .param("filter", "a == \"b&c\"")
            .consistency(Consistency::Stale);
        assert_eq!(request.target(), "/v1/kv/a?recurse&filter=a%20%3D%3D%20%22b%26c%22&stale");
        assert_eq!(Request::get("/v1/x").consistency(Consistency::Leader).target(), "/v1/x");
    }

    #[test]
    fn a_wait_is_never_zero() {
        assert!(Request::get("/").blocking(7, Duration::ZERO).target().ends_with("?index=7&wait=1ms"));
        assert!(Request::get("/").blocking(7, Duration::MAX).target().ends_with("wait=600000ms"));
        assert_eq!((millis(Duration::from_nanos(1)), millis(Duration::ZERO)), ("1ms".into(), "0ms".into()));
    }

    #[test]
    fn garbage_is_an_error_that_quotes_no_data() {
        let get = Request::get("/v1/kv/a").absent_ok();
        for (body, sign) in [
            ("<html>secret", "HTML"),
            ("[1,", "too early"),
            ("[\"secret\"]", "another shape"),
            ("null", "another shape"),
        ] {
            let error = get.decode::<Vec<u64>>(&raw(200, body)).unwrap_err().to_string();
            assert!(error.contains(sign) && !error.contains("secret"), "{error}");
        }
        assert_eq!(get.decode_optional::<Vec<u64>>(&raw(404, "")).unwrap().value, None);
    }
}
