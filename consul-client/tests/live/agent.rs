//! A real Consul server of one node with its data on disk, which ends with its owner.

use std::{
    net::TcpListener,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use consul_client::Client;

pub(crate) struct Consul {
    binary: String,
    ports: [u16; 3],
    data: tempfile::TempDir,
    process: Option<Child>,
}

impl Consul {
    /// Starts it and waits until it leads.
    pub(crate) async fn start() -> Self {
        let binary = std::env::var("CONSUL_BIN").unwrap_or_else(|_| "consul".to_owned());
        // Bound together so that they differ, then freed for the server.
        let bound = [0; 3].map(|_| TcpListener::bind("127.0.0.1:0").unwrap());
        let ports = bound.each_ref().map(|listener| listener.local_addr().unwrap().port());
        drop(bound);
        let mut consul = Self { binary, ports, data: tempfile::tempdir().unwrap(), process: None };
        consul.restart().await;
        consul
    }

    pub(crate) fn client(&self) -> Client {
        Client::builder().address(format!("127.0.0.1:{}", self.ports[0])).build().unwrap()
    }

    /// Kills it without warning.
    pub(crate) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    /// Starts it on the same data and ports.
    pub(crate) async fn restart(&mut self) {
        self.kill();
        let [http, server, serf] = self.ports;
        let ports =
            format!("ports {{ http={http} server={server} serf_lan={serf} serf_wan=-1 dns=-1 grpc=-1 }}");
        let log =
            std::fs::File::options().create(true).append(true).open(self.data.path().join("log")).unwrap();
        let process = Command::new(&self.binary)
            .args(["agent", "-server", "-bootstrap-expect", "1", "-node", "n1", "-log-level", "warn"])
            .args(["-bind", "127.0.0.1", "-client", "127.0.0.1", "-hcl", &ports])
            .args(["-hcl", "disable_update_check = true", "-hcl", "performance { raft_multiplier = 1 }"])
            .arg("-data-dir")
            .arg(self.data.path().join("data"))
            .stdin(Stdio::null())
            .stderr(log.try_clone().unwrap())
            .stdout(log)
            .spawn();
        self.process = Some(process.unwrap_or_else(|error| {
            panic!("cannot run {:?}: {error}; install the package `consul`, or set CONSUL_BIN", self.binary)
        }));
        let client = self.client();
        eventually("consul has a leader and its own node", async || {
            let leads = client.status().leader().await.is_ok_and(|leader| leader.is_some());
            leads && client.catalog().nodes().await.is_ok_and(|nodes| !nodes.value.is_empty())
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
