//! What is refused at the edge, and which headers go through.

use std::net::IpAddr;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::uri::{PathAndQuery, Uri};
use http::{Method, StatusCode, Version, request};

pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");

/// Names that `Connection` may list; more than that is no client that we know.
const MOST_TOKENS: usize = 16;
/// The longest request id that is taken over.
const MOST_ID: usize = 128;

/// A refusal: the status, and why.
pub(crate) type Refusal = (StatusCode, &'static str);

/// Refuses what the next hop might read differently than we do.
///
/// # Errors
/// The status to answer, with one sentence.
pub(crate) fn check(parts: &request::Parts, length_and_encoding: bool, most: usize) -> Result<(), Refusal> {
    let bad = |why| Err((StatusCode::BAD_REQUEST, why));
    let line =
        |(name, value): (&HeaderName, &HeaderValue)| name.as_str().len() + value.len() + ": \r\n".len();
    if parts.headers.iter().map(line).sum::<usize>() > most {
        return Err((StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "the head of the request is too large"));
    }
    if parts.method == Method::CONNECT {
        return Err((StatusCode::NOT_IMPLEMENTED, "CONNECT is not supported here"));
    }
    let mut hosts = parts.headers.get_all(header::HOST).iter();
    match (hosts.next(), hosts.next(), parts.version) {
        (_, Some(_), _) => return bad("the request has several Host headers"),
        (None, None, Version::HTTP_11) => return bad("the request has no Host header"),
        (Some(host), None, _) => {
            let differs = |authority: &str| !authority.as_bytes().eq_ignore_ascii_case(host.as_bytes());
            if parts.uri.authority().is_some_and(|authority| differs(authority.as_str())) {
                return bad("the target's authority and the Host header differ");
            }
        }
        _ => {}
    }
    if length_and_encoding
        || (parts.headers.contains_key(header::TRANSFER_ENCODING)
            && parts.headers.contains_key(header::CONTENT_LENGTH))
    {
        return bad("the request has both Content-Length and Transfer-Encoding");
    }
    let mut encodings = parts.headers.get_all(header::TRANSFER_ENCODING).iter();
    if let Some(encoding) = encodings.next()
        && (encodings.next().is_some() || !encoding.as_bytes().eq_ignore_ascii_case(b"chunked"))
    {
        return Err((StatusCode::NOT_IMPLEMENTED, "the only transfer encoding supported is chunked"));
    }
    let mut upgrade = false;
    for (count, token) in tokens(&parts.headers).enumerate() {
        let Some(name) = token else { return bad("the Connection header lists something that is no name") };
        if count >= MOST_TOKENS {
            return bad("the Connection header lists too many names");
        }
        upgrade |= name == header::UPGRADE;
        // Naming these would have us erase what the next hop relies on.
        let kept = [header::HOST, header::CONTENT_LENGTH, header::COOKIE, header::AUTHORIZATION, REQUEST_ID];
        if kept.contains(&name) || name.as_str().starts_with("x-forwarded-") {
            return bad("the Connection header lists a header that is not hop-by-hop");
        }
    }
    // An offer of h2c may be ignored (RFC 9113 3.1); the others are asked for because they are needed.
    let wants = |value: &HeaderValue| !value.as_bytes().eq_ignore_ascii_case(b"h2c");
    if upgrade && parts.headers.get(header::UPGRADE).is_some_and(wants) {
        return Err((StatusCode::NOT_IMPLEMENTED, "upgrades such as websocket are not supported here"));
    }
    Ok(())
}

/// Takes out what is meant for one hop only (RFC 9110 7.6.1), `Connection` and all that it lists included.
pub(crate) fn strip(headers: &mut HeaderMap) {
    if headers.contains_key(header::TRANSFER_ENCODING) {
        // It was framed by its encoding; a length beside it is false at best.
        headers.remove(header::CONTENT_LENGTH);
    }
    if headers.contains_key(header::CONNECTION) {
        for name in tokens(headers).flatten().collect::<Vec<_>>() {
            headers.remove(name);
        }
    }
    for name in [
        header::CONNECTION,
        KEEP_ALIVE,
        PROXY_CONNECTION,
        header::PROXY_AUTHENTICATE,
        header::PROXY_AUTHORIZATION,
        header::TE,
        header::TRAILER,
        header::TRANSFER_ENCODING,
        header::UPGRADE,
        HTTP2_SETTINGS,
    ] {
        headers.remove(name);
    }
}

/// The headers that the endpoint gets.
pub(crate) fn forward(headers: &mut HeaderMap, uri: &Uri, peer: IpAddr, id: &HeaderValue) {
    strip(headers);
    // hyper has answered it, or will: the body is asked for when the endpoint takes it.
    headers.remove(header::EXPECT);
    headers.remove(header::FORWARDED);
    let mut chain: Vec<u8> = Vec::new();
    for value in headers.get_all(FORWARDED_FOR) {
        chain.extend_from_slice(value.as_bytes());
        chain.extend_from_slice(b", ");
    }
    chain.extend_from_slice(peer.to_canonical().to_string().as_bytes());
    if let Ok(chain) = HeaderValue::from_bytes(&chain) {
        headers.insert(FORWARDED_FOR, chain);
    }
    headers.insert(FORWARDED_PROTO, HeaderValue::from_static("http"));
    let host = headers.get(header::HOST).cloned();
    let host = host.or_else(|| HeaderValue::from_str(uri.authority()?.as_str()).ok());
    match host {
        Some(host) => {
            headers.insert(FORWARDED_HOST, host.clone());
            headers.insert(header::HOST, host);
        }
        None => {
            headers.remove(FORWARDED_HOST);
        }
    }
    headers.insert(REQUEST_ID, id.clone());
}

/// The target in origin form.
pub(crate) fn origin(uri: &Uri) -> Uri {
    let path = uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
    Uri::from(path)
}

/// The client's request id if it may be trusted and is printable, else a new one.
pub(crate) fn request_id(headers: &HeaderMap, trust: bool) -> HeaderValue {
    let fits = |id: &&HeaderValue| {
        (1..=MOST_ID).contains(&id.len()) && id.as_bytes().iter().all(u8::is_ascii_graphic)
    };
    if let Some(id) = headers.get(REQUEST_ID).filter(|_| trust).filter(fits) {
        return id.clone();
    }
    let id = format!("{:032x}", rand::random::<u128>());
    HeaderValue::from_str(&id).unwrap_or_else(|_| HeaderValue::from_static("none"))
}

/// Whether doing it twice is like doing it once (RFC 9110 9.2.2).
pub(crate) fn is_idempotent(method: &Method) -> bool {
    [Method::GET, Method::HEAD, Method::OPTIONS, Method::PUT, Method::DELETE, Method::TRACE].contains(method)
}

/// What `Connection` lists; `None` for what is no header name.
fn tokens(headers: &HeaderMap) -> impl Iterator<Item = Option<HeaderName>> {
    let values = headers.get_all(header::CONNECTION).iter();
    let tokens = values.flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    tokens
        .map(<[u8]>::trim_ascii)
        .filter(|token| !token.is_empty())
        .map(|token| HeaderName::from_bytes(token).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(lines: &[(&str, &str)]) -> Option<&'static str> {
        let mut request = http::Request::builder().uri("/");
        for (name, value) in lines {
            request = request.header(*name, *value);
        }
        check(&request.body(()).unwrap().into_parts().0, false, 8192).err().map(|(_, why)| why)
    }

    #[test]
    fn refuses_what_the_next_hop_may_read_differently() {
        assert_eq!(refusal(&[("host", "a")]), None);
        assert_eq!(
            refusal(&[("host", "a"), ("upgrade", "h2c"), ("connection", "upgrade, http2-settings")]),
            None
        );
        assert_eq!(refusal(&[("host", "a"), ("connection", "keep-alive, x-own")]), None);
        assert!(refusal(&[]).is_some());
        assert!(refusal(&[("host", "a"), ("host", "a")]).is_some());
        assert!(refusal(&[("host", "a"), ("transfer-encoding", "gzip, chunked")]).is_some());
        assert!(
            refusal(&[("host", "a"), ("transfer-encoding", "chunked"), ("content-length", "3")]).is_some()
        );
        assert!(refusal(&[("host", "a"), ("connection", "x-forwarded-for")]).is_some());
        assert!(refusal(&[("host", "a"), ("connection", "b@d")]).is_some());
        assert!(refusal(&[("host", "a"), ("connection", "upgrade"), ("upgrade", "websocket")]).is_some());
    }

    #[test]
    fn hop_by_hop_goes_and_the_chain_grows() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("host", "site"),
            ("connection", "close, x-own"),
            ("x-own", "1"),
            ("te", "trailers"),
            ("x-forwarded-for", "10.0.0.1"),
            ("x-forwarded-proto", "https"),
            ("cookie", "a=b"),
        ] {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        let id = HeaderValue::from_static("id");
        forward(&mut headers, &Uri::from_static("/"), IpAddr::from([127, 0, 0, 1]), &id);
        let mut left: Vec<_> = headers.iter().map(|(n, v)| format!("{n}={}", v.to_str().unwrap())).collect();
        left.sort();
        assert_eq!(
            left,
            [
                "cookie=a=b",
                "host=site",
                "x-forwarded-for=10.0.0.1, 127.0.0.1",
                "x-forwarded-host=site",
                "x-forwarded-proto=http",
                "x-request-id=id",
            ]
        );
    }
}
