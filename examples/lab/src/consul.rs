//! The few Consul calls that building a lab takes.

use std::time::Duration;

use serde_json::Value;

use crate::error::{Error, Result};
use crate::http::{ask, ask_ok};
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
    let value = ask_ok(CONSUL, host.socket(CONSUL_PORT), "GET /v1/status/leader", None, limit).await?;
    let addr = value.as_str().unwrap_or_default();
    Ok(addr.split_once(':').map(|(ip, _)| ip.to_owned()))
}

/// The servers as the leader sees them, asked through `host`.
pub(crate) async fn servers(host: &Host, limit: Duration) -> Result<Vec<Server>> {
    // 429 says that not all of them are well; the list comes all the same.
    let (status, value) = ask(CONSUL, host.socket(CONSUL_PORT), HEALTH, None, limit).await?;
    let list = value.get("Servers").and_then(Value::as_array);
    let (200 | 429, Some(list)) = (status, list) else {
        let why = format!("status {status}: {}", value.as_str().unwrap_or_default().trim());
        let (addr, request) = (host.consul_addr(), HEALTH.to_owned());
        return Err(Error::Service { service: CONSUL, addr, request, why });
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

const CONSUL: &str = "consul";
const HEALTH: &str = "GET /v1/operator/autopilot/health";
