//! One call of the engine's API, as data: built here without I/O, sent elsewhere.

use std::time::Duration;

use bytes::Bytes;
use http::Method;
use serde::Serialize;

use crate::error::{Error, Result};

/// Which engines may answer a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target {
    /// Any manager, for they all see the same swarm: the call moves on to the next one when that is safe.
    AnyManager,
    /// Any engine that answers.
    AnyEngine,
    /// The client's only engine, since the call acts on that machine.
    OneEngine,
}

/// One call of the engine's API.
#[derive(Clone)]
pub(crate) struct Request {
    pub(crate) method: Method,
    /// Path and query after the version, percent-encoded.
    path: String,
    pub(crate) body: Option<Bytes>,
    pub(crate) target: Target,
    /// What it does, for messages: `list services`.
    pub(crate) what: String,
    /// True if doing it twice is the same as doing it once, as with all reads.
    pub(crate) repeatable: bool,
    /// The engine may take this long, whatever the client's timeout.
    pub(crate) at_least: Duration,
    pub(crate) headers: Vec<(&'static str, String)>,
    /// True if a success is read piece by piece.
    pub(crate) stream: bool,
    /// So long the answer probably is.
    pub(crate) expected: usize,
}

impl Request {
    pub(crate) fn get(what: impl Into<String>, segments: &[&str]) -> Self {
        Self::new(Method::GET, what.into(), segments, true)
    }

    pub(crate) fn post(what: impl Into<String>, segments: &[&str]) -> Self {
        Self::new(Method::POST, what.into(), segments, false)
    }

    pub(crate) fn delete(what: impl Into<String>, segments: &[&str]) -> Self {
        Self::new(Method::DELETE, what.into(), segments, false)
    }

    fn new(method: Method, what: String, segments: &[&str], repeatable: bool) -> Self {
        let mut path = String::new();
        for segment in segments {
            path.push('/');
            encode(segment, &mut path);
        }
        Self {
            method,
            path,
            body: None,
            target: Target::AnyManager,
            what,
            repeatable,
            at_least: Duration::ZERO,
            headers: Vec::new(),
            stream: false,
            expected: 0,
        }
    }

    /// Takes a path whose middle has slashes of its own, as an image's name has.
    pub(crate) fn raw_path(mut self, before: &str, middle: &str, after: &str) -> Self {
        self.path.push_str(before);
        for (index, segment) in middle.split('/').enumerate() {
            if index > 0 {
                self.path.push('/');
            }
            // Not what would lead elsewhere.
            if segment == "." || segment == ".." {
                self.path.push_str("%2E");
            } else {
                encode(segment, &mut self.path);
            }
        }
        self.path.push_str(after);
        self
    }

    pub(crate) fn query(mut self, key: &str, value: &str) -> Self {
        self.path.push(if self.path.contains('?') { '&' } else { '?' });
        encode(key, &mut self.path);
        self.path.push('=');
        encode(value, &mut self.path);
        self
    }

    /// Adds the engine's filter parameter: all of the pairs must hold.
    pub(crate) fn filters(self, filters: &[(&str, &str)]) -> Self {
        if filters.is_empty() {
            return self;
        }
        let mut map = std::collections::BTreeMap::<&str, Vec<&str>>::new();
        for (key, value) in filters {
            map.entry(key).or_default().push(value);
        }
        self.query("filters", &serde_json::json!(map).to_string())
    }

    pub(crate) fn json(mut self, body: &impl Serialize) -> Result<Self> {
        let bytes = serde_json::to_vec(body).map_err(|error| Error::Invalid {
            what: self.what.clone(),
            problem: format!("the request cannot be written as JSON: {}", without_values(&error.to_string())),
        })?;
        self.body = Some(bytes.into());
        Ok(self)
    }

    pub(crate) fn target(mut self, target: Target) -> Self {
        self.target = target;
        self
    }

    pub(crate) fn repeatable(mut self, repeatable: bool) -> Self {
        self.repeatable = repeatable;
        self
    }

    pub(crate) fn at_least(mut self, timeout: Duration) -> Self {
        self.at_least = timeout;
        self
    }

    /// Adds a header. Its value is never logged.
    pub(crate) fn header(mut self, name: &'static str, value: String) -> Self {
        self.headers.push((name, value));
        self
    }

    /// Sets how long the answer probably is, so that room for it is made once.
    pub(crate) fn expected(mut self, bytes: usize) -> Self {
        self.expected = bytes;
        self
    }

    pub(crate) fn stream(mut self) -> Self {
        self.stream = true;
        self
    }

    /// The path as it is sent to an engine with this API version.
    pub(crate) fn path(&self, version: ApiVersion) -> String {
        format!("/v{}.{}{}", version.major, version.minor, self.path)
    }

    /// The path without version and query, for logs.
    pub(crate) fn bare_path(&self) -> &str {
        self.path.split('?').next().unwrap_or_default()
    }
}

/// A version of the engine's API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ApiVersion {
    pub(crate) major: u32,
    pub(crate) minor: u32,
}

impl ApiVersion {
    /// The newest that this crate was written against. A later engine is asked to speak this one.
    pub(crate) const MAX: Self = Self { major: 1, minor: 56 };
    /// The oldest that it works with: before it, engines drop limits and capabilities from a spec without a word.
    pub(crate) const MIN: Self = Self { major: 1, minor: 41 };

    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (major, minor) = text.trim().split_once('.')?;
        Some(Self { major: major.parse().ok()?, minor: minor.parse().ok()? })
    }
}

/// Cuts what stands in quotes out of a parser's message: it is a piece of the text that was parsed.
pub(crate) fn without_values(message: &str) -> String {
    let mut inside = false;
    let mut out = String::with_capacity(message.len());
    let mut escaped = false;
    for c in message.chars() {
        if inside && escaped {
            escaped = false;
        } else if inside && c == '\\' {
            escaped = true;
        } else if c == '"' {
            inside = !inside;
            out.push_str(if inside { "\"…" } else { "\"" });
        } else if !inside {
            out.push(c);
        }
    }
    out
}

/// Cuts join tokens and unlock keys out of an engine's words, and a final stop and what is too long off.
pub(crate) fn without_secrets(message: &str) -> String {
    let mut out = String::new();
    let mut rest = message.trim().trim_end_matches('.');
    while let Some(at) = SECRETS.iter().filter_map(|prefix| rest.find(prefix)).min() {
        out.push_str(&rest[..at]);
        out.push_str("(redacted)");
        let tail = &rest[at..];
        let end =
            tail.find(|c: char| !c.is_ascii_alphanumeric() && !"-+/=".contains(c)).unwrap_or(tail.len());
        rest = &tail[end..];
    }
    out.push_str(rest);
    if out.chars().count() > MAX_MESSAGE {
        out = out.chars().take(MAX_MESSAGE).chain(['…']).collect();
    }
    out
}

fn encode(text: &str, out: &mut String) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push('%');
            for half in [byte >> 4, byte & 15] {
                out.push(char::from_digit(u32::from(half), 16).unwrap_or('0').to_ascii_uppercase());
            }
        }
    }
}

const SECRETS: [&str; 2] = ["SWMTKN-", "SWMKEY-"];
const MAX_MESSAGE: usize = 1000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_become_queries_or_paths() {
        let request = Request::get("x", &["services", "a/../b?c=d e%ü"]).query("status", "true");
        let version = ApiVersion { major: 1, minor: 47 };
        assert_eq!(request.path(version), "/v1.47/services/a%2F..%2Fb%3Fc%3Dd%20e%25%C3%BC?status=true");
    }

    #[test]
    fn filters_are_json() {
        let request = Request::get("x", &["tasks"]).filters(&[
            ("service", "s"),
            ("_up-to-date", "true"),
            ("service", "t"),
        ]);
        let query = request.path(ApiVersion::MAX).split_once("filters=").unwrap().1.to_owned();
        assert_eq!(
            query,
            "%7B%22_up-to-date%22%3A%5B%22true%22%5D%2C%22service%22%3A%5B%22s%22%2C%22t%22%5D%7D"
        );
    }

    #[test]
    fn messages_lose_their_secrets() {
        assert_eq!(
            without_values(r#"invalid type: string "PW=a\"b", expected u64 at line 1 column 9"#),
            r#"invalid type: string "…", expected u64 at line 1 column 9"#
        );
        assert_eq!(
            without_secrets("bad SWMTKN-1-abc-def, SWMKEY-1-x/y+z= end"),
            "bad (redacted), (redacted) end"
        );
        assert_eq!(without_secrets(&"é".repeat(2000)).chars().count(), MAX_MESSAGE + 1);
    }

    #[test]
    fn versions_compare() {
        assert!(ApiVersion::parse("1.9").unwrap() < ApiVersion::parse("1.41").unwrap());
        for text in ["", "1", "a.b", "1.2.3"] {
            assert_eq!(ApiVersion::parse(text), None, "{text}");
        }
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]
        #[test]
        fn a_segment_stays_one_segment(name in ".{0,40}") {
            let path = Request::get("x", &["services", &name]).path(ApiVersion::MAX);
            proptest::prop_assert_eq!(path.matches('/').count(), 3);
            proptest::prop_assert!(path.is_ascii() && !path.contains(['?', '#', ' ']));
        }
    }
}
