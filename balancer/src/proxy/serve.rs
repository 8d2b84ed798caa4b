//! Accepting, keeping house while serving, and draining.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout, timeout_at};

use super::client_io::{ClientIo, Seen};
use super::forward::handle;
use super::gateway::{Gateway, Inner};
use super::probe;

/// How a drain went.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct DrainReport {
    /// Connections that were open when the listener closed.
    pub open: usize,
    /// Those that were cut because the deadline came first.
    pub cut: usize,
    /// How long it took from the call for shutdown.
    pub seconds: f64,
}

impl Gateway {
    /// Serves until `shutdown`, then drains: not ready at once, `Connection: close` on every answer and new
    /// connections still served for [`drain_delay`](super::Config::drain_delay), then the listener closes and what is
    /// in flight has until [`drain_deadline`](super::Config::drain_deadline).
    ///
    /// Probes and pauses run only while some call of this serves. A gateway that drained serves no more.
    ///
    /// # Errors
    /// That of the listener when it can never accept again, as it is no listening socket (any more); what is in
    /// flight is drained first. Single connections that fail, and a shortage of descriptors, are no such errors: it
    /// goes on.
    pub async fn serve(
        &self,
        listener: TcpListener,
        shutdown: impl Future<Output = ()> + Send,
    ) -> io::Result<DrainReport> {
        let inner = &self.inner;
        let keeping = tokio::spawn(keep_house(Arc::clone(inner)));
        // Ended with this call, however it ends.
        let _keeping = AbortOnDrop(keeping.abort_handle());
        let (close, _) = watch::channel(false);
        let slots = Arc::new(Semaphore::new(inner.config.max_connections.min(Semaphore::MAX_PERMITS)));
        let mut connections = JoinSet::new();
        let _serving = Serving::new(Arc::clone(inner));

        let (began, broken) = {
            let mut accepting = pin!(async {
                loop {
                    let (stream, peer, slot) = match accept(&listener, &slots).await {
                        Ok(accepted) => accepted,
                        Err(error) => return error,
                    };
                    connections.spawn(connection(Arc::clone(inner), stream, peer, slot, close.subscribe()));
                    while connections.try_join_next().is_some() {}
                }
            });
            let mut broken = tokio::select! {
                () = shutdown => None,
                error = &mut accepting => Some(error),
            };
            inner.closing.store(true, Ordering::Release);
            let began = Instant::now();
            if broken.is_none() {
                broken = timeout(inner.config.drain_delay, accepting).await.ok();
            }
            (began, broken)
        };
        drop(listener);
        close.send_replace(true);
        while connections.try_join_next().is_some() {}
        let open = connections.len();
        let deadline = Instant::now() + inner.config.drain_deadline;
        while let Ok(Some(_)) = timeout_at(deadline, connections.join_next()).await {}
        let cut = connections.len();
        connections.shutdown().await;
        if let Some(error) = broken {
            return Err(error);
        }
        Ok(DrainReport { open, cut, seconds: began.elapsed().as_secs_f64() })
    }
}

/// The next connection, once there is room for it.
///
/// # Errors
/// There will never be one.
async fn accept(
    listener: &TcpListener,
    slots: &Arc<Semaphore>,
) -> io::Result<(TcpStream, IpAddr, Option<OwnedSemaphorePermit>)> {
    let slot = Arc::clone(slots).acquire_owned().await.ok();
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => return Ok((stream, peer.ip(), slot)),
            Err(error) if is_final(&error) => return Err(error),
            Err(error) => {
                // Out of descriptors, or a client that left again: neither ends the service.
                tracing::warn!(target: "balancer", %error, "accept failed");
                sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

/// Whether this is no socket that accepts: EINVAL, EOPNOTSUPP, EBADF, ENOTSOCK.
fn is_final(error: &io::Error) -> bool {
    const EBADF: i32 = 9;
    const ENOTSOCK: i32 = if cfg!(target_os = "linux") { 88 } else { 38 };
    matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported)
        || matches!(error.raw_os_error(), Some(EBADF | ENOTSOCK))
}

async fn connection(
    inner: Arc<Inner>,
    stream: TcpStream,
    peer: IpAddr,
    _slot: Option<OwnedSemaphorePermit>,
    mut close: watch::Receiver<bool>,
) {
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let config = &inner.config;
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(config.header_read_timeout)
        .max_headers(config.max_headers)
        .max_buf_size(config.max_head_bytes);
    let seen = Seen::new(config.max_head_bytes);
    let io = TokioIo::new(ClientIo::new(stream, seen.clone(), config.body_idle_timeout));
    let service = {
        let inner = Arc::clone(&inner);
        service_fn(move |request| {
            let (inner, seen) = (Arc::clone(&inner), seen.clone());
            async move { Ok::<_, Infallible>(handle(inner, peer, seen, request).await) }
        })
    };
    let mut serving = pin!(http.serve_connection(io, service));
    let mut closing = pin!(async { drop(close.wait_for(|close| *close).await) });
    let result = tokio::select! {
        result = serving.as_mut() => result,
        () = closing.as_mut() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(target: "balancer", %error, "connection ended");
    }
}

/// Time, probes and idle connections; one at a time, however many listeners there are.
async fn keep_house(inner: Arc<Inner>) {
    let _only = inner.keeper.lock().await;
    let mut probes = JoinSet::new();
    let mut beat = interval(BEAT);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut pruned = Instant::now();
    loop {
        beat.tick().await;
        inner.beat();
        probe::start_due(&inner, &mut probes);
        if pruned.elapsed() > PRUNE {
            inner.upstreams.prune();
            pruned = Instant::now();
        }
    }
}

/// Counts a call that serves, however it ends.
struct Serving(Arc<Inner>);

impl Serving {
    fn new(inner: Arc<Inner>) -> Self {
        inner.serving.fetch_add(1, Ordering::AcqRel);
        Self(inner)
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.0.serving.fetch_sub(1, Ordering::AcqRel);
    }
}

struct AbortOnDrop(tokio::task::AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// How often pauses and probes are looked at: short beside the shortest pause.
const BEAT: Duration = Duration::from_millis(20);
/// How often idle connections are looked through.
const PRUNE: Duration = Duration::from_secs(1);
