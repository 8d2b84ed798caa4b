//! An in-process Consul for tests: one server that answers over HTTP on loopback, in milliseconds and without a binary.
//!
//! It obeys what was measured on Consul 1.8.7: how indexes move and what wakes a blocking query, what a compare-and-set, a lock and a
//! release answer, that a session lives for twice its TTL and leaves a lock delay behind, that an identical write changes nothing,
//! which errors come with which status and text. It knows keys, transactions of keys, sessions, services with TTL checks (others
//! keep the status that they were registered with), health by service, events, leader and peers. It knows no access control, no
//! filters, no other data centres: what it does not know is a 404.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> consul_client::Result<()> {
//! let consul = consul_client::testing::FakeConsul::start().await;
//! let client = consul.client();
//! client.kv().put("a", "x").await?;
//! consul.set_leader(false);       // as in an election
//! # consul.set_leader(true);
//! # client.kv().get("a").await?;
//! # Ok(())
//! # }
//! ```

mod answer;
mod keys;
mod world;

use std::{
    fmt,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{Request, Response, body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    net::TcpListener,
    sync::watch,
    task::{JoinHandle, JoinSet},
    time::Instant,
};

use self::{
    answer::{Asked, Said},
    world::World,
};
use crate::Client;

/// A fake Consul server. It ends when this is dropped.
pub struct FakeConsul {
    address: SocketAddr,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

struct Shared {
    world: Mutex<World>,
    faults: Mutex<Vec<Fault>>,
    changed: watch::Sender<u64>,
    began: Instant,
}

/// What happens to a request instead of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// The connection closes; the request was not carried out.
    Close,
    /// The request is carried out, and then the connection closes: the answer is lost.
    LoseAnswer,
    /// This status with this text; the request was not carried out.
    Status(u16, String),
    /// No answer for so long, then as usual.
    Delay(Duration),
}

impl FakeConsul {
    /// Starts one, on a port of its own on loopback.
    ///
    /// # Panics
    /// When loopback has no free port.
    pub async fn start() -> Self {
        let listener = match TcpListener::bind("127.0.0.1:0").await {
            Ok(listener) => listener,
            Err(error) => panic!("no port on loopback: {error}"),
        };
        let address =
            listener.local_addr().unwrap_or_else(|error| panic!("a listener has an address: {error}"));
        let shared = Arc::new(Shared {
            world: Mutex::default(),
            faults: Mutex::default(),
            changed: watch::Sender::new(0),
            began: Instant::now(),
        });
        let task = tokio::spawn(serve(listener, Arc::clone(&shared)));
        Self { address, shared, task }
    }

    /// `host:port`.
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// A client of it.
    ///
    /// # Panics
    /// Never: the address is a good one.
    pub fn client(&self) -> Client {
        Client::builder().address(self.address()).build().unwrap_or_else(|error| panic!("{error}"))
    }

    /// Whether there is a leader. Without one, everything but stale reads and the agent's own calls fails at once, and blocking queries
    /// that are not stale end with the same error.
    pub fn set_leader(&self, there: bool) {
        self.shared.world().leader = there;
        self.shared.wake();
    }

    /// What happens to the next requests, one each.
    pub fn fail_next(&self, faults: impl IntoIterator<Item = Fault>) {
        let mut queue = self.shared.faults.lock().unwrap_or_else(PoisonError::into_inner);
        queue.splice(0..0, faults);
    }

    /// Ends every session, as when their node is lost.
    pub fn end_sessions(&self) {
        let now = self.shared.began.elapsed();
        let mut world = self.shared.world();
        for id in world.sessions.keys().cloned().collect::<Vec<_>>() {
            world.end_session(&id, now);
        }
        drop(world);
        self.shared.wake();
    }

    /// Whether the other agents reach the one that the services are registered at. Without, its instances stay in the catalog as they
    /// last were, with Consul's own check of the node failing; the agent itself goes on answering here.
    pub fn set_agent(&self, reached: bool) {
        let mut world = self.shared.world();
        world.agent = reached;
        let names: Vec<_> = world.services.values().map(|one| one.name.clone()).collect();
        for name in names {
            world.touch_service(&name);
        }
        drop(world);
        self.shared.wake();
    }

    /// Forgets every service, as an agent that restarts without its data.
    pub fn forget_services(&self) {
        let mut world = self.shared.world();
        let names: Vec<_> = std::mem::take(&mut world.services).into_values().map(|one| one.name).collect();
        for name in names {
            world.touch_service(&name);
        }
        drop(world);
        self.shared.wake();
    }
}

impl Drop for FakeConsul {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl fmt::Debug for FakeConsul {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FakeConsul").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Shared {
    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self) {
        self.changed.send_modify(|count| *count = count.wrapping_add(1));
    }

    fn next_fault(&self) -> Option<Fault> {
        let mut queue = self.faults.lock().unwrap_or_else(PoisonError::into_inner);
        (!queue.is_empty()).then(|| queue.remove(0))
    }

    /// Answers, waking those who wait if something changed.
    fn answer(&self, asked: &Asked) -> Said {
        let mut world = self.world();
        let before = (world.index, world.events.len());
        let said = world.answer(asked, self.began.elapsed());
        let changed = before != (world.index, world.events.len());
        drop(world);
        if changed {
            self.wake();
        }
        said
    }

    /// As [`answer`](Self::answer), but a blocking query waits until its index is another one.
    async fn respond(&self, asked: &Asked) -> Said {
        let mut changes = self.changed.subscribe();
        let mut said = self.answer(asked);
        let Some((index, wait)) = asked.waits() else { return said };
        // The server adds up to a sixteenth.
        let ends = Instant::now() + wait + wait / 32;
        let unordered = asked.path.starts_with("/v1/event/");
        loop {
            let now = said.index.unwrap_or(0);
            let waits = said.blocks && if unordered { now == index } else { now <= index };
            if !waits || Instant::now() >= ends {
                return said;
            }
            let expiry = self.world().tick(self.began.elapsed()).map(|at| self.began + at);
            let next = expiry.map_or(ends, |at| at.min(ends));
            let _ = tokio::time::timeout_at(next, changes.changed()).await;
            said = self.answer(asked);
        }
    }
}

async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let shared = Arc::clone(&shared);
        connections.spawn(async move {
            let service = service_fn(|request| handle(Arc::clone(&shared), request));
            // A connection that breaks, or is to, ends here.
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
        while connections.try_join_next().is_some() {}
    }
}

/// An error closes the connection without an answer.
async fn handle(shared: Arc<Shared>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Closed> {
    let method = request.method().to_string();
    let target = request.uri().path_and_query().map_or("/", |both| both.as_str()).to_owned();
    let body = request.into_body().collect().await.map_err(|_| Closed)?.to_bytes();
    let asked = Asked::new(&method, &target, body.to_vec());
    let said = match shared.next_fault() {
        Some(Fault::Close) => return Err(Closed),
        Some(Fault::LoseAnswer) => {
            shared.answer(&asked);
            return Err(Closed);
        }
        Some(Fault::Status(status, text)) => {
            Said { status, index: None, body: text.into_bytes(), blocks: false }
        }
        Some(Fault::Delay(delay)) => {
            tokio::time::sleep(delay).await;
            shared.respond(&asked).await
        }
        None => shared.respond(&asked).await,
    };
    let leader = shared.world().leader;
    let mut response = Response::builder().status(said.status);
    if let Some(index) = said.index {
        response = response
            .header("X-Consul-Index", index)
            .header("X-Consul-KnownLeader", leader.to_string())
            .header("X-Consul-LastContact", "0");
    }
    if said.status == 301 {
        response = response.header("Location", "/v1/kv/another");
    }
    response.body(Full::new(said.body.into())).map_err(|_| Closed)
}

/// Nothing is said, and the connection ends.
#[derive(Debug)]
struct Closed;

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("closed by the fake")
    }
}

impl std::error::Error for Closed {}
