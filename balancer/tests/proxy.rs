//! The gateway against backends on loopback that die, hang, drain and come back.
#![cfg(feature = "proxy")]
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use balancer::proxy::{self, DrainReport, Gateway};
use balancer::{Config, Endpoint, Pool, Probes, Update};
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
struct Backend {
    addr: SocketAddr,
    hits: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

type Reply = Response<Full<Bytes>>;

impl Backend {
    async fn start<F, Fut>(answer: F) -> Self
    where
        F: Fn(Request<Incoming>) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = Reply> + Send + 'static,
    {
        Self::on("127.0.0.1:0".parse().unwrap(), answer).await
    }

    async fn on<F, Fut>(addr: SocketAddr, answer: F) -> Self
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
    async fn named(name: &'static str) -> Self {
        Self::start(move |_| async move { reply(200, name) }).await
    }

    fn hits(&self) -> u64 {
        self.hits.load(Ordering::Relaxed)
    }

    fn endpoint(&self, id: &str) -> Endpoint {
        Endpoint::new(id, self.addr)
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        // Closes the listener and every connection, as a kill does.
        self.task.abort();
    }
}

fn reply(status: u16, body: impl Into<Bytes>) -> Reply {
    Response::builder().status(status).body(Full::new(body.into())).unwrap()
}

/// A gateway that serves on loopback.
struct Front {
    gateway: Gateway,
    addr: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<std::io::Result<DrainReport>>,
}

impl Front {
    async fn start(config: proxy::Config, endpoints: impl IntoIterator<Item = Endpoint>) -> Self {
        let pool = Arc::new(Pool::new(Config::default(), 7).unwrap());
        let gateway = Gateway::new(pool, config).unwrap();
        gateway.apply(Update::reset(endpoints));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let serving = gateway.clone();
        let task = tokio::spawn(async move { serving.serve(listener, async { drop(stopped.await) }).await });
        Self { gateway, addr, stop: Some(stop), task }
    }

    async fn get(&self, path: &str) -> (u16, String) {
        self.send(Request::get(path)).await
    }

    async fn send(&self, request: http::request::Builder) -> (u16, String) {
        self.send_body(request, "").await
    }

    async fn send_body(&self, request: http::request::Builder, body: &str) -> (u16, String) {
        let request = request.header("host", "site").body(Full::new(Bytes::from(body.to_owned()))).unwrap();
        let response = Client::connect(self.addr).await.send(request).await.unwrap();
        (response.status().as_u16(), String::from_utf8(response.into_body().to_vec()).unwrap())
    }

    async fn until(&self, what: &str, condition: impl Fn(&proxy::Load) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(5);
        while !condition(&self.gateway.load()) {
            assert!(Instant::now() < deadline, "{what}: {:?}", self.gateway.load());
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// Closed-loop GETs on `clients` keep-alive connections until `stop` is done; returns (sent, failures, slowest).
    async fn under_load(
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

struct Client {
    sender: client::conn::http1::SendRequest<Full<Bytes>>,
}

impl Client {
    async fn connect(addr: SocketAddr) -> Self {
        let stream = TcpStream::connect(addr).await.unwrap();
        let (sender, driver) = client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(driver);
        Self { sender }
    }

    async fn send(&mut self, request: Request<Full<Bytes>>) -> hyper::Result<Response<Bytes>> {
        self.sender.ready().await?;
        let (parts, body) = self.sender.send_request(request).await?.into_parts();
        Ok(Response::from_parts(parts, body.collect().await?.to_bytes()))
    }
}

/// Sends bytes as they are and returns all that comes back.
async fn raw(addr: SocketAddr, bytes: &str) -> String {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    stream.write_all(bytes.as_bytes()).await.unwrap();
    let mut back = Vec::new();
    drop(timeout(Duration::from_secs(3), stream.read_to_end(&mut back)).await);
    String::from_utf8_lossy(&back).into_owned()
}

/// Accepts, reads, and never answers; what a machine without power looks like once the kernel accepted.
async fn black_hole() -> (SocketAddr, JoinHandle<()>) {
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

fn quick() -> proxy::Config {
    proxy::Config::default().drain_delay(Duration::from_millis(50)).drain_deadline(Duration::from_secs(3))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn headers_are_rewritten_and_bodies_stream() {
    let backend = Backend::start(|request: Request<Incoming>| async move {
        let mut seen: Vec<_> =
            request.headers().iter().map(|(n, v)| format!("{n}: {}", v.to_str().unwrap())).collect();
        seen.sort();
        let path = request.uri().to_string();
        let body = request.into_body().collect().await.unwrap().to_bytes();
        let mut reply = reply(200, format!("{path} {} {}", seen.join("; "), body.len()));
        reply.headers_mut().insert("keep-alive", "timeout=5".parse().unwrap());
        reply
    })
    .await;
    let front = Front::start(quick(), [backend.endpoint("a")]).await;
    let request = Request::post("/path?q=1")
        .header("x-request-id", "forged")
        .header("connection", "x-own")
        .header("x-own", "1")
        .header("x-forwarded-proto", "https");
    let (status, seen) = front.send_body(request, &"x".repeat(300_000)).await;
    assert_eq!(status, 200);
    assert!(
        seen.starts_with("/path?q=1 content-length: 300000; host: site; x-forwarded-for: 127.0.0.1;"),
        "{seen}"
    );
    assert!(seen.contains("x-forwarded-host: site; x-forwarded-proto: http; x-request-id: "), "{seen}");
    assert!(!seen.contains("forged") && !seen.contains("x-own"), "{seen}");
    assert!(seen.ends_with(" 300000"), "{seen}");
    let mut client = Client::connect(front.addr).await;
    let request = Request::head("/").header("host", "site").body(Full::default()).unwrap();
    let response = client.send(request).await.unwrap();
    assert!(response.headers().contains_key("content-length"), "{response:?}");
    assert!(!response.headers().contains_key("keep-alive"));
    assert!(response.headers().contains_key("x-request-id"));
    front.until("all is counted out", |load| load.in_flight == 0).await;
    let load = front.gateway.load();
    assert_eq!((load.requests_total, load.endpoints[0].in_flight), (2, 0));
    assert!(load.latency_p99.is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killing_a_backend_under_load_fails_no_get() {
    for probes in [false, true] {
        let (a, b) = (Backend::named("a").await, Backend::named("b").await);
        let config = if probes { quick().probe("/healthz") } else { quick() };
        let front = Front::start(config, [a.endpoint("a"), b.endpoint("b")]).await;
        let (sent, failures, _) = front
            .under_load(16, async {
                front
                    .until("both get their share", |load| load.endpoints.iter().all(|e| e.requests > 50))
                    .await;
                drop(b);
                let before = front.gateway.load().requests_total;
                sleep(Duration::from_millis(1000)).await;
                front.until("it goes on", |load| load.requests_total > before + 100).await;
            })
            .await;
        assert!(failures.is_empty(), "of {sent}, with probes {probes}: {failures:?}");
        front.until("all is counted out", |load| load.in_flight == 0).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backend_that_hangs_costs_a_second_and_no_get() {
    let frozen = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let state = frozen.clone();
    let hanging = Backend::start(move |_| {
        let state = state.clone();
        async move {
            while state.load(Ordering::Relaxed) {
                sleep(Duration::from_millis(50)).await;
            }
            reply(200, "b")
        }
    })
    .await;
    let good = Backend::named("a").await;
    let front = Front::start(quick().probe("/healthz"), [good.endpoint("a"), hanging.endpoint("b")]).await;
    let (sent, failures, slowest) = front
        .under_load(16, async {
            front.until("both are ready", |load| load.endpoints.iter().all(|e| e.requests > 10)).await;
            frozen.store(true, Ordering::Relaxed);
            sleep(Duration::from_millis(2500)).await;
        })
        .await;
    assert!(failures.is_empty(), "of {sent}: {failures:?}");
    assert!(slowest > Duration::from_millis(300), "nothing hung: {slowest:?}");
    assert!(slowest < Duration::from_millis(4000), "{slowest:?}");
    let told: Vec<_> = front.gateway.events().into_iter().map(|event| event.text).collect();
    assert!(told.iter().any(|text| text.contains("failed probes in a row")), "{told:?}");
    // It comes back by probe.
    frozen.store(false, Ordering::Relaxed);
    front.until("it recovers", |load| load.endpoints[1].state == balancer::State::Ready).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_endpoint_that_never_answers_probes_is_never_used() {
    let (addr, hole) = black_hole().await;
    let good = Backend::named("a").await;
    let front =
        Front::start(quick().probe("/healthz"), [good.endpoint("a"), Endpoint::new("hole", addr)]).await;
    let (sent, failures, slowest) = front
        .under_load(4, async {
            sleep(Duration::from_millis(700)).await;
            front.until("it is under load", |load| load.requests_total > 20).await;
        })
        .await;
    assert!(failures.is_empty(), "of {sent}: {failures:?}");
    assert!(slowest < Duration::from_millis(3000), "{slowest:?}");
    assert_eq!(front.gateway.load().endpoints[1].requests, 0);
    hole.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_wait_for_an_endpoint_and_go_when_it_comes() {
    let front = Front::start(quick(), []).await;
    let backend = Backend::named("late").await;
    let (post, get, ()) = tokio::join!(front.send_body(Request::post("/"), "body"), front.get("/"), async {
        front.until("both wait", |load| load.waiting == 2 && load.in_flight == 2).await;
        sleep(Duration::from_millis(300)).await;
        front.gateway.apply(Update::Add(backend.endpoint("a")));
    });
    assert_eq!((post.0, get), (200, (200, "late".to_owned())));
    assert_eq!(front.gateway.load().waiting, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_only_endpoint_dies_and_comes_back_and_requests_only_wait() {
    let backend = Backend::named("one").await;
    let addr = backend.addr;
    let front = Front::start(quick(), [backend.endpoint("a")]).await;
    assert_eq!(front.get("/").await.0, 200);
    let (sent, failures, slowest) = front
        .under_load(8, async {
            drop(backend);
            front.until("requests wait", |load| load.waiting > 0).await;
            sleep(Duration::from_millis(800)).await;
            let _back = Backend::on(addr, |_| async { reply(200, "again") }).await;
            front.until("nobody waits", |load| load.waiting == 0).await;
            sleep(Duration::from_millis(200)).await;
            front.gateway.apply(Update::reset([]));
            let other = Backend::named("other").await;
            front.gateway.apply(Update::reset([other.endpoint("b")]));
            std::mem::forget(other);
            sleep(Duration::from_millis(100)).await;
        })
        .await;
    assert!(failures.is_empty(), "of {sent}: {failures:?}");
    assert!(slowest > Duration::from_millis(700), "{slowest:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_waiting_room_has_a_bound_and_a_deadline() {
    let config = quick().waiting_limit(1).waiting_timeout(Duration::from_millis(400));
    let front = Front::start(config, []).await;
    let began = Instant::now();
    let (first, second) = tokio::join!(front.get("/"), async {
        front.until("one waits", |load| load.waiting == 1).await;
        front.get("/").await
    });
    assert_eq!(second.0, 503);
    assert!(
        second.1.contains("the set is empty, and 1 requests are waiting already (request "),
        "{second:?}"
    );
    assert_eq!(first.0, 503);
    assert!(first.1.contains("none came for 0.4 s"), "{first:?}");
    assert!(began.elapsed() >= Duration::from_millis(400));
    let load = front.gateway.load();
    assert_eq!((load.rejected_total, load.responses_5xx_total, load.waiting), (1, 2, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_id_is_kept_over_retries_and_a_post_is_not_repeated() {
    let ids = Arc::new(std::sync::Mutex::new(Vec::new()));
    let (tell, count) = (ids.clone(), Arc::new(AtomicU64::new(0)));
    let taken = count.clone();
    // Takes the request in and breaks the connection.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let breaking = Endpoint::new("breaking", listener.local_addr().unwrap());
    let task = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = vec![0; 4096];
            let n = stream.read(&mut head).await.unwrap();
            taken.fetch_add(1, Ordering::Relaxed);
            let head = String::from_utf8_lossy(&head[..n]).into_owned();
            tell.lock().unwrap().push(request_id(&head));
        }
    });
    let front = Front::start(quick(), [breaking]).await;
    let (status, why) = front.send_body(Request::post("/"), "once").await;
    assert_eq!((status, count.load(Ordering::Relaxed)), (502, 1), "{why}");
    assert!(why.starts_with("the endpoint broke off before it answered"), "{why}");
    ids.lock().unwrap().clear();

    let good = Backend::start(|request: Request<Incoming>| async move {
        reply(200, request.headers()["x-request-id"].to_str().unwrap().to_owned())
    })
    .await;
    let (answered, ()) = tokio::join!(front.get("/"), async {
        front.until("it was tried", |_| !ids.lock().unwrap().is_empty()).await;
        front.gateway.apply(Update::Add(good.endpoint("good")));
    });
    assert_eq!(answered.0, 200);
    assert!(ids.lock().unwrap().iter().all(|id| *id == answered.1), "{ids:?} {answered:?}");
    task.abort();
}

fn request_id(head: &str) -> String {
    let line = head.lines().find(|line| line.to_ascii_lowercase().starts_with("x-request-id:")).unwrap();
    line.split_once(':').unwrap().1.trim().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_kills_is_not_tried_for_ever() {
    let mut tasks = Vec::new();
    let taken = Arc::new(AtomicU64::new(0));
    let mut endpoints = Vec::new();
    for n in 0..6 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        endpoints.push(Endpoint::new(format!("e{n}"), listener.local_addr().unwrap()));
        let taken = taken.clone();
        tasks.push(tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                drop(stream.read(&mut [0; 4096]).await);
                taken.fetch_add(1, Ordering::Relaxed);
            }
        }));
    }
    let front = Front::start(quick().max_attempts(3), endpoints).await;
    assert_eq!(front.get("/").await.0, 502);
    assert_eq!(taken.load(Ordering::Relaxed), 3);
    tasks.iter().for_each(JoinHandle::abort);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn membership_churn_under_load_fails_no_get() {
    let backends = [
        Backend::named("a").await,
        Backend::named("b").await,
        Backend::named("c").await,
        Backend::named("d").await,
    ];
    let all: Vec<_> = backends.iter().enumerate().map(|(n, b)| b.endpoint(&format!("e{n}"))).collect();
    let front = Front::start(quick(), all.clone()).await;
    let (sent, failures, _) = front
        .under_load(16, async {
            for round in 0..20usize {
                let part =
                    all.iter().enumerate().filter(|(n, _)| (round + n) % 3 != 0).map(|(_, e)| e.clone());
                front.gateway.apply(Update::reset(part));
                sleep(Duration::from_millis(100)).await;
            }
            front.until("it was under load", |load| load.requests_total > 300).await;
        })
        .await;
    assert!(failures.is_empty(), "of {sent}: {failures:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn draining_finishes_what_is_in_flight() {
    let backend = Backend::start(|_| async {
        sleep(Duration::from_millis(600)).await;
        reply(200, "slow")
    })
    .await;
    let mut front = Front::start(quick(), [backend.endpoint("a")]).await;
    front.until("it serves", |_| front.gateway.ready()).await;
    let (addr, stop) = (front.addr, front.stop.take().unwrap());
    let slow = front.get("/");
    let (slow, ()) = tokio::join!(slow, async {
        front.until("it is in flight", |load| load.endpoints[0].in_flight == 1).await;
        stop.send(()).unwrap();
        while front.gateway.ready() {
            tokio::task::yield_now().await;
        }
    });
    assert_eq!(slow, (200, "slow".to_owned()));
    let report = timeout(Duration::from_secs(2), &mut front.task).await.unwrap().unwrap().unwrap();
    assert_eq!((report.open, report.cut), (1, 0), "{report:?}");
    assert!(report.seconds < 2.0, "{report:?}");
    assert!(TcpStream::connect(addr).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_probe_that_says_not_ready_moves_requests_away_and_lets_others_finish() {
    let leaving = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let state = leaving.clone();
    let a = Backend::start(move |request: Request<Incoming>| {
        let leaving = state.load(Ordering::Relaxed);
        async move {
            match request.uri().path() {
                "/healthz" if leaving => reply(503, "stopping"),
                "/slow" => {
                    sleep(Duration::from_millis(1500)).await;
                    reply(200, "a finished")
                }
                _ => reply(200, "a"),
            }
        }
    })
    .await;
    let front = Front::start(quick().probe_with("/healthz", Probes::default()), [a.endpoint("a")]).await;
    let b = Backend::named("b").await;
    let (slow, ()) = tokio::join!(front.get("/slow"), async {
        front.until("it works", |load| load.endpoints[0].in_flight == 1).await;
        front.gateway.apply(Update::Add(b.endpoint("b")));
        leaving.store(true, Ordering::Relaxed);
        let told = |load: &proxy::Load| load.endpoints[0].reason == balancer::Reason::NotReady;
        front.until("it is told", told).await;
        for _ in 0..10 {
            assert_eq!(front.get("/").await, (200, "b".to_owned()));
        }
    });
    assert_eq!(slow, (200, "a finished".to_owned()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_leaves_takes_its_attempt_with_it() {
    let (addr, hole) = black_hole().await;
    let front = Front::start(quick(), [Endpoint::new("hole", addr)]).await;
    let mut stream = TcpStream::connect(front.addr).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    front.until("it is in flight", |load| load.endpoints[0].in_flight == 1).await;
    drop(stream);
    front.until("it is gone", |load| load.in_flight == 0 && load.endpoints[0].in_flight == 0).await;
    assert_eq!(front.gateway.load().endpoints[0].failures, 0);
    hole.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_does_not_read_is_let_go() {
    let backend = Backend::start(|_| async { reply(200, vec![b'x'; 50_000_000]) }).await;
    let front =
        Front::start(quick().body_idle_timeout(Duration::from_millis(300)), [backend.endpoint("a")]).await;
    let mut stream = TcpStream::connect(front.addr).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    front.until("it is in flight", |load| load.endpoints[0].in_flight == 1).await;
    front.until("it is let go", |load| load.in_flight == 0 && load.endpoints[0].in_flight == 0).await;
    assert_eq!(front.gateway.load().endpoints[0].failures, 0);
}

/// Answers each connection's first request with these bytes, then waits for a permit, then closes.
async fn scripted(bytes: &'static str, permits: Arc<tokio::sync::Semaphore>) -> (SocketAddr, JoinHandle<()>) {
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_stream_and_a_cut_one_is_seen_as_cut() {
    let permits = Arc::new(tokio::sync::Semaphore::new(0));
    let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n";
    let (addr, task) = scripted(head, permits.clone()).await;
    let front = Front::start(quick(), [Endpoint::new("a", addr)]).await;
    let mut client = Client::connect(front.addr).await;
    let request = Request::get("/").header("host", "site").body(Full::default()).unwrap();
    let mut body = client.sender.send_request(request).await.unwrap().into_body();
    let first = timeout(Duration::from_secs(2), body.frame()).await.expect("it does not stream");
    assert_eq!(first.unwrap().unwrap().into_data().unwrap(), "first");
    assert_eq!(front.gateway.load().in_flight, 1);
    permits.add_permits(1);
    assert!(body.frame().await.unwrap().is_err(), "a cut answer must not look complete");
    front.until("it is counted", |load| load.in_flight == 0 && load.endpoints[0].failures == 1).await;
    task.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_short_answer_that_breaks_off_is_asked_for_elsewhere() {
    let permits = Arc::new(tokio::sync::Semaphore::new(100));
    let (addr, task) = scripted("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf", permits).await;
    let good = Backend::named("whole").await;
    let front = Front::start(quick(), [Endpoint::new("breaking", addr), good.endpoint("good")]).await;
    for _ in 0..6 {
        assert_eq!(front.get("/").await, (200, "whole".to_owned()));
    }
    assert!(front.gateway.load().retries_total > 0);
    task.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kept_connection_that_dies_is_replaced_and_blamed_on_nobody() {
    // Answers the first request of each connection, takes the second one, and closes.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let seconds = Arc::new(AtomicU64::new(0));
    let taken = seconds.clone();
    let task = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let taken = taken.clone();
            tokio::spawn(async move {
                assert!(stream.read(&mut [0; 4096]).await.unwrap() > 0);
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.unwrap();
                taken.fetch_add(u64::from(stream.read(&mut [0; 4096]).await.unwrap() > 0), Ordering::Relaxed);
            });
        }
    });
    let front = Front::start(quick(), [Endpoint::new("a", addr)]).await;
    for _ in 0..6 {
        assert_eq!(front.get("/").await, (200, "ok".to_owned()));
    }
    assert!(seconds.load(Ordering::Relaxed) >= 3, "no connection was used twice");
    let load = front.gateway.load();
    assert_eq!((load.endpoints[0].failures, load.retries_total), (0, 0));
    task.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_heads_and_stalled_bodies_end() {
    let backend = Backend::start(|request: Request<Incoming>| async move {
        drop(request.into_body().collect().await);
        reply(200, "read")
    })
    .await;
    let config =
        quick().header_read_timeout(Duration::from_millis(300)).response_timeout(Duration::from_millis(300));
    let front = Front::start(config, [backend.endpoint("a")]).await;
    let began = Instant::now();
    let nothing = raw(front.addr, "GET / HTTP/1.1\r\nHost: a\r\nX-Slow: ").await;
    assert!(!nothing.contains(" 200 ") && began.elapsed() < Duration::from_secs(2), "{nothing}");
    let stalled = raw(front.addr, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf").await;
    assert!(stalled.starts_with("HTTP/1.1 408 "), "{stalled}");
    assert_eq!(front.gateway.load().endpoints[0].failures, 0, "the client's fault");
    front.until("all is counted out", |load| load.in_flight == 0).await;
    // An endpoint that does not read the body is at fault itself.
    let (addr, hole) = black_hole().await;
    front.gateway.apply(Update::reset([Endpoint::new("hole", addr)]));
    let body = "x".repeat(20_000_000);
    let (status, why) = front.send_body(Request::post("/"), &body).await;
    assert_eq!((status, front.gateway.load().endpoints[0].failures), (504, 1), "{why}");
    hole.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn smuggling_and_what_is_not_supported_is_refused() {
    let backend = Backend::named("a").await;
    let front = Front::start(quick(), [backend.endpoint("a")]).await;
    let chunked = "Transfer-Encoding: chunked\r\n";
    for (what, request, status) in [
        (
            "CL before TE",
            format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n{chunked}\r\n0\r\n\r\n"),
            400,
        ),
        (
            "TE before CL",
            format!("POST / HTTP/1.1\r\nHost: a\r\n{chunked}Content-Length: 4\r\n\r\n0\r\n\r\n"),
            400,
        ),
        ("two hosts", "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n".to_owned(), 400),
        ("no host", "GET / HTTP/1.1\r\n\r\n".to_owned(), 400),
        ("other authority", "GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), 400),
        (
            "two lengths",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx".to_owned(),
            400,
        ),
        ("odd coding", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n".to_owned(), 400),
        ("folded header", "GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\n 2\r\n\r\n".to_owned(), 400),
        ("host as hop", "GET / HTTP/1.1\r\nHost: a\r\nConnection: host\r\n\r\n".to_owned(), 400),
        ("connect", "CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n".to_owned(), 501),
        (
            "websocket",
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n".to_owned(),
            501,
        ),
        ("huge head", format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "y".repeat(100_000)), 431),
    ] {
        let answer = raw(front.addr, &request).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{what}: {answer}");
    }
    assert_eq!(backend.hits(), 0);
    let old = raw(front.addr, "GET / HTTP/1.0\r\n\r\n").await;
    assert!(old.starts_with("HTTP/1.0 200 OK") && old.ends_with("\r\n\r\na"), "{old}");
    // A chunked body is fine, and so is a second request on the same connection.
    let fine = format!(
        "POST / HTTP/1.1\r\nHost: a\r\n{chunked}\r\n4\r\nbody\r\n0\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    );
    let answer = raw(front.addr, &fine).await;
    assert_eq!(answer.matches("HTTP/1.1 200 OK").count(), 2, "{answer}");
}

#[tokio::test]
async fn settings_that_can_not_work_are_named() {
    let pool = Arc::new(Pool::new(Config::default(), 7).unwrap());
    let refused = |config: proxy::Config| Gateway::new(pool.clone(), config).unwrap_err().to_string();
    assert!(refused(proxy::Config::default().probe("healthz")).contains("probe.path = \"healthz\""));
    assert!(refused(proxy::Config::default().max_attempts(0)).contains("max_attempts = 0"));
    assert!(refused(proxy::Config::default().total_timeout(Duration::ZERO)).contains("total_timeout = 0ns"));
}
