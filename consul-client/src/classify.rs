//! From an answer that is not 2xx to the error that tells the caller what to do. Pure.
//!
//! The texts were seen on Consul 1.8.7, or are those of the multiplexer between its servers (hashicorp/yamux, `const.go`). An
//! unknown 500 is not repeated, for most of them blame an argument, unless it says that a call between servers broke.

use crate::{Error, error::Answer};

/// The error for a status that is not a success.
pub(crate) fn classify(endpoint: String, write: bool, status: u16, text: &str) -> Error {
    let answer = Answer::new(endpoint, status, text, write);
    match status {
        401 | 403 => Error::Denied(answer),
        404 => Error::NotFound(answer),
        409 => Error::Conflict(answer),
        413 => Error::TooLarge(answer),
        429 => Error::Throttled(answer),
        500 => internal(answer),
        502..=504 => unknown(answer),
        300..=499 => Error::Rejected(answer),
        _ => Error::Server(answer),
    }
}

/// A 500 is sorted by its text, strongest sign first: an argument's name may occur in any of them.
fn internal(answer: Answer) -> Error {
    let text = answer.text.to_lowercase();
    let has = |signs: &[&str]| signs.iter().any(|sign| text.contains(sign));
    if has(DENIED) {
        Error::Denied(answer)
    } else if has(NOT_READY) {
        Error::NotReady(answer)
    } else if has(NOT_CARRIED_OUT) {
        Error::NoLeader(answer)
    } else if has(MAYBE_CARRIED_OUT) {
        unknown(answer)
    } else if has(CALLERS_FAULT) {
        Error::Rejected(answer)
    } else if has(BETWEEN_SERVERS) {
        unknown(answer)
    } else {
        Error::Server(answer)
    }
}

fn unknown(answer: Answer) -> Error {
    Error::unknown_outcome(answer.write, answer.endpoint, Some(answer.status), answer.text, None)
}

const DENIED: &[&str] = &[
    "permission denied",
    "acl not found",
    // What an auth method says of a signed token that it does not trust.
    "validated the token signature",
    "error validating claims",
    "error parsing token",
    "missing jwt",
];
/// A node that has just joined is registered first and its check after that; a session needs both.
const NOT_READY: &[&str] =
    &["missing node registration", "missing check 'serfhealth' registration", "not initialized yet"];
const NOT_CARRIED_OUT: &[&str] = &[
    "no cluster leader",
    "failed to get conn",
    "rpc error getting client",
    "not ready to serve consistent reads",
];
const MAYBE_CARRIED_OUT: &[&str] = &[
    "eof",
    "stream closed",
    "leadership lost",
    "leadership transfer",
    "not the leader",
    "connection reset",
    "broken pipe",
    "use of closed network connection",
    "i/o timeout",
    "i/o deadline reached",
    "session shutdown",
    "keepalive timeout",
    "connection write timeout",
];
/// The agent had a server to ask, and what it asked may have been done there. Whatever that server itself says of an argument
/// comes with the same words before it, so these are looked for last.
const BETWEEN_SERVERS: &[&str] = &["rpc error making call"];
const CALLERS_FAULT: &[&str] = &[
    "invalid",
    "unknown",
    "does not have associated",
    "missing",
    "must be",
    "no path to datacenter",
    "failed to create",
    "failed to parse",
    "parsing",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn put(status: u16, text: &str) -> Error {
        classify("PUT /v1/kv/a".into(), true, status, text)
    }

    #[test]
    fn a_500_is_sorted_by_its_text() {
        assert!(matches!(put(500, "No cluster leader"), Error::NoLeader(_)));
        assert!(matches!(
            put(500, "rpc error getting client: failed to get conn: dial tcp"),
            Error::NoLeader(_)
        ));
        assert!(matches!(put(500, "Missing node registration"), Error::NotReady(_)));
        assert!(matches!(put(500, "Missing check 'serfHealth' registration"), Error::NotReady(_)));
        assert!(matches!(put(500, "Missing check 'mine' registration"), Error::Rejected(_)));
        assert!(matches!(put(500, "autopilot config not initialized yet"), Error::NotReady(_)));
        for untrusted in [
            "no known key successfully validated the token signature",
            "error validating claims: square/go-jose/jwt: validation failed, token is expired (exp)",
            "error parsing token: square/go-jose: compact JWS format must have three parts",
            "missing jwt",
        ] {
            assert!(put(500, untrusted).is_denied(), "{untrusted}");
        }
        assert!(put(500, "rpc error making call: EOF").maybe_applied());
        assert!(put(500, "leadership lost while committing log").maybe_applied());
        assert!(matches!(put(500, "invalid session \"x\""), Error::Rejected(_)));
        assert!(matches!(put(500, "CheckID \"x\" does not have associated TTL"), Error::Rejected(_)));
        assert!(put(500, "rpc error making call: Permission denied").is_denied());
        assert!(!put(500, "something new").is_retryable());
    }

    #[test]
    fn a_call_that_broke_between_servers_is_repeated_where_that_does_no_harm() {
        for text in [
            "i/o deadline reached",
            "session shutdown",
            "keepalive timeout",
            "connection write timeout",
            "stream closed",
            "write tcp 10.0.0.1:1->10.0.0.2:8300: broken pipe",
            "rpc error making call: i/o deadline reached",
            "rpc error making call: rpc error making call: session shutdown",
            "rpc error making call: something that nobody has seen yet",
        ] {
            let (read, write) = (classify("GET /v1/x".into(), false, 500, text), put(500, text));
            assert!(matches!(read, Error::NoAnswer { .. }) && read.is_retryable(), "{text}: {read:?}");
            assert!(matches!(write, Error::Ambiguous { .. }) && write.maybe_applied(), "{text}: {write:?}");
        }
        for text in [
            "rpc error getting client: failed to get conn: dial tcp 10.0.0.1:0->10.0.0.2:8300: connect: refused",
            "rpc error getting client: session shutdown",
            "rpc error making call: rpc error getting client: keepalive timeout",
            "rpc error making call: No cluster leader",
        ] {
            let write = put(500, text);
            assert!(matches!(write, Error::NoLeader(_)) && write.is_retryable(), "{text}: {write:?}");
            assert!(!write.maybe_applied(), "{text}");
        }
        for text in
            ["rpc error making call: invalid session", "rpc error making call: Must be a leaf: unknown key"]
        {
            assert!(matches!(put(500, text), Error::Rejected(_)), "{text}");
        }
        assert!(put(500, "rpc error making call: ACL not found").is_denied());
    }

    #[test]
    fn a_status_of_its_own_decides_alone() {
        assert!(put(403, "ACL not found").is_denied());
        assert!(put(404, "").is_not_found());
        assert!(put(409, "{}").is_conflict());
        assert!(matches!(put(413, ""), Error::TooLarge(_)));
        assert!(put(429, "").is_retryable() && !put(429, "").maybe_applied());
        assert!(matches!(put(301, ""), Error::Rejected(_)));
        assert!(put(503, "").maybe_applied());
    }

    #[test]
    fn a_read_is_never_ambiguous() {
        let error = classify("GET /v1/kv/a".into(), false, 500, "EOF");
        assert!(error.is_retryable() && !error.maybe_applied() && error.status() == Some(500));
    }
}
