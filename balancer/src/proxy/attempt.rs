//! One attempt: a connection, the request, the head of the answer.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Limited};
use hyper::body::{Body, Incoming};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};
use tracing::field::Empty;
use tracing::{Instrument, Span};

use super::body::Replay;
use super::config::Config;
use super::headers;
use super::upstream::{Connection, Upstream, is_ours};
use crate::endpoint::EndpointId;
use crate::lease::{Outcome, Priority};

/// What is sent, as often as needed.
pub(crate) struct Outgoing {
    pub(crate) method: Method,
    pub(crate) uri: Uri,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Replay,
    /// The protocol to switch to.
    pub(crate) upgrade: Option<HeaderValue>,
    /// What the hashing policies place it by, where it belongs, and how much it matters.
    pub(crate) key: Option<u64>,
    pub(crate) home: Option<EndpointId>,
    pub(crate) priority: Priority,
    pub(crate) began: Instant,
}

impl Outgoing {
    /// When all attempts together end; while the client still sends, its time has not begun.
    pub(crate) fn deadline(&self, config: &Config) -> Instant {
        self.body.progress().unwrap_or(self.began).max(self.began) + config.total_timeout
    }

    pub(crate) fn is_idempotent(&self) -> bool {
        // What was said after a switch can not be said again.
        self.upgrade.is_none() && headers::is_idempotent(&self.method)
    }

    /// Whether it may be sent once more although some of it was sent before.
    pub(crate) fn is_repeatable(&self) -> bool {
        self.is_idempotent() && self.body.can_start()
    }

    fn request(&self, addr: SocketAddr) -> Option<Request<super::body::RequestBody>> {
        let mut request = Request::new(self.body.start()?);
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = self.headers.clone();
        // Without it hyper takes the body of a GET or HEAD whose length is not known for none at all.
        if request.body().size_hint().exact().is_none() {
            request.headers_mut().insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
        if let Some(protocol) = &self.upgrade {
            request.headers_mut().insert(header::UPGRADE, protocol.clone());
            request.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        } else if self.headers.contains_key(header::TE) {
            request.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("te"));
        }
        // HTTP/1.0 clients may leave it out; in what we send it is required.
        if !self.headers.contains_key(header::HOST) {
            let host = HeaderValue::from_str(&addr.to_string()).ok()?;
            request.headers_mut().insert(header::HOST, host);
        }
        Some(request)
    }
}

/// What came back.
pub(crate) enum Answer {
    /// A head, and a body that is still coming.
    Stream(Response<Incoming>, Connection),
    /// All of it; the connection was given back.
    Whole(Response<Bytes>),
}

impl Answer {
    pub(crate) fn status(&self) -> u16 {
        self.code().as_u16()
    }

    pub(crate) fn code(&self) -> StatusCode {
        match self {
            Self::Stream(response, _) => response.status(),
            Self::Whole(response) => response.status(),
        }
    }
}

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Nothing was sent: no connection.
    Connect(String),
    /// Nothing was sent, for a reason of our own: no descriptor, no port, no memory.
    Local(String),
    /// The connection broke; `unsent` when nothing of the request was written.
    Reset { unsent: bool, why: String },
    /// No head in time.
    Timeout,
    /// The request's own time was up before the endpoint had had what an attempt may take.
    Late,
    /// The endpoint turned unreachable meanwhile; `unsent` as above.
    Abandoned { unsent: bool },
    /// The client's body broke off or stood still.
    Client,
}

impl Failure {
    pub(crate) fn outcome(&self) -> Outcome {
        match self {
            Self::Connect(_) => Outcome::ConnectFailed,
            Self::Reset { .. } => Outcome::Reset,
            Self::Timeout => Outcome::Timeout,
            Self::Local(_) | Self::Late | Self::Abandoned { .. } | Self::Client => Outcome::Cancelled,
        }
    }

    /// In one word, for a span.
    fn word(&self) -> &'static str {
        match self {
            Self::Connect(_) => "connect",
            Self::Local(_) => "local",
            Self::Reset { .. } => "reset",
            Self::Timeout => "timeout",
            Self::Late => "late",
            Self::Abandoned { .. } => "abandoned",
            Self::Client => "client",
        }
    }

    pub(crate) fn is_unsent(&self) -> bool {
        match self {
            Self::Connect(_) | Self::Local(_) => true,
            Self::Reset { unsent, .. } | Self::Abandoned { unsent } => *unsent,
            Self::Timeout | Self::Late | Self::Client => false,
        }
    }
}

impl From<io::Error> for Failure {
    /// Of a connection that could not be made.
    fn from(error: io::Error) -> Self {
        if is_ours(&error) { Self::Local(error.to_string()) } else { Self::Connect(error.to_string()) }
    }
}

/// Sends the request once, in a span of its own; a reused connection that turns out to be dead is replaced by a fresh one.
pub(crate) async fn attempt(
    config: &Config,
    upstream: &Arc<Upstream>,
    outgoing: &Outgoing,
    endpoint: &EndpointId,
) -> Result<Answer, Failure> {
    let span = tracing::debug_span!(
        target: "balancer", "attempt", endpoint = endpoint.as_str(), status = Empty, failure = Empty
    );
    let result = once(config, upstream, outgoing).instrument(span.clone()).await;
    tell(&span, &result);
    result
}

fn tell(span: &Span, result: &Result<Answer, Failure>) {
    match result {
        Ok(answer) => span.record("status", answer.status()),
        Err(failure) => span.record("failure", failure.word()),
    };
}

async fn once(config: &Config, upstream: &Arc<Upstream>, outgoing: &Outgoing) -> Result<Answer, Failure> {
    let mut down = upstream.watch();
    let idempotent = outgoing.is_idempotent();
    // The younger the connection, the less likely is it that the other end is about to close it; for a request
    // that can't be repeated that matters.
    let recent =
        if idempotent { config.idle_timeout } else { Duration::from_secs(2).min(config.idle_timeout) };
    // After an answer's last byte a connection needs a moment until it takes the next request; a fresh one takes
    // its first at any time, however long this machine needs to get round to it.
    let mut reused = upstream.checkout(recent);
    if let Some(connection) = &mut reused
        && !matches!(timeout(READY, connection.ready()).await, Ok(Ok(())))
    {
        reused = None;
    }
    if let Some(connection) = reused {
        match send(config, connection, upstream, outgoing, &mut down).await {
            // Not the endpoint's failure: it had closed, or was just closing, what was idle.
            Err(Failure::Reset { unsent, .. }) if (unsent || idempotent) && outgoing.body.can_start() => {}
            other => return other,
        }
    }
    let left = outgoing.deadline(config).saturating_duration_since(Instant::now());
    let within = config.connect_timeout.min(left);
    let connection = tokio::select! {
        biased;
        connection = upstream.connect(within) => connection.map_err(|error| match error.kind() {
            io::ErrorKind::TimedOut => late(config, within, config.connect_timeout, Failure::from(error)),
            _ => Failure::from(error),
        })?,
        () = unreachable(&mut down) => return Err(Failure::Abandoned { unsent: true }),
    };
    send(config, connection, upstream, outgoing, &mut down).await
}

async fn send(
    config: &Config,
    mut connection: Connection,
    upstream: &Arc<Upstream>,
    outgoing: &Outgoing,
    down: &mut watch::Receiver<bool>,
) -> Result<Answer, Failure> {
    let Some(mut request) = outgoing.request(upstream.addr()) else { return Err(Failure::Client) };
    if let Some(trace) = &config.trace {
        trace.0.inject(&Span::current(), request.headers_mut());
    }
    let began = Instant::now();
    let response = {
        let mut sent = pin!(connection.send(request));
        let mut suspected = false;
        let mut timer = pin!(sleep_until(patience(config, outgoing, began)?));
        loop {
            tokio::select! {
                biased;
                response = &mut sent => break response,
                () = &mut timer => timer.as_mut().reset(patience(config, outgoing, began)?),
                () = unreachable(down), if !suspected => {
                    if outgoing.is_repeatable() {
                        return Err(Failure::Abandoned { unsent: false });
                    }
                    // What can't be made elsewhere is not given up on a suspicion: the answer may still come.
                    suspected = true;
                }
            }
        }
    };
    let response = response.map_err(|mut error| {
        let unsent = error.take_message().is_some();
        let error = error.into_error();
        // The other end says that it did nothing with it (RFC 9113 8.7).
        let unsent = unsent || refused(&error);
        let why = error.to_string();
        if outgoing.body.failed() { Failure::Client } else { Failure::Reset { unsent, why } }
    })?;
    whole(config, response, connection, upstream, outgoing, down).await
}

/// Reads a short answer to its end, so that a connection that breaks in it can still be made up for.
async fn whole(
    config: &Config,
    response: Response<Incoming>,
    connection: Connection,
    upstream: &Arc<Upstream>,
    outgoing: &Outgoing,
    down: &mut watch::Receiver<bool>,
) -> Result<Answer, Failure> {
    let short = response.body().size_hint().exact().is_some_and(|size| size <= config.whole_response_limit);
    if !short || !outgoing.is_idempotent() {
        return Ok(Answer::Stream(response, connection));
    }
    let (parts, body) = response.into_parts();
    if body.is_end_stream() {
        upstream.give_back(connection);
        return Ok(Answer::Whole(Response::from_parts(parts, Bytes::new())));
    }
    let most = usize::try_from(config.whole_response_limit).unwrap_or(usize::MAX);
    // An answer that overtakes a slow upload has its time.
    let left = outgoing.deadline(config).saturating_duration_since(Instant::now());
    let within =
        if outgoing.body.starved() { config.response_timeout } else { config.response_timeout.min(left) };
    let read = tokio::select! {
        biased;
        read = timeout(within, Limited::new(body, most).collect()) => read,
        () = unreachable(down), if outgoing.is_repeatable() => {
            return Err(Failure::Abandoned { unsent: false });
        }
    };
    match read {
        Ok(Ok(collected)) => {
            upstream.give_back(connection);
            Ok(Answer::Whole(Response::from_parts(parts, collected.to_bytes())))
        }
        Ok(Err(error)) => Err(Failure::Reset { unsent: false, why: error.to_string() }),
        Err(_) => Err(late(config, within, config.response_timeout, Failure::Timeout)),
    }
}

/// When to look again at what is waited for: the client, or else the endpoint.
///
/// # Errors
/// There is nothing to wait for any more.
fn patience(config: &Config, outgoing: &Outgoing, began: Instant) -> Result<Instant, Failure> {
    let now = Instant::now();
    let last = outgoing.body.progress().unwrap_or(began).max(began);
    if outgoing.body.starved() {
        let until = last + config.body_idle_timeout;
        // Should the client go on, it is the endpoint's turn to be watched.
        let look = now + config.response_timeout / 4;
        return if now < until { Ok(until.min(look)) } else { Err(Failure::Client) };
    }
    let until = (last + config.response_timeout).min(outgoing.deadline(config));
    if now < until {
        return Ok(until);
    }
    Err(late(config, now - last, config.response_timeout, Failure::Timeout))
}

/// Whose failure it is that an endpoint did not do something in time.
fn late(config: &Config, had: Duration, may: Duration, failure: Failure) -> Failure {
    // Where one attempt may take as long as the whole request, some of that is gone before it begins.
    let fair = may.min(config.total_timeout.mul_f64(0.9));
    if had < fair { Failure::Late } else { failure }
}

fn refused(error: &hyper::Error) -> bool {
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        if let Some(error) = error.downcast_ref::<h2::Error>() {
            return error.reason() == Some(h2::Reason::REFUSED_STREAM);
        }
        source = error.source();
    }
    false
}

async fn unreachable(down: &mut watch::Receiver<bool>) {
    if down.wait_for(|down| *down).await.is_err() {
        // The endpoint is gone, and what it works on goes on.
        std::future::pending::<()>().await;
    }
}

/// How long a reused connection may take to be ready.
const READY: Duration = Duration::from_millis(20);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_we_lack_is_not_the_endpoints_failure() {
        let lack = Failure::from(io::Error::from_raw_os_error(24));
        assert!(matches!(lack, Failure::Local(_)) && lack.is_unsent(), "{lack:?}");
        assert_eq!(lack.outcome(), Outcome::Cancelled);
        let refused = Failure::from(io::Error::from(io::ErrorKind::ConnectionRefused));
        assert_eq!(refused.outcome(), Outcome::ConnectFailed);
    }
}
