//! Who may read, and who may change.
//!
//! Reading is for everybody who reaches the address. A change needs a token, sent as `Authorization: Bearer`: a header
//! that no browser adds by itself, so that a page of somebody else can't change anything on behalf of a person who has
//! the dashboard open. On a loopback address the `Host` header must be one of loopback too, or a name that somebody
//! else points at 127.0.0.1 would make their page part of ours.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Result, ensure};
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};

use crate::settings::Secret;

/// Who may change something at an address.
#[derive(Clone, Debug)]
pub struct Guard {
    loopback: bool,
    token: Option<Secret>,
}

/// Why a change is refused.
pub type Refused = (StatusCode, String);

impl Guard {
    /// The guard of a page at `address`.
    ///
    /// # Errors
    /// When the token is so short that it can be guessed.
    pub fn new(address: SocketAddr, token: Option<&Secret>) -> Result<Self> {
        let token = token.filter(|token| !token.expose().trim().is_empty());
        if let Some(token) = token {
            let length = token.expose().trim().len();
            ensure!(
                length >= TOKEN_LENGTH,
                "--token (HA_STACK_TOKEN) has {length} characters; give at least {TOKEN_LENGTH}, for example by \
                 `openssl rand -hex 16`"
            );
        }
        Ok(Self { loopback: address.ip().is_loopback(), token: token.cloned() })
    }

    /// The guard of a page that changes nothing.
    pub fn reading(address: SocketAddr) -> Self {
        Self { loopback: address.ip().is_loopback(), token: None }
    }

    /// Whether anybody may change anything by the page.
    pub fn has_token(&self) -> bool {
        self.token.is_some()
    }

    /// Whether only this machine reaches the address.
    pub fn is_loopback(&self) -> bool {
        self.loopback
    }

    /// Allows a change by the page.
    ///
    /// # Errors
    /// 403 without a token of ours or from another origin, 401 with a wrong token.
    pub fn change(&self, headers: &HeaderMap) -> Result<(), Refused> {
        let forbidden = |why: &str| Err((StatusCode::FORBIDDEN, why.to_owned()));
        let Some(token) = &self.token else {
            return forbidden(
                "read only here: `ha-stack up` and `ha-stack dashboard` take --token (HA_STACK_TOKEN), with which the page changes things",
            );
        };
        if !same_origin(headers) {
            return forbidden("this request comes from another page");
        }
        let sent = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let sent = sent.and_then(|value| value.strip_prefix("Bearer ")).map(str::trim);
        match sent {
            Some(sent) if same(sent, token.expose().trim()) => Ok(()),
            Some(_) => Err((StatusCode::UNAUTHORIZED, "this is not the token".into())),
            None => Err((StatusCode::UNAUTHORIZED, "the token is missing".into())),
        }
    }

    /// Allows a change by the command line of this machine.
    ///
    /// # Errors
    /// As [`Guard::change`] where a token is set or others reach the address; 403 without the command's own header.
    pub fn command(&self, headers: &HeaderMap) -> Result<(), Refused> {
        if self.has_token() || !self.loopback {
            return self.change(headers);
        }
        // A page in a browser can't set this header on a request to another origin without asking first.
        if headers.contains_key(COMMAND_HEADER) && same_origin(headers) {
            Ok(())
        } else {
            Err((StatusCode::FORBIDDEN, format!("the header {COMMAND_HEADER} is missing")))
        }
    }

    fn reads(&self, headers: &HeaderMap) -> bool {
        !self.loopback || headers.get(header::HOST).is_some_and(is_loopback_host)
    }
}

/// Refuses names that were pointed here, and says to browsers what the page may do: nothing but talk to its own
/// origin.
pub async fn protect(guard: Guard, request: Request, next: Next) -> Response {
    let mut response = if guard.reads(request.headers()) {
        next.run(request).await
    } else {
        let why = "this address is for this machine: ask for it as 127.0.0.1 or localhost\n";
        (StatusCode::MISDIRECTED_REQUEST, why).into_response()
    };
    for (name, value) in HEADERS {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

/// False when a browser says that another site's page sent it.
fn same_origin(headers: &HeaderMap) -> bool {
    let site = headers.get("sec-fetch-site").is_none_or(|site| site == "same-origin" || site == "none");
    let origin = headers.get(header::ORIGIN).is_none_or(|origin| {
        let host = headers.get(header::HOST).map(HeaderValue::as_bytes);
        let of = |scheme: &[u8]| origin.as_bytes().strip_prefix(scheme);
        host.is_some() && (of(b"http://") == host || of(b"https://") == host)
    });
    site && origin
}

fn is_loopback_host(host: &HeaderValue) -> bool {
    let Ok(host) = host.to_str() else { return false };
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let name = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Compares digests, so that the time it takes says nothing of the token.
fn same(sent: &str, token: &str) -> bool {
    Sha256::digest(sent.as_bytes()) == Sha256::digest(token.as_bytes())
}

/// The header that the command line sends with each change.
pub const COMMAND_HEADER: &str = "x-ha-stack";
const TOKEN_LENGTH: usize = 16;
const HEADERS: [(&str, &str); 5] = [
    (
        "content-security-policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-resource-policy", "same-origin"),
    ("cache-control", "no-store"),
];

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "0123456789abcdef";

    fn guard(address: &str, token: Option<&str>) -> Guard {
        Guard::new(address.parse().unwrap(), token.map(Secret::from).as_ref()).unwrap()
    }

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    fn refused(answer: Result<(), Refused>) -> u16 {
        answer.map_or_else(|(status, _)| status.as_u16(), |()| 200)
    }

    #[test]
    fn without_a_token_nothing_changes_but_by_the_command_line_of_this_machine() {
        let (here, everywhere) = (guard("127.0.0.1:1", None), guard("0.0.0.0:1", None));
        let command = headers(&[("x-ha-stack", "1"), ("host", "127.0.0.1:1")]);
        assert_eq!(refused(here.change(&command)), 403);
        assert_eq!(refused(here.command(&command)), 200);
        assert_eq!(refused(here.command(&HeaderMap::new())), 403);
        assert_eq!(refused(everywhere.command(&command)), 403);
    }

    #[test]
    fn a_token_is_asked_of_everybody() {
        let guard = guard("127.0.0.1:1", Some(TOKEN));
        let right = headers(&[("authorization", &format!("Bearer {TOKEN}"))]);
        assert_eq!(refused(guard.change(&right)), 200);
        assert_eq!(refused(guard.command(&right)), 200);
        assert_eq!(refused(guard.command(&headers(&[("x-ha-stack", "1")]))), 401);
        assert_eq!(refused(guard.change(&headers(&[("authorization", "Bearer 0123456789abcdeF")]))), 401);
        assert_eq!(refused(guard.change(&headers(&[("authorization", TOKEN)]))), 401);
    }

    #[test]
    fn another_page_changes_nothing_even_with_the_token() {
        let guard = guard("127.0.0.1:1", Some(TOKEN));
        let bearer = format!("Bearer {TOKEN}");
        let from = |name, value| {
            refused(guard.change(&headers(&[("authorization", &bearer), ("host", "h:1"), (name, value)])))
        };
        assert_eq!(from("origin", "http://h:1"), 200);
        assert_eq!(from("origin", "http://evil.example"), 403);
        assert_eq!(from("origin", "null"), 403);
        assert_eq!(from("sec-fetch-site", "cross-site"), 403);
        assert_eq!(from("sec-fetch-site", "same-site"), 403);
        assert_eq!(from("sec-fetch-site", "same-origin"), 200);
    }

    #[test]
    fn a_name_that_somebody_points_at_loopback_reads_nothing() {
        let here = guard("127.0.0.1:7070", None);
        for host in ["127.0.0.1:7070", "localhost:7070", "LOCALHOST", "[::1]:7070", "127.0.0.1"] {
            assert!(here.reads(&headers(&[("host", host)])), "{host}");
        }
        for host in
            ["evil.example:7070", "127.0.0.1.evil.example", "10.0.0.1:7070", "localhost.evil:7070", ""]
        {
            assert!(!here.reads(&headers(&[("host", host)])), "{host}");
        }
        assert!(!here.reads(&HeaderMap::new()));
        assert!(guard("10.0.0.1:7070", None).reads(&headers(&[("host", "h1:7070")])));
    }

    #[test]
    fn a_token_that_can_be_guessed_is_refused_and_not_shown() {
        let error = Guard::new("127.0.0.1:1".parse().unwrap(), Some(&Secret::from("hunter2"))).unwrap_err();
        let said = error.to_string();
        assert!(said.contains("--token") && said.contains("16") && !said.contains("hunter2"), "{said}");
        assert!(!format!("{:?}", guard("127.0.0.1:1", Some(TOKEN))).contains(TOKEN));
    }
}
