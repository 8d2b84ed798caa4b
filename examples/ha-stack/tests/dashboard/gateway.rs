//! The dashboard of a gateway: what it sees of a stack through a real Consul, and without it.

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use consul_client::{Check, Client, ServiceRegistration};
use serde_json::{Value, json};

use crate::ports::free_address;

/// A process that ends with the test.
pub(crate) struct Ending(Child);

impl Drop for Ending {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(crate) fn start(command: &mut Command) -> Ending {
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    Ending(child.unwrap_or_else(|error| panic!("{command:?} can't be run: {error}; is a package missing?")))
}

/// An agent of its own that leads, its address, and a client of it.
pub(crate) async fn consul(folder: &std::path::Path) -> (Ending, String, Client) {
    consul_with(folder, &[]).await
}

/// The same with more flags.
pub(crate) async fn consul_with(folder: &std::path::Path, more: &[String]) -> (Ending, String, Client) {
    let program = std::env::var_os("CONSUL_BIN").unwrap_or_else(|| "consul".into());
    let [http, server, serf] = [free_address(), free_address(), free_address()].map(|address| address.port());
    let ports = format!("ports {{ http={http} server={server} serf_lan={serf} serf_wan=-1 dns=-1 grpc=-1 }}");
    let mut command = Command::new(program);
    command.args(["agent", "-server", "-bootstrap-expect", "1", "-node", "h1", "-bind", "127.0.0.1"]);
    command.args(["-client", "127.0.0.1", "-hcl", &ports, "-hcl", "disable_update_check = true"]);
    command.args(["-hcl", "performance { raft_multiplier = 1 }", "-data-dir"]).arg(folder).args(more);
    let (agent, address) = (start(&mut command), format!("http://127.0.0.1:{http}"));
    let client = Client::builder().address(&address).build().unwrap();
    eventually("consul leads", async || client.status().leader().await.is_ok_and(|leader| leader.is_some()))
        .await;
    (agent, address, client)
}

pub(crate) async fn eventually(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(40);
    while !is_so().await {
        assert!(Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

async fn see(admin: SocketAddr) -> Option<Value> {
    let start: Value = reqwest::get(format!("http://{admin}/api/start")).await.ok()?.json().await.ok()?;
    Some(start["frame"].clone()).filter(|frame| !frame.is_null())
}

#[tokio::test]
#[ignore = "needs consul: ./test.sh runs it"]
async fn a_gateway_shows_what_consul_knows_and_goes_on_without_it() {
    let folder = tempfile::tempdir().unwrap();
    let (agent, address, client) = consul(folder.path()).await;

    let program = env!("CARGO_BIN_EXE_ha-stack");
    let site = free_address();
    let _site =
        start(Command::new(program).args(["web", "--session", "memory:", "--listen", &site.to_string()]));
    let check = Check::http(format!("http://{site}/healthz")).interval(Duration::from_secs(1));
    let service =
        ServiceRegistration::new("web", "web.1.abc").address("127.0.0.1").port(site.port()).check(check);
    client.agent().register(&service).await.unwrap();
    let decided =
        json!([{"at": 1.0, "from": 2, "to": 3, "sentence": "2 -> 3: 24 in flight over a target of 10 each"}]);
    client.kv().put("ha-stack/scaler/web/decisions", serde_json::to_vec(&decided).unwrap()).await.unwrap();
    let lock = client.lock("ha-stack/scaler/web/leader").acquire().await.unwrap();

    let admin = free_address();
    let listen = free_address().to_string();
    let mut gateway = Command::new(program);
    gateway.args(["gateway", "--register", "--listen", &listen, "--admin", &admin.to_string()]);
    let _gateway = start(gateway.args(["--consul", &address]));
    let well = async || {
        let Some(frame) = see(admin).await else { return false };
        frame["verdict"]["level"] == "good" && frame["view"]["gateways"][0]["name"] == "h1"
    };
    eventually("all is well through the gateway", well).await;
    let view = see(admin).await.unwrap()["view"].clone();
    assert_eq!(view["replicas"][0]["instance"], "web.1.abc");
    assert_eq!(
        view["hosts"][0],
        json!({"name": "h1", "address": "127.0.0.1", "up": true, "leads": ["consul"], "drained": false})
    );
    assert_eq!(view["decisions"][0]["to"], 3);
    assert_eq!(view["backends"][1]["detail"], "the one on h1 leads");
    // A gateway reaches no manager: it changes nothing, whoever asks.
    let asked = reqwest::Client::new()
        .post(format!("http://{admin}/api/scale"))
        .json(&json!({"replicas": 9, "hold_seconds": 60}));
    assert_eq!(asked.bearer_auth("0123456789abcdef").send().await.unwrap().status(), 404);

    lock.release().await.unwrap();
    eventually("nobody leads the scaling", async || {
        see(admin).await.is_some_and(|frame| frame["view"]["backends"][1]["ok"] == false)
    })
    .await;

    drop(agent);
    let lost = async || {
        let Some(frame) = see(admin).await else { return false };
        frame["verdict"]["level"] == "bad" && frame["verdict"]["text"].as_str().unwrap().contains("consul")
    };
    eventually("consul is said to be away", lost).await;
    let view = see(admin).await.unwrap()["view"].clone();
    // What is known stays: the replica serves on.
    assert_eq!(view["replicas"][0]["usable"], true);
    assert_eq!(view["gateways"][0]["error"], Value::Null);
    assert_eq!(view["hosts"][0]["name"], "h1");
    assert_eq!(view["decisions"][0]["to"], 3);
}
