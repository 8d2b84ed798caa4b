//! Connections that are kept: which may be used again, and which never.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use consul_client::{Client, ClientBuilder, Error};
use http::Method;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// What the server does with a request.
#[derive(Clone, Copy)]
enum Step {
    /// Answers and goes on.
    Answer,
    /// Answers, and closes a moment later without having said so.
    AnswerAndClose,
    /// Answers after so long.
    AnswerAfter(Duration),
    /// Answers in pieces of unknown number.
    Chunked,
    /// Refuses when it has seen the head, and never reads the rest.
    RefuseUnread,
}

/// A server that keeps connections. Each answer to a read is the key that was asked for.
struct Keeping {
    address: String,
    connections: Arc<AtomicUsize>,
    closed: Arc<AtomicUsize>,
    /// For each key the number of the connection that asked for it.
    asked: Arc<Mutex<HashMap<String, usize>>>,
}

impl Keeping {
    async fn start(step: impl Fn(&str) -> Step + Copy + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (connections, closed) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let asked: Arc<Mutex<HashMap<String, usize>>> = Arc::default();
        let (count, ended, log) = (Arc::clone(&connections), Arc::clone(&closed), Arc::clone(&asked));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let number = count.fetch_add(1, Ordering::SeqCst);
                let (ended, log) = (Arc::clone(&ended), Arc::clone(&log));
                tokio::spawn(async move {
                    let _ = serve(stream, step, |key| {
                        log.lock().unwrap().insert(key, number);
                    })
                    .await;
                    ended.fetch_add(1, Ordering::SeqCst);
                });
            }
        });
        Self { address, connections, closed, asked }
    }

    fn builder(&self) -> ClientBuilder {
        Client::builder().address(&self.address).max_connections(1, 1)
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    async fn until_closed(&self, wanted: usize) {
        loop {
            // The client hears of it in this time.
            tokio::time::sleep(Duration::from_millis(5)).await;
            if self.closed.load(Ordering::SeqCst) >= wanted {
                return;
            }
        }
    }
}

async fn serve(
    mut stream: TcpStream,
    step: impl Fn(&str) -> Step,
    log: impl Fn(String),
) -> std::io::Result<()> {
    let mut read = Vec::new();
    loop {
        let end = loop {
            if let Some(at) = read.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            if stream.read_buf(&mut read).await? == 0 {
                return Ok(());
            }
        };
        let head = String::from_utf8_lossy(&read[..end]).to_lowercase();
        let target = head.split(' ').nth(1).unwrap_or_default().split('?').next().unwrap_or_default();
        let key = target.trim_start_matches("/v1/kv/").to_owned();
        let length = head.split("content-length: ").nth(1).and_then(|rest| rest.lines().next());
        let length = length.map_or(0, |length| length.trim().parse::<usize>().unwrap());
        log(key.clone());
        let what = step(&key);
        if !matches!(what, Step::RefuseUnread) {
            while read.len() < end + length {
                if stream.read_buf(&mut read).await? == 0 {
                    return Ok(());
                }
            }
            read.drain(..end + length);
        }
        let body = if head.starts_with("get ") {
            format!(r#"[{{"Key":"{key}","Value":"eA==","Flags":0,"CreateIndex":1,"ModifyIndex":2}}]"#)
        } else {
            "true".to_owned()
        };
        let answer =
            format!("HTTP/1.1 200 OK\r\nx-consul-index: 2\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        match what {
            Step::Answer => stream.write_all(answer.as_bytes()).await?,
            Step::AnswerAndClose => {
                stream.write_all(answer.as_bytes()).await?;
                return stream.shutdown().await;
            }
            Step::AnswerAfter(delay) => {
                tokio::time::sleep(delay).await;
                stream.write_all(answer.as_bytes()).await?;
            }
            Step::Chunked => {
                let (first, second) = body.split_at(body.len() / 2);
                let head = "HTTP/1.1 200 OK\r\nx-consul-index: 2\r\ntransfer-encoding: chunked\r\n\r\n";
                stream.write_all(format!("{head}{:x}\r\n{first}\r\n", first.len()).as_bytes()).await?;
                tokio::time::sleep(Duration::from_millis(20)).await;
                stream.write_all(format!("{:x}\r\n{second}\r\n0\r\n\r\n", second.len()).as_bytes()).await?;
            }
            Step::RefuseUnread => {
                stream.write_all(b"HTTP/1.1 413 Too Large\r\ncontent-length: 4\r\n\r\nlong").await?;
                std::future::pending::<()>().await;
            }
        }
    }
}

#[tokio::test]
async fn a_connection_is_used_again() {
    let server = Keeping::start(|key| if key == "b" { Step::Chunked } else { Step::Answer }).await;
    let client = server.builder().build().unwrap();
    for key in ["a", "b", "c", "b", "d"] {
        assert_eq!(client.kv().get(key).await.unwrap().value.unwrap().key, key);
        client.kv().put(key, "x").await.unwrap();
    }
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn one_that_was_closed_while_idle_costs_no_call() {
    let server = Keeping::start(|_| Step::AnswerAndClose).await;
    let client = server.builder().build().unwrap();
    for round in 1..=50 {
        // Sent once and no more, so that a dead connection would show.
        client.raw(Method::POST, "/v1/kv/a", &[], None).await.unwrap();
        server.until_closed(round).await;
    }
    assert_eq!(server.connections(), 50);
}

#[tokio::test]
async fn a_late_answer_never_passes_for_the_next_ones() {
    let slow = Duration::from_millis(200);
    let server =
        Keeping::start(move |key| if key == "slow" { Step::AnswerAfter(slow) } else { Step::Answer }).await;
    let client = server.builder().build().unwrap();
    assert!(client.kv().get("first").await.unwrap().value.is_some());
    let given_up = tokio::time::timeout(slow / 4, client.kv().get("slow")).await;
    assert!(given_up.is_err());
    for key in ["second", "third"] {
        assert_eq!(client.kv().get(key).await.unwrap().value.unwrap().key, key);
        tokio::time::sleep(slow).await;
    }
    let asked = server.asked.lock().unwrap().clone();
    assert_eq!((asked["first"], asked["slow"]), (0, 0));
    assert!(asked["second"] == 1 && asked["third"] == 1, "{asked:?}");
    // An attempt that ends by the client's own limit is no different.
    let brief = server.builder().request_timeout(slow / 4).deadline(slow / 2).build().unwrap();
    assert!(matches!(brief.kv().cas("slow", "x", 0).await.unwrap_err(), Error::Ambiguous { .. }));
    assert_eq!(brief.kv().get("fourth").await.unwrap().value.unwrap().key, "fourth");
}

#[tokio::test]
async fn one_on_which_a_body_was_left_unread_is_not_used_again() {
    let server = Keeping::start(|key| if key == "long" { Step::RefuseUnread } else { Step::Answer }).await;
    let client = server.builder().deadline(Duration::from_secs(2)).build().unwrap();
    // More than fits into the buffers of a connection.
    let error = client.kv().put("long", vec![b'x'; 64 * 1024 * 1024]).await.unwrap_err();
    assert_eq!(error.status(), Some(413), "{error}");
    assert_eq!(client.kv().get("a").await.unwrap().value.unwrap().key, "a");
    assert_eq!(server.connections(), 2);
}

#[tokio::test]
async fn one_that_nobody_needs_is_closed() {
    let server = Keeping::start(|_| Step::Answer).await;
    let client = server.builder().build().unwrap();
    client.kv().put("a", "x").await.unwrap();
    tokio::time::pause();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(server.closed.load(Ordering::SeqCst), 0);
    tokio::time::sleep(Duration::from_secs(70)).await;
    tokio::time::resume();
    tokio::time::timeout(Duration::from_secs(5), server.until_closed(1)).await.unwrap();
    // And what comes later opens another, which is looked after as well.
    client.kv().put("a", "x").await.unwrap();
    assert_eq!(server.connections(), 2);
    drop(client);
    tokio::time::timeout(Duration::from_secs(5), server.until_closed(2)).await.unwrap();
}

/// Where a connection's runtime is gone, so is the connection.
#[test]
fn a_client_outlives_the_runtime_of_its_connections() {
    let runtime =
        || tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let servers = runtime();
    let server = servers.block_on(Keeping::start(|_| Step::Answer));
    let client = server.builder().build().unwrap();
    for _ in 0..3 {
        let calls = runtime();
        assert!(calls.block_on(client.kv().cas("a", "x", 0)).unwrap());
        assert!(calls.block_on(client.kv().cas("a", "x", 0)).unwrap());
    }
    assert_eq!(server.connections(), 3);
}
