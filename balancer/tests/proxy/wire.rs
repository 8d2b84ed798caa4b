//! What goes over the wire: headers, bodies, stalls, and what is refused.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use balancer::proxy::{self, Gateway};
use balancer::{Config, Endpoint, Pool, Update};
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::body::Incoming;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, timeout};

use crate::support::*;

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
async fn a_body_of_any_length_goes_with_any_method() {
    let backend = Backend::start(|request: Request<Incoming>| async move {
        reply(200, request.into_body().collect().await.unwrap().to_bytes())
    })
    .await;
    let front = Front::start(quick(), [backend.endpoint("a")]).await;
    for method in ["GET", "DELETE", "OPTIONS", "PUT", "POST", "PATCH"] {
        for body in
            ["Transfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n", "Content-Length: 4\r\n\r\nbody"]
        {
            let request = format!("{method} / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{body}");
            let answer = raw(front.addr, &request).await;
            assert!(answer.ends_with("\r\n\r\nbody"), "{request}: {answer}");
        }
    }
    let none = raw(front.addr, "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    assert!(none.contains("content-length: 0\r\n"), "{none}");
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
async fn slow_heads_and_stalled_bodies_end() {
    let backend = Backend::start(|request: Request<Incoming>| async move {
        drop(request.into_body().collect().await);
        reply(200, "read")
    })
    .await;
    let short = Duration::from_millis(300);
    let config = quick().header_read_timeout(short).response_timeout(short).body_idle_timeout(short);
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
async fn a_client_may_pause_its_upload_and_an_endpoint_not_its_answer() {
    let backend = Backend::start(|request: Request<Incoming>| async move {
        reply(200, request.into_body().collect().await.unwrap().to_bytes())
    })
    .await;
    let front =
        Front::start(quick().response_timeout(Duration::from_millis(300)), [backend.endpoint("a")]).await;
    let upload = || async {
        let mut stream = TcpStream::connect(front.addr).await.unwrap();
        let head = b"POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 8\r\n\r\nhalf";
        stream.write_all(head).await.unwrap();
        tokio::time::sleep(Duration::from_millis(800)).await;
        let began = Instant::now();
        stream.write_all(b"half").await.unwrap();
        let mut back = String::new();
        timeout(Duration::from_secs(5), stream.read_to_string(&mut back)).await.unwrap().unwrap();
        (back, began.elapsed())
    };
    let (answer, _) = upload().await;
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("halfhalf"), "{answer}");
    let (addr, hole) = black_hole().await;
    front.gateway.apply(Update::reset([Endpoint::new("hole", addr)]));
    let (answer, took) = upload().await;
    assert!(answer.starts_with("HTTP/1.1 504 "), "{answer}");
    assert!(took < Duration::from_secs(1), "{took:?}");
    assert_eq!(front.gateway.load().endpoints[0].failures, 1);
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
            "another protocol",
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: tunnel\r\n\r\n".to_owned(),
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
    assert!(refused(proxy::Config::default().via("a b")).contains("via = \"a b\""));
    assert!(refused(proxy::Config::default().upgrades(["h2c"])).contains("upgrades = \"h2c\""));
    assert!(
        refused(proxy::Config::default().sticky(proxy::Sticky::new("home", "short"))).contains("16 bytes")
    );
    assert!(refused(proxy::Config::default().priority_header("a b")).contains("priority_header"));
    let endless = Duration::MAX;
    for (field, config) in [
        ("connect_timeout", proxy::Config::default().connect_timeout(endless)),
        ("response_timeout", proxy::Config::default().response_timeout(endless)),
        ("total_timeout", proxy::Config::default().total_timeout(endless)),
        ("body_idle_timeout", proxy::Config::default().body_idle_timeout(endless)),
        ("header_read_timeout", proxy::Config::default().header_read_timeout(endless)),
        ("idle_timeout", proxy::Config::default().idle_timeout(endless)),
        ("waiting_timeout", proxy::Config::default().waiting_timeout(endless)),
        ("tunnel_idle_timeout", proxy::Config::default().tunnel_idle_timeout(endless)),
        ("drain_delay", proxy::Config::default().drain_delay(endless)),
        ("drain_deadline", proxy::Config::default().drain_deadline(endless)),
    ] {
        let why = refused(config);
        assert!(
            why.starts_with(&format!("config {field} = ")) && why.ends_with(": one day at most"),
            "{why}"
        );
    }
}
