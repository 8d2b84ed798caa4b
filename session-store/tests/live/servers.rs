//! Servers of our own on loopback.

use std::{
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

/// A server of ours, killed by its pid when dropped.
pub(crate) struct Server {
    child: Child,
    pub(crate) port: u16,
}

impl Server {
    pub(crate) fn start(binary: &str, port: u16, folder: &Path, arguments: &[String]) -> Self {
        let child = Command::new(binary)
            .args(arguments)
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {binary}: {error}; install the package {binary}"));
        let mut server = Self { child, port };
        let deadline = Instant::now() + Duration::from_secs(10);
        while TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], port))).is_err() {
            let ended = server.child.try_wait().unwrap();
            assert!(ended.is_none(), "{binary} ended at once: {ended:?}");
            assert!(Instant::now() < deadline, "{binary} does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        server
    }

    pub(crate) fn redis(folder: &Path, master: Option<u16>) -> Self {
        let port = free_port();
        let mut arguments = vec!["--port".into(), port.to_string(), "--bind".into(), "127.0.0.1".into()];
        arguments.extend(
            ["--save", "", "--appendonly", "no", "--repl-diskless-sync-delay", "0"].map(String::from),
        );
        arguments.extend(["--dbfilename".into(), format!("{port}.rdb")]);
        if let Some(master) = master {
            arguments.extend(["--replicaof".into(), "127.0.0.1".into(), master.to_string()]);
        }
        Self::start("redis-server", port, folder, &arguments)
    }

    pub(crate) fn sentinel(folder: &Path, master: u16) -> Self {
        let port = free_port();
        let file = folder.join(format!("sentinel-{port}.conf"));
        let text = format!(
            "port {port}\nbind 127.0.0.1\nsentinel monitor main 127.0.0.1 {master} 2\n\
             sentinel down-after-milliseconds main 1000\nsentinel failover-timeout main 3000\n"
        );
        std::fs::write(&file, text).unwrap();
        Self::start("redis-sentinel", port, folder, &[file.to_str().unwrap().to_owned()])
    }

    pub(crate) fn signal(&self, name: &str) {
        let status = Command::new("kill").args([name, &self.child.id().to_string()]).status().unwrap();
        assert!(status.success(), "kill {name} failed");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill(); // SIGKILL ends a stopped process too
        let _ = self.child.wait();
    }
}

/// A master, two replicas and three Sentinels.
pub(crate) struct Cluster {
    pub(crate) servers: Vec<Server>,
    pub(crate) sentinels: Vec<Server>,
    _folder: tempfile::TempDir,
}

impl Cluster {
    pub(crate) async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let master = Server::redis(folder.path(), None);
        let port = master.port;
        let mut servers = vec![master];
        servers.extend((0..2).map(|_| Server::redis(folder.path(), Some(port))));
        poll("both replicas follow", async || {
            info(port, "replication").await.is_some_and(|text| text.matches("state=online").count() == 2)
        })
        .await;
        let sentinels = (0..3).map(|_| Server::sentinel(folder.path(), port)).collect::<Vec<_>>();
        for sentinel in &sentinels {
            poll("the Sentinels know everyone", async || {
                info(sentinel.port, "sentinel")
                    .await
                    .is_some_and(|text| text.contains("slaves=2,sentinels=3"))
            })
            .await;
        }
        Self { servers, sentinels, _folder: folder }
    }

    /// A client of each Sentinel from `first` on.
    pub(crate) async fn watch(&self, first: usize) -> Vec<redis::aio::MultiplexedConnection> {
        let mut watched = Vec::new();
        for sentinel in &self.sentinels[first..] {
            watched.push(raw(sentinel.port).await.unwrap());
        }
        watched
    }

    pub(crate) fn url(&self) -> String {
        let hosts = self.sentinels.iter().map(|sentinel| format!("127.0.0.1:{}", sentinel.port));
        format!("redis+sentinel://{}/main", hosts.collect::<Vec<_>>().join(","))
    }
}

pub(crate) async fn raw(port: u16) -> Option<redis::aio::MultiplexedConnection> {
    let client = redis::Client::open(("127.0.0.1", port)).unwrap();
    client.get_multiplexed_async_connection().await.ok()
}

pub(crate) async fn info(port: u16, section: &str) -> Option<String> {
    redis::cmd("INFO").arg(section).query_async(&mut raw(port).await?).await.ok()
}

/// Reads of whole records, by clients and by scripts that were beaten, and scripts, so far.
pub(crate) async fn calls(port: u16) -> [u64; 2] {
    let [gets, hashes, texts] = counts(port, ["get", "evalsha", "eval"]).await;
    [gets, hashes + texts]
}

/// Commands that read records, of one or of many, so far.
pub(crate) async fn reads(port: u16) -> u64 {
    counts(port, ["get", "mget"]).await.iter().sum()
}

async fn counts<const N: usize>(port: u16, names: [&str; N]) -> [u64; N] {
    let text = info(port, "commandstats").await.unwrap();
    names.map(|name| {
        let line = text.lines().find(|line| line.starts_with(&format!("cmdstat_{name}:")));
        line.and_then(|line| line.split_once("calls=")?.1.split(',').next()?.parse::<u64>().ok())
            .unwrap_or_default()
    })
}

/// Until the replicas have what the master has now.
pub(crate) async fn replicated(port: u16) {
    poll("the replicas caught up", async || {
        let wait = redis::cmd("WAIT").arg(2).arg(500).to_owned();
        let Some(mut raw) = raw(port).await else { return false };
        wait.query_async::<i64>(&mut raw).await.is_ok_and(|count| count == 2)
    })
    .await;
}

pub(crate) async fn poll(what: &str, ready: impl AsyncFn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !ready().await {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A port that nobody used a moment ago. Below those that the kernel gives to connections, and none comes twice: a server that
/// finds its port taken meanwhile ends.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let mut candidates = (0..PORTS).map(|_| {
        let number = std::process::id().wrapping_mul(97).wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
        FIRST_PORT + u16::try_from(number % PORTS).unwrap()
    });
    candidates.find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).unwrap()
}

const FIRST_PORT: u16 = 15_000;
const PORTS: u32 = 15_000;

/// When a Sentinel first names another master than the one at `old`, and that one says that it is one.
pub(crate) async fn election(mut watched: Vec<redis::aio::MultiplexedConnection>, old: u16) -> Instant {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        for sentinel in &mut watched {
            let mut ask = redis::cmd("SENTINEL");
            ask.arg("GET-MASTER-ADDR-BY-NAME").arg("main");
            // One that is slow to answer is asked again.
            let Ok(named) = ask.query_async::<(String, u16)>(sentinel).await else { continue };
            if named.1 != old
                && info(named.1, "replication").await.is_some_and(|text| text.contains("role:master"))
            {
                return Instant::now();
            }
        }
        assert!(Instant::now() < deadline, "no master was elected");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Whether a server holds something under this key.
pub(crate) async fn has(port: u16, key: &session_store::StoreKey) -> bool {
    use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
    let name = format!("session:{}", URL_SAFE_NO_PAD.encode(key.as_bytes()));
    redis::cmd("EXISTS").arg(name).query_async(&mut raw(port).await.unwrap()).await.unwrap()
}
