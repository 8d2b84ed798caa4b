//! What attackers send. Each is answered 4xx or 5xx, or cut off, and nothing of it reaches an endpoint; or it is made
//! harmless on the way, and that is shown at the endpoint.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use balancer::Endpoint;
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::support::*;

/// An endpoint that writes down all that it gets, and answers each head; a body in chunks it reads to its end first, for a gateway
/// that has its answer need not send the rest.
async fn witness() -> (Endpoint, Arc<Mutex<String>>, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = Endpoint::new("witness", listener.local_addr().unwrap());
    let seen = Arc::new(Mutex::new(String::new()));
    let notes = seen.clone();
    let task = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let notes = notes.clone();
            tokio::spawn(async move {
                let (mut bytes, mut request) = ([0; 65_536], String::new());
                while let Ok(n) = stream.read(&mut bytes).await {
                    if n == 0 {
                        return;
                    }
                    let text = String::from_utf8_lossy(&bytes[..n]);
                    notes.lock().unwrap().push_str(&text);
                    request.push_str(&text);
                    if request.contains("transfer-encoding: chunked") && !request.ends_with("0\r\n\r\n") {
                        continue;
                    }
                    request.clear();
                    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
                }
            });
        }
    });
    (endpoint, seen, task)
}

/// Refused at the edge, with the first digit of the status; `-` is cut off without an answer or with one.
const REFUSED: &[(&str, &str)] = &[
    (
        "CL.TE",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nG",
    ),
    (
        "TE.CL",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n8\r\nSMUGGLED\r\n0\r\n\r\n",
    ),
    (
        "TE.TE obscured",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n0\r\n\r\n",
    ),
    ("TE obscured by a blank", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n"),
    (
        "TE obscured by a tab in the name",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer\t-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    ("TE identity", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n"),
    (
        "TE chunked, identity",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    ),
    ("TE in HTTP/1.0", "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    ("two lengths", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx"),
    ("a list of lengths", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 2\r\n\r\nxx"),
    ("a signed length", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\nx"),
    ("a negative length", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n"),
    ("a hexadecimal length", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x1\r\n\r\nx"),
    (
        "a length beyond 64 bits",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999999\r\n\r\n",
    ),
    ("a length beyond all reason", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 999999999999999\r\n\r\n"),
    ("no host", "GET / HTTP/1.1\r\n\r\n"),
    ("two hosts", "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"),
    ("another authority", "GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("a folded header", "GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\n 2\r\n\r\n"),
    ("a blank before the first header", "GET / HTTP/1.1\r\n Host: a\r\n\r\n"),
    ("NUL in a value", "GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n"),
    ("CR in a value", "GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n"),
    ("a name that is none", "GET / HTTP/1.1\r\nHost: a\r\nX(Y): 1\r\n\r\n"),
    ("an empty name", "GET / HTTP/1.1\r\nHost: a\r\n: 1\r\n\r\n"),
    ("a line without a colon", "GET / HTTP/1.1\r\nHost: a\r\nnonsense\r\n\r\n"),
    ("blank in the target", "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("no version", "GET /\r\nHost: a\r\n\r\n"),
    ("a version that is none", "GET / HTTP/1.2\r\nHost: a\r\n\r\n"),
    ("HTTP/2 without being it", "GET / HTTP/2.0\r\nHost: a\r\n\r\n"),
    ("a preface that goes on otherwise", "PRI * HTTP/2.0\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("CONNECT", "CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n"),
    ("erasing the host", "GET / HTTP/1.1\r\nHost: a\r\nConnection: host\r\n\r\n"),
    (
        "erasing the client's address",
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: close, X-Forwarded-For\r\n\r\n",
    ),
    ("erasing the cookie", "GET / HTTP/1.1\r\nHost: a\r\nConnection: cookie\r\n\r\n"),
    ("hop-by-hop that is no name", "GET / HTTP/1.1\r\nHost: a\r\nConnection: :path\r\n\r\n"),
    (
        "an upgrade to h2c by a tunnel",
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: tls\r\n\r\n",
    ),
    (
        "a body behind an upgrade",
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 1\r\n\r\nx",
    ),
    ("TLS to a port in clear", "\x16\x03\x01\x02\x00\x01\x00\x01\u{7f}"),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_corpus_is_refused_and_no_endpoint_hears_of_it() {
    let (endpoint, seen, task) = witness().await;
    let front = Front::start(quick().header_read_timeout(Duration::from_millis(500)), [endpoint]).await;
    for (what, attack) in REFUSED {
        let answer = raw(front.addr, attack).await;
        let refused =
            answer.is_empty() || answer.starts_with("HTTP/1.1 4") || answer.starts_with("HTTP/1.1 501");
        // HTTP/1.0 may be answered in kind; a broken preface gets HTTP/2's own words, or none.
        let refused = refused || answer.starts_with("HTTP/1.0 4") || !answer.starts_with("HTTP/1");
        assert!(refused, "{what}: {answer}");
        assert_eq!(*seen.lock().unwrap(), "", "{what} reached the endpoint");
    }
    let many: String = (0..200).map(|n| format!("X-{n}: 1\r\n")).collect();
    for (what, attack) in [
        ("too many headers", format!("GET / HTTP/1.1\r\nHost: a\r\n{many}\r\n")),
        ("a huge header", format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "y".repeat(100_000))),
        ("a huge target", format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "y".repeat(100_000))),
        (
            "too many hops",
            format!("GET / HTTP/1.1\r\nHost: a\r\nConnection: {}\r\n\r\n", vec!["x"; 40].join(",")),
        ),
    ] {
        let answer = raw(front.addr, &attack).await;
        assert!(answer.starts_with("HTTP/1.1 4") || answer.is_empty(), "{what}: {answer}");
    }
    assert_eq!(*seen.lock().unwrap(), "");
    // And the gateway is as well as before.
    assert_eq!(front.get("/fine").await.0, 200);
    task.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_can_not_be_refused_arrives_harmless() {
    let (endpoint, seen, task) = witness().await;
    let front = Front::start(quick(), [endpoint]).await;
    // Chunk extensions and odd sizes are framed anew.
    let odd = "POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n\
               000004;x=\"GET /smuggled HTTP/1.1\"\r\nbody\r\n0\r\n\r\n";
    assert!(raw(front.addr, odd).await.starts_with("HTTP/1.1 200 "));
    let got = std::mem::take(&mut *seen.lock().unwrap());
    assert!(got.contains("4\r\nbody\r\n0\r\n\r\n") && !got.contains("smuggled"), "{got}");
    // Hop-by-hop headers, forged forwarding and the proxy's own credentials stay here.
    let forged = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close, X-Secret\r\nX-Secret: 1\r\nKeep-Alive: 1\r\n\
                  Proxy-Connection: 1\r\nProxy-Authorization: 1\r\nHTTP2-Settings: 1\r\nX-Forwarded-For: 6.6.6.6\r\n\
                  X-Real-IP: 6.6.6.6\r\nForwarded: for=6.6.6.6\r\nX-Request-Id: forged\r\n\r\n";
    assert!(raw(front.addr, forged).await.starts_with("HTTP/1.1 200 "));
    let got = std::mem::take(&mut *seen.lock().unwrap()).to_ascii_lowercase();
    for gone in ["x-secret", "keep-alive", "proxy-", "http2-settings", "6.6.6.6", "forged"] {
        assert!(!got.contains(gone), "{gone} in {got}");
    }
    // What follows a refused request on its connection is not read as a request.
    let pair = "GET / HTTP/1.1\r\nHost: a\r\nConnection: host\r\n\r\nGET /second HTTP/1.1\r\nHost: a\r\n\r\n";
    let answer = raw(front.addr, pair).await;
    assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
    assert_eq!(*seen.lock().unwrap(), "");
    task.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_clients_do_not_keep_others_out() {
    let backend = Backend::named("fine").await;
    let front =
        Front::start(quick().header_read_timeout(Duration::from_millis(600)), [backend.endpoint("a")]).await;
    let mut slow = Vec::new();
    for _ in 0..100 {
        let mut stream = TcpStream::connect(front.addr).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nX-").await.unwrap();
        slow.push(stream);
    }
    assert_eq!(front.get("/").await.0, 200);
    // A byte now and then does not buy time.
    for _ in 0..8 {
        for stream in &mut slow {
            let _ = stream.write_all(b"x").await;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    for stream in &mut slow {
        let ended = timeout(Duration::from_secs(2), stream.read(&mut [0; 512])).await;
        assert!(ended.is_ok(), "a slow client is kept");
    }
    assert_eq!(backend.hits(), 1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    /// Pieces of requests in any order: the gateway answers or hangs up, and never forwards what it would refuse itself.
    #[test]
    fn any_pieces_are_survived(pieces in prop::collection::vec(prop::sample::select(vec![
        "GET / HTTP/1.1\r\n", "POST /x HTTP/1.1\r\n", "Host: a\r\n", "Host: b\r\n", "Content-Length: 4\r\n", "Content-Length: 0\r\n",
        "Transfer-Encoding: chunked\r\n", "Connection: close\r\n", "Connection: upgrade\r\n", "Upgrade: websocket\r\n", "TE: trailers\r\n",
        "\r\n", "body", "4\r\nbody\r\n", "0\r\n\r\n", "X: \u{e9}\r\n", ": \r\n", "Expect: 100-continue\r\n",
    ]), 1..12)) {
        let text: String = pieces.concat();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (endpoint, seen, task) = witness().await;
            let short = Duration::from_millis(60);
            let config = quick().header_read_timeout(short).body_idle_timeout(short).response_timeout(short).total_timeout(short);
            let front = Front::start(config, [endpoint]).await;
            let _ = raw(front.addr, &text).await;
            let got = seen.lock().unwrap().to_ascii_lowercase();
            for head in got.split("\r\n\r\n").filter(|part| part.contains(" http/1.1\r\n")) {
                assert_eq!(head.matches("\r\nhost: ").count(), 1, "{text:?} became {got}");
                assert!(!(head.contains("content-length") && head.contains("transfer-encoding")), "{text:?} became {got}");
            }
            assert_eq!(front.get("/").await.0, 200);
            task.abort();
        });
    }
}
