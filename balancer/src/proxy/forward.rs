//! One request from its head to the head of its answer.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Request, Response, StatusCode, Uri};
use hyper::body::Incoming;
use tokio::time::Instant;
use tracing::Instrument;
use tracing::field::Empty;

use super::access::Entry;
use super::attempt::{Answer, Outgoing};
use super::body::{Replay, ResponseBody, Stream};
use super::config::{Config, HashBy};
use super::gateway::{Ticket, lock};
use super::headers::{self, Origin, REQUEST_ID};
use super::refusal::{Refusal, sentence};
use super::tries::{Way, answer};
use super::tunnel::Tunnel;
use super::visit::Visit;
use crate::hash::hash;
use crate::lease::Priority;

/// Answers one request of a client.
pub(crate) async fn handle(visit: Arc<Visit>, mut request: Request<Incoming>) -> Response<ResponseBody> {
    let began = Instant::now();
    if !visit.asked.load(Ordering::Relaxed) {
        visit.asked.store(true, Ordering::Release);
    }
    let head = request.method() != Method::HEAD;
    let version = request.version();
    let hidden_length = visit.seen.as_ref().is_some_and(|seen| {
        request.headers().contains_key(header::TRANSFER_ENCODING)
            && seen.has_length(request.method().as_str())
    });
    if let Some(seen) = &visit.seen {
        seen.pause();
    }
    let found = visit.service(request.uri(), request.headers());
    let unknown = found.is_none();
    let inner = found.unwrap_or_else(|| Arc::clone(&visit.edge));
    let config = &inner.config;
    let mut ticket = Ticket::new(Arc::clone(&inner), Arc::clone(&visit));
    let id = headers::request_id(request.headers(), config.trust_request_id);
    if let Some(rules) = &config.access_log {
        ticket.entry = Some(Box::new(Entry::new(rules, began, request.method(), request.uri().path(), &id)));
    }
    let span = tracing::debug_span!(
        target: "balancer",
        "request",
        request_id = id.to_str().ok(),
        method = request.method().as_str(),
        status = Empty,
        endpoint = Empty,
        attempts = Empty,
    );
    if let Some(trace) = config.trace.as_ref().filter(|_| is_trusted(visit.peer, config)) {
        trace.0.extract(&span, request.headers());
    }
    let switch = hyper::upgrade::on(&mut request);
    let (mut parts, body) = request.into_parts();
    let mut way = Way::default();
    let checked = match headers::check(&parts, hidden_length, config) {
        Ok(()) if unknown => Err((StatusCode::NOT_FOUND, "no service is here by this host and path")),
        checked => checked,
    };
    let (result, homeless) = match checked {
        Ok(()) => {
            let upgrade = headers::upgrade(&parts, config);
            let origin = Origin { peer: visit.peer, text: &visit.text, tls: visit.tls, version };
            let priority = priority(&parts.headers, visit.peer, config);
            let client = headers::forward(&mut parts.headers, &parts.uri, &origin, &id, config);
            if let Some(entry) = &mut ticket.entry {
                (entry.client, entry.host) = (client, parts.headers.get(header::HOST).cloned());
            }
            let key = config.hash_by.as_ref().and_then(|by| key(by, &parts.headers, &parts.uri, client));
            let home = inner.homes.as_ref().and_then(|homes| homes.find(&parts.headers));
            let outgoing = Outgoing {
                uri: headers::origin(&parts.uri),
                method: parts.method,
                headers: parts.headers,
                body: Replay::new(body, config.replay_limit, config.max_body_bytes),
                upgrade,
                key,
                home,
                priority,
                began,
            };
            let result = Box::pin(answer(&inner, &outgoing, &mut way).instrument(span.clone())).await;
            (result, outgoing.home)
        }
        Err((status, why)) => {
            inner.counters.rejected.fetch_add(1, Ordering::Relaxed);
            (Err(Refusal::new(status, why)), None)
        }
    };
    let refused = result.as_ref().is_err_and(|refusal| {
        refusal.status.is_client_error() || refusal.status == StatusCode::NOT_IMPLEMENTED
    });
    let refused = refused && !unknown;
    let (status, server) = match &result {
        Ok((answer, lease, _)) => (answer.code(), Some(lease.endpoint().id.clone())),
        Err(refusal) => (refusal.status, None),
    };
    span.record("status", status.as_u16()).record("attempts", way.sent);
    if let Some(server) = &server {
        span.record("endpoint", server.as_str());
    }
    if let Some(entry) = &mut ticket.entry {
        (entry.version, entry.status, entry.attempts) = (version, status, way.sent);
        (entry.endpoint, entry.head_after) = (server.clone(), began.elapsed());
    }
    // Where it has been answered from, if that is not where it belongs.
    let moved = server.filter(|server| homeless.as_ref() != Some(server));
    let cookie = inner.homes.as_ref().zip(moved).and_then(|(homes, server)| homes.line(&server));
    let mut switched = None;
    let mut response = match result {
        Ok((Answer::Whole(response), lease, _)) => {
            lease.finish(crate::Outcome::Success, inner.now());
            response.map(|bytes| ResponseBody::whole(bytes, ticket))
        }
        Ok((Answer::Stream(mut response, connection), lease, upstream)) => {
            if response.status() == StatusCode::SWITCHING_PROTOCOLS {
                switched = response.headers().get(header::UPGRADE).cloned();
                let server = hyper::upgrade::on(&mut response);
                let (start, idle) = (inner.start, config.tunnel_idle_timeout);
                Tunnel { client: switch, server, connection, upstream, lease, ticket, start, idle }
                    .spawn(&visit.edge.tunnels);
                response.map(|_| ResponseBody::none())
            } else {
                let idle = config.body_idle_timeout;
                let stream = |body| Stream::new(body, connection, lease, upstream, inner.start, idle);
                response.map(|body| ResponseBody::stream(stream(body), ticket))
            }
        }
        Err(refusal) => sentence(&refusal, &id, head, ticket),
    };
    if response.status().is_server_error() {
        inner.counters.server_errors.fetch_add(1, Ordering::Relaxed);
    }
    let headers = response.headers_mut();
    headers::strip(headers);
    headers.insert(REQUEST_ID, id);
    if let Some(name) = &config.via {
        headers::via(headers, http::Version::HTTP_11, name);
    }
    if let Some(cookie) = cookie {
        headers.append(header::SET_COOKIE, cookie);
    }
    if let Some(protocol) = switched {
        headers.insert(header::UPGRADE, protocol);
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    } else if version != http::Version::HTTP_2 && (refused || visit.edge.closing.load(Ordering::Acquire)) {
        // What follows a request that was refused, or a body that was not read, is not to be trusted.
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    *response.version_mut() = version.max(http::Version::HTTP_11);
    lock(&inner.window).answered(began.elapsed(), inner.now());
    response
}

/// What the hashing policies place a request by.
fn key(by: &HashBy, headers: &HeaderMap, uri: &Uri, client: IpAddr) -> Option<u64> {
    match by {
        HashBy::Client => Some(match client {
            IpAddr::V4(addr) => hash(addr.octets()),
            IpAddr::V6(addr) => hash(addr.octets()),
        }),
        HashBy::Header(name) => headers.get(name).map(|value| hash(value.as_bytes())),
        HashBy::Path => Some(hash(uri.path_and_query().map_or("/", |path| path.as_str()))),
    }
}

fn is_trusted(peer: IpAddr, config: &Config) -> bool {
    config.trusted.iter().any(|range| range.contains(peer))
}

/// What a trusted peer says of how much a request matters.
fn priority(headers: &HeaderMap, peer: IpAddr, config: &Config) -> Priority {
    let said = config.priority_header.as_ref().and_then(|name| headers.get(name));
    match said.filter(|_| is_trusted(peer, config)).map(HeaderValue::as_bytes) {
        Some(b"low") => Priority::Low,
        Some(b"high") => Priority::High,
        _ => Priority::Normal,
    }
}
