//! What is refused at the edge, and which headers go through.

use std::net::IpAddr;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::uri::{PathAndQuery, Uri};
use http::{Method, StatusCode, Version, request};

use super::config::{Config, Forwarding};
use super::trust;

pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
const REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");
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
pub(crate) fn check(
    parts: &request::Parts,
    length_and_encoding: bool,
    config: &Config,
) -> Result<(), Refusal> {
    let most = config.max_head_bytes;
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
    if upgrade
        && parts.headers.get(header::UPGRADE).is_some_and(wants)
        && self::upgrade(parts, config).is_none()
    {
        return Err((StatusCode::NOT_IMPLEMENTED, "this upgrade is not supported here"));
    }
    let length = parts
        .headers
        .get(header::CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if length.is_some_and(|length| length > config.max_body_bytes) {
        return Err((StatusCode::PAYLOAD_TOO_LARGE, "the body of the request is too large"));
    }
    Ok(())
}

/// The protocol to switch to, when the client asks for one that may pass: HTTP/1.1 only, GET without a body only.
pub(crate) fn upgrade(parts: &request::Parts, config: &Config) -> Option<HeaderValue> {
    let mut offers = parts.headers.get_all(header::UPGRADE).iter();
    let (offer, None) = (offers.next()?, offers.next()) else { return None };
    let bodyless = !parts.headers.contains_key(header::CONTENT_LENGTH)
        && !parts.headers.contains_key(header::TRANSFER_ENCODING);
    let asked = tokens(&parts.headers).flatten().any(|name| name == header::UPGRADE);
    let known = config.upgrades.iter().any(|known| offer.as_bytes().eq_ignore_ascii_case(known.as_bytes()));
    let fits = parts.version == Version::HTTP_11 && parts.method == Method::GET;
    (fits && bodyless && asked && known).then(|| offer.clone())
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
    // Most heads have none of them: a look is cheaper than ten removals.
    if !headers.keys().any(|name| HOP_BY_HOP.contains(name)) {
        return;
    }
    for name in &HOP_BY_HOP {
        headers.remove(name);
    }
}

/// For one hop only, whether `Connection` lists them or not.
static HOP_BY_HOP: [HeaderName; 9] = [
    header::CONNECTION,
    KEEP_ALIVE,
    PROXY_CONNECTION,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    HTTP2_SETTINGS,
];

/// Who sent a request, and how it came.
pub(crate) struct Origin<'a> {
    pub(crate) peer: IpAddr,
    /// The same, as it goes into a chain.
    pub(crate) text: &'a HeaderValue,
    pub(crate) tls: bool,
    pub(crate) version: Version,
}

/// The headers that the endpoint gets. Returns who the client is.
pub(crate) fn forward(
    headers: &mut HeaderMap,
    uri: &Uri,
    origin: &Origin<'_>,
    id: &HeaderValue,
    config: &Config,
) -> IpAddr {
    let trailers = tokens_of(headers, &header::TE).any(|token| token.eq_ignore_ascii_case(b"trailers"));
    strip(headers);
    if trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
    // hyper has answered it, or will: the body is asked for when the endpoint takes it.
    headers.remove(header::EXPECT);
    // HTTP/2 may send each cookie in a line of its own; HTTP/1.1 may not (RFC 9113 8.2.3).
    join(headers, header::COOKIE, b"; ");
    let peer = origin.peer.to_canonical();
    let client = trust::client(peer, headers, &FORWARDED_FOR, &config.trusted);
    let trusted = config.trusted.iter().any(|range| range.contains(peer));
    // What a stranger says of where he comes from is worth nothing, and must not look as if we had said it.
    if !trusted {
        let claims = [
            &FORWARDED_FOR,
            &FORWARDED_PROTO,
            &FORWARDED_HOST,
            &FORWARDED_PORT,
            &header::FORWARDED,
            &REAL_IP,
        ];
        if headers.keys().any(|name| claims.contains(&name)) {
            claims.into_iter().for_each(|name| drop(headers.remove(name)));
        }
    }
    let host = headers.get(header::HOST).cloned();
    let host = host.or_else(|| HeaderValue::from_str(uri.authority()?.as_str()).ok());
    if let Some(host) = &host {
        headers.insert(header::HOST, host.clone());
    }
    let proto = if origin.tls { "https" } else { "http" };
    if config.forwarding != Forwarding::Rfc7239 {
        join(headers, FORWARDED_FOR, b", ");
        append(headers, FORWARDED_FOR, origin.text);
        headers.entry(FORWARDED_PROTO).or_insert(HeaderValue::from_static(proto));
        if let Some(host) = &host {
            headers.entry(FORWARDED_HOST).or_insert_with(|| host.clone());
        }
    }
    if config.forwarding != Forwarding::XForwarded {
        let mut element = match peer {
            IpAddr::V4(peer) => format!("for={peer}").into_bytes(),
            IpAddr::V6(peer) => format!("for=\"[{peer}]\"").into_bytes(),
        };
        // Between quotes: a host may have a port, and quotes it can't have.
        if let Some(host) =
            host.as_ref().filter(|host| !host.as_bytes().iter().any(|byte| b"\"\\".contains(byte)))
        {
            element.extend_from_slice(b";host=\"");
            element.extend_from_slice(host.as_bytes());
            element.push(b'"');
        }
        element.extend_from_slice(format!(";proto={proto}").as_bytes());
        join(headers, header::FORWARDED, b", ");
        if let Ok(element) = HeaderValue::from_bytes(&element) {
            append(headers, header::FORWARDED, &element);
        }
    }
    if let Some(name) = &config.via {
        via(headers, origin.version, name);
    }
    headers.insert(REQUEST_ID, id.clone());
    client
}

/// Adds this hop to `Via` (RFC 9110 7.6.3).
pub(crate) fn via(headers: &mut HeaderMap, version: Version, name: &str) {
    let version = match version {
        Version::HTTP_10 => "1.0",
        Version::HTTP_2 => "2",
        _ => "1.1",
    };
    join(headers, header::VIA, b", ");
    if let Ok(hop) = HeaderValue::from_str(&format!("{version} {name}")) {
        append(headers, header::VIA, &hop);
    }
}

/// Makes one line of several.
fn join(headers: &mut HeaderMap, name: HeaderName, by: &[u8]) {
    let mut lines = headers.get_all(&name).iter();
    if lines.next().is_some() && lines.next().is_some() {
        let all: Vec<_> = headers.get_all(&name).iter().map(HeaderValue::as_bytes).collect();
        if let Ok(line) = HeaderValue::from_bytes(&all.join(by)) {
            headers.insert(name, line);
        }
    }
}

/// Adds to the end of a list.
fn append(headers: &mut HeaderMap, name: HeaderName, element: &HeaderValue) {
    let line = match headers.get(&name) {
        Some(line) => HeaderValue::from_bytes(&[line.as_bytes(), b", ", element.as_bytes()].concat()),
        None => Ok(element.clone()),
    };
    if let Ok(line) = line {
        headers.insert(name, line);
    }
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
    const DIGITS: [u8; 16] = *b"0123456789abcdef";
    let random = rand::random::<u128>();
    let digit = |at: usize| DIGITS.get((random >> (4 * at)) as usize & 0xF).copied().unwrap_or(b'0');
    let id: [u8; 32] = std::array::from_fn(digit);
    HeaderValue::from_bytes(&id).unwrap_or_else(|_| HeaderValue::from_static("none"))
}

/// Whether doing it twice is like doing it once (RFC 9110 9.2.2).
pub(crate) fn is_idempotent(method: &Method) -> bool {
    [Method::GET, Method::HEAD, Method::OPTIONS, Method::PUT, Method::DELETE, Method::TRACE].contains(method)
}

/// What `Connection` lists; `None` for what is no header name.
fn tokens(headers: &HeaderMap) -> impl Iterator<Item = Option<HeaderName>> {
    tokens_of(headers, &header::CONNECTION).map(|token| HeaderName::from_bytes(token).ok())
}

/// The elements of a list in a header.
fn tokens_of<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a [u8]> + use<'a> {
    let tokens = headers.get_all(name).iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    tokens.map(<[u8]>::trim_ascii).filter(|token| !token.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(lines: &[(&str, &str)]) -> Option<&'static str> {
        let mut request = http::Request::builder().uri("/");
        for (name, value) in lines {
            request = request.header(*name, *value);
        }
        check(&request.body(()).unwrap().into_parts().0, false, &Config::default()).err().map(|(_, why)| why)
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
        assert_eq!(refusal(&[("host", "a"), ("connection", "upgrade"), ("upgrade", "WebSocket")]), None);
        for other in [("upgrade", "tls"), ("upgrade", "websocket, tls")] {
            assert!(refusal(&[("host", "a"), ("connection", "upgrade"), other]).is_some());
        }
        assert!(refusal(&[("host", "a"), ("content-length", "99999999999999")]).is_some());
    }

    fn forwarded(config: &Config, peer: [u8; 4], lines: &[(&'static str, &'static str)]) -> Vec<String> {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        let text = HeaderValue::from_str(&IpAddr::from(peer).to_string()).unwrap();
        let origin = Origin { peer: IpAddr::from(peer), text: &text, tls: false, version: Version::HTTP_11 };
        forward(&mut headers, &Uri::from_static("/"), &origin, &HeaderValue::from_static("id"), config);
        let mut left: Vec<_> = headers.iter().map(|(n, v)| format!("{n}={}", v.to_str().unwrap())).collect();
        left.sort();
        left
    }

    const SENT: [(&str, &str); 9] = [
        ("host", "site"),
        ("connection", "close, x-own"),
        ("x-own", "1"),
        ("te", "trailers, gzip"),
        ("x-forwarded-for", "10.0.0.1"),
        ("x-forwarded-proto", "https"),
        ("forwarded", "for=6.6.6.6"),
        ("cookie", "a=b"),
        ("cookie", "c=d"),
    ];

    #[test]
    fn hop_by_hop_goes_and_a_strangers_word_too() {
        assert_eq!(
            forwarded(&Config::default(), [127, 0, 0, 1], &SENT),
            [
                "cookie=a=b; c=d",
                "host=site",
                "te=trailers",
                "x-forwarded-for=127.0.0.1",
                "x-forwarded-host=site",
                "x-forwarded-proto=http",
                "x-request-id=id",
            ]
        );
    }

    #[test]
    fn who_is_trusted_is_believed_and_the_chain_grows() {
        let config = Config::default()
            .trusted(["127.0.0.0/8".parse().unwrap()])
            .forwarding(Forwarding::Both)
            .via("edge");
        assert_eq!(
            forwarded(&config, [127, 0, 0, 1], &SENT),
            [
                "cookie=a=b; c=d",
                "forwarded=for=6.6.6.6, for=127.0.0.1;host=\"site\";proto=http",
                "host=site",
                "te=trailers",
                "via=1.1 edge",
                "x-forwarded-for=10.0.0.1, 127.0.0.1",
                "x-forwarded-host=site",
                "x-forwarded-proto=https",
                "x-request-id=id",
            ]
        );
        assert!(forwarded(&config, [8, 8, 8, 8], &SENT).contains(&"x-forwarded-proto=http".to_owned()));
    }
}
