//! Connections to endpoints: one pool per endpoint, emptied when the endpoint goes.

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout};

use super::body::RequestBody;
use crate::endpoint::{Endpoint, EndpointId};
use crate::snapshot::Snapshot;
use crate::state::State;

/// A connection; closed when dropped.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) sender: SendRequest<RequestBody>,
    task: AbortHandle,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
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
}

impl Upstream {
    fn new(addr: SocketAddr, limit: usize, keep: Duration) -> Self {
        Self {
            addr,
            idle: Mutex::default(),
            closed: AtomicBool::new(false),
            down: watch::Sender::new(false),
            limit,
            keep,
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
            if connection.sender.is_closed() {
                continue;
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
        let mut idle = self.idle();
        if !self.closed.load(Ordering::Acquire) && idle.len() < self.limit && !connection.sender.is_closed() {
            idle.push((connection, Instant::now()));
        }
    }

    /// Makes a new connection.
    pub(crate) async fn connect(&self, within: Duration) -> io::Result<Connection> {
        Self::dial(self.addr, within).await
    }

    /// Makes a new connection that belongs to no endpoint.
    pub(crate) async fn dial(addr: SocketAddr, within: Duration) -> io::Result<Connection> {
        let late = || io::Error::new(io::ErrorKind::TimedOut, format!("no connection within {within:?}"));
        let stream = timeout(within, TcpStream::connect(addr)).await.map_err(|_| late())??;
        stream.set_nodelay(true)?;
        let (sender, driver) = http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
        // What ends the driver is told to whoever waits on the sender.
        let task = tokio::spawn(async move { drop(driver.await) }).abort_handle();
        Ok(Connection { sender, task })
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
        self.idle()
            .retain(|(connection, since)| !connection.sender.is_closed() && since.elapsed() < self.keep);
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

/// All connections of a gateway.
#[derive(Debug)]
pub(crate) struct Upstreams {
    all: RwLock<HashMap<EndpointId, Arc<Upstream>>>,
    limit: usize,
    keep: Duration,
}

impl Upstreams {
    pub(crate) fn new(limit: usize, keep: Duration) -> Self {
        Self { all: RwLock::default(), limit, keep }
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
        let upstream = Arc::new(Upstream::new(endpoint.addr, self.limit, self.keep));
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
