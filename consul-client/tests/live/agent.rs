//! Real Consul servers with their data on disk, which end with their owner.

use std::{
    net::{TcpListener, UdpSocket},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use consul_client::Client;

pub(crate) struct Consul {
    binary: String,
    name: String,
    ports: [u16; 3],
    arguments: Vec<String>,
    multiplier: u32,
    data: tempfile::TempDir,
    process: Option<Child>,
}

impl Consul {
    /// Starts a server of its own and waits until it leads.
    pub(crate) async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// As [`start`](Self::start), listening at this unix socket too.
    pub(crate) async fn start_at(socket: &str) -> Self {
        let addresses = format!(r#"addresses {{ http = "127.0.0.1 unix://{socket}" }}"#);
        Self::start_with(&["-hcl", &addresses]).await
    }

    /// As [`start`](Self::start), with more arguments.
    pub(crate) async fn start_with(more: &[&str]) -> Self {
        let mut consul = Self::prepare("n1", 1);
        consul.arguments.extend(more.iter().map(ToString::to_string));
        consul.restart().await;
        consul
    }

    /// Starts three servers and waits until each can follow: all must vote before one may be killed.
    pub(crate) async fn start_three() -> [Self; 3] {
        Self::start_three_at(1).await
    }

    /// As [`start_three`](Self::start_three), with another pace of elections: 5 is Consul's default.
    pub(crate) async fn start_three_at(multiplier: u32) -> [Self; 3] {
        let mut servers = ["n1", "n2", "n3"].map(|name| Self::prepare(name, 3));
        let gossip = servers.each_ref().map(|server| format!("127.0.0.1:{}", server.ports[2]));
        for server in &mut servers {
            server.multiplier = multiplier;
            for address in &gossip {
                server.arguments.extend(["-retry-join".to_owned(), address.clone()]);
            }
            server.arguments.extend(["-retry-interval", "1s"].map(str::to_owned));
            server.spawn();
        }
        let client = servers[0].client();
        eventually("three voters, one of them the leader", async || {
            let peers = client.operator().raft_peers().await.unwrap_or_default();
            peers.iter().filter(|peer| peer.voter).count() == 3 && peers.iter().any(|peer| peer.leader)
        })
        .await;
        for server in &servers {
            server.wait().await;
        }
        servers
    }

    fn prepare(name: &str, expect: usize) -> Self {
        let binary = std::env::var("CONSUL_BIN").unwrap_or_else(|_| "consul".to_owned());
        let ports = free_ports();
        let arguments = vec!["-server".to_owned(), "-bootstrap-expect".to_owned(), expect.to_string()];
        Self {
            binary,
            name: name.to_owned(),
            ports,
            arguments,
            multiplier: 1,
            data: tempfile::tempdir().unwrap(),
            process: None,
        }
    }

    /// Starts an agent that is no server, beside this one, and waits until its node is in the catalog.
    pub(crate) async fn start_agent_beside(&self, name: &str) -> Self {
        let mut agent = Self::prepare(name, 0);
        agent.arguments = vec!["-retry-join".to_owned(), format!("127.0.0.1:{}", self.ports[2])];
        agent.restart().await;
        let client = self.client();
        eventually("the agent's node is in the catalog", async || {
            client.catalog().nodes().await.is_ok_and(|nodes| nodes.value.iter().any(|node| node.node == name))
        })
        .await;
        agent
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.ports[0])
    }

    /// Consul's own command-line tool, pointed at this server.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(&self.binary);
        command
            .env("CONSUL_HTTP_ADDR", self.address())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command
    }

    pub(crate) fn client(&self) -> Client {
        Client::builder().address(self.address()).build().unwrap()
    }

    /// Kills it without warning.
    pub(crate) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    /// Deletes its data; it must be down.
    pub(crate) fn forget(&self) {
        assert!(self.process.is_none());
        std::fs::remove_dir_all(self.data.path().join("data")).unwrap();
    }

    /// Sends it a signal, such as `STOP`, by its number.
    pub(crate) fn signal(&self, name: &str) {
        if let Some(process) = &self.process {
            signal(process.id(), name);
        }
    }

    /// Another data centre's server, joined to the first one over WAN.
    pub(crate) async fn start_two_datacenters() -> ([Self; 2], [u16; 2]) {
        let mut servers = ["n1", "n2"].map(|name| Self::prepare(name, 1));
        let (wan, dns): ([u16; 2], [u16; 2]) = (free_ports(), free_ports());
        for (i, server) in servers.iter_mut().enumerate() {
            let ports = format!("ports {{ serf_wan = {} dns = {} }}", wan[i], dns[i]);
            let datacenter = format!("dc{}", i + 1);
            let mut arguments = vec!["-datacenter".to_owned(), datacenter, "-hcl".to_owned(), ports];
            arguments.extend(["-retry-join-wan".to_owned(), format!("127.0.0.1:{}", wan[1 - i])]);
            arguments.extend(["-retry-interval-wan", "1s"].map(str::to_owned));
            server.arguments.extend(arguments);
            server.spawn();
        }
        for server in &servers {
            server.wait().await;
        }
        (servers, dns)
    }

    /// Starts it on the same data and ports, and waits until it is of use.
    pub(crate) async fn restart(&mut self) {
        self.spawn();
        self.wait().await;
    }

    fn spawn(&mut self) {
        self.kill();
        let [http, server, serf] = self.ports;
        let ports =
            format!("ports {{ http={http} server={server} serf_lan={serf} serf_wan=-1 dns=-1 grpc=-1 }}");
        let performance = format!("performance {{ raft_multiplier = {} }}", self.multiplier);
        let log =
            std::fs::File::options().create(true).append(true).open(self.data.path().join("log")).unwrap();
        let process = Command::new(&self.binary)
            .args(["agent", "-node", &self.name, "-log-level", "warn"])
            .args(["-bind", "127.0.0.1", "-client", "127.0.0.1", "-hcl", &ports])
            .args(["-hcl", "disable_update_check = true", "-hcl", &performance])
            .args(&self.arguments)
            .arg("-data-dir")
            .arg(self.data.path().join("data"))
            .stdin(Stdio::null())
            .stderr(log.try_clone().unwrap())
            .stdout(log)
            .spawn();
        self.process = Some(process.unwrap_or_else(|error| {
            panic!("cannot run {:?}: {error}; install the package `consul`, or set CONSUL_BIN", self.binary)
        }));
    }

    async fn wait(&self) {
        let client = self.client();
        eventually("consul has a leader and its own node", async || {
            let leads = client.status().leader().await.is_ok_and(|leader| leader.is_some());
            leads && client.catalog().nodes().await.is_ok_and(|nodes| nodes.meta.known_leader == Some(true))
        })
        .await;
    }
}

impl Drop for Consul {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

/// Ports that were free a moment ago. Below those that the kernel gives to connections, and none of them twice: a server that
/// finds its port taken meanwhile ends, and what waits for it waits in vain.
pub(crate) fn free_ports<const N: usize>() -> [u16; N] {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let is_free = |port: u16| {
        TcpListener::bind(("127.0.0.1", port)).is_ok() && UdpSocket::bind(("127.0.0.1", port)).is_ok()
    };
    [0; N].map(|_| {
        let mut candidates = (0..PORTS).map(|_| {
            let number =
                std::process::id().wrapping_mul(97).wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
            FIRST_PORT + u16::try_from(number % PORTS).unwrap()
        });
        candidates.find(|port| is_free(*port)).unwrap()
    })
}

const FIRST_PORT: u16 = 15_000;
const PORTS: u32 = 15_000;

/// Sends a signal to a process of this test.
pub(crate) fn signal(pid: u32, name: &str) {
    let sent = Command::new("kill").args([format!("-{name}"), pid.to_string()]).status().unwrap();
    assert!(sent.success());
}

/// Polls until it is so; fails after [`FREE_WAIT`].
pub(crate) async fn eventually(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let began = Instant::now();
    while !is_so().await {
        assert!(began.elapsed() < FREE_WAIT, "not within {FREE_WAIT:?}: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// More than anything here takes on a busy machine.
pub(crate) const FREE_WAIT: Duration = Duration::from_secs(30);
