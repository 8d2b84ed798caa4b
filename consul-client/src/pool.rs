//! Connections that are kept, for one address.
//!
//! A pool of our own, because the queue before it (`transport::Lane`) hands out the right to a connection already: what is left is a
//! stack of idle ones. A general pool locks, hashes and starts a task for each call, and wants a whole URL that is taken apart again.

use std::{
    collections::VecDeque,
    future::poll_fn,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode, header};
use http_body::Body as _;
use hyper::{body::Incoming, client::conn::http1::SendRequest};
use tokio::{runtime::Handle, time::Instant};

use crate::dial::{Body, Cause, Dial};

/// The connections to one address. As many as there are places in the queue before it.
pub(crate) struct Pool {
    dial: Dial,
    idle: Mutex<Idle>,
}

#[derive(Default)]
struct Idle {
    /// The longest unused first; the last is taken first, so that the others can end when fewer are needed.
    stack: VecDeque<(SendRequest<Body>, Instant)>,
    /// Whether a task looks after them.
    tended: bool,
}

/// Why there is no answer.
pub(crate) enum Broke {
    /// There is no connection, so nothing was sent.
    NotSent(Cause),
    /// It ended before the head of the answer; what was sent may have arrived.
    Ended(hyper::Error),
}

impl Pool {
    pub(crate) fn new(dial: Dial) -> Arc<Self> {
        Arc::new(Self { dial, idle: Mutex::default() })
    }

    /// Sends over a connection that is idle, or over a new one, and waits for the head of the answer. Dropped before that, it closes
    /// the connection.
    pub(crate) async fn send(self: &Arc<Self>, mut request: Request<Body>) -> Result<Exchange, Broke> {
        request.headers_mut().insert(header::HOST, self.dial.host.clone());
        loop {
            let (mut sender, used) = match self.take() {
                Some(sender) => (sender, true),
                // Boxed, for it is rare and every call would carry the room for it.
                None => (Box::pin(self.dial.open()).await.map_err(Broke::NotSent)?, false),
            };
            // One that the server closed meanwhile says so here, or gives the request back unsent.
            if sender.ready().await.is_err() && used {
                continue;
            }
            match sender.try_send_request(request).await {
                Ok(response) => {
                    let (head, body) = response.into_parts();
                    let lease = Some(Lease { sender, pool: Arc::downgrade(self), status: head.status });
                    return Ok(Exchange { status: head.status.as_u16(), headers: head.headers, body, lease });
                }
                Err(mut error) => match error.take_message() {
                    Some(unsent) if used => request = unsent,
                    Some(_) => return Err(Broke::NotSent(error.into_error().into())),
                    None => return Err(Broke::Ended(error.into_error())),
                },
            }
        }
    }

    fn take(&self) -> Option<SendRequest<Body>> {
        let mut idle = self.idle();
        while let Some((sender, since)) = idle.stack.pop_back() {
            if !sender.is_closed() && since.elapsed() < LONGEST_IDLE {
                return Some(sender);
            }
        }
        None
    }

    fn put_back(self: &Arc<Self>, sender: SendRequest<Body>) {
        let mut idle = self.idle();
        idle.stack.push_back((sender, Instant::now()));
        // A stream may be read to its end where no runtime is.
        if !idle.tended
            && let Ok(runtime) = Handle::try_current()
        {
            idle.tended = true;
            // A runtime that is ending drops the task at once, which then wants the lock.
            drop(idle);
            runtime.spawn(Tending(Arc::downgrade(self)).run());
        }
    }

    fn idle(&self) -> MutexGuard<'_, Idle> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Closes what was idle for too long. It ends with the last idle connection, with the pool, or with the runtime.
struct Tending(Weak<Pool>);

impl Tending {
    async fn run(self) {
        loop {
            tokio::time::sleep(LONGEST_IDLE / 3).await;
            let Some(pool) = self.0.upgrade() else { return };
            let mut idle = pool.idle();
            idle.stack.retain(|(sender, since)| !sender.is_closed() && since.elapsed() < LONGEST_IDLE);
            if idle.stack.is_empty() {
                idle.tended = false;
                return;
            }
        }
    }
}

impl Drop for Tending {
    fn drop(&mut self) {
        if let Some(pool) = self.0.upgrade() {
            pool.idle().tended = false;
        }
    }
}

/// The head of an answer, and its body as it comes. Read to its end, it gives the connection back; dropped before, it closes it.
pub(crate) struct Exchange {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    body: Incoming,
    lease: Option<Lease>,
}

struct Lease {
    sender: SendRequest<Body>,
    pool: Weak<Pool>,
    status: StatusCode,
}

impl Exchange {
    /// How long the body is, where the head tells.
    pub(crate) fn length(&self) -> Option<u64> {
        self.body.size_hint().exact()
    }

    /// The next piece of the body; `None` at its end.
    pub(crate) async fn chunk(&mut self) -> Result<Option<Bytes>, hyper::Error> {
        loop {
            if self.body.is_end_stream() {
                self.settle();
                return Ok(None);
            }
            let Some(frame) = poll_fn(|context| Pin::new(&mut self.body).poll_frame(context)).await else {
                self.settle();
                return Ok(None);
            };
            // Trailers say nothing here.
            if let Ok(data) = frame?.into_data() {
                return Ok(Some(data));
            }
        }
    }

    fn settle(&mut self) {
        let Some(Lease { sender, pool, status }) = self.lease.take() else { return };
        // Whoever refuses a body may have left it unread, and the next request would wait behind it.
        if !sender.is_closed()
            && (status.is_success() || sender.is_ready())
            && let Some(pool) = pool.upgrade()
        {
            pool.put_back(sender);
        }
    }
}

/// Longer than any gap between polls, shorter than a forgotten connection.
const LONGEST_IDLE: Duration = Duration::from_secs(90);
