//! Backends, a gateway that serves, and a client.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use balancer::proxy::{self, DrainReport, Gateway};
use balancer::{Config, Endpoint, Pool, Update};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response, client, server};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

/// A server whose requests are answered by a function, and that dies when dropped.
pub(crate) struct Backend {
    pub(crate) addr: SocketAddr,
    pub(crate) hits: Arc<AtomicU64>,
    pub(crate) task: JoinHandle<()>,
}

pub(crate) type Reply = Response<Full<Bytes>>;

impl Backend {
    pub(crate) async fn start<F, Fut>(answer: F) -> Self
    where
        F: Fn(Request<Incoming>) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = Reply> + Send + 'static,
    {
        Self::on("127.0.0.1:0".parse().unwrap(), answer).await
    }

    pub(crate) async fn on<F, Fut>(addr: SocketAddr, answer: F) -> Self
    where
        F: Fn(Request<Incoming>) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = Reply> + Send + 'static,
    {
        let listener = TcpListener::bind(addr).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let hits = Arc::new(AtomicU64::new(0));
        let counter = hits.clone();
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (answer, counter) = (answer.clone(), counter.clone());
                connections.spawn(async move {
                    let service = service_fn(move |request: Request<Incoming>| {
                        if request.uri().path() != "/healthz" {
                            counter.fetch_add(1, Ordering::Relaxed);
                        }
                        let answer = answer(request);
                        async move { Ok::<_, Infallible>(answer.await) }
                    });
                    let http = server::conn::http1::Builder::new();
                    drop(http.serve_connection(TokioIo::new(stream), service).await);
                });
            }
        });
        Self { addr, hits, task }
    }

    /// One that says who it is.
    pub(crate) async fn named(name: &'static str) -> Self {
        Self::start(move |_| async move { reply(200, name) }).await
    }

    pub(crate) fn hits(&self) -> u64 {
        self.hits.load(Ordering::Relaxed)
    }

    pub(crate) fn endpoint(&self, id: &str) -> Endpoint {
        Endpoint::new(id, self.addr)
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        // Closes the listener and every connection, as a kill does.
        self.task.abort();
    }
}

pub(crate) fn reply(status: u16, body: impl Into<Bytes>) -> Reply {
    Response::builder().status(status).body(Full::new(body.into())).unwrap()
}

/// A gateway that serves on loopback.
pub(crate) struct Front {
    pub(crate) gateway: Gateway,
    pub(crate) addr: SocketAddr,
    pub(crate) stop: Option<oneshot::Sender<()>>,
    pub(crate) task: JoinHandle<std::io::Result<DrainReport>>,
}

impl Front {
    pub(crate) async fn start(config: proxy::Config, endpoints: impl IntoIterator<Item = Endpoint>) -> Self {
        Self::of(Config::default(), config, endpoints).await
    }

    pub(crate) async fn of(
        rules: Config,
        config: proxy::Config,
        endpoints: impl IntoIterator<Item = Endpoint>,
    ) -> Self {
        let pool = Arc::new(Pool::new(rules, 7).unwrap());
        let gateway = Gateway::new(pool, config).unwrap();
        gateway.apply(Update::reset(endpoints));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let serving = gateway.clone();
        let task = tokio::spawn(async move { serving.serve(listener, async { drop(stopped.await) }).await });
        Self { gateway, addr, stop: Some(stop), task }
    }

    pub(crate) async fn get(&self, path: &str) -> (u16, String) {
        self.send(Request::get(path)).await
    }

    pub(crate) async fn send(&self, request: http::request::Builder) -> (u16, String) {
        self.send_body(request, "").await
    }

    pub(crate) async fn send_body(&self, request: http::request::Builder, body: &str) -> (u16, String) {
        let request = request.header("host", "site").body(Full::new(Bytes::from(body.to_owned()))).unwrap();
        let response = Client::connect(self.addr).await.send(request).await.unwrap();
        (response.status().as_u16(), String::from_utf8(response.into_body().to_vec()).unwrap())
    }

    pub(crate) async fn until(&self, what: &str, condition: impl Fn(&proxy::Load) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(5);
        while !condition(&self.gateway.load()) {
            assert!(Instant::now() < deadline, "{what}: {:?}", self.gateway.load());
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// Closed-loop GETs on `clients` keep-alive connections until `stop` is done; returns (sent, failures, slowest).
    pub(crate) async fn under_load(
        &self,
        clients: usize,
        story: impl Future<Output = ()>,
    ) -> (usize, Vec<String>, Duration) {
        let (failures, mut failed) = mpsc::unbounded_channel();
        let sent = Arc::new(AtomicUsize::new(0));
        let slowest = Arc::new(AtomicU64::new(0));
        let over = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let mut tasks = Vec::new();
        for _ in 0..clients {
            let (addr, failures, sent) = (self.addr, failures.clone(), sent.clone());
            let (slowest, over) = (slowest.clone(), over.clone());
            tasks.push(tokio::spawn(async move {
                let mut client = Client::connect(addr).await;
                while !over.load(Ordering::Relaxed) {
                    let began = Instant::now();
                    let request = Request::get("/").header("host", "site").body(Full::default()).unwrap();
                    sent.fetch_add(1, Ordering::Relaxed);
                    match client.send(request).await {
                        Ok(response) if response.status() == 200 => {}
                        Ok(response) => failures.send(format!("{response:?}")).unwrap(),
                        Err(error) => {
                            failures.send(error.to_string()).unwrap();
                            client = Client::connect(addr).await;
                        }
                    }
                    slowest.fetch_max(began.elapsed().as_millis() as u64, Ordering::Relaxed);
                    // Room for the backends on a machine with few cores.
                    sleep(Duration::from_millis(2)).await;
                }
            }));
        }
        story.await;
        over.store(true, Ordering::Relaxed);
        for task in tasks {
            timeout(Duration::from_secs(20), task).await.expect("a client hangs").unwrap();
        }
        drop(failures);
        println!("{} sent, slowest {} ms", sent.load(Ordering::Relaxed), slowest.load(Ordering::Relaxed));
        let mut all = Vec::new();
        while let Some(failure) = failed.recv().await {
            all.push(failure);
        }
        (sent.load(Ordering::Relaxed), all, Duration::from_millis(slowest.load(Ordering::Relaxed)))
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub(crate) struct Client {
    pub(crate) sender: client::conn::http1::SendRequest<Full<Bytes>>,
}

impl Client {
    pub(crate) async fn connect(addr: SocketAddr) -> Self {
        let stream = TcpStream::connect(addr).await.unwrap();
        let (sender, driver) = client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(driver);
        Self { sender }
    }

    pub(crate) async fn send(&mut self, request: Request<Full<Bytes>>) -> hyper::Result<Response<Bytes>> {
        self.sender.ready().await?;
        let (parts, body) = self.sender.send_request(request).await?.into_parts();
        Ok(Response::from_parts(parts, body.collect().await?.to_bytes()))
    }
}

/// Sends bytes as they are and returns all that comes back.
pub(crate) async fn raw(addr: SocketAddr, bytes: &str) -> String {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    stream.write_all(bytes.as_bytes()).await.unwrap();
    let mut back = Vec::new();
    drop(timeout(Duration::from_secs(3), stream.read_to_end(&mut back)).await);
    String::from_utf8_lossy(&back).into_owned()
}

/// Accepts, reads, and never answers; what a machine without power looks like once the kernel accepted.
pub(crate) async fn black_hole() -> (SocketAddr, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let task = tokio::spawn(async move {
        let mut held = Vec::new();
        loop {
            held.push(listener.accept().await);
        }
    });
    (addr, task)
}

pub(crate) fn quick() -> proxy::Config {
    proxy::Config::default().drain_delay(Duration::from_millis(50)).drain_deadline(Duration::from_secs(3))
}

pub(crate) fn request_id(head: &str) -> String {
    let line = head.lines().find(|line| line.to_ascii_lowercase().starts_with("x-request-id:")).unwrap();
    line.split_once(':').unwrap().1.trim().to_owned()
}

/// Answers each connection's first request with these bytes, then waits for a permit, then closes.
pub(crate) async fn scripted(
    bytes: &'static str,
    permits: Arc<tokio::sync::Semaphore>,
) -> (SocketAddr, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let task = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            assert!(stream.read(&mut [0; 4096]).await.unwrap() > 0);
            stream.write_all(bytes.as_bytes()).await.unwrap();
            permits.acquire().await.unwrap().forget();
        }
    });
    (addr, task)
}
