//! The only file that does I/O: sends a request, with a place in a queue, a deadline per attempt, and retries by class of error.
//!
//! Short and blocking calls have a pool and a fair queue each, because a client whose connections all hang in blocking queries
//! cannot renew its lock. Together they stay below the 200 connections that a server allows one address; beyond that, Consul 1.8
//! closes the connection without a word.

use std::{
    error::Error as StdError,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    time::Duration,
};

use bytes::BytesMut;
use http::HeaderValue;
use tokio::{sync::Semaphore, time::Instant};

use crate::{
    Error, Meta, Result,
    address::Address,
    backoff::Backoff,
    classify::classify,
    error::Answer,
    request::{Raw, Request},
};

/// Connections and limits; shared by all clones of a client.
pub(crate) struct Transport {
    pub(crate) addresses: Vec<Address>,
    /// The address that answered last; modulo the number of addresses.
    pub(crate) current: AtomicUsize,
    pub(crate) short: Lane,
    pub(crate) blocking: Lane,
    /// The headers that carry secrets, marked sensitive.
    pub(crate) auth: Vec<(http::HeaderName, HeaderValue)>,
    pub(crate) request_timeout: Duration,
    pub(crate) deadline: Duration,
    pub(crate) max_answer: usize,
}

/// A pool of connections and the queue before it.
pub(crate) struct Lane {
    pub(crate) http: reqwest::Client,
    pub(crate) slots: Semaphore,
    pub(crate) size: usize,
}

impl Transport {
    /// Sends, and repeats what may be repeated until the deadline. What asks for one attempt gets one.
    pub(crate) async fn call(&self, request: &Request) -> Result<Raw> {
        if let Some(limit) = request.once {
            return self.attempt(request, limit).await;
        }
        let ends = Instant::now() + request.deadline.unwrap_or(self.deadline).min(MAX_DEADLINE);
        let mut backoff = Backoff::new(RETRY_FIRST, RETRY_MOST);
        let mut untried = self.addresses.len().saturating_sub(1);
        let mut unsettled = false;
        loop {
            let left = ends.saturating_duration_since(Instant::now());
            let error = match self.attempt(request, left.min(self.request_timeout)).await {
                Ok(raw) => return Ok(raw),
                Err(error) => error,
            };
            let again = error.is_retryable() && (request.repeatable || !error.maybe_applied());
            let delay = if matches!(error, Error::NotSent { .. } | Error::NoLeader(_)) && untried > 0 {
                untried -= 1;
                Duration::ZERO
            } else {
                backoff.next(rand::random())
            };
            unsettled |= error.maybe_applied();
            if !again || Instant::now() + delay >= ends {
                return Err(if unsettled { as_ambiguous(error, request) } else { error });
            }
            tracing::debug!(endpoint = %request.endpoint(), %error, delay_ms = delay.as_millis(), "consul call is repeated");
            tokio::time::sleep(delay).await;
        }
    }

    /// One attempt at one address, within `limit` from joining the queue to the last byte.
    async fn attempt(&self, request: &Request, limit: Duration) -> Result<Raw> {
        let lane = if request.blocking { &self.blocking } else { &self.short };
        let ends = Instant::now() + limit.min(MAX_DEADLINE);
        let Ok(Ok(_slot)) = tokio::time::timeout_at(ends, lane.slots.acquire()).await else {
            let text = format!("all {} connections of this client were busy for {limit:?}", lane.size);
            return Err(Error::Throttled(Answer::new(request.endpoint(), 0, &text, request.is_write())));
        };
        let turn = self.turn();
        let Some(address) = self.addresses.get(turn % self.addresses.len().max(1)) else {
            return Err(Error::setting("address", "", "the client has none"));
        };
        // Time spent in the queue was not the server's; a blocking query needs its whole wait.
        let ends = if request.blocking { Instant::now() + limit } else { ends };
        // Silence is how a blocking query waits, so there it says nothing of the server.
        let asked = Asked { transport: self, turn, unanswered: AtomicBool::new(!request.blocking) };
        let result = match tokio::time::timeout_at(ends, self.exchange(lane, address, request, &asked)).await
        {
            Ok(result) => result,
            Err(_) => Err(Error::timed_out(request.is_write(), request.endpoint(), limit)),
        };
        asked.answered();
        if result.as_ref().is_err_and(speaks_for_another_address) {
            self.leave(turn);
        }
        result
    }

    /// Whose turn it is, for [`leave`](Self::leave).
    pub(crate) fn turn(&self) -> usize {
        self.current.load(Ordering::Relaxed)
    }

    /// Lets the next call begin at the next address, if it is still this one's turn: of many that fail at the same address only
    /// the first moves on.
    pub(crate) fn leave(&self, turn: usize) {
        if self.addresses.len() > 1 {
            let next = turn.wrapping_add(1);
            let _ = self.current.compare_exchange(turn, next, Ordering::Relaxed, Ordering::Relaxed);
        }
    }

    async fn exchange(
        &self,
        lane: &Lane,
        address: &Address,
        request: &Request,
        asked: &Asked<'_>,
    ) -> Result<Raw> {
        let endpoint = || request.endpoint();
        let url = format!("{}{}", address.as_str(), request.target());
        let mut builder = lane.http.request(request.method.clone(), url);
        for (name, value) in &self.auth {
            builder = builder.header(name, value);
        }
        if let Some(body) = &request.body {
            builder = builder.body(body.clone());
        }
        let lost = |error: reqwest::Error| {
            // The URL holds the query, which can hold values.
            let error = error.without_url();
            if error.is_connect() {
                return Error::NotSent {
                    endpoint: endpoint(),
                    address: address.as_str().to_owned(),
                    source: Box::new(error),
                };
            }
            let reason = format!("the connection broke: {}", innermost(&error));
            Error::unknown_outcome(request.is_write(), endpoint(), None, reason, Some(Box::new(error)))
        };
        let mut response = builder.send().await.map_err(lost)?;
        asked.answered();
        let status = response.status().as_u16();
        let meta = Meta::from_headers(response.headers());
        let too_big = || Error::Decode {
            endpoint: endpoint(),
            reason: format!("the body exceeds the limit of {} bytes", self.max_answer),
            write: request.is_write(),
        };
        if response.content_length().is_some_and(|length| length > self.max_answer as u64) {
            return Err(too_big());
        }
        let mut body = BytesMut::new();
        while let Some(chunk) = response.chunk().await.map_err(lost)? {
            if body.len() + chunk.len() > self.max_answer {
                return Err(too_big());
            }
            body.extend_from_slice(&chunk);
        }
        // A 404 without an index is some proxy's, and must not pass for "no such key".
        let absent = status == 404 && request.absent_ok && meta.index.is_some();
        if (200..300).contains(&status) || absent || (status == 409 && request.conflict_ok) {
            return Ok(Raw { status, meta, body: body.freeze() });
        }
        let head = body.get(..body.len().min(4096)).unwrap_or_default();
        Err(classify(
            endpoint(),
            request.is_write(),
            status,
            &self.without_secrets(&String::from_utf8_lossy(head)),
        ))
    }

    /// A server or proxy may echo what it was sent.
    fn without_secrets(&self, text: &str) -> String {
        self.auth
            .iter()
            .filter_map(|(_, value)| value.to_str().ok())
            .filter(|secret| !secret.is_empty())
            .fold(text.to_owned(), |text, secret| text.replace(secret, "<token>"))
    }
}

/// An exchange under way. Dropped without an answer, because its caller gave up, it lets the next call begin at the next address:
/// else callers with less patience than the connect timeout would begin at the same dead address for ever.
struct Asked<'a> {
    transport: &'a Transport,
    turn: usize,
    unanswered: AtomicBool,
}

impl Asked<'_> {
    /// From here on the result tells what to think of the address.
    fn answered(&self) {
        self.unanswered.store(false, Ordering::Relaxed);
    }
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        if self.unanswered.load(Ordering::Relaxed) {
            self.transport.leave(self.turn);
        }
    }
}

/// Whether another server may do better: this one does not answer, or is cut off from the others.
fn speaks_for_another_address(error: &Error) -> bool {
    matches!(
        error,
        Error::NotSent { .. } | Error::NoAnswer { .. } | Error::Ambiguous { .. } | Error::NoLeader(_)
    )
}

/// The last failure of a write of which an earlier attempt may have happened.
fn as_ambiguous(error: Error, request: &Request) -> Error {
    if error.maybe_applied() {
        return error;
    }
    let (endpoint, status) = (request.endpoint(), error.status());
    let reason = "an earlier attempt broke off and the last one failed too".to_owned();
    Error::Ambiguous { endpoint, reason, status, source: Some(Box::new(error)) }
}

/// The deepest cause says more than "error sending request".
fn innermost(error: &(dyn StdError + 'static)) -> String {
    let mut cause = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}

/// During an election nearly all errors are instant, so a fast first retry is cheap.
const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_MOST: Duration = Duration::from_secs(2);
/// Keeps `now + duration` from overflowing.
const MAX_DEADLINE: Duration = Duration::from_secs(24 * 3600);
