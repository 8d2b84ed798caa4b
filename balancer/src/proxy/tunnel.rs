//! Connections that switched protocols: bytes both ways until one side ends, nothing moves for too long, or time is up.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, copy_bidirectional};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout};

use super::gateway::Ticket;
use super::upstream::{Connection, Upstream};
use crate::lease::{Lease, Outcome};

/// The tunnels of a gateway.
#[derive(Debug)]
pub(crate) struct Tunnels {
    open: AtomicUsize,
    fewer: Notify,
    cut: watch::Sender<bool>,
}

impl Default for Tunnels {
    fn default() -> Self {
        Self { open: AtomicUsize::new(0), fewer: Notify::new(), cut: watch::Sender::new(false) }
    }
}

impl Tunnels {
    pub(crate) fn open(&self) -> usize {
        self.open.load(Ordering::Acquire)
    }

    /// Waits until none is open.
    pub(crate) async fn gone(&self) {
        loop {
            let fewer = self.fewer.notified();
            if self.open() == 0 {
                return;
            }
            fewer.await;
        }
    }

    /// Ends all of them.
    pub(crate) fn cut(&self) {
        self.cut.send_replace(true);
    }
}

/// What a tunnel holds until it ends.
pub(crate) struct Tunnel {
    pub(crate) client: OnUpgrade,
    pub(crate) server: OnUpgrade,
    pub(crate) connection: Connection,
    pub(crate) upstream: Arc<Upstream>,
    pub(crate) lease: Lease,
    pub(crate) ticket: Ticket,
    pub(crate) start: Instant,
    pub(crate) idle: Duration,
}

impl Tunnel {
    /// Runs beside the connection that it came from.
    pub(crate) fn spawn(self, tunnels: &Arc<Tunnels>) {
        let mut cut = tunnels.cut.subscribe();
        let open = Open::new(tunnels);
        tokio::spawn(async move {
            let _open = open;
            let Self { client, server, connection, upstream, lease, mut ticket, start, idle } = self;
            let moved = Arc::new(Moved::default());
            let carried = async {
                // The client has its 101 only after this began.
                let both = async { tokio::try_join!(client, server) };
                let late = |_| io::Error::new(io::ErrorKind::TimedOut, "the client did not switch");
                let (client, server) =
                    timeout(SWITCH, both).await.map_err(late)?.map_err(io::Error::other)?;
                drop(connection);
                let mut client = Watched { io: TokioIo::new(client), moved: Arc::clone(&moved), start };
                copy_bidirectional(&mut client, &mut TokioIo::new(server)).await
            };
            let outcome = tokio::select! {
                carried = carried => match carried {
                    Ok(_) => Outcome::Success,
                    // Either side may have left; nobody can tell whose doing it was.
                    Err(_) => Outcome::Cancelled,
                },
                () = still(&moved, start, idle) => Outcome::Cancelled,
                () = dead(&upstream, &moved, start) => Outcome::Timeout,
                _ = cut.wait_for(|cut| *cut) => Outcome::Cancelled,
            };
            ticket.sent(moved.bytes.load(Ordering::Relaxed));
            lease.finish(outcome, start.elapsed());
        });
    }
}

/// Ends when nothing has moved for too long.
async fn still(moved: &Moved, start: Instant, idle: Duration) {
    loop {
        let quiet = moved.quiet(start);
        if quiet >= idle {
            return;
        }
        sleep(idle - quiet).await;
    }
}

/// Ends when the endpoint is unreachable and nothing moves: a machine without power says nothing, and a client that only
/// listens would wait for it for ever.
async fn dead(upstream: &Upstream, moved: &Moved, start: Instant) {
    let mut down = upstream.watch();
    loop {
        if down.wait_for(|down| *down).await.is_err() {
            return std::future::pending().await;
        }
        let quiet = moved.quiet(start);
        if quiet >= SUSPECT {
            return;
        }
        sleep(SUSPECT - quiet).await;
    }
}

#[derive(Debug, Default)]
struct Moved {
    /// Milliseconds since the start when something moved last.
    at: AtomicU64,
    bytes: AtomicU64,
}

impl Moved {
    fn note(&self, start: Instant, bytes: usize) {
        self.at.store(start.elapsed().as_millis() as u64, Ordering::Relaxed);
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    fn quiet(&self, start: Instant) -> Duration {
        let at = self.at.load(Ordering::Relaxed);
        if at == 0 {
            // Nothing yet: since now, for whoever asks.
            self.at.store(start.elapsed().as_millis() as u64, Ordering::Relaxed);
            return Duration::ZERO;
        }
        start.elapsed().saturating_sub(Duration::from_millis(at))
    }
}

/// A client's side that notes what moves.
struct Watched<T> {
    io: T,
    moved: Arc<Moved>,
    start: Instant,
}

impl<T: AsyncRead + Unpin> AsyncRead for Watched<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        std::task::ready!(Pin::new(&mut self.io).poll_read(cx, buf))?;
        self.moved.note(self.start, buf.filled().len() - before);
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Watched<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = std::task::ready!(Pin::new(&mut self.io).poll_write(cx, buf))?;
        self.moved.note(self.start, written);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

struct Open(Arc<Tunnels>);

impl Open {
    fn new(tunnels: &Arc<Tunnels>) -> Self {
        tunnels.open.fetch_add(1, Ordering::AcqRel);
        Self(Arc::clone(tunnels))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::AcqRel);
        self.0.fewer.notify_waiters();
    }
}

/// How long both sides may take to switch once the endpoint has agreed.
const SWITCH: Duration = Duration::from_secs(10);
/// How long a tunnel to an unreachable endpoint may carry nothing.
const SUSPECT: Duration = Duration::from_secs(5);
