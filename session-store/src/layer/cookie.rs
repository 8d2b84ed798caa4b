//! The cookie that carries the id (RFC 6265bis; OWASP ASVS 5.0, V3.3).

use crate::id::SessionId;
use http::{HeaderMap, HeaderValue, header::COOKIE};
use std::borrow::Cow;

/// The session cookie. It ends with the browser's session; `HttpOnly` and `Path=/` always, never a `Domain`.
///
/// ```
/// use session_store::{CookieConfig, layer::{CookieName, SameSite}};
///
/// let cookie = CookieConfig::default().named(CookieName::new("shop")?).same_site(SameSite::Strict);
/// assert_eq!(cookie.name(), "__Host-shop");
/// # Ok::<_, session_store::layer::CookieNameError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CookieConfig {
    name: Cow<'static, str>,
    secure: bool,
    same_site: SameSite,
}

/// Which requests that another site causes bring the cookie along.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum SameSite {
    /// Links from other sites, but no forms and no frames of theirs.
    #[default]
    Lax,
    /// None at all: who follows a link to this site is not logged in on the first page.
    Strict,
    /// All: for a site that is shown inside others. It needs a defence of its own against forged requests, and `Secure`.
    None,
}

/// A name for the cookie, without a prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CookieName(Cow<'static, str>);

impl CookieName {
    /// Takes letters, digits, `-` and `_`, at most 64.
    ///
    /// # Errors
    /// For anything else.
    pub fn new(name: impl Into<Cow<'static, str>>) -> Result<Self, CookieNameError> {
        let name = name.into();
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        if name.is_empty() || name.len() > MAX_NAME || !name.bytes().all(allowed) || name.starts_with("__") {
            return Err(CookieNameError(name));
        }
        Ok(Self(name))
    }
}

/// What cannot be a cookie's name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} cannot be a cookie's name: take letters, digits, - and _, at most 64 of them, not beginning with __ (the prefix __Host- comes by itself)"
)]
pub struct CookieNameError(Cow<'static, str>);

impl CookieConfig {
    /// For demonstrations over plain HTTP: `id`, without `Secure`. Anyone on the way can read it.
    #[must_use]
    pub const fn insecure_local() -> Self {
        Self { name: Cow::Borrowed("id"), secure: false, same_site: SameSite::Lax }
    }

    /// Another name, for a host that serves several applications. A secure cookie keeps its prefix `__Host-`: browsers accept it from HTTPS only and let
    /// no other host or path set it.
    #[must_use]
    pub fn named(mut self, name: CookieName) -> Self {
        self.name = if self.secure { format!("__Host-{}", name.0).into() } else { name.0 };
        self
    }

    /// Which requests that another site causes bring the cookie along; [`SameSite::Lax`] by default.
    #[must_use]
    pub const fn same_site(mut self, same_site: SameSite) -> Self {
        self.same_site = same_site;
        self
    }

    /// The cookie's name, with its prefix.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The id in a request's headers. Several different values under one name are no session: one of them was planted.
    #[must_use]
    pub fn read(&self, headers: &HeaderMap) -> Option<SessionId> {
        let mut found: Option<&str> = None;
        for header in headers.get_all(COOKIE) {
            // A header with other bytes than visible ASCII may still hold our cookie beside a foreign one.
            for pair in header.as_bytes().split(|byte| *byte == b';') {
                let Ok(pair) = std::str::from_utf8(pair) else { continue };
                match pair.trim().split_once('=') {
                    Some((name, value)) if name == self.name => match found {
                        Some(before) if before != value => return None,
                        _ => found = Some(value),
                    },
                    _ => {}
                }
            }
        }
        SessionId::parse(found?)
    }

    pub(crate) fn set(&self, id: &SessionId) -> Option<HeaderValue> {
        self.header(&id.to_cookie_value(), "")
    }

    pub(crate) fn clear(&self) -> Option<HeaderValue> {
        self.header("", "; Max-Age=0")
    }

    fn header(&self, value: &str, more: &str) -> Option<HeaderValue> {
        let secure = if self.secure { "; Secure" } else { "" };
        let same_site = match self.same_site {
            SameSite::Lax => "Lax",
            SameSite::Strict => "Strict",
            SameSite::None => "None",
        };
        let text = format!("{}={value}{secure}; HttpOnly; SameSite={same_site}; Path=/{more}", self.name);
        let mut header = HeaderValue::try_from(text).ok()?;
        header.set_sensitive(true);
        Some(header)
    }
}

impl Default for CookieConfig {
    /// `__Host-id; Secure`: browsers accept it from HTTPS only and let no other host or path set it.
    fn default() -> Self {
        Self { name: Cow::Borrowed("__Host-id"), secure: true, same_site: SameSite::Lax }
    }
}

const MAX_NAME: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(values: &[&[u8]]) -> Option<SessionId> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(COOKIE, HeaderValue::from_bytes(value).unwrap());
        }
        CookieConfig::insecure_local().read(&headers)
    }

    #[test]
    fn one_cookie_among_others_is_found_and_two_are_refused() {
        let (a, b) = (SessionId::random(), SessionId::random());
        let one = format!("theme=\u{e4}; id={}; x=y", a.to_cookie_value());
        assert_eq!(read(&[one.as_bytes()]), Some(a.clone()));
        assert_eq!(read(&[one.as_bytes(), one.as_bytes()]), Some(a));
        let other = format!("id={}", b.to_cookie_value());
        assert_eq!(read(&[one.as_bytes(), other.as_bytes()]), None);
    }

    #[test]
    fn long_cookies_cost_nothing_and_ours_is_short() {
        let long = format!("id={}", "A".repeat(1 << 20));
        assert_eq!(read(&[long.as_bytes()]), None);
        let ours = CookieConfig::default().set(&SessionId::random()).unwrap();
        assert!(ours.len() < 128, "browsers take 4096 bytes");
    }

    #[test]
    fn the_default_is_bound_to_its_host() {
        let id = SessionId::random();
        let header = CookieConfig::default().set(&id).unwrap();
        let text = header.to_str().unwrap();
        assert!(
            text.starts_with("__Host-id=") && text.ends_with("; Secure; HttpOnly; SameSite=Lax; Path=/"),
            "{text}"
        );
        assert!(header.is_sensitive());
    }

    #[test]
    fn a_name_keeps_its_prefix_and_cannot_carry_more() {
        let id = SessionId::random();
        let name = || CookieName::new("shop").unwrap();
        let secure = CookieConfig::default().named(name()).same_site(SameSite::Strict);
        let text = secure.set(&id).unwrap().to_str().unwrap().to_owned();
        assert!(
            text.starts_with("__Host-shop=") && text.contains("; Secure; HttpOnly; SameSite=Strict;"),
            "{text}"
        );
        let mut headers = HeaderMap::new();
        headers.append(COOKIE, format!("__Host-shop={}", id.to_cookie_value()).parse().unwrap());
        assert_eq!((secure.read(&headers), CookieConfig::default().read(&headers)), (Some(id), None));
        assert_eq!(CookieConfig::insecure_local().named(name()).name(), "shop");
        let long = "x".repeat(65);
        for bad in ["", "a=b", "a;b", "a b", "__Host-id", "__Secure-x", "\u{e4}", "a\n", long.as_str()] {
            let error = CookieName::new(bad.to_owned()).unwrap_err().to_string();
            assert!(error.contains("letters"), "{bad:?}: {error}");
        }
    }

    proptest! {
        /// Any bytes that HTTP lets through, over several headers, of any length: no panic, and no id that is not spelled out under the name.
        #[test]
        fn any_headers_are_read_without_panic(
            mut headers in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..4),
            ours in prop::collection::vec("(__Host-)?[iI][dD]?=?[A-Za-z0-9_=-]{0,50};? ?", 0..4),
        ) {
            for (header, text) in headers.iter_mut().zip(ours) {
                header.extend_from_slice(text.as_bytes());
            }
            let allowed = |byte: &u8| *byte == b'\t' || (*byte >= 32 && *byte != 127);
            headers.iter_mut().for_each(|header| header.retain(allowed));
            let headers: Vec<&[u8]> = headers.iter().map(Vec::as_slice).collect();
            if let Some(id) = read(&headers) {
                let spelled = format!("id={}", id.to_cookie_value());
                let found = |header: &&[u8]| header.windows(spelled.len()).any(|window| window == spelled.as_bytes());
                prop_assert!(headers.iter().any(found));
            }
        }

        /// What stands around our cookie does not hide it, and a second one of another value ends it.
        #[test]
        fn our_cookie_is_found_wherever_it_stands(
            others in prop::collection::vec("[a-z]{3,8}=[ -:<-~]{0,30}", 0..6), place in 0_usize..6, twice in any::<bool>(),
        ) {
            let id = SessionId::random();
            let mut pairs = others;
            pairs.insert(place.min(pairs.len()), format!("id={}", id.to_cookie_value()));
            if twice {
                pairs.push(format!("id={}", SessionId::random().to_cookie_value()));
            }
            prop_assert_eq!(read(&[pairs.join("; ").as_bytes()]), (!twice).then_some(id));
        }
    }
}
