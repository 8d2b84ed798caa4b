//! Names in paths: what may stand there, and how it is written. Pure.
//!
//! Consul answers `a//b`, `/a` and `a/../b` with a redirect, even when the slashes are escaped, and a client that follows it
//! writes another key and is told `true`. So such names are refused here, before anything is sent.

use crate::{Error, Result};

/// Checks `name` and escapes every byte but unreserved ones and `/`.
pub(crate) fn path(what: &'static str, name: &str) -> Result<String> {
    path_after("", what, name)
}

/// As [`path`], with what comes before it.
pub(crate) fn path_after(before: &str, what: &'static str, name: &str) -> Result<String> {
    check(what, name)?;
    if name.is_empty() {
        return Err(Error::invalid(what, name, "must not be empty"));
    }
    let mut out = String::with_capacity(before.len() + name.len());
    out.push_str(before);
    encode_into(&mut out, name, b"/");
    Ok(out)
}

/// As [`path`], and the empty name is allowed.
pub(crate) fn prefix(what: &'static str, name: &str) -> Result<String> {
    check(what, name)?;
    Ok(encode(name, b"/"))
}

fn check(what: &'static str, name: &str) -> Result<()> {
    if name.len() > MAX_NAME {
        return Err(Error::invalid(what, name, format!("{} bytes, the limit is {MAX_NAME}", name.len())));
    }
    if let Some(bad) = name.chars().find(|c| c.is_control()) {
        return Err(Error::invalid(what, name, format!("contains the control character {bad:?}")));
    }
    if name.starts_with('/') {
        return Err(Error::invalid(
            what,
            name,
            "starts with `/`; consul would redirect to another key, drop the slash",
        ));
    }
    if name.contains("//") {
        return Err(Error::invalid(what, name, "contains `//`; consul would redirect to another key"));
    }
    if name.split('/').any(|part| part == "." || part == "..") {
        return Err(Error::invalid(what, name, "has a part `.` or `..`; it would name another key"));
    }
    Ok(())
}

/// Whether a key can stand in a path as it is. Others exist: a transaction carries them in its body.
pub(crate) fn fits_a_path(key: &str) -> bool {
    !key.is_empty() && check("key", key).is_ok()
}

/// What a key may be at all.
pub(crate) fn check_key(what: &'static str, key: &str) -> Result<()> {
    match key.len() {
        0 => Err(Error::invalid(what, key, "must not be empty")),
        1..=MAX_NAME => Ok(()),
        length => Err(Error::invalid(what, key, format!("{length} bytes, the limit is {MAX_NAME}"))),
    }
}

/// Percent-encodes every byte that is neither unreserved (RFC 3986, 2.3) nor in `keep`.
pub(crate) fn encode(text: &str, keep: &[u8]) -> String {
    let mut out = String::with_capacity(text.len());
    encode_into(&mut out, text, keep);
    out
}

/// As [`encode`], at the end of `out`.
pub(crate) fn encode_into(out: &mut String, text: &str, keep: &[u8]) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let hex = |digit: u8| HEX.get(usize::from(digit)).copied().map_or('0', char::from);
    let stays = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) || keep.contains(&byte);
    if text.bytes().all(stays) {
        return out.push_str(text);
    }
    for byte in text.bytes() {
        if stays(byte) {
            out.push(char::from(byte));
        } else {
            out.push('%');
            out.push(hex(byte >> 4));
            out.push(hex(byte & 15));
        }
    }
}

/// Far beyond any sensible key and far below what Go's server accepts in a request line.
const MAX_NAME: usize = 8 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn keys_that_would_redirect_are_refused() {
        for key in ["", "/a", "a//b", "a/../b", "..", "a/.", "a\0b", "a\nb"] {
            let error = path("key", key).unwrap_err();
            assert!(matches!(error, Error::Invalid { .. }), "{key:?}: {error}");
        }
        assert_eq!(path("key", "a/b c?d#e%2e/").unwrap(), "a/b%20c%3Fd%23e%252e/");
        assert_eq!(prefix("prefix", "").unwrap(), "");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]
        #[test]
        fn what_is_accepted_reaches_the_url_unchanged(key in "[ -~äß€]{1,40}") {
            if let Ok(escaped) = path("key", &key) {
                let url: http::Uri = format!("/v1/kv/{escaped}").parse().unwrap();
                prop_assert_eq!(url.path(), format!("/v1/kv/{escaped}"));
                prop_assert!(url.query().is_none());
            }
        }
    }
}
