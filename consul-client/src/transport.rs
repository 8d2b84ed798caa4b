//! Sends a request, with a place in a queue, a deadline per attempt, and retries by class of error. It does the I/O with `pool`, which
//! keeps connections, and `dial`, which opens them.
//!
//! Short and blocking calls have a pool and a fair queue each, because a client whose connections all hang in blocking queries
//! cannot renew its lock. Together they stay below the 200 connections that a server allows one address; beyond that, Consul 1.8
//! closes the connection without a word.

use std::{
    error::Error as StdError,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http::{HeaderName, HeaderValue, header, uri::InvalidUri};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};

use crate::{
    Consistency, Error, Meta, Result,
    address::Address,
    backoff::Backoff,
    classify::classify,
    dial::Body,
    error::Answer,
    pool::{Broke, Exchange, Pool},
    request::{Raw, Request},
    token::TokenSource,
};

/// Connections and limits; shared by all clones of a client.
pub(crate) struct Transport {
    pub(crate) addresses: Vec<Address>,
    /// The address that answered last; modulo the number of addresses.
    pub(crate) current: AtomicUsize,
    pub(crate) short: Lane,
    pub(crate) blocking: Lane,
    pub(crate) token: TokenSource,
    /// `Authorization: Basic`, for a proxy before the agent; marked sensitive.
    pub(crate) basic_auth: Option<HeaderValue>,
    pub(crate) request_timeout: Duration,
    pub(crate) deadline: Duration,
    pub(crate) max_answer: usize,
}

/// A pool of connections and the queue before it.
pub(crate) struct Lane {
    /// One per address.
    pub(crate) pools: Vec<Arc<Pool>>,
    pub(crate) slots: Arc<Semaphore>,
    pub(crate) size: usize,
}

impl Transport {
    /// Sends, and repeats what may be repeated until the deadline. What asks for one attempt gets one.
    pub(crate) async fn call(&self, request: &Request) -> Result<Raw> {
        if let Some(limit) = request.once {
            return self.attempt(request, limit, &mut Refused::default()).await;
        }
        let ends = Instant::now() + request.deadline.unwrap_or(self.deadline).min(MAX_DEADLINE);
        let mut backoff = Backoff::new(RETRY_FIRST, RETRY_MOST);
        let mut untried = self.addresses.len().saturating_sub(1);
        let mut refused = Refused::default();
        let mut election = false;
        let mut unsettled = false;
        loop {
            let left = ends.saturating_duration_since(Instant::now());
            let error = match self.attempt(request, left.min(self.request_timeout), &mut refused).await {
                Ok(raw) => return Ok(raw),
                Err(error) => error,
            };
            let again = error.is_retryable() && (request.repeatable || !error.maybe_applied());
            election |= speaks_of_an_election(&error);
            let elsewhere = if matches!(error, Error::NotSent { .. }) {
                refused.leaves_any_of(self.addresses.len())
            } else {
                refused = Refused::default();
                false
            };
            let delay = if elsewhere {
                Duration::ZERO
            } else if matches!(error, Error::NoLeader(_)) && untried > 0 {
                untried -= 1;
                Duration::ZERO
            } else {
                let full = backoff.next(rand::random());
                // The server that is gone from an election stays among the addresses.
                if election { full.min(spread(RETRY_ELECTION)) } else { full }
            };
            unsettled |= error.maybe_applied();
            if !again || Instant::now() + delay >= ends {
                return Err(if unsettled { as_ambiguous(error, request) } else { error });
            }
            tracing::debug!(endpoint = %request.endpoint(), %error, delay_ms = delay.as_millis(), "consul call is repeated");
            tokio::time::sleep(delay).await;
        }
    }

    /// One attempt at one address, within `limit` from joining the queue to the last byte. A token that was fetched and is denied is
    /// fetched anew and tried once more.
    async fn attempt(&self, request: &Request, limit: Duration, refused: &mut Refused) -> Result<Raw> {
        let ends = Instant::now() + limit.min(MAX_DEADLINE);
        let (lane, _slot) = self.place(request, ends, limit).await?;
        // Time spent in the queue was not the server's; a blocking query needs its whole wait.
        let ends = if request.blocking { Instant::now() + limit.min(MAX_DEADLINE) } else { ends };
        let token = match (&request.token, self.token.known()) {
            (Some(token), _) => Some(token.clone()),
            (None, Some(known)) => known,
            (None, None) => within(ends, request, limit, self.token.current()).await?,
        };
        let turn = refused.skip(self.turn(), self.addresses.len());
        let result = self.ask(lane, request, token.as_ref(), (ends, limit), turn).await;
        if matches!(result, Err(Error::NotSent { .. })) {
            refused.note(turn, self.addresses.len());
        }
        if result.as_ref().is_err_and(Error::is_denied)
            && request.token.is_none()
            && let Some(newer) = self.token.after_denial(token.as_ref()).await
        {
            return self.ask(lane, request, Some(&newer), (ends, limit), turn).await;
        }
        result
    }

    /// A place in the queue of the pool where a request belongs.
    async fn place(
        &self,
        request: &Request,
        ends: Instant,
        limit: Duration,
    ) -> Result<(&Lane, OwnedSemaphorePermit)> {
        // One connection is enough for a watch; but no first answer waits for the blocking queries of others.
        if request.beside_blocking
            && let Some(slot) = self.blocking.free()
        {
            return Ok((&self.blocking, slot));
        }
        let lane = if request.blocking { &self.blocking } else { &self.short };
        Ok((lane, lane.slot(request, ends, limit).await?))
    }

    async fn ask(
        &self,
        lane: &Lane,
        request: &Request,
        token: Option<&HeaderValue>,
        (ends, limit): (Instant, Duration),
        turn: usize,
    ) -> Result<Raw> {
        // Silence is how a blocking query waits, so there it says nothing of the server.
        let asked = Asked { transport: self, turn, unanswered: AtomicBool::new(!request.blocking) };
        let result = within(ends, request, limit, self.exchange(lane, request, token, &asked)).await;
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
        request: &Request,
        token: Option<&HeaderValue>,
        asked: &Asked<'_>,
    ) -> Result<Raw> {
        let body = Body::Whole(request.body.clone());
        let mut response = self.send(lane, request, token, asked.turn, body).await?;
        asked.answered();
        let status = response.status;
        let meta = Meta::from_headers(&response.headers);
        let hash = response.headers.get(&CONTENT_HASH).and_then(|v| v.to_str().ok()).map(str::to_owned);
        let body = self.body(&mut response, request).await?;
        // A 404 without an index is some proxy's, and must not pass for "no such key".
        let absent = status == 404 && request.absent_ok && meta.index.is_some();
        if (200..300).contains(&status) || absent || request.also_ok.contains(&status) {
            return Ok(Raw { status, meta, body, hash });
        }
        Err(self.refusal(request, token, status, &body))
    }

    /// Sends, and waits for the head of the answer.
    async fn send(
        &self,
        lane: &Lane,
        request: &Request,
        token: Option<&HeaderValue>,
        turn: usize,
        body: Body,
    ) -> Result<Exchange> {
        let at = turn % self.addresses.len().max(1);
        let (Some(address), Some(pool)) = (self.addresses.get(at), lane.pools.get(at)) else {
            return Err(Error::setting("address", "", "the client has none"));
        };
        let unfit = |error: InvalidUri| Error::invalid("path", &request.path, error.to_string());
        let mut sent = http::Request::new(body);
        *sent.method_mut() = request.method.clone();
        *sent.uri_mut() = address.target(&request.path, request.query().as_deref()).map_err(unfit)?;
        let headers = sent.headers_mut();
        if let Some(token) = token {
            headers.insert(TOKEN, token.clone());
        }
        if let Some(pair) = &self.basic_auth {
            headers.insert(header::AUTHORIZATION, pair.clone());
        }
        if let Some(control) = request.consistency.and_then(Consistency::cache_control) {
            headers.insert(header::CACHE_CONTROL, control);
        }
        pool.send(sent).await.map_err(|error| match error {
            Broke::NotSent(source) => {
                let (endpoint, address) = (request.endpoint(), address.as_str().to_owned());
                Error::NotSent { endpoint, address, source }
            }
            Broke::Ended(error) => broke(error, request),
        })
    }

    async fn body(&self, response: &mut Exchange, request: &Request) -> Result<Bytes> {
        let too_big = || Error::Decode {
            endpoint: request.endpoint(),
            reason: format!("the body exceeds the limit of {} bytes", self.max_answer),
            write: request.is_write(),
        };
        if response.length().is_some_and(|length| length > self.max_answer as u64) {
            return Err(too_big());
        }
        let broke = |error| broke(error, request);
        // Most answers come in one piece, which needs no copy.
        let Some(first) = response.chunk().await.map_err(broke)? else {
            return Ok(Bytes::new());
        };
        let Some(second) = response.chunk().await.map_err(broke)? else {
            return if first.len() > self.max_answer { Err(too_big()) } else { Ok(first) };
        };
        let mut body = BytesMut::from(&first[..]);
        let mut next = Some(second);
        while let Some(chunk) = next {
            if body.len() + chunk.len() > self.max_answer {
                return Err(too_big());
            }
            body.extend_from_slice(&chunk);
            next = response.chunk().await.map_err(broke)?;
        }
        Ok(body.freeze())
    }

    fn refusal(&self, request: &Request, token: Option<&HeaderValue>, status: u16, body: &[u8]) -> Error {
        let head = body.get(..body.len().min(4096)).unwrap_or_default();
        let text = String::from_utf8_lossy(head);
        // A server or proxy may echo what it was sent.
        let secrets = [token, self.basic_auth.as_ref()].into_iter().flatten();
        let text = secrets
            .filter_map(|value| value.to_str().ok())
            .filter(|secret| !secret.is_empty())
            .fold(text.into_owned(), |text, secret| text.replace(secret, "<token>"));
        classify(request.endpoint(), request.is_write(), status, &text)
    }

    /// One attempt whose bodies are streams; `limit` is for the head of the answer. The place in the queue goes along with it.
    pub(crate) async fn stream(
        &self,
        request: &Request,
        body: Body,
        limit: Duration,
    ) -> Result<(Exchange, OwnedSemaphorePermit)> {
        let lane = &self.blocking;
        let ends = Instant::now() + limit.min(MAX_DEADLINE);
        let slot = lane.slot(request, ends, limit).await?;
        let token = match &request.token {
            Some(token) => Some(token.clone()),
            None => self.token.current().await?,
        };
        let sending = self.send(lane, request, token.as_ref(), self.turn(), body);
        let mut response = within(ends, request, limit, sending).await?;
        let status = response.status;
        if (200..300).contains(&status) {
            return Ok((response, slot));
        }
        let body = within(ends, request, limit, self.body(&mut response, request)).await?;
        Err(self.refusal(request, token.as_ref(), status, &body))
    }
}

impl Lane {
    /// A place if nobody waits for one.
    fn free(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.slots).try_acquire_owned().ok()
    }

    async fn slot(&self, request: &Request, ends: Instant, limit: Duration) -> Result<OwnedSemaphorePermit> {
        if let Some(slot) = self.free() {
            return Ok(slot);
        }
        match tokio::time::timeout_at(ends, Arc::clone(&self.slots).acquire_owned()).await {
            Ok(Ok(slot)) => Ok(slot),
            _ => {
                let text = format!("all {} connections of this client were busy for {limit:?}", self.size);
                Err(Error::Throttled(Answer::new(request.endpoint(), 0, &text, request.is_write())))
            }
        }
    }
}

async fn within<T>(
    ends: Instant,
    request: &Request,
    limit: Duration,
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    match tokio::time::timeout_at(ends, work).await {
        Ok(result) => result,
        Err(_) => Err(Error::timed_out(request.is_write(), request.endpoint(), limit)),
    }
}

/// A connection that ended in the middle.
pub(crate) fn broke(error: hyper::Error, request: &Request) -> Error {
    let reason = format!("the connection broke: {}", innermost(&error));
    Error::unknown_outcome(request.is_write(), request.endpoint(), None, reason, Some(Box::new(error)))
}

/// The addresses at which a call found nobody since it last had an answer: it does not come by them again before it has tried the others,
/// wherever other calls are.
#[derive(Default)]
struct Refused(u64);

impl Refused {
    fn bit(turn: usize, addresses: usize) -> u64 {
        1 << (turn % addresses.max(1)).min(63)
    }

    fn note(&mut self, turn: usize, addresses: usize) {
        self.0 |= Self::bit(turn, addresses);
    }

    /// The next turn, from this one on, whose address did not refuse; this one where all did.
    fn skip(&self, turn: usize, addresses: usize) -> usize {
        let mut turns = (0..addresses).map(|more| turn.wrapping_add(more));
        turns.find(|turn| self.0 & Self::bit(*turn, addresses) == 0).unwrap_or(turn)
    }

    /// Whether an address is left to be tried at once. Where none is, all may be tried anew, after a pause.
    fn leaves_any_of(&mut self, addresses: usize) -> bool {
        let left = (0..addresses).any(|turn| self.0 & Self::bit(turn, addresses) == 0);
        if !left {
            self.0 = 0;
        }
        left
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

/// The server answered at once, and will do better as soon as there is a leader.
pub(crate) fn speaks_of_an_election(error: &Error) -> bool {
    let lost = matches!(error, Error::NoAnswer { .. } | Error::Ambiguous { .. }) && error.status().is_some();
    lost || matches!(error, Error::NoLeader(_))
}

/// Between half of it and all of it, by chance.
pub(crate) fn spread(most: Duration) -> Duration {
    most.mul_f64(0.5 + rand::random::<f64>() / 2.0)
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

const TOKEN: HeaderName = HeaderName::from_static("x-consul-token");
const CONTENT_HASH: HeaderName = HeaderName::from_static("x-consul-contenthash");
/// During an election nearly all errors are instant, so a fast first retry is cheap.
const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_MOST: Duration = Duration::from_secs(2);
/// While servers answer that they have no leader: work is to resume within half a second of the new one, and refusals are cheap.
pub(crate) const RETRY_ELECTION: Duration = Duration::from_millis(300);
/// Keeps `now + duration` from overflowing.
const MAX_DEADLINE: Duration = Duration::from_secs(24 * 3600);

#[cfg(test)]
mod tests {
    /// Every future of a caller carries this one.
    #[test]
    fn a_call_is_small() {
        let kv = crate::Client::builder().build().unwrap().kv();
        let (get, put) = (size_of_val(&kv.get("a")), size_of_val(&kv.put("a", "b")));
        assert!(get.max(put) < 5 * 1024, "{get} {put}");
    }
}
