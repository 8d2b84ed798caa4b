//! Connections to endpoints: one pool per endpoint, emptied when the endpoint goes.

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use http::uri::Authority;
use http::{Request, Response, Uri, header};
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout};

use super::body::RequestBody;
use super::config::{Config, Protocol};
#[cfg(feature = "tls")]
use super::endpoint_tls::EndpointTls;
use crate::endpoint::{Endpoint, EndpointId};
use crate::snapshot::Snapshot;
use crate::state::State;

/// A connection, or a share of one; closed when nobody holds it any more.
#[derive(Debug)]
pub(crate) struct Connection {
    sender: Sender,
    task: Arc<Task>,
}

#[derive(Debug)]
enum Sender {
    /// For one request at a time.
    Http1(http1::SendRequest<RequestBody>),
    /// For as many as the other end allows; over TLS or not.
    Http2(http2::SendRequest<RequestBody>, bool),
}

#[derive(Debug)]
struct Task(AbortHandle);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

pub(crate) type Unsent = TrySendError<Request<RequestBody>>;

impl Connection {
    pub(crate) fn is_closed(&self) -> bool {
        match &self.sender {
            Sender::Http1(sender) => sender.is_closed(),
            Sender::Http2(sender, _) => sender.is_closed(),
        }
    }

    pub(crate) async fn ready(&mut self) -> hyper::Result<()> {
        match &mut self.sender {
            Sender::Http1(sender) => sender.ready().await,
            Sender::Http2(sender, _) => sender.ready().await,
        }
    }

    /// Sends a request in origin form.
    pub(crate) async fn send(
        &mut self,
        mut request: Request<RequestBody>,
    ) -> Result<Response<Incoming>, Unsent> {
        match &mut self.sender {
            Sender::Http1(sender) => sender.try_send_request(request).await,
            Sender::Http2(sender, secure) => {
                to_http2(&mut request, *secure);
                sender.try_send_request(request).await
            }
        }
    }

    fn share(&self) -> Option<Self> {
        match &self.sender {
            Sender::Http1(_) => None,
            Sender::Http2(sender, secure) => {
                let sender = Sender::Http2(sender.clone(), *secure);
                Some(Self { sender, task: Arc::clone(&self.task) })
            }
        }
    }
}

/// Host becomes the authority, and what HTTP/2 has no use for goes.
fn to_http2(request: &mut Request<RequestBody>, secure: bool) {
    let host = request.headers_mut().remove(header::HOST);
    request.headers_mut().remove(header::TRANSFER_ENCODING);
    request.headers_mut().remove(header::CONNECTION);
    let path = request.uri().path_and_query().cloned();
    let authority = host.as_ref().and_then(|host| Authority::try_from(host.as_bytes()).ok());
    let mut parts = http::uri::Parts::default();
    parts.scheme = Some(if secure { http::uri::Scheme::HTTPS } else { http::uri::Scheme::HTTP });
    parts.authority = authority.or_else(|| Some(Authority::from_static("localhost")));
    parts.path_and_query = path;
    if let Ok(uri) = Uri::from_parts(parts) {
        *request.uri_mut() = uri;
    }
    *request.version_mut() = http::Version::HTTP_2;
}

/// How endpoints are spoken to.
#[derive(Clone, Debug)]
pub(crate) struct Speech {
    protocol: Protocol,
    #[cfg(feature = "tls")]
    tls: Option<EndpointTls>,
}

impl Speech {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            protocol: config.protocol,
            #[cfg(feature = "tls")]
            tls: config.endpoint_tls.as_ref().map(|tls| tls.speaking(config.protocol)),
        }
    }

    /// Makes a connection.
    async fn dial(&self, addr: SocketAddr) -> io::Result<Connection> {
        let stream = TcpStream::connect(addr).await?;
        stream.set_nodelay(true)?;
        #[cfg(feature = "tls")]
        if let Some(tls) = &self.tls {
            let stream = tls.connector().connect(tls.name(), stream).await?;
            return self.greet(stream, true).await;
        }
        self.greet(stream, false).await
    }

    async fn greet<T>(&self, stream: T, secure: bool) -> io::Result<Connection>
    where
        T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let io = TokioIo::new(stream);
        // What ends the driver is told to whoever waits on the sender.
        let (sender, task) = match self.protocol {
            Protocol::Http1 => {
                let (sender, driver) = http1::handshake(io).await.map_err(io::Error::other)?;
                let driver = driver.with_upgrades();
                (Sender::Http1(sender), tokio::spawn(async move { drop(driver.await) }))
            }
            Protocol::Http2 => {
                let mut builder = http2::Builder::new(TokioExecutor::new());
                builder.timer(TokioTimer::new()).keep_alive_interval(Some(Duration::from_secs(10)));
                builder.adaptive_window(true);
                let (sender, driver) = builder.handshake(io).await.map_err(io::Error::other)?;
                (Sender::Http2(sender, secure), tokio::spawn(async move { drop(driver.await) }))
            }
        };
        Ok(Connection { sender, task: Arc::new(Task(task.abort_handle())) })
    }
}

/// The connections to one endpoint at one address.
#[derive(Debug)]
pub(crate) struct Upstream {
    addr: SocketAddr,
    idle: Mutex<Vec<(Connection, Instant)>>,
    /// No connection is kept any more.
    closed: AtomicBool,
    /// Whether nothing can be reached there.
    down: watch::Sender<bool>,
    limit: usize,
    keep: Duration,
    speech: Speech,
}

impl Upstream {
    fn new(addr: SocketAddr, limit: usize, keep: Duration, speech: Speech) -> Self {
        Self {
            addr,
            idle: Mutex::default(),
            closed: AtomicBool::new(false),
            down: watch::Sender::new(false),
            limit,
            keep,
            speech,
        }
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Tells when the endpoint turns unreachable.
    pub(crate) fn watch(&self) -> watch::Receiver<bool> {
        self.down.subscribe()
    }

    /// The connection that was used last, if it was used within `recent`.
    pub(crate) fn checkout(&self, recent: Duration) -> Option<Connection> {
        let mut idle = self.idle();
        while let Some((connection, since)) = idle.pop() {
            if connection.is_closed() {
                continue;
            }
            if let Some(share) = connection.share() {
                idle.push((connection, Instant::now()));
                return Some(share);
            }
            if since.elapsed() > recent.min(self.keep) {
                idle.push((connection, since));
                return None;
            }
            return Some(connection);
        }
        None
    }

    /// Keeps a connection whose last answer was read to its end.
    pub(crate) fn give_back(&self, connection: Connection) {
        // A share is given back by dropping it: the whole stays in the pool.
        if matches!(connection.sender, Sender::Http2(..)) {
            return;
        }
        let mut idle = self.idle();
        if !self.closed.load(Ordering::Acquire) && idle.len() < self.limit && !connection.is_closed() {
            idle.push((connection, Instant::now()));
        }
    }

    /// Makes a new connection.
    pub(crate) async fn connect(&self, within: Duration) -> io::Result<Connection> {
        let connection = Self::dial(self.addr, within, &self.speech).await?;
        if let Some(share) = connection.share() {
            let mut idle = self.idle();
            if !self.closed.load(Ordering::Acquire) && idle.len() < SHARED {
                idle.push((share, Instant::now()));
            }
        }
        Ok(connection)
    }

    /// Makes a new connection that belongs to no endpoint.
    pub(crate) async fn dial(addr: SocketAddr, within: Duration, speech: &Speech) -> io::Result<Connection> {
        let late = || io::Error::new(io::ErrorKind::TimedOut, format!("no connection within {within:?}"));
        timeout(within, speech.dial(addr)).await.map_err(|_| late())?
    }

    fn set_down(&self, down: bool) {
        self.down.send_if_modified(|old| std::mem::replace(old, down) != down);
        if down {
            self.idle().clear();
        }
    }

    fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.idle().clear();
    }

    fn prune(&self) {
        self.idle().retain(|(connection, since)| !connection.is_closed() && since.elapsed() < self.keep);
    }

    fn idle(&self) -> MutexGuard<'_, Vec<(Connection, Instant)>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a connection could not be made for want of something on this side: descriptors of the process or of
/// the machine, buffers, memory, or local ports and addresses. It says nothing about the other end.
pub(crate) fn is_ours(error: &io::Error) -> bool {
    // The standard library has no names for these.
    const ENFILE: i32 = 23;
    const EMFILE: i32 = 24;
    const ENOBUFS: i32 = if cfg!(target_os = "linux") { 105 } else { 55 };
    matches!(error.kind(), io::ErrorKind::AddrNotAvailable | io::ErrorKind::OutOfMemory)
        || matches!(error.raw_os_error(), Some(ENFILE | EMFILE | ENOBUFS))
}

/// Shared connections to one endpoint; more than one only when several were made at the same moment.
const SHARED: usize = 2;

/// All connections of a gateway.
#[derive(Debug)]
pub(crate) struct Upstreams {
    all: RwLock<HashMap<EndpointId, Arc<Upstream>>>,
    limit: usize,
    keep: Duration,
    speech: Speech,
}

impl Upstreams {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            all: RwLock::default(),
            limit: config.idle_connections,
            keep: config.idle_timeout,
            speech: Speech::new(config),
        }
    }

    /// How endpoints are spoken to.
    pub(crate) fn speech(&self) -> &Speech {
        &self.speech
    }

    /// The connections to an endpoint.
    pub(crate) fn of(&self, endpoint: &Endpoint) -> Arc<Upstream> {
        let known = |all: &HashMap<EndpointId, Arc<Upstream>>| {
            all.get(&endpoint.id).filter(|upstream| upstream.addr == endpoint.addr).cloned()
        };
        if let Some(upstream) = known(&self.all.read().unwrap_or_else(PoisonError::into_inner)) {
            return upstream;
        }
        let mut all = self.all.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(upstream) = known(&all) {
            return upstream;
        }
        let upstream = Arc::new(Upstream::new(endpoint.addr, self.limit, self.keep, self.speech.clone()));
        if let Some(old) = all.insert(endpoint.id.clone(), Arc::clone(&upstream)) {
            old.close();
        }
        upstream
    }

    /// Follows the pool: closes what is gone, cuts off what is unreachable.
    pub(crate) fn follow(&self, snapshot: &Snapshot) {
        for (endpoint, state, reason) in snapshot.endpoints() {
            let upstream = self.of(endpoint);
            let out = matches!(state, State::Ejected | State::Draining);
            upstream.set_down(out && reason.is_unreachable());
            if state == State::Draining {
                upstream.close();
            } else {
                upstream.closed.store(false, Ordering::Release);
            }
        }
        let mut all = self.all.write().unwrap_or_else(PoisonError::into_inner);
        let known: HashSet<_> = snapshot.endpoints().map(|(endpoint, ..)| &endpoint.id).collect();
        all.retain(|id, upstream| {
            let stays = known.contains(id);
            if !stays {
                upstream.close();
            }
            stays
        });
    }

    /// Closes what has been idle for too long.
    pub(crate) fn prune(&self) {
        for upstream in self.all.read().unwrap_or_else(PoisonError::into_inner).values() {
            upstream.prune();
        }
    }
}
