//! A Consul agent of the benchmark's own.

use std::{
    net::TcpListener,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

pub struct Agent {
    process: Child,
    port: u16,
}

impl Agent {
    /// Starts a server in memory, and waits until it leads.
    pub async fn start() -> Self {
        let bound = [0; 4].map(|_| TcpListener::bind("127.0.0.1:0").expect("a port on loopback"));
        let [http, server, lan, wan] =
            bound.each_ref().map(|listener| listener.local_addr().expect("an address").port());
        drop(bound);
        let binary = std::env::var("CONSUL_BIN").unwrap_or_else(|_| "consul".to_owned());
        let ports = format!(
            "ports {{ http = {http} server = {server} serf_lan = {lan} serf_wan = {wan} dns = -1 grpc = -1 }}"
        );
        let process = Command::new(&binary)
            .args(["agent", "-dev", "-bind", "127.0.0.1", "-client", "127.0.0.1", "-node", "bench"])
            .args(["-log-level", "err", "-hcl", &ports, "-hcl", "disable_update_check = true"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| {
                panic!("cannot run {binary:?}: {error}; set CONSUL_BIN (`target/release/lab packages` fetches it and prints where)")
            });
        let agent = Self { process, port: http };
        let client =
            consul_client::Client::builder().address(agent.address()).build().expect("a good address");
        let began = Instant::now();
        while !client.status().leader().await.is_ok_and(|leader| leader.is_some()) {
            assert!(began.elapsed() < Duration::from_secs(30), "consul does not come up");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        agent
    }

    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
