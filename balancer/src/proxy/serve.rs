//! Accepting, keeping house while serving, and draining.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use http::HeaderValue;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use serde::Serialize;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout, timeout_at};

use super::client_io::{ClientIo, Seen};
use super::forward::handle;
use super::gateway::{Gateway, Inner};
use super::probe;
use super::router::Router;
use super::visit::{Guest, Target, Visit};

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
    /// in flight, tunnels included, has until [`drain_deadline`](super::Config::drain_deadline).
    ///
    /// HTTP/1.1, and HTTP/2 by prior knowledge. Probes and pauses run only while some call of this serves. A gateway that
    /// drained serves no more.
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
        let target = Target::One(Arc::clone(&self.inner));
        serve(Door { edge: &self.inner, target, tls: Lock::default() }, listener, shutdown).await
    }

    /// Serves TLS: HTTP/2 or HTTP/1.1, as the client and ALPN agree. As [`serve`](Self::serve) otherwise.
    ///
    /// # Errors
    /// As [`serve`](Self::serve).
    #[cfg(feature = "tls")]
    pub async fn serve_tls(
        &self,
        listener: TcpListener,
        tls: &super::Tls,
        shutdown: impl Future<Output = ()> + Send,
    ) -> io::Result<DrainReport> {
        let target = Target::One(Arc::clone(&self.inner));
        serve(Door { edge: &self.inner, target, tls: Lock(Some(tls.clone())) }, listener, shutdown).await
    }
}

impl Router {
    /// Serves all routes; see [`Gateway::serve`].
    ///
    /// # Errors
    /// As [`Gateway::serve`].
    pub async fn serve(
        &self,
        listener: TcpListener,
        shutdown: impl Future<Output = ()> + Send,
    ) -> io::Result<DrainReport> {
        let target = Target::Routed(Arc::clone(&self.routes));
        serve(Door { edge: &self.edge.inner, target, tls: Lock::default() }, listener, shutdown).await
    }

    /// Serves all routes over TLS; see [`Gateway::serve_tls`].
    ///
    /// # Errors
    /// As [`Gateway::serve`].
    #[cfg(feature = "tls")]
    pub async fn serve_tls(
        &self,
        listener: TcpListener,
        tls: &super::Tls,
        shutdown: impl Future<Output = ()> + Send,
    ) -> io::Result<DrainReport> {
        let target = Target::Routed(Arc::clone(&self.routes));
        serve(Door { edge: &self.edge.inner, target, tls: Lock(Some(tls.clone())) }, listener, shutdown).await
    }
}

/// Who serves, what for, and whether over TLS.
struct Door<'a> {
    edge: &'a Arc<Inner>,
    target: Target,
    tls: Lock,
}

#[derive(Clone, Default)]
struct Lock(#[cfg(feature = "tls")] Option<super::Tls>);

async fn serve(
    door: Door<'_>,
    listener: TcpListener,
    shutdown: impl Future<Output = ()> + Send,
) -> io::Result<DrainReport> {
    let inner = door.edge;
    let keeping = tokio::spawn(keep_house(Arc::clone(inner), door.target.clone(), door.tls.clone()));
    // Ended with this call, however it ends.
    let _keeping = AbortOnDrop(keeping.abort_handle());
    let (close, _) = watch::channel(false);
    let slots = Arc::new(Semaphore::new(inner.config.max_connections.min(Semaphore::MAX_PERMITS)));
    let mut connections = JoinSet::new();
    let listening = Count::up(inner, |inner| &inner.listening);
    let _serving = Count::up(inner, |inner| &inner.serving);

    let welcome = |connections: &mut JoinSet<()>, stream, peer, slot| {
        let Ok(guest) = inner.guests.enter(peer, inner.config.max_connections_per_client) else {
            return tracing::debug!(target: "balancer", %peer, "a client has too many connections");
        };
        let (edge, target, open) =
            (Arc::clone(inner), door.target.clone(), Count::up(inner, |inner| &inner.open));
        let serving =
            connection(edge, target, door.tls.clone(), stream, peer, (slot, guest), close.subscribe());
        connections.spawn(async move {
            let _open = open;
            serving.await;
        });
        while connections.try_join_next().is_some() {}
    };

    let (began, broken) = {
        let mut accepting = pin!(async {
            loop {
                match accept(&listener, &slots).await {
                    Ok((stream, peer, slot)) => welcome(&mut connections, stream, peer, slot),
                    Err(error) => return error,
                }
            }
        });
        let mut broken = tokio::select! {
            () = shutdown => None,
            error = &mut accepting => Some(error),
        };
        inner.closing.store(true, Ordering::Release);
        if let Target::Routed(routes) = &door.target {
            routes.close();
        }
        let began = Instant::now();
        if broken.is_none() {
            broken = tokio::select! {
                error = accepting => Some(error),
                () = sleep(inner.config.drain_delay) => None,
                () = inner.quiesced() => None,
            };
        }
        (began, broken)
    };
    // Who has come already would be reset with the listener.
    for (stream, peer) in arrived(listener) {
        welcome(&mut connections, stream, peer, slots.clone().try_acquire_owned().ok());
    }
    drop(listening);
    close.send_replace(true);
    while connections.try_join_next().is_some() {}
    let open = connections.len() + inner.tunnels.open();
    let deadline = Instant::now() + inner.config.drain_deadline;
    while let Ok(Some(_)) = timeout_at(deadline, connections.join_next()).await {}
    let _ = timeout_at(deadline, inner.tunnels.gone()).await;
    let cut = connections.len() + inner.tunnels.open();
    connections.shutdown().await;
    inner.tunnels.cut();
    if let Some(error) = broken {
        return Err(error);
    }
    Ok(DrainReport { open, cut, seconds: began.elapsed().as_secs_f64() })
}

/// The connections that wait to be accepted, of a listener that accepts no more.
fn arrived(listener: TcpListener) -> Vec<(TcpStream, IpAddr)> {
    let Ok(listener) = listener.into_std() else { return Vec::new() };
    // It does not block: the first error says that there is none, or never will be.
    let waiting = std::iter::from_fn(|| listener.accept().ok()).take(MOST_ARRIVED);
    let taken = waiting.filter_map(|(stream, peer)| {
        stream.set_nonblocking(true).ok()?;
        Some((TcpStream::from_std(stream).ok()?, peer.ip()))
    });
    taken.collect()
}

/// One more, as long as it lives, however that ends.
struct Count(Arc<Inner>, fn(&Inner) -> &AtomicUsize);

impl Count {
    fn up(inner: &Arc<Inner>, what: fn(&Inner) -> &AtomicUsize) -> Self {
        what(inner).fetch_add(1, Ordering::AcqRel);
        Self(Arc::clone(inner), what)
    }
}

impl Drop for Count {
    fn drop(&mut self) {
        (self.1)(&self.0).fetch_sub(1, Ordering::AcqRel);
    }
}

impl Inner {
    /// See [`Gateway::quiesce`].
    pub(crate) async fn quiesce(&self, within: Duration) -> usize {
        // In this order: a connection is counted before its listener is gone.
        let listening = || self.listening.load(Ordering::Acquire) > 0;
        let open = || self.open.load(Ordering::Acquire) + self.tunnels.open();
        if self.closing.load(Ordering::Acquire) {
            self.quiesce.send_replace(true);
            let until = Instant::now() + within;
            while (listening() || open() > 0) && Instant::now() < until {
                sleep(Duration::from_millis(2)).await;
            }
        }
        open()
    }

    /// When a drain's delay is over because somebody said so.
    async fn quiesced(&self) {
        // The sender lives as long as this.
        drop(self.quiesce.subscribe().wait_for(|quiesce| *quiesce).await);
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
    edge: Arc<Inner>,
    target: Target,
    tls: Lock,
    stream: TcpStream,
    peer: IpAddr,
    room: (Option<OwnedSemaphorePermit>, Option<Guest>),
    close: watch::Receiver<bool>,
) {
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let Ok(text) = HeaderValue::from_str(&peer.to_canonical().to_string()) else { return };
    let visit = |tls, seen| {
        Arc::new(Visit {
            peer,
            text,
            tls,
            seen,
            edge: Arc::clone(&edge),
            target,
            asked: AtomicBool::new(false),
            _room: room,
        })
    };
    #[cfg(feature = "tls")]
    if let Lock(Some(tls)) = &tls {
        match timeout(edge.config.header_read_timeout, tls.acceptor().accept(stream)).await {
            Ok(Ok(stream)) => {
                let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                let seen = (!http2).then(|| Seen::new(edge.config.max_head_bytes));
                converse(visit(true, seen), stream, http2, close).await;
            }
            Ok(Err(error)) => tracing::debug!(target: "balancer", %error, "no TLS came about"),
            Err(_) => tracing::debug!(target: "balancer", "no TLS came about in time"),
        }
        return;
    }
    let _ = tls;
    let Ok(Ok(http2)) = timeout(edge.config.header_read_timeout, speaks_http2(&stream)).await else { return };
    let seen = (!http2).then(|| Seen::new(edge.config.max_head_bytes));
    converse(visit(false, seen), stream, http2, close).await;
}

/// Whether the client begins with HTTP/2's preface, which is no request of HTTP/1.1.
async fn speaks_http2(stream: &TcpStream) -> io::Result<bool> {
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n";
    let mut start = [0; PREFACE.len()];
    loop {
        let seen = stream.peek(&mut start).await?;
        let begun = start.get(..seen).unwrap_or_default();
        if seen == 0 || !PREFACE.starts_with(begun) {
            return Ok(false);
        }
        if seen == PREFACE.len() {
            return Ok(true);
        }
        // Some of it; the rest makes the socket no more readable than it is.
        sleep(Duration::from_millis(5)).await;
    }
}

async fn converse<T>(visit: Arc<Visit>, stream: T, http2: bool, mut close: watch::Receiver<bool>)
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (edge, known) = (Arc::clone(&visit.edge), Arc::clone(&visit));
    let config = &edge.config;
    let io = TokioIo::new(ClientIo::new(stream, visit.seen.clone(), config.body_idle_timeout));
    let service = service_fn(move |request| {
        let visit = Arc::clone(&visit);
        async move { Ok::<_, Infallible>(handle(visit, request).await) }
    });
    let mut closing = pin!(async {
        drop(close.wait_for(|close| *close).await);
        // Whoever has only just come has a request on the way, which hyper would not wait for.
        let until = Instant::now() + FIRST;
        while !known.asked.load(Ordering::Acquire) && Instant::now() < until {
            sleep(Duration::from_millis(5)).await;
        }
    });
    let result = if http2 {
        let mut http = http2::Builder::new(TokioExecutor::new());
        http.timer(TokioTimer::new())
            .max_concurrent_streams(config.max_streams)
            .max_header_list_size(u32::try_from(config.max_head_bytes).unwrap_or(u32::MAX))
            .keep_alive_interval(Some(config.header_read_timeout))
            .keep_alive_timeout(config.header_read_timeout);
        let mut serving = pin!(http.serve_connection(io, service));
        tokio::select! {
            result = serving.as_mut() => result,
            () = closing.as_mut() => {
                serving.as_mut().graceful_shutdown();
                serving.await
            }
        }
    } else {
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new())
            .header_read_timeout(config.header_read_timeout)
            .max_headers(config.max_headers)
            .max_buf_size(config.max_head_bytes);
        let mut serving = pin!(http.serve_connection(io, service).with_upgrades());
        tokio::select! {
            result = serving.as_mut() => result,
            () = closing.as_mut() => {
                serving.as_mut().graceful_shutdown();
                serving.await
            }
        }
    };
    if let Err(error) = result {
        tracing::debug!(target: "balancer", %error, "connection ended");
    }
}

/// Time, probes and idle connections of every service; one at a time for each, however many listeners there are.
async fn keep_house(edge: Arc<Inner>, target: Target, tls: Lock) {
    let mut kept: Vec<(Arc<Inner>, AbortOnDrop)> = Vec::new();
    let mut beat = interval(LOOK);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut renewed = Instant::now();
    loop {
        beat.tick().await;
        let services = match &target {
            Target::One(inner) => vec![Arc::clone(inner)],
            Target::Routed(routes) => routes.services(),
        };
        kept.retain(|(old, _)| services.iter().any(|service| Arc::ptr_eq(service, old)));
        for service in services {
            if !kept.iter().any(|(known, _)| Arc::ptr_eq(known, &service)) {
                let task = tokio::spawn(keep(Arc::clone(&service), Arc::clone(&edge)));
                kept.push((service, AbortOnDrop(task.abort_handle())));
            }
        }
        if renewed.elapsed() > RENEW {
            renewed = Instant::now();
            renew(&tls).await;
        }
    }
}

/// Looks whether certificates have changed.
async fn renew(tls: &Lock) {
    #[cfg(feature = "tls")]
    if let Lock(Some(tls)) = tls.clone() {
        match tokio::task::spawn_blocking(move || tls.reload()).await {
            Ok(Ok(true)) => tracing::info!(target: "balancer", "certificates were read anew"),
            Ok(Err(error)) => tracing::warn!(target: "balancer", %error, "the old certificates stay"),
            Ok(Ok(false)) | Err(_) => {}
        }
    }
    let _ = tls;
}

/// Keeps house for one service.
async fn keep(inner: Arc<Inner>, edge: Arc<Inner>) {
    let _only = inner.keeper.lock().await;
    // A service of a router is ready while the router is.
    let _serving = (!Arc::ptr_eq(&inner, &edge)).then(|| Count::up(&inner, |inner| &inner.serving));
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

struct AbortOnDrop(tokio::task::AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// How often pauses and probes are looked at: short beside the shortest pause.
const BEAT: Duration = Duration::from_millis(20);
/// So many are taken from the queue of a listener that closes.
const MOST_ARRIVED: usize = 4096;
/// How long a new connection has for its first request when the listener closes.
const FIRST: Duration = Duration::from_millis(500);
/// How often it is looked for services that came or went.
const LOOK: Duration = Duration::from_millis(20);
/// How often it is looked for new certificates.
const RENEW: Duration = Duration::from_secs(10);
/// How often idle connections are looked through.
const PRUNE: Duration = Duration::from_secs(1);
