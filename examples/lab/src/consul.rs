//! The few Consul calls that building a lab takes.

use std::time::Duration;

use serde_json::Value;

use crate::error::{Error, Result};
use crate::http::ask;
use crate::plan::{CONSUL_PORT, Host};

/// One server, as autopilot sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Server {
    pub(crate) name: String,
    pub(crate) voter: bool,
    pub(crate) healthy: bool,
}

/// The leader's address without its port, as `host` sees it; none if it knows of no leader.
pub(crate) async fn leader(host: &Host, limit: Duration) -> Result<Option<String>> {
    let (status, value) = ask(CONSUL, host.socket(CONSUL_PORT), LEADER, limit).await?;
    if status != 200 {
        return Err(refused(host, LEADER, status, &value));
    }
    let addr = value.as_str().unwrap_or_default();
    Ok(addr.split_once(':').map(|(ip, _)| ip.to_owned()))
}

/// The servers as the leader sees them, asked through `host`.
pub(crate) async fn servers(host: &Host, limit: Duration) -> Result<Vec<Server>> {
    // 429 says that not all of them are well; the list comes all the same.
    let (status, value) = ask(CONSUL, host.socket(CONSUL_PORT), HEALTH, limit).await?;
    let list = value.get("Servers").and_then(Value::as_array);
    let (200 | 429, Some(list)) = (status, list) else {
        return Err(refused(host, HEALTH, status, &value));
    };
    let flag = |server: &Value, key: &str| server.get(key).and_then(Value::as_bool).unwrap_or(false);
    Ok(list
        .iter()
        .map(|server| Server {
            name: server.get("Name").and_then(Value::as_str).unwrap_or_default().to_owned(),
            voter: flag(server, "Voter"),
            healthy: flag(server, "Healthy"),
        })
        .collect())
}

fn refused(host: &Host, request: &str, status: u16, value: &Value) -> Error {
    let why = format!("status {status}: {}", value.as_str().unwrap_or_default().trim());
    Error::Service { service: CONSUL, addr: host.consul_addr(), request: request.to_owned(), why }
}

const CONSUL: &str = "consul";
const LEADER: &str = "GET /v1/status/leader";
const HEALTH: &str = "GET /v1/operator/autopilot/health";
