//! What we read ourselves, for fuzzers and tests; no part of the interface.

use std::net::IpAddr;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Uri, Version};

use super::config::{Config, Forwarding};
use super::headers::{self, Origin};

/// A head as it is looked through for a hidden length.
pub fn head(bytes: &[u8]) -> bool {
    super::client_io::Seen::with(bytes).has_length("POST")
}

/// A chain of forwarding addresses.
pub fn chain(bytes: &[u8]) -> Option<IpAddr> {
    let name = HeaderName::from_static("x-forwarded-for");
    let headers = HeaderMap::from_iter([(name.clone(), HeaderValue::from_bytes(bytes).ok()?)]);
    let all = "::/0".parse().ok()?;
    Some(super::trust::client([10, 0, 0, 1].into(), &headers, &name, &[all]))
}

/// A line of cookies.
pub fn cookie(bytes: &[u8]) -> Option<String> {
    let headers = HeaderMap::from_iter([(header::COOKIE, HeaderValue::from_bytes(bytes).ok()?)]);
    super::sticky::cookie(&headers, "home").map(str::to_owned)
}

/// A request of a stranger, one line for method and target and one for each header: whether it is forwarded.
///
/// # Errors
/// What is wrong with the headers that an endpoint would get.
pub fn request(bytes: &[u8]) -> Result<bool, &'static str> {
    let Some(mut parts) = parts(bytes) else { return Ok(false) };
    let config = Config::default().forwarding(Forwarding::Both);
    if headers::check(&parts, false, &config).is_err() {
        return Ok(false);
    }
    let named: Vec<_> = parts.headers.get_all(header::CONNECTION).iter().cloned().collect();
    let peer = IpAddr::from([8, 8, 8, 8]);
    let (text, id) = (HeaderValue::from_static("8.8.8.8"), HeaderValue::from_static("id"));
    let origin = Origin { peer, text: &text, tls: true, version: parts.version };
    let client = headers::forward(&mut parts.headers, &parts.uri, &origin, &id, &config);
    wrong(&parts.headers, client == peer, &named).map_or(Ok(true), Err)
}

fn parts(bytes: &[u8]) -> Option<http::request::Parts> {
    let mut lines = bytes.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
    let (method, target) = split(lines.next()?, b' ')?;
    let mut request = Request::new(());
    *request.method_mut() = Method::from_bytes(method).ok()?;
    *request.uri_mut() = Uri::try_from(target).ok()?;
    *request.version_mut() = if target.starts_with(b"/") { Version::HTTP_11 } else { Version::HTTP_2 };
    for line in lines {
        let (name, value) = split(line, b':')?;
        let name = HeaderName::from_bytes(name).ok()?;
        request.headers_mut().append(name, HeaderValue::from_bytes(value.trim_ascii()).ok()?);
    }
    Some(request.into_parts().0)
}

fn split(line: &[u8], at: u8) -> Option<(&[u8], &[u8])> {
    let place = line.iter().position(|byte| *byte == at)?;
    Some((line.get(..place)?, line.get(place + 1..)?))
}

fn wrong(headers: &HeaderMap, knows_client: bool, named: &[HeaderValue]) -> Option<&'static str> {
    let is = |name: &str, value: &str| {
        let mut values = headers.get_all(name).iter();
        values.next().is_some_and(|there| there == value) && values.next().is_none()
    };
    let few = |name: &str| headers.get_all(name).iter().count() <= 1;
    let hop =
        ["connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade", "http2-settings"];
    let listed = named.iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    // Those that we set ourselves may be there again.
    let ours = ["te", "via", "forwarded"];
    let left = listed
        .filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok())
        .any(|name| headers.contains_key(&name) && !ours.contains(&name.as_str()));
    let checks = [
        (!knows_client, "a stranger says who the client is"),
        (hop.iter().any(|name| headers.contains_key(*name)), "a header for one hop is passed on"),
        (left, "a header that Connection lists is passed on"),
        (headers.contains_key("te") && !is("te", "trailers"), "TE says more than trailers"),
        (!few("host") || !few("cookie"), "Host or Cookie is there twice"),
        (!is("x-forwarded-for", "8.8.8.8"), "the chain is not the peer alone"),
        (!is("x-forwarded-proto", "https") || !is("x-request-id", "id"), "a stranger's word is passed on"),
        (!few("forwarded") || !headers.contains_key("forwarded"), "Forwarded is not there once"),
        (
            headers.contains_key("x-real-ip") || headers.contains_key("x-forwarded-port"),
            "a claim is passed on",
        ),
    ];
    checks.into_iter().find_map(|(is_so, what)| is_so.then_some(what))
}
