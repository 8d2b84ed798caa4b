//! Bodies: the request's, kept for a retry while it is small, and the answer's, which settles its lease.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep};

use super::gateway::Ticket;
use super::upstream::{Connection, Upstream};
use crate::lease::{Lease, Outcome};

pub(crate) type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The body of a client's request, as often as it is needed, while what was read of it fits the limit.
#[derive(Clone, Debug)]
pub(crate) struct Replay(Option<Arc<Mutex<Source>>>);

#[derive(Debug)]
struct Source {
    body: Incoming,
    hint: SizeHint,
    kept: Vec<Bytes>,
    trailers: Option<HeaderMap>,
    size: usize,
    limit: usize,
    /// Bytes that were read, and the most that may be.
    total: u64,
    most: u64,
    too_large: bool,
    overflowed: bool,
    ended: bool,
    failed: bool,
    /// The endpoint asked for more, and the client has not sent it.
    starved: bool,
    attempt: u64,
    progress: Instant,
}

impl Replay {
    pub(crate) fn new(body: Incoming, limit: usize, most: u64) -> Self {
        if body.is_end_stream() {
            return Self(None);
        }
        let hint = body.size_hint();
        Self(Some(Arc::new(Mutex::new(Source {
            body,
            hint,
            kept: Vec::new(),
            trailers: None,
            size: 0,
            limit,
            total: 0,
            most,
            too_large: false,
            overflowed: false,
            ended: false,
            failed: false,
            starved: false,
            attempt: 0,
            progress: Instant::now(),
        }))))
    }

    /// The body from its start, for one attempt; earlier ones end. `None` when its start is no longer known.
    pub(crate) fn start(&self) -> Option<RequestBody> {
        let Some(shared) = &self.0 else { return Some(RequestBody::empty()) };
        let mut source = lock(shared);
        source.attempt += 1;
        source.starved = false;
        let body = RequestBody {
            shared: Some(Arc::clone(shared)),
            attempt: source.attempt,
            next: 0,
            trailed: false,
        };
        (!source.overflowed).then_some(body)
    }

    /// Reads ahead, as far as it is kept, while there is nobody to send it to; ends only when the client breaks off.
    ///
    /// A client that leaves is noticed by what is read from it: hyper looks for its end only behind its body.
    pub(crate) async fn broken(&self) {
        let Some(shared) = &self.0 else { return std::future::pending().await };
        // What is left of an earlier attempt must not read beside this.
        lock(shared).attempt += 1;
        std::future::poll_fn(|cx| lock(shared).poll_ahead(cx)).await;
    }

    /// Whether there is none.
    pub(crate) fn is_none(&self) -> bool {
        self.0.is_none()
    }

    /// Whether another attempt could send it.
    pub(crate) fn can_start(&self) -> bool {
        self.0.as_ref().is_none_or(|shared| !lock(shared).overflowed)
    }

    /// Whether the client broke off.
    pub(crate) fn failed(&self) -> bool {
        self.0.as_ref().is_some_and(|shared| lock(shared).failed)
    }

    /// Whether it was longer than it may be.
    pub(crate) fn too_large(&self) -> bool {
        self.0.as_ref().is_some_and(|shared| lock(shared).too_large)
    }

    /// Whether it is the client that we wait for.
    pub(crate) fn starved(&self) -> bool {
        self.0.as_ref().is_some_and(|shared| lock(shared).starved)
    }

    /// When the client last sent something of it.
    pub(crate) fn progress(&self) -> Option<Instant> {
        self.0.as_ref().map(|shared| lock(shared).progress)
    }
}

impl Source {
    /// Counts what was read; more than may be is a failure of the client's.
    fn count(&mut self, bytes: usize) {
        self.size = self.size.saturating_add(bytes);
        self.total = self.total.saturating_add(bytes as u64);
        if self.total > self.most {
            self.too_large = true;
            self.failed = true;
        }
    }

    fn trailed(&mut self, frame: Frame<Bytes>) {
        self.trailers = frame.into_trailers().ok();
        self.ended = true;
    }

    fn poll_ahead(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        // The last frame may pass the limit: it is kept, and given up with the rest when yet more comes.
        while !self.ended && !self.failed && self.size < self.limit {
            match std::task::ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => {
                    self.progress = Instant::now();
                    match frame.into_data() {
                        Ok(data) => {
                            self.count(data.len());
                            self.kept.push(data);
                            self.ended = self.body.is_end_stream();
                        }
                        Err(frame) => self.trailed(frame),
                    }
                }
                Some(Err(_)) => self.failed = true,
                None => self.ended = true,
            }
        }
        if self.failed { Poll::Ready(()) } else { Poll::Pending }
    }
}

/// The body of one attempt.
#[derive(Debug)]
pub(crate) struct RequestBody {
    shared: Option<Arc<Mutex<Source>>>,
    attempt: u64,
    next: usize,
    trailed: bool,
}

impl RequestBody {
    /// The trailers, once.
    fn trailers(&mut self, source: &Source) -> Option<Result<Frame<Bytes>, BoxError>> {
        if std::mem::replace(&mut self.trailed, true) {
            return None;
        }
        source.trailers.clone().map(|trailers| Ok(Frame::trailers(trailers)))
    }

    pub(crate) fn empty() -> Self {
        Self { shared: None, attempt: 0, next: 0, trailed: false }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let Some(shared) = self.shared.clone() else { return Poll::Ready(None) };
        let mut source = lock(&shared);
        if source.attempt != self.attempt {
            return Poll::Ready(Some(Err("a later attempt took the body over".into())));
        }
        if let Some(chunk) = source.kept.get(self.next) {
            let chunk = chunk.clone();
            self.next += 1;
            return Poll::Ready(Some(Ok(Frame::data(chunk))));
        }
        if source.failed {
            return Poll::Ready(Some(Err("the client's body broke off or is too long".into())));
        }
        if source.ended {
            return Poll::Ready(self.trailers(&source));
        }
        let frame = match Pin::new(&mut source.body).poll_frame(cx) {
            Poll::Pending => {
                source.starved = true;
                return Poll::Pending;
            }
            Poll::Ready(frame) => frame,
        };
        source.starved = false;
        source.progress = Instant::now();
        match frame {
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => {
                    source.count(data.len());
                    if source.failed {
                        return Poll::Ready(Some(Err("the client's body is too long".into())));
                    }
                    if source.size > source.limit {
                        source.overflowed = true;
                        source.kept.clear();
                        self.next = 0;
                    } else {
                        source.kept.push(data.clone());
                        self.next += 1;
                    }
                    source.ended = source.body.is_end_stream();
                    Poll::Ready(Some(Ok(Frame::data(data))))
                }
                Err(frame) => {
                    source.trailed(frame);
                    Poll::Ready(self.trailers(&source))
                }
            },
            Some(Err(error)) => {
                source.failed = true;
                Poll::Ready(Some(Err(error.into())))
            }
            None => {
                source.ended = true;
                Poll::Ready(None)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.shared.as_ref().is_none_or(|shared| {
            let source = lock(shared);
            source.ended && self.next >= source.kept.len() && (self.trailed || source.trailers.is_none())
        })
    }

    fn size_hint(&self) -> SizeHint {
        self.shared.as_ref().map_or(SizeHint::with_exact(0), |shared| {
            let source = lock(shared);
            // What is left is only known at the start; later nobody asks.
            if self.next == 0 && !source.overflowed { source.hint } else { SizeHint::default() }
        })
    }
}

fn lock(shared: &Mutex<Source>) -> MutexGuard<'_, Source> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The body of an answer to a client.
pub(crate) struct ResponseBody {
    kind: Kind,
    /// Counts the request as in flight until the body is gone; none when something else does.
    ticket: Option<Ticket>,
}

enum Kind {
    Whole(Option<Bytes>),
    Stream(Box<Stream>),
}

/// An answer on its way, with all that is released at its end.
pub(crate) struct Stream {
    body: Incoming,
    held: Option<(Connection, Lease)>,
    upstream: Arc<Upstream>,
    clock: Instant,
    idle: Duration,
    timer: Pin<Box<Sleep>>,
}

impl Stream {
    pub(crate) fn new(
        body: Incoming,
        connection: Connection,
        lease: Lease,
        upstream: Arc<Upstream>,
        clock: Instant,
        idle: Duration,
    ) -> Self {
        let timer = Box::pin(tokio::time::sleep(idle));
        Self { body, held: Some((connection, lease)), upstream, clock, idle, timer }
    }

    fn end(&mut self, outcome: Outcome) {
        let Some((connection, lease)) = self.held.take() else { return };
        lease.finish(outcome, self.clock.elapsed());
        // One that was not read to its end must not be used again.
        if outcome == Outcome::Success {
            self.upstream.give_back(connection);
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match Pin::new(&mut self.body).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                if self.body.is_end_stream() {
                    self.end(Outcome::Success);
                } else {
                    let next = Instant::now() + self.idle;
                    self.timer.as_mut().reset(next);
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => {
                self.end(Outcome::Reset);
                Poll::Ready(Some(Err(error.into())))
            }
            Poll::Ready(None) => {
                self.end(Outcome::Success);
                Poll::Ready(None)
            }
            Poll::Pending => {
                std::task::ready!(self.timer.as_mut().poll(cx));
                self.end(Outcome::Timeout);
                Poll::Ready(Some(Err("the answer's body stood still for too long".into())))
            }
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let outcome = if self.body.is_end_stream() { Outcome::Success } else { Outcome::Cancelled };
        self.end(outcome);
    }
}

impl ResponseBody {
    pub(crate) fn whole(bytes: Bytes, ticket: Ticket) -> Self {
        Self { kind: Kind::Whole((!bytes.is_empty()).then_some(bytes)), ticket: Some(ticket) }
    }

    /// Nothing, and whatever goes on goes on elsewhere.
    pub(crate) fn none() -> Self {
        Self { kind: Kind::Whole(None), ticket: None }
    }

    pub(crate) fn stream(stream: Stream, ticket: Ticket) -> Self {
        Self { kind: Kind::Stream(Box::new(stream)), ticket: Some(ticket) }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = match &mut self.kind {
            Kind::Whole(bytes) => bytes.take().map(|bytes| Ok(Frame::data(bytes))),
            Kind::Stream(stream) => std::task::ready!(stream.poll(cx)),
        };
        if let (Some(Ok(frame)), Some(ticket)) = (&frame, &mut self.ticket) {
            ticket.sent(frame.data_ref().map_or(0, Bytes::len) as u64);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Whole(bytes) => bytes.is_none(),
            Kind::Stream(stream) => stream.body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Kind::Stream(stream) => stream.body.size_hint(),
        }
    }
}
