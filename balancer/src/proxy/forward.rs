//! One request from its head to the head of its answer: attempts, retries, waits.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Request, Response, StatusCode, Uri};
use hyper::body::Incoming;
use tokio::time::{Instant, sleep, timeout_at};

use super::access::Entry;
use super::attempt::{Answer, Failure, Outgoing, attempt};
use super::body::{Replay, ResponseBody, Stream};
use super::config::{Config, HashBy};
use super::gateway::{Inner, Ticket, lock};
use super::headers::{self, Origin, REQUEST_ID};
use super::room::Place;
use super::tunnel::Tunnel;
use super::upstream::Upstream;
use super::visit::Visit;
use crate::config::Probes;
use crate::endpoint::EndpointId;
use crate::hash::hash;
use crate::lease::{Lease, PickRequest, Priority};
use crate::members::HASTE;

/// A reply of the gateway's own.
struct Refusal {
    status: StatusCode,
    why: String,
    /// Seconds after which to come again.
    again: Option<u32>,
}

impl Refusal {
    fn new(status: StatusCode, why: impl Into<String>) -> Self {
        Self { status, why: why.into(), again: None }
    }
}

type Answered = (Answer, Lease, Arc<Upstream>);

/// Where a request has been.
#[derive(Default)]
struct Way {
    /// Endpoints not to go to now.
    tried: Vec<EndpointId>,
    /// Attempts of any kind.
    sent: u32,
    /// Attempts that reached an endpoint.
    attempts: u32,
    /// How often all endpoints had been tried.
    rounds: u32,
    /// Its place in the waiting room, and until when.
    wait: Option<(Place, Instant)>,
}

impl Way {
    /// How long to leave the endpoints alone once all have been tried.
    fn rest(&self, probes: Option<&Probes>) -> Duration {
        let index = self.attempts.max(self.rounds).saturating_sub(1) as usize;
        let most = RESTS.get(index).copied().unwrap_or(LONGEST_REST);
        let rest = jittered(most);
        match probes {
            // A failure has probes made at once, 100 ms apart: their verdict comes before the last attempts are spent
            // on what accepts connections and is dead, and sends the request to the waiting room.
            Some(rules) if index > 0 => {
                rest.max(HASTE * rules.unhealthy_after.saturating_add(1)).min(LONGEST_REST)
            }
            _ => rest,
        }
    }
}

/// A blip is over at once; a process that starts anew needs longer. The four attempts of the default are spread
/// over about a second.
const RESTS: [Duration; 3] =
    [Duration::from_millis(30), Duration::from_millis(250), Duration::from_millis(500)];
const LONGEST_REST: Duration = Duration::from_secs(1);

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
            let result = Box::pin(answer(&inner, &outgoing, &mut way)).await;
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

/// What a trusted peer says of how much a request matters.
fn priority(headers: &HeaderMap, peer: IpAddr, config: &Config) -> Priority {
    let trusted = || config.trusted.iter().any(|range| range.contains(peer));
    let said = config.priority_header.as_ref().and_then(|name| headers.get(name));
    match said.filter(|_| trusted()).map(HeaderValue::as_bytes) {
        Some(b"low") => Priority::Low,
        Some(b"high") => Priority::High,
        _ => Priority::Normal,
    }
}

/// Tries until there is an answer, or a reason to give up.
async fn answer(inner: &Arc<Inner>, outgoing: &Outgoing, way: &mut Way) -> Result<Answered, Refusal> {
    let config = &inner.config;
    let mut next = None;
    loop {
        let mut lease = match next.take() {
            Some(lease) => lease,
            None => pick(inner, outgoing, way).await?,
        };
        way.sent += 1;
        // Who tries an endpoint for all keeps its place, should it fail.
        if !lease.is_trial() {
            way.wait = None;
        }
        let upstream = inner.upstreams.of(lease.endpoint());
        let result = attempt(config, &upstream, outgoing).await;
        let now = inner.now();
        let failure = match result {
            Ok(answer) => {
                lease.responded(answer.status(), now);
                inner.follow();
                // As many answers as come, so many more can be asked for.
                inner.wake(1);
                if answer.status() == 101 && outgoing.upgrade.is_none() {
                    lease.finish(crate::Outcome::Reset, now);
                    let why = "the endpoint switched protocols without being asked";
                    return Err(Refusal::new(StatusCode::BAD_GATEWAY, why));
                }
                if config.retry_statuses.contains(&answer.status()) && outgoing.is_repeatable() {
                    way.attempts += 1;
                    way.tried.push(lease.endpoint().id.clone());
                    next = elsewhere(inner, outgoing, way);
                    if next.is_some() {
                        tracing::debug!(target: "balancer", endpoint = %lease.endpoint().id, status = answer.status(), "asked elsewhere");
                        lease.finish(crate::Outcome::Success, now);
                        continue;
                    }
                }
                return Ok((answer, lease, upstream));
            }
            Err(failure) => failure,
        };
        let id = lease.endpoint().id.clone();
        lease.finish(failure.outcome(), now);
        inner.follow();
        tracing::debug!(target: "balancer", endpoint = %id, ?failure, "attempt failed");
        // An attempt that was called off did no harm that another one could do again.
        way.attempts += u32::from(matches!(failure, Failure::Reset { .. } | Failure::Timeout));
        let again = failure.is_unsent() || outgoing.is_idempotent();
        if matches!(failure, Failure::Client) {
            return Err(broke_off(outgoing));
        }
        let late = Instant::now() >= outgoing.deadline(config);
        if late || !again || way.attempts >= config.max_attempts || !outgoing.body.can_start() {
            return Err(give_up(&failure));
        }
        if !way.tried.contains(&id) {
            way.tried.push(id);
        }
        if matches!(failure, Failure::Local(_)) {
            // It harms no endpoint, so that the budget has no say; what we lack may be there in a moment.
            pause(100).await;
            continue;
        }
        while !inner.may_retry() {
            pause(100).await;
            if Instant::now() >= outgoing.deadline(config) {
                return Err(give_up(&failure));
            }
        }
    }
}

/// Another endpoint for a request that has an answer in hand, if there is one at once and the budget pays for it.
fn elsewhere(inner: &Arc<Inner>, outgoing: &Outgoing, way: &Way) -> Option<Lease> {
    let config = &inner.config;
    if way.attempts >= config.max_attempts || Instant::now() >= outgoing.deadline(config) {
        return None;
    }
    let mut request = PickRequest::excluding(&way.tried).priority(outgoing.priority);
    request.key = outgoing.key;
    let picked = inner.pool.pick(&request, inner.now()).ok();
    inner.follow();
    // The budget pays for what is done: a lease that is dropped counts as cancelled.
    picked.filter(|_| inner.may_retry())
}

/// An endpoint, after a wait if need be.
async fn pick(inner: &Arc<Inner>, outgoing: &Outgoing, way: &mut Way) -> Result<Lease, Refusal> {
    let config = &inner.config;
    let mut rest: Option<Instant> = None;
    loop {
        let deadline = outgoing.deadline(config);
        // Lying down before the look makes sure that no wake-up is missed.
        let woken = way.wait.as_ref().map(|(place, _)| place.sleep());
        let changed = rest.map(|until| (until, inner.changes.notified()));
        let mut request = PickRequest::excluding(&way.tried)
            .may_try(outgoing.is_repeatable())
            .prefer(outgoing.home.as_ref())
            .priority(outgoing.priority);
        request.key = outgoing.key;
        let picked = inner.pool.pick(&request, inner.now());
        inner.follow();
        let error = match picked {
            Ok(lease) => return Ok(lease),
            Err(error) => error,
        };
        if Instant::now() >= deadline {
            return Err(Refusal::new(StatusCode::GATEWAY_TIMEOUT, format!("the time is up and {error}")));
        }
        if error.is_excluded() {
            // All have been tried: begin again, not at once; another one that comes is taken.
            let Some((until, changed)) = changed else {
                way.rounds = way.rounds.saturating_add(1);
                let rules = config.probe.as_ref().map(|probe| &probe.rules);
                rest = Some(Instant::now() + way.rest(rules));
                continue;
            };
            if timeout_at(until.min(deadline), changed).await.is_err() {
                way.tried.clear();
                rest = None;
            }
            continue;
        }
        way.tried.clear();
        rest = None;
        let Some(woken) = woken else {
            let Some(place) = inner.room.enter(outgoing.priority) else {
                inner.counters.rejected.fetch_add(1, Ordering::Relaxed);
                let why = format!("{error}, and {} requests are waiting already", config.waiting_limit);
                return Err(Refusal { again: Some(1), ..Refusal::new(StatusCode::SERVICE_UNAVAILABLE, why) });
            };
            way.wait = Some((place, Instant::now() + config.waiting_timeout));
            continue;
        };
        let until = way.wait.as_ref().map_or(deadline, |(_, until)| (*until).min(deadline));
        let woken = tokio::select! {
            biased;
            woken = timeout_at(until, woken) => woken.is_ok(),
            () = outgoing.body.broken() => return Err(broke_off(outgoing)),
        };
        if !woken {
            let why = format!("{error}, and none came for {:.1} s", outgoing.began.elapsed().as_secs_f64());
            return Err(Refusal { again: Some(1), ..Refusal::new(StatusCode::SERVICE_UNAVAILABLE, why) });
        }
    }
}

fn broke_off(outgoing: &Outgoing) -> Refusal {
    if outgoing.body.too_large() {
        return Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "the body of the request is too large");
    }
    let why = "the body of the request broke off or stood still for too long";
    Refusal::new(StatusCode::REQUEST_TIMEOUT, why)
}

fn give_up(failure: &Failure) -> Refusal {
    let bad = |why: String| Refusal::new(StatusCode::BAD_GATEWAY, why);
    match failure {
        Failure::Local(why) => {
            let why = format!("the gateway could not make a connection: {why}");
            Refusal { again: Some(1), ..Refusal::new(StatusCode::SERVICE_UNAVAILABLE, why) }
        }
        Failure::Connect(why) => bad(format!("no endpoint could be reached: {why}")),
        Failure::Reset { why, .. } => bad(format!("the endpoint broke off before it answered: {why}")),
        Failure::Abandoned { .. } => bad("the endpoint became unreachable before it answered".to_owned()),
        Failure::Late => {
            let why = "the time for the request was up before an endpoint answered";
            Refusal::new(StatusCode::GATEWAY_TIMEOUT, why)
        }
        Failure::Timeout | Failure::Client => {
            Refusal::new(StatusCode::GATEWAY_TIMEOUT, "the endpoint did not answer in time")
        }
    }
}

/// An answer of the gateway's own: one sentence and the request id.
fn sentence(refusal: &Refusal, id: &HeaderValue, body: bool, ticket: Ticket) -> Response<ResponseBody> {
    let text = format!("{} (request {})\n", refusal.why, id.to_str().unwrap_or("without id"));
    let text = if body { Bytes::from(text) } else { Bytes::new() };
    let mut response = Response::new(ResponseBody::whole(text, ticket));
    *response.status_mut() = refusal.status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Some(again) = refusal.again {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(again));
    }
    response
}

/// Half to all of so many milliseconds.
async fn pause(most: u64) {
    sleep(jittered(Duration::from_millis(most))).await;
}

/// Half to all of it.
fn jittered(most: Duration) -> Duration {
    most.mul_f64(0.5 + 0.5 * rand::random::<f64>())
}
