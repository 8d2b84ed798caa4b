//! HTTP/2 from clients and to endpoints.

use std::convert::Infallible;
use std::time::Duration;

use balancer::Endpoint;
use balancer::proxy::Protocol;
use bytes::Bytes;
use http::{HeaderMap, Request, Response, Version};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::support::*;

type Sender = hyper::client::conn::http2::SendRequest<Full<Bytes>>;

async fn client(front: &Front) -> Sender {
    let stream = TcpStream::connect(front.addr).await.unwrap();
    let (sender, driver) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(driver);
    sender
}

/// Answers as a gRPC server does: the message, and its status in trailers.
async fn grpc() -> (Endpoint, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = Endpoint::new("grpc", listener.local_addr().unwrap());
    let task = tokio::spawn(async move {
        let mut connections = tokio::task::JoinSet::new();
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            connections.spawn(async move {
                let service = service_fn(|request: Request<Incoming>| async move {
                    assert_eq!(request.version(), Version::HTTP_2);
                    let said = format!(
                        "{} {} {:?}",
                        request.uri(),
                        request.headers()["te"].to_str().unwrap(),
                        request.headers().contains_key("connection")
                    );
                    let body = request.into_body().collect().await.unwrap().to_bytes();
                    let status = HeaderMap::from_iter([(
                        http::HeaderName::from_static("grpc-status"),
                        "0".parse().unwrap(),
                    )]);
                    let frames = [Frame::data(Bytes::from(said)), Frame::data(body), Frame::trailers(status)];
                    let frames = futures_frames(frames);
                    Ok::<_, Infallible>(
                        Response::builder().header("content-type", "application/grpc").body(frames).unwrap(),
                    )
                });
                let http = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                drop(http.serve_connection(TokioIo::new(stream), service).await);
            });
        }
    });
    (endpoint, task)
}

fn futures_frames<const N: usize>(
    frames: [Frame<Bytes>; N],
) -> StreamBody<impl futures_core::Stream<Item = Result<Frame<Bytes>, Infallible>>> {
    StreamBody::new(Frames(frames.into_iter().map(Some).collect()))
}

struct Frames(std::collections::VecDeque<Option<Frame<Bytes>>>);

impl futures_core::Stream for Frames {
    type Item = Result<Frame<Bytes>, Infallible>;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        std::task::Poll::Ready(self.0.pop_front().flatten().map(Ok))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_requests_on_one_connection_go_to_http1_endpoints() {
    let backend = Backend::start(|request: Request<Incoming>| async move {
        let seen = |name: &str| {
            request.headers().get(name).map(|v| v.to_str().unwrap().to_owned()).unwrap_or_default()
        };
        let lines = request.headers().get_all("cookie").iter().count();
        reply(
            200,
            format!(
                "{} {} {} {lines} {}",
                request.uri(),
                seen("host"),
                seen("cookie"),
                seen("x-forwarded-host")
            ),
        )
    })
    .await;
    let front = Front::start(quick(), [backend.endpoint("a")]).await;
    let sender = client(&front).await;
    let mut tasks = Vec::new();
    for n in 0..50 {
        let mut sender = sender.clone();
        tasks.push(tokio::spawn(async move {
            let request =
                Request::get(format!("http://site/{n}")).header("cookie", "a=b").header("cookie", "c=d");
            let response = sender.send_request(request.body(Full::default()).unwrap()).await.unwrap();
            assert_eq!((response.status().as_u16(), response.version()), (200, Version::HTTP_2));
            assert!(!response.headers().contains_key("connection"));
            let body = response.into_body().collect().await.unwrap().to_bytes();
            assert_eq!(body, format!("/{n} site a=b; c=d 1 site"));
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    front.until("all is counted out", |load| load.in_flight == 0 && load.requests_total == 50).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn grpc_passes_with_its_trailers() {
    let (endpoint, task) = grpc().await;
    let front = Front::start(quick().protocol(Protocol::Http2), [endpoint]).await;
    let mut sender = client(&front).await;
    for _ in 0..3 {
        let request = Request::post("http://site/package.Service/Call")
            .header("te", "trailers")
            .header("content-type", "application/grpc");
        let request = request.body(Full::new(Bytes::from("message"))).unwrap();
        let response = sender.send_request(request).await.unwrap();
        assert_eq!(response.status(), 200);
        let body = response.into_body().collect().await.unwrap();
        assert_eq!(body.trailers().unwrap()["grpc-status"], "0");
        assert_eq!(body.to_bytes(), "http://site/package.Service/Call trailers falsemessage");
    }
    let load = front.gateway.load();
    assert_eq!((load.endpoints[0].requests, load.endpoints[0].failures), (3, 0));
    task.abort();
    // The endpoint is gone: its connection is not used again, and what could not be sent was not done.
    let request = Request::get("http://site/").header("te", "trailers").body(Full::default()).unwrap();
    let answer = timeout(Duration::from_secs(10), sender.send_request(request));
    let config = front.gateway.pool().snapshot();
    assert_eq!(config.len(), 1);
    front.gateway.apply(balancer::Update::reset([grpc_again().await]));
    assert_eq!(answer.await.unwrap().unwrap().status(), 200);
}

async fn grpc_again() -> Endpoint {
    let (endpoint, task) = grpc().await;
    // Lives as long as the test's runtime.
    drop(task);
    Endpoint::new("again", endpoint.addr)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_end_in_peace_when_the_gateway_drains() {
    let backend = Backend::start(|_| async {
        tokio::time::sleep(Duration::from_millis(400)).await;
        reply(200, "late")
    })
    .await;
    let mut front = Front::start(quick(), [backend.endpoint("a")]).await;
    let mut sender = client(&front).await;
    let answer = sender.send_request(Request::get("http://site/").body(Full::default()).unwrap());
    let (answer, ()) = tokio::join!(answer, async {
        front.until("it is in flight", |load| load.endpoints[0].in_flight == 1).await;
        drop(front.stop.take());
    });
    assert_eq!(answer.unwrap().into_body().collect().await.unwrap().to_bytes(), "late");
    let report = timeout(Duration::from_secs(3), &mut front.task).await.unwrap().unwrap().unwrap();
    assert_eq!(report.cut, 0, "{report:?}");
}

/// A frame's head: length, type, flags, stream.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rapid_resets_end_the_connection_and_not_the_gateway() {
    let backend = Backend::named("fine").await;
    let front = Front::start(quick(), [backend.endpoint("a")]).await;
    let mut stream = TcpStream::connect(front.addr).await.unwrap();
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend(frame(4, 0, 0, &[]));
    // GET http://a/ from the static table, the authority as a literal; each is called off at once (CVE-2023-44487).
    let get = [0x82, 0x86, 0x84, 0x41, 0x01, b'a'];
    for n in 0..2000u32 {
        bytes.extend(frame(1, 5, 2 * n + 1, &get));
        bytes.extend(frame(3, 0, 2 * n + 1, &8u32.to_be_bytes()));
    }
    // It may be cut off while we still write.
    let _ = stream.write_all(&bytes).await;
    let mut back = Vec::new();
    timeout(Duration::from_secs(5), stream.read_to_end(&mut back)).await.expect("it is kept").ok();
    // GOAWAY with ENHANCE_YOUR_CALM, unless the reset of the connection overtook it.
    let calm = back.windows(4).any(|window| window == 11u32.to_be_bytes());
    assert!(
        calm || back.is_empty() || front.gateway.load().requests_total < 1500,
        "{} requests",
        front.gateway.load().requests_total
    );
    assert_eq!(front.get("/").await, (200, "fine".to_owned()));
    front.until("nothing is left", |load| load.in_flight == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_preface_in_pieces_is_a_preface() {
    let backend = Backend::named("fine").await;
    let front = Front::start(quick(), [backend.endpoint("a")]).await;
    let mut stream = TcpStream::connect(front.addr).await.unwrap();
    stream.set_nodelay(true).unwrap();
    for piece in ["P", "RI * HT", "TP/2.0\r\n\r\nSM\r\n\r\n"] {
        stream.write_all(piece.as_bytes()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    stream.write_all(&frame(4, 0, 0, &[])).await.unwrap();
    let mut head = [0; 9];
    timeout(Duration::from_secs(3), stream.read_exact(&mut head)).await.expect("no answer").unwrap();
    assert_eq!(head[3], 4, "settings come first");
    let slow = raw(front.addr, "PRX / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    assert!(slow.starts_with("HTTP/1.1 200 "), "{slow}");
}
