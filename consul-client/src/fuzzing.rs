//! Entries for fuzzing: whatever comes in, nothing panics, and what is accepted arrives as it stands. Not part of the public API.

use bytes::Bytes;
use serde::de::DeserializeOwned;

use crate::{
    Meta,
    address::Address,
    classify::classify,
    environment::go_duration,
    error::without_ids,
    escape, kv,
    request::{Raw, Request},
    txn,
};

/// An answer of any status with any body, as every decoder sees it.
pub fn answers(data: &[u8]) {
    let (status, body) = match data {
        [first, rest @ ..] => (200 + u16::from(*first) * 2, rest),
        [] => (200, data),
    };
    let raw = Raw { status, meta: Meta::default(), body: Bytes::copy_from_slice(body), hash: None };
    let request = Request::get("/v1/x").absent_ok().also_ok(&[409]);
    fn each<T: DeserializeOwned>(request: &Request, raw: &Raw) {
        let _ = request.decode::<T>(raw);
        let _ = request.decode_optional::<Vec<T>>(raw);
    }
    let _ = (kv::decode_pairs(&request, &raw), txn::decode(&request, &raw));
    each::<crate::ServiceEntry>(&request, &raw);
    each::<crate::CatalogService>(&request, &raw);
    each::<crate::NodeServices>(&request, &raw);
    each::<crate::HealthCheck>(&request, &raw);
    each::<crate::LocalHealth>(&request, &raw);
    each::<crate::Session>(&request, &raw);
    each::<crate::Event>(&request, &raw);
    each::<crate::PreparedQuery>(&request, &raw);
    each::<crate::Executed>(&request, &raw);
    each::<crate::Token>(&request, &raw);
    each::<crate::Policy>(&request, &raw);
    each::<crate::Role>(&request, &raw);
    each::<crate::AuthMethod>(&request, &raw);
    each::<crate::ConfigEntry>(&request, &raw);
    each::<crate::Intention>(&request, &raw);
    each::<crate::DiscoveryChain>(&request, &raw);
    each::<crate::CaRoots>(&request, &raw);
    each::<crate::Leaf>(&request, &raw);
    each::<crate::NodeCoordinate>(&request, &raw);
    each::<crate::AutopilotConfig>(&request, &raw);
    each::<crate::AutopilotHealth>(&request, &raw);
    each::<crate::Keyring>(&request, &raw);
    each::<crate::Metrics>(&request, &raw);
    each::<crate::Member>(&request, &raw);
    let text = String::from_utf8_lossy(body);
    let error = classify("PUT /v1/x".to_owned(), true, status, &text);
    let _ = (error.to_string(), error.is_retryable(), error.maybe_applied(), without_ids(&text));
}

/// An address; what is accepted has a host, and a request's path goes behind its own.
pub fn address(text: &str) {
    for secure in [false, true] {
        if let Ok(address) = Address::parse("address", text, secure) {
            let target = address.target("/v1/x", None);
            assert!(target.is_ok_and(|at| at.path().ends_with("/v1/x") && at.query().is_none()), "{text:?}");
            assert!(
                address.root().host().is_some_and(|host| !host.is_empty()) && address.host_header().is_ok(),
                "{text:?}"
            );
        }
    }
}

/// As it is sent, and as the HTTP library then reads it.
fn target(path: &str, query: Option<&str>) -> http::Uri {
    let Ok(address) = Address::parse("address", "h:1", false) else { panic!("a good address") };
    let Ok(target) = address.target(path, query) else { panic!("{path} {query:?}") };
    assert_eq!(target.to_string().parse().ok().as_ref(), Some(&target), "{path}");
    target
}

/// A key; what goes into a path reaches the server as it stands.
pub fn key(text: &str) {
    if let Ok(escaped) = escape::path("key", text) {
        let path = format!("/v1/kv/{escaped}");
        let target = target(&path, None);
        assert!(target.path() == path && target.query().is_none(), "{text:?}");
    }
    // What exceeds a first line is refused, not cut.
    if text.len() < 16 * 1024 {
        let target = target("/v1/x", Request::get("/v1/x").param("filter", text).query().as_deref());
        let back = target.query().and_then(|query| query.strip_prefix("filter=")).map(unescaped);
        assert_eq!((target.path(), back.as_deref()), ("/v1/x", Some(text.as_bytes())));
    }
    let _ = go_duration(text);
}

/// As a server reads it.
fn unescaped(text: &str) -> Vec<u8> {
    let (mut out, mut bytes) = (Vec::new(), text.bytes());
    let digit = |bytes: &mut std::str::Bytes<'_>| bytes.next().and_then(|byte| char::from(byte).to_digit(16));
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'%' => match (digit(&mut bytes), digit(&mut bytes)) {
                (Some(high), Some(low)) => u8::try_from(high * 16 + low).unwrap_or_default(),
                _ => panic!("half an escape in {text:?}"),
            },
            byte => byte,
        });
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]
        #[test]
        fn no_answer_is_too_odd(data: Vec<u8>) {
            super::answers(&data);
        }

        #[test]
        fn no_json_is_too_odd(status: u8, json in r#"(\[|\{|"[A-Z][a-zA-Z]{1,12}":|"[a-z0-9=/]{0,8}"|-?[0-9]{1,22}(\.[0-9]{1,3})?|null|true|,|\]|\}){0,24}"#) {
            super::answers(&[&[status][..], json.as_bytes()].concat());
        }

        #[test]
        fn no_address_is_too_odd(text: String) {
            super::address(&text);
        }

        #[test]
        fn no_key_is_too_odd(text: String) {
            super::key(&text);
        }
    }
}
