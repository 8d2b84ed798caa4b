//! Requests wait for an endpoint, and finish while others drain.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use balancer::proxy::{self, Gateway};
use balancer::{Config, Pool, Probes, Update};
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::body::Incoming;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, timeout};

use crate::support::*;

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
async fn who_leaves_while_it_waits_leaves_the_waiting_room() {
    let front = Front::start(quick(), []).await;
    for body in ["whole", "half", ""] {
        let mut stream = TcpStream::connect(front.addr).await.unwrap();
        let length = if body == "half" { 8 } else { body.len() };
        let request = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n{body}");
        stream.write_all(request.as_bytes()).await.unwrap();
        front.until("it waits", |load| load.waiting == 1).await;
        drop(stream);
        front.until("it is gone", |load| load.waiting == 0 && load.in_flight == 0).await;
    }
    // What is read meanwhile reaches the endpoint, be it more than is kept or not.
    let backend = Backend::start(|request: Request<Incoming>| async move {
        reply(200, request.into_body().collect().await.unwrap().to_bytes())
    })
    .await;
    let bodies = [1, 65_000, 65_536, 70_000, 3_000_000].map(|n: usize| "0123456789".repeat(n / 10 + 1));
    for body in bodies {
        let (answer, ()) = tokio::join!(front.send_body(Request::post("/"), &body), async {
            front.until("it waits", |load| load.waiting == 1).await;
            sleep(Duration::from_millis(50)).await;
            front.gateway.apply(Update::reset([backend.endpoint("a")]));
        });
        assert_eq!((answer.0, answer.1 == body), (200, true), "{} bytes", body.len());
        front.gateway.apply(Update::reset([]));
    }
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
async fn a_gateway_is_ready_while_it_serves_and_says_when_it_never_can() {
    let mut front = Front::start(quick(), []).await;
    front.until("it serves", |_| front.gateway.ready()).await;
    // The future of serve is dropped, not told to stop.
    front.task.abort();
    drop((&mut front.task).await);
    assert!(!front.gateway.ready());
    // A connection in place of a listener.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut peer = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (stream, _) = listener.accept().unwrap();
    stream.set_nonblocking(true).unwrap();
    let none = std::net::TcpListener::from(std::os::fd::OwnedFd::from(stream));
    std::io::Write::write_all(&mut peer, b"wakes it").unwrap();
    let none = TcpListener::from_std(none).unwrap();
    let serving = front.gateway.serve(none, std::future::pending());
    let error = timeout(Duration::from_secs(5), serving).await.expect("it goes on for ever").unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
    assert!(!front.gateway.ready());
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

/// A front that moves at once: when it is told, nothing is in flight, and who knocked before has been served.
#[tokio::test(flavor = "multi_thread")]
async fn a_quiesced_gateway_has_nothing_left_to_cut() {
    let (go, gate) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let (going, gating) = (go.clone(), gate.clone());
    let backend = Backend::start(move |request| {
        let (go, gate) = (going.clone(), gating.clone());
        async move {
            if request.uri().path() == "/slow" {
                gate.add_permits(1);
                go.acquire().await.unwrap().forget();
            }
            reply(200, "done")
        }
    })
    .await;
    let config = proxy::Config::default().drain_delay(Duration::from_secs(60));
    let mut front = Front::start(config, [backend.endpoint("a")]).await;
    let within = Duration::from_millis(1500);
    assert_eq!(front.gateway.quiesce(within).await, 0, "nothing is asked of one that does not drain");
    assert_eq!(front.get("/").await.0, 200, "it was closed without a drain");

    let mut idle = TcpStream::connect(front.addr).await.unwrap();
    idle.write_all(b"GET / HTTP/1.1\r\nHost: site\r\n\r\n").await.unwrap();
    assert!(idle.read(&mut [0; 4096]).await.unwrap() > 0);
    let addr = front.addr;
    let slow = tokio::spawn(async move {
        let request = Request::get("/slow").header("host", "site").body(Full::default()).unwrap();
        Client::connect(addr).await.send(request).await.unwrap().status()
    });
    gate.acquire().await.unwrap().forget();
    front.stop.take().unwrap().send(()).unwrap();
    front.until("it drains", |_| !front.gateway.ready()).await;
    assert_eq!(front.get("/").await.0, 200, "who comes during the delay is served");

    let gateway = front.gateway.clone();
    let quiet = tokio::spawn(async move { gateway.quiesce(within).await });
    // The idle connection ends, the listener is gone, and the request under way goes on.
    let ended =
        timeout(Duration::from_secs(5), idle.read(&mut [0; 16])).await.expect("it stays open").unwrap();
    assert_eq!(ended, 0);
    assert!(TcpStream::connect(addr).await.is_err(), "it listens on");
    assert!(!quiet.is_finished() && !slow.is_finished());
    go.add_permits(1);
    assert_eq!(slow.await.unwrap(), 200);
    assert_eq!(quiet.await.unwrap(), 0);
    let report = (&mut front.task).await.unwrap().unwrap();
    assert_eq!(report.cut, 0);
    assert!(report.seconds < 30.0, "the delay was waited for: {report:?}");
}

/// Connections that the kernel has taken and nobody has accepted yet belong to the old listener: they are served, not reset.
#[tokio::test]
async fn who_waits_in_the_queue_of_a_closing_listener_is_served() {
    let backend = Backend::named("a").await;
    // It accepts one, and no more while that one is served.
    let config = proxy::Config::default().drain_delay(Duration::ZERO).max_connections(1);
    let pool = Arc::new(Pool::new(Config::default(), 7).unwrap());
    let gateway = Gateway::new(pool, config).unwrap();
    gateway.apply(Update::reset([backend.endpoint("a")]));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let mut queued = Vec::new();
    for _ in 0..8 {
        let mut stream = TcpStream::connect(addr).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: site\r\n\r\n").await.unwrap();
        queued.push(stream);
    }
    let server = gateway.clone();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let serving = tokio::spawn(async move { server.serve(listener, async { drop(stopped.await) }).await });
    while !gateway.ready() {
        tokio::task::yield_now().await;
    }
    stop.send(()).unwrap();
    while gateway.ready() {
        tokio::task::yield_now().await;
    }
    // Nothing is open perhaps, and yet it waits until they have been taken and answered.
    assert_eq!(gateway.quiesce(Duration::from_secs(5)).await, 0);
    for mut stream in queued {
        let mut answer = Vec::new();
        timeout(Duration::from_secs(5), stream.read_to_end(&mut answer)).await.unwrap().unwrap();
        assert!(answer.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&answer));
    }
    assert_eq!(serving.await.unwrap().unwrap().cut, 0);
}
