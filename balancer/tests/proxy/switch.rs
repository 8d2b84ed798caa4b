//! Protocol switches, trailers, and `Expect: 100-continue`.

use std::time::Duration;

use balancer::{Endpoint, Update};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::support::*;

const ASK: &str = "GET /chat HTTP/1.1\r\nHost: site\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\
                   Sec-WebSocket-Key: x\r\nSec-WebSocket-Version: 13\r\n\r\n";

/// Switches, then sends back in capitals what comes.
async fn echo() -> (Endpoint, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = Endpoint::new("echo", listener.local_addr().unwrap());
    let task = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let head = until_blank(&mut stream).await.to_ascii_lowercase();
                assert!(
                    head.contains("upgrade: websocket") && head.contains("connection: upgrade"),
                    "{head}"
                );
                assert!(head.contains("sec-websocket-key: x"), "{head}");
                // The first words of the new protocol come with the head.
                let answer = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nhello";
                stream.write_all(answer.as_bytes()).await.unwrap();
                let mut bytes = [0; 1024];
                loop {
                    match stream.read(&mut bytes).await {
                        Ok(0) | Err(_) => return,
                        Ok(n) => stream.write_all(&bytes[..n].to_ascii_uppercase()).await.unwrap(),
                    }
                }
            });
        }
    });
    (endpoint, task)
}

async fn until_blank(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(timeout(Duration::from_secs(5), stream.read_u8()).await.expect("no head").unwrap());
    }
    String::from_utf8(head).unwrap()
}

async fn expect(stream: &mut TcpStream, bytes: &str) {
    let mut seen = vec![0; bytes.len()];
    timeout(Duration::from_secs(5), stream.read_exact(&mut seen)).await.expect("nothing comes").unwrap();
    assert_eq!(String::from_utf8_lossy(&seen), bytes);
}

async fn switched(front: &Front) -> TcpStream {
    let mut stream = TcpStream::connect(front.addr).await.unwrap();
    stream.write_all(ASK.as_bytes()).await.unwrap();
    let head = until_blank(&mut stream).await.to_ascii_lowercase();
    assert!(head.starts_with("http/1.1 101 ") && head.contains("upgrade: websocket"), "{head}");
    expect(&mut stream, "hello").await;
    stream
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_websocket_passes_and_counts_as_in_flight() {
    let (endpoint, task) = echo().await;
    let front = Front::start(quick(), [endpoint]).await;
    let mut stream = switched(&front).await;
    for word in ["a", "whole sentence", "z"] {
        stream.write_all(word.as_bytes()).await.unwrap();
        expect(&mut stream, &word.to_ascii_uppercase()).await;
    }
    let load = front.gateway.load();
    assert_eq!((load.in_flight, load.endpoints[0].in_flight), (1, 1));
    drop(stream);
    front.until("it is over", |load| load.in_flight == 0 && load.endpoints[0].in_flight == 0).await;
    assert_eq!(front.gateway.load().endpoints[0].failures, 0);
    task.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tunnel_has_until_the_drains_deadline_and_a_silent_one_ends() {
    let (endpoint, task) = echo().await;
    let config =
        quick().drain_deadline(Duration::from_millis(600)).tunnel_idle_timeout(Duration::from_millis(400));
    let mut front = Front::start(config, [endpoint]).await;
    let mut silent = switched(&front).await;
    assert_eq!(
        timeout(Duration::from_secs(3), silent.read(&mut [0])).await.expect("it is kept").unwrap_or(0),
        0
    );
    let mut busy = switched(&front).await;
    drop(front.stop.take());
    for _ in 0..3 {
        sleep(Duration::from_millis(100)).await;
        busy.write_all(b"x").await.unwrap();
        expect(&mut busy, "X").await;
    }
    let report = timeout(Duration::from_secs(3), &mut front.task).await.unwrap().unwrap().unwrap();
    // Nothing moved for a while, or the deadline came.
    assert!(report.open == 1 && report.seconds < 2.0, "{report:?}");
    assert_eq!(
        timeout(Duration::from_secs(3), busy.read(&mut [0])).await.expect("it is cut").unwrap_or(0),
        0
    );
    task.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endpoint_may_decline_and_none_may_switch_unasked() {
    let plain = Backend::named("no").await;
    let front = Front::start(quick(), [plain.endpoint("a")]).await;
    let answer = raw(front.addr, &ASK.replace("keep-alive, Upgrade", "close, Upgrade")).await;
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("no"), "{answer}");
    let permits = std::sync::Arc::new(tokio::sync::Semaphore::new(0));
    let (addr, task) =
        scripted("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", permits)
            .await;
    front.gateway.apply(Update::reset([Endpoint::new("odd", addr)]));
    assert_eq!(front.get("/").await.0, 502);
    task.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trailers_pass_both_ways() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = Endpoint::new("a", listener.local_addr().unwrap());
    let task = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut seen = String::new();
        while !seen.contains("x-sum: 1\r\n\r\n") {
            seen.push(char::from(
                timeout(Duration::from_secs(5), stream.read_u8()).await.expect("no trailers").unwrap(),
            ));
        }
        let seen = seen.to_ascii_lowercase();
        assert!(seen.contains("te: trailers\r\n") && seen.contains("trailer: x-sum\r\n"), "{seen}");
        let answer = "HTTP/1.1 200 OK\r\nTrailer: X-Back\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-Back: 2\r\n\r\n";
        stream.write_all(answer.as_bytes()).await.unwrap();
        stream.read_u8().await.ok();
    });
    let front = Front::start(quick(), [endpoint]).await;
    let request = "POST / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: te, close\r\nTrailer: x-sum\r\n\
                   Transfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\nx-sum: 1\r\n\r\n";
    let answer = raw(front.addr, request).await.to_ascii_lowercase();
    assert!(answer.starts_with("http/1.1 200 ") && answer.contains("0\r\nx-back: 2\r\n\r\n"), "{answer}");
    task.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_expects_it_is_told_to_continue_and_one_that_is_refused_is_not() {
    let backend = Backend::start(|request| async move {
        use http_body_util::BodyExt;
        reply(200, request.into_body().collect().await.unwrap().to_bytes())
    })
    .await;
    let front = Front::start(quick().max_body_bytes(100), [backend.endpoint("a")]).await;
    let head = |length| {
        format!(
            "PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n"
        )
    };
    let mut stream = TcpStream::connect(front.addr).await.unwrap();
    stream.write_all(head(4).as_bytes()).await.unwrap();
    assert_eq!(until_blank(&mut stream).await, "HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"body").await.unwrap();
    let mut rest = String::new();
    timeout(Duration::from_secs(5), stream.read_to_string(&mut rest)).await.unwrap().unwrap();
    assert!(rest.starts_with("HTTP/1.1 200 ") && rest.ends_with("body"), "{rest}");
    let refused = raw(front.addr, &head(101)).await;
    assert!(refused.starts_with("HTTP/1.1 413 "), "{refused}");
    let chunked = format!(
        "PUT / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n6e\r\n{}\r\n0\r\n\r\n",
        "x".repeat(110)
    );
    let refused = raw(front.addr, &chunked).await;
    assert!(refused.starts_with("HTTP/1.1 413 "), "{refused}");
    assert_eq!(front.gateway.load().endpoints[0].failures, 0);
}
