//! The few Swarm calls that building a lab takes.

use std::time::Duration;

use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::http::{ask, ask_ok};
use crate::plan::{DOCKER_PORT, Host, SWARM_PORT};

/// One Swarm node, as a manager sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) ready: bool,
    /// A manager that takes part in the managers' votes now.
    pub(crate) reachable: bool,
    pub(crate) leader: bool,
}

pub(crate) async fn ping(host: &Host, limit: Duration) -> Result<()> {
    ask_ok(DOCKER, host.socket(DOCKER_PORT), "GET /_ping", None, limit).await.map(drop)
}

/// Makes the host the first manager. The heartbeat of 1 s has a dead node noticed in about 3 s rather than 12.
pub(crate) async fn init(host: &Host) -> Result<()> {
    let body = json!({
        "ListenAddr": format!("{}:{SWARM_PORT}", host.addr),
        "AdvertiseAddr": host.addr.to_string(),
        "Spec": {
            "Dispatcher": { "HeartbeatPeriod": 1_000_000_000_u64 },
            "Orchestration": { "TaskHistoryRetentionLimit": 1 },
        },
    });
    ask_ok(DOCKER, host.socket(DOCKER_PORT), "POST /swarm/init", Some(&body), JOIN_LIMIT).await.map(drop)
}

/// Has `host` join as a manager through `manager`. Where the engine gives up waiting it goes on joining, so the
/// caller watches [`nodes`] in any case.
pub(crate) async fn join(host: &Host, manager: &Host) -> Result<()> {
    let swarm = ask_ok(DOCKER, manager.socket(DOCKER_PORT), "GET /swarm", None, JOIN_LIMIT).await?;
    let token = swarm.pointer("/JoinTokens/Manager").and_then(Value::as_str).unwrap_or_default();
    let body = json!({
        "ListenAddr": format!("{}:{SWARM_PORT}", host.addr),
        "AdvertiseAddr": host.addr.to_string(),
        "RemoteAddrs": [format!("{}:{SWARM_PORT}", manager.addr)],
        "JoinToken": token,
    });
    ask_ok(DOCKER, host.socket(DOCKER_PORT), "POST /swarm/join", Some(&body), JOIN_LIMIT).await.map(drop)
}

/// The nodes as `host` sees them; none if it is a manager but the managers have no leader now.
pub(crate) async fn nodes(host: &Host, limit: Duration) -> Result<Option<Vec<Node>>> {
    let (status, value) = ask(DOCKER, host.socket(DOCKER_PORT), "GET /nodes", None, limit).await?;
    match (status, value.as_array()) {
        (200, Some(list)) => Ok(Some(list.iter().map(node).collect())),
        (500 | 503, _) => Ok(None),
        _ => {
            let why =
                format!("status {status}: {}", value.get("message").and_then(Value::as_str).unwrap_or(""));
            let (addr, request) = (host.docker_endpoint(), "GET /nodes".to_owned());
            Err(Error::Service { service: DOCKER, addr, request, why })
        }
    }
}

fn node(value: &Value) -> Node {
    let text = |pointer: &str| value.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    Node {
        name: text("/Description/Hostname").to_owned(),
        ready: text("/Status/State") == "ready",
        reachable: text("/ManagerStatus/Reachability") == "reachable",
        leader: value.pointer("/ManagerStatus/Leader").and_then(Value::as_bool).unwrap_or(false),
    }
}

const DOCKER: &str = "docker";
const JOIN_LIMIT: Duration = Duration::from_secs(30);
