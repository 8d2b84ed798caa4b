//! An engine that answers what a test tells it to, on loopback.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use swarm_client::{Client, ClientBuilder};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// What the client sent.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Asked {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) query: String,
    pub(crate) body: Value,
}

impl Asked {
    /// `GET /services/web`, without the version.
    pub(crate) fn line(&self) -> String {
        let path = self.path.strip_prefix("/v1.47").unwrap_or(&self.path);
        format!("{} {path}", self.method)
    }
}

/// What the engine does about it.
#[derive(Debug, Clone)]
pub(crate) enum Reply {
    Json(u16, Value),
    /// These bytes as they are, then the end.
    Raw(Vec<u8>),
    /// The end at once.
    Close,
    /// Nothing, for as long as the client waits.
    Silence,
}

impl Reply {
    pub(crate) fn ok(value: Value) -> Self {
        Self::Json(200, value)
    }

    pub(crate) fn refuse(status: u16, message: &str) -> Self {
        Self::Json(status, json!({ "message": message }))
    }
}

pub(crate) struct Engine {
    pub(crate) url: String,
    asked: Arc<Mutex<Vec<Asked>>>,
    server: JoinHandle<()>,
}

impl Engine {
    /// An engine that speaks API 1.47 and leaves the rest to `answer`.
    pub(crate) async fn start(answer: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Self {
        Self::with_ping("1.47", Duration::ZERO, answer).await
    }

    pub(crate) async fn with_ping(
        api: &'static str,
        delay: Duration,
        answer: impl Fn(&Asked) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("tcp://{}", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (answer, log) = (Arc::new(answer), asked.clone());
        let server = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (answer, log) = (answer.clone(), log.clone());
                tokio::spawn(async move { serve(stream, api, delay, &*answer, &log).await });
            }
        });
        Self { url, asked, server }
    }

    /// What was asked so far, pings left out.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        self.asked().iter().map(Asked::line).collect()
    }

    /// What was posted so far.
    pub(crate) fn posted(&self) -> Vec<Asked> {
        self.asked().into_iter().filter(|asked| asked.method == "POST").collect()
    }

    pub(crate) fn builder(&self) -> ClientBuilder {
        Client::builder().endpoint(&self.url).request_timeout(Duration::from_secs(5))
    }

    pub(crate) async fn client(&self) -> Client {
        self.builder().connect().await.unwrap()
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.server.abort();
    }
}

pub(crate) async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    api: &str,
    delay: Duration,
    answer: &(impl Fn(&Asked) -> Reply + ?Sized),
    log: &Mutex<Vec<Asked>>,
) -> Option<()> {
    let asked = read(&mut stream).await?;
    if asked.path == "/_ping" && api != "none" {
        let head = format!(
            "HTTP/1.1 200 OK\r\nApi-Version: {api}\r\nContent-Length: 2\r\nConnection: close\r\n\r\nOK"
        );
        return stream.write_all(head.as_bytes()).await.ok();
    }
    if asked.path != "/_ping" {
        log.lock().unwrap().push(asked.clone());
    }
    let reply = answer(&asked);
    tokio::time::sleep(delay).await;
    match reply {
        Reply::Json(status, value) => {
            let body = value.to_string();
            let head =
                format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
            stream.write_all(format!("{head}{body}").as_bytes()).await.ok()?;
        }
        Reply::Raw(bytes) => stream.write_all(&bytes).await.ok()?,
        Reply::Close => {}
        Reply::Silence => std::future::pending().await,
    }
    stream.shutdown().await.ok()
}

async fn read<S: AsyncRead + Unpin>(stream: &mut S) -> Option<Asked> {
    let mut bytes = Vec::new();
    let head_end = loop {
        if let Some(at) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
            break at + 4;
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8(bytes[..head_end].to_vec()).unwrap();
    let length = head
        .lines()
        .find_map(|line| {
            line.to_ascii_lowercase().strip_prefix("content-length:").map(|n| n.trim().parse().unwrap())
        })
        .unwrap_or(0);
    while bytes.len() < head_end + length {
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
    let mut words = head.split_whitespace();
    let method = words.next().unwrap().to_owned();
    let target = words.next().unwrap();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let body = serde_json::from_slice(&bytes[head_end..]).unwrap_or(Value::Null);
    Some(Asked { method, path: path.to_owned(), query: query.to_owned(), body })
}

/// The number after `version=`.
pub(crate) fn version(asked: &Asked) -> u64 {
    let text = asked.query.split('&').find_map(|pair| pair.strip_prefix("version="));
    text.expect("an update carries a version").parse().unwrap()
}

/// One service behind the managers' rule: an update needs the version that was read.
pub(crate) struct OneService {
    /// Version, spec, and the spec before, as Swarm remembers it.
    state: Mutex<(u64, Value, Option<Value>)>,
    pub(crate) conflicts: AtomicU64,
    /// The leader's engine has ended, as a real one does: see [`ends_the_leader`].
    dead: AtomicBool,
}

/// A task's placement is not asked for when the service has none (moby/swarmkit#2947).
fn ends_the_leader(tasks: &Value, next: &Value) -> bool {
    let without = |spec: &Value| {
        let mut template = spec["TaskTemplate"].clone();
        template.as_object_mut().map(|fields| fields.remove("Placement"));
        template
    };
    let placed = |spec: &Value| !spec["TaskTemplate"]["Placement"].is_null();
    placed(tasks) && !placed(next) && without(tasks) == without(next)
}

impl OneService {
    pub(crate) fn new(spec: Value) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new((10, spec, None)),
            conflicts: AtomicU64::new(0),
            dead: AtomicBool::new(false),
        })
    }

    pub(crate) fn spec(&self) -> Value {
        self.state.lock().unwrap().1.clone()
    }

    pub(crate) fn version(&self) -> u64 {
        self.state.lock().unwrap().0
    }

    pub(crate) fn answer(&self, asked: &Asked) -> Reply {
        if self.dead.load(Ordering::Relaxed) {
            return Reply::Close;
        }
        let mut state = self.state.lock().unwrap();
        if asked.method == "GET" && asked.path.ends_with("/services/web") {
            let (version, spec, previous) = &*state;
            let mut service = json!({"ID": "sid", "Version": {"Index": version}, "Spec": spec});
            if let Some(previous) = previous {
                service["PreviousSpec"] = previous.clone();
            }
            return Reply::ok(service);
        }
        if asked.method == "POST" && asked.path.ends_with("/services/sid/update") {
            if version(asked) != state.0 {
                self.conflicts.fetch_add(1, Ordering::Relaxed);
                return Reply::refuse(500, CONFLICT);
            }
            if ends_the_leader(&state.1, &asked.body) {
                self.dead.store(true, Ordering::Relaxed);
                return Reply::Close;
            }
            *state = (state.0 + 7, asked.body.clone(), Some(state.1.clone()));
            return Reply::ok(json!({ "Warnings": null }));
        }
        Reply::refuse(404, "page not found")
    }
}

pub(crate) const CONFLICT: &str = "rpc error: code = Unknown desc = update out of sequence";
pub(crate) const NO_LEADER: &str = "rpc error: code = Unknown desc = The swarm does not have a leader. It's possible that too few \
                             managers are online. Make sure more than half of the managers are online.";
pub(crate) const WORKER: &str = "This node is not a swarm manager. Worker nodes can't be used to view or modify cluster state. \
                          Please run this command on a manager node or promote the current node to a manager.";
pub(crate) const NO_SWARM: &str = "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect \
                            this node to swarm and try again.";
