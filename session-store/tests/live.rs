//! The Redis store against real servers on loopback, failovers included.
#![cfg(all(feature = "redis", feature = "conformance", unix))]
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use session_store::{
    CommitId, Durability, Lifetime, Loaded, Outcome, Patch, RedisStore, SessionId, SessionStore, StoreKey,
    conformance, lifetime::unix_now,
};
use std::{
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

/// A server of ours, killed by its pid when dropped.
struct Server {
    child: Child,
    port: u16,
}

impl Server {
    fn start(binary: &str, port: u16, folder: &Path, arguments: &[String]) -> Self {
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

    fn redis(folder: &Path, master: Option<u16>) -> Self {
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

    fn sentinel(folder: &Path, master: u16) -> Self {
        let port = free_port();
        let file = folder.join(format!("sentinel-{port}.conf"));
        let text = format!(
            "port {port}\nbind 127.0.0.1\nsentinel monitor main 127.0.0.1 {master} 2\n\
             sentinel down-after-milliseconds main 1000\nsentinel failover-timeout main 3000\n"
        );
        std::fs::write(&file, text).unwrap();
        Self::start("redis-sentinel", port, folder, &[file.to_str().unwrap().to_owned()])
    }

    fn signal(&self, name: &str) {
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
struct Cluster {
    servers: Vec<Server>,
    sentinels: Vec<Server>,
    _folder: tempfile::TempDir,
}

impl Cluster {
    async fn start() -> Self {
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

    fn url(&self) -> String {
        let hosts = self.sentinels.iter().map(|sentinel| format!("127.0.0.1:{}", sentinel.port));
        format!("redis+sentinel://{}/main", hosts.collect::<Vec<_>>().join(","))
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs redis-server: ./test.sh runs it"]
async fn redis_conforms() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::redis(folder.path(), None);
    let store = session_store::connect(&format!("127.0.0.1:{}", server.port)).await.unwrap();
    conformance::run(store.clone()).await;
    store.health().await.unwrap();
}

/// What a request costs: one read, and for a commit one read and one script.
#[tokio::test]
#[ignore = "needs redis-server: ./test.sh runs it"]
async fn round_trips_are_counted() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::redis(folder.path(), None);
    let store = RedisStore::open(&format!("redis://127.0.0.1:{}", server.port)).unwrap();
    let key = create(&store).await; // loads the script
    add(&store, &key).await;
    let [reads, scripts] = calls(server.port).await;
    store.find(&key, unix_now()).await.unwrap();
    assert_eq!(calls(server.port).await, [reads + 1, scripts], "a load is one GET");
    add(&store, &key).await;
    assert_eq!(calls(server.port).await, [reads + 2, scripts + 1], "a commit is one GET and one script");
    let to = SessionId::random().key();
    store.rotate(&key, &to, Duration::ZERO).await.unwrap();
    assert_eq!(calls(server.port).await, [reads + 3, scripts + 2], "a rotation is one GET and one script");
}

#[tokio::test]
#[ignore = "needs redis-server: ./test.sh runs it"]
async fn a_restart_is_survived_and_damage_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::redis(folder.path(), None);
    let store = RedisStore::open(&format!("redis://127.0.0.1:{}", server.port)).unwrap();
    let key = create(&store).await;
    let mut raw = raw(server.port).await.unwrap();
    let names: Vec<String> = redis::cmd("KEYS").arg("session:*").query_async(&mut raw).await.unwrap();
    let name = names.into_iter().next().unwrap();
    let () = redis::cmd("SETRANGE").arg(&name).arg(30).arg("x").query_async(&mut raw).await.unwrap();
    let error = store.load(&key).await.unwrap_err();
    assert!(!error.is_retryable() && error.to_string().contains("damaged"), "{error}");
    store.apply(&key, Patch::new().add("views", 1).commit(), Durability::Primary).await.unwrap_err();

    let (port, started) = (server.port, Instant::now());
    drop(server);
    let quick =
        RedisStore::open(&format!("redis://127.0.0.1:{port}")).unwrap().deadline(Duration::from_millis(500));
    let error = quick.load(&key).await.unwrap_err();
    assert!(error.is_retryable() && started.elapsed() < Duration::from_secs(2), "{error}");
    assert!(store.health().await.is_err());
    let arguments = ["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", ""].map(String::from);
    let _server = Server::start("redis-server", port, folder.path(), &arguments);
    let key = create(&store).await; // the script has to be loaded anew
    add(&store, &key).await;
}

/// A replica is no place for sessions, and says so instead of serving old ones.
#[tokio::test]
#[ignore = "needs redis-server: ./test.sh runs it"]
async fn a_replica_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let master = Server::redis(folder.path(), None);
    let replica = Server::redis(folder.path(), Some(master.port));
    let url = format!("redis://127.0.0.1:{}", replica.port);
    let store = RedisStore::open(&url).unwrap().deadline(Duration::from_millis(300));
    let error = store.load(&SessionId::random().key()).await.unwrap_err();
    assert!(error.to_string().contains("replica"), "{error}");
}

/// The master is killed under writes: every call succeeds inside its deadline, nothing is doubled, log-outs stay.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs redis-server: ./test.sh runs it"]
async fn a_killed_master_is_replaced() {
    let mut cluster = Cluster::start().await;
    let store: Arc<dyn SessionStore> = session_store::connect(&cluster.url()).await.unwrap();
    let writers = Writers::start(&store).await;
    let gone = create(&*store).await;
    store.delete(&gone).await.unwrap();
    replicated(cluster.servers[0].port).await;
    drop(cluster.servers.remove(0));
    let worst = writers.finish(&store).await;
    assert!(worst < Duration::from_secs(8), "a call took {worst:?}");
    assert_ne!(find(&*store, &gone).await, "live", "a log-out was undone by the failover");
}

/// A host hangs, master and Sentinel on it, until another master is elected; it comes back with old ideas. The kernel still accepts connections for
/// it, so every answer has to be waited for in vain.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs redis-server: ./test.sh runs it"]
async fn a_hung_master_is_left() {
    let cluster = Cluster::start().await;
    let store: Arc<dyn SessionStore> = session_store::connect(&cluster.url()).await.unwrap();
    let writers = Writers::start(&store).await;
    let gone = create(&*store).await;
    replicated(cluster.servers[0].port).await;
    let host = [&cluster.servers[0], &cluster.sentinels[0]];
    host.iter().for_each(|server| server.signal("-STOP"));
    let stranger = session_store::connect(&cluster.url()).await.unwrap(); // an instance that starts just now
    store.delete(&gone).await.unwrap(); // waits through the election
    add(&*stranger, &create(&*stranger).await).await;
    host.iter().for_each(|server| server.signal("-CONT"));
    let worst = writers.finish(&store).await;
    assert!(worst < Duration::from_secs(8), "a call took {worst:?}");
    assert_ne!(find(&*store, &gone).await, "live", "an acknowledged log-out was undone by the old master");
}

/// Tasks that each add to their own session until told to finish.
struct Writers {
    tasks: Vec<tokio::task::JoinHandle<(StoreKey, i64, Duration)>>,
    stop: tokio::sync::watch::Sender<bool>,
}

impl Writers {
    async fn start(store: &Arc<dyn SessionStore>) -> Self {
        let (stop, stopped) = tokio::sync::watch::channel(false);
        let mut tasks = Vec::new();
        for _ in 0..8 {
            let (store, stopped, key) = (store.clone(), stopped.clone(), create(&**store).await);
            tasks.push(tokio::spawn(async move {
                let (mut acknowledged, mut worst) = (0, Duration::ZERO);
                while !*stopped.borrow() {
                    let start = Instant::now();
                    add(&*store, &key).await;
                    acknowledged += 1;
                    worst = worst.max(start.elapsed());
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
                (key, acknowledged, worst)
            }));
        }
        Self { tasks, stop }
    }

    /// Waits until writes go through again, stops, compares counts, and answers how long the slowest call took.
    async fn finish(self, store: &Arc<dyn SessionStore>) -> Duration {
        add(&**store, &create(&**store).await).await;
        self.stop.send(true).unwrap();
        let mut slowest = Duration::ZERO;
        for task in self.tasks {
            let (key, acknowledged, worst) = task.await.expect("a writer failed");
            let Loaded::Live { record, .. } = store.find(&key, unix_now()).await.unwrap() else {
                panic!("session lost")
            };
            let counted = record.counter("views").unwrap_or_default();
            // `Durability::Primary` promises no more: what the master acknowledged in its last moment may be lost with it.
            assert!(counted <= acknowledged, "{} writes were doubled", counted - acknowledged);
            assert!(counted + 1 >= acknowledged, "{} acknowledged writes were lost", acknowledged - counted);
            slowest = slowest.max(worst);
        }
        slowest
    }
}

async fn create(store: &dyn SessionStore) -> StoreKey {
    let key = SessionId::random().key();
    let id = Some(CommitId::random());
    let made = store.create(&key, Lifetime::default(), Some("ada".into()), Patch::new(), id).await.unwrap();
    assert_eq!(made.outcome, Outcome::Saved { version: 1 });
    key
}

async fn add(store: &dyn SessionStore, key: &StoreKey) {
    let commit = Patch::new().add("views", 1).commit();
    let applied = store.apply(key, commit, Durability::Primary).await.unwrap();
    assert!(applied.outcome.is_done(), "{:?}", applied.outcome);
}

async fn find(store: &dyn SessionStore, key: &StoreKey) -> &'static str {
    match store.find(key, unix_now()).await.unwrap() {
        Loaded::Live { .. } => "live",
        _ => "over",
    }
}

async fn raw(port: u16) -> Option<redis::aio::MultiplexedConnection> {
    let client = redis::Client::open(("127.0.0.1", port)).unwrap();
    client.get_multiplexed_async_connection().await.ok()
}

async fn info(port: u16, section: &str) -> Option<String> {
    redis::cmd("INFO").arg(section).query_async(&mut raw(port).await?).await.ok()
}

/// Reads sent by clients, and scripts, so far.
async fn calls(port: u16) -> [u64; 2] {
    let text = info(port, "commandstats").await.unwrap();
    let count = |name: &str| {
        let line = text.lines().find(|line| line.starts_with(&format!("cmdstat_{name}:")));
        line.and_then(|line| line.split_once("calls=")?.1.split(',').next()?.parse::<u64>().ok())
            .unwrap_or_default()
    };
    let scripts = count("evalsha") + count("eval");
    [count("get").saturating_sub(scripts), scripts] // each script reads once itself
}

/// Until the replicas have what the master has now.
async fn replicated(port: u16) {
    poll("the replicas caught up", async || {
        let wait = redis::cmd("WAIT").arg(2).arg(500).to_owned();
        let Some(mut raw) = raw(port).await else { return false };
        wait.query_async::<i64>(&mut raw).await.is_ok_and(|count| count == 2)
    })
    .await;
}

async fn poll(what: &str, ready: impl AsyncFn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !ready().await {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
