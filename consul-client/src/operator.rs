//! The cluster's inner workings: Raft, autopilot, the gossip keys.

use std::collections::BTreeMap;

use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};

use crate::{Client, Consistency, Result, request::Request, types::null_is_default};

/// See [`Client::operator`].
#[derive(Debug, Clone)]
pub struct Operator {
    client: Client,
}

impl Operator {
    pub(crate) fn new(client: Client) -> Self {
        Self { client }
    }

    /// The servers in the Raft configuration. Any server answers, also without a leader.
    ///
    /// # Errors
    /// As any read.
    pub async fn raft_peers(&self) -> Result<Vec<RaftPeer>> {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Configuration {
            servers: Vec<RaftPeer>,
        }
        let request = Request::get("/v1/operator/raft/configuration").consistency(Consistency::Stale);
        Ok(self.client.read::<Configuration>(request).await?.value.servers)
    }

    /// Takes a server out of the Raft configuration, by its Raft address. For one that will not come back and was not taken out by
    /// itself.
    ///
    /// # Errors
    /// As any write; [`Error::Server`](crate::Error::Server) for an address that is not there.
    pub async fn raft_remove_peer(&self, address: &str) -> Result<()> {
        self.client.call(&Request::delete("/v1/operator/raft/peer").param("address", address)).await.map(drop)
    }

    /// How autopilot is set.
    ///
    /// # Errors
    /// As any read.
    pub async fn autopilot(&self) -> Result<AutopilotConfig> {
        Ok(self.client.read(Request::get("/v1/operator/autopilot/configuration")).await?.value)
    }

    /// Sets autopilot, if its configuration is still the one that was read. False when it is not.
    ///
    /// # Errors
    /// As any write. [`Error::Ambiguous`](crate::Error::Ambiguous) when an answer was lost and it was changed meanwhile, by this write
    /// or by another.
    pub async fn set_autopilot(&self, config: &AutopilotConfig) -> Result<bool> {
        let request = Request::put("/v1/operator/autopilot/configuration").param("cas", config.modify_index);
        self.client.write_if(request.json(config)?).await
    }

    /// How the servers are, in autopilot's view. An unhealthy cluster is an answer, not an error.
    ///
    /// # Errors
    /// As any read.
    pub async fn autopilot_health(&self) -> Result<AutopilotHealth> {
        // An unhealthy cluster answers 429.
        let request = Request::get("/v1/operator/autopilot/health").also_ok(&[429]);
        Ok(self.client.read(request).await?.value)
    }

    /// The gossip keys, in each pool.
    ///
    /// # Errors
    /// As any read; [`Error::Server`](crate::Error::Server) when gossip is not encrypted.
    pub async fn keyring(&self) -> Result<Vec<Keyring>> {
        Ok(self.client.read(Request::get("/v1/operator/keyring")).await?.value)
    }

    /// Makes a new gossip key known to all agents: 16, 24 or 32 bytes in base64.
    ///
    /// # Errors
    /// As any write.
    pub async fn keyring_install(&self, key: &SecretString) -> Result<()> {
        self.change_key(http::Method::POST, key).await
    }

    /// Encrypts with this key from now on; it must be installed.
    ///
    /// # Errors
    /// As any write.
    pub async fn keyring_use(&self, key: &SecretString) -> Result<()> {
        self.change_key(http::Method::PUT, key).await
    }

    /// Forgets a key that is not in use.
    ///
    /// # Errors
    /// As any write.
    pub async fn keyring_remove(&self, key: &SecretString) -> Result<()> {
        self.change_key(http::Method::DELETE, key).await
    }

    async fn change_key(&self, method: http::Method, key: &SecretString) -> Result<()> {
        #[derive(Serialize)]
        #[serde(rename_all = "PascalCase")]
        struct Wire<'a> {
            key: &'a str,
        }
        let request = Request::new(method, "/v1/operator/keyring").repeatable();
        self.client.call(&request.json(&Wire { key: key.expose_secret() })?).await.map(drop)
    }
}

/// A server in the Raft configuration.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
#[non_exhaustive]
pub struct RaftPeer {
    /// The server's id.
    #[serde(rename = "ID")]
    pub id: String,
    /// Its node name.
    pub node: String,
    /// Its Raft address.
    pub address: String,
    /// Whether it leads.
    pub leader: bool,
    /// Whether it votes; a server that has just come back does not, for some ten seconds.
    pub voter: bool,
}

/// Autopilot's configuration, as it was read. Fields that this crate does not know are kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
#[non_exhaustive]
pub struct AutopilotConfig {
    /// Whether dead servers are taken out when new ones come.
    pub cleanup_dead_servers: bool,
    /// How long a healthy server may be without contact to the leader, in Go's notation (`200ms`).
    pub last_contact_threshold: String,
    /// How many log entries a healthy server may lag behind.
    pub max_trailing_logs: u64,
    /// How long a new server must be healthy before it votes, in Go's notation.
    pub server_stabilization_time: String,
    /// The condition of [`Operator::set_autopilot`].
    #[serde(skip_serializing)]
    pub modify_index: u64,
    #[serde(skip_serializing, default)]
    create_index: u64,
    #[serde(flatten)]
    rest: BTreeMap<String, serde_json::Value>,
}

/// How the servers are.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
#[non_exhaustive]
pub struct AutopilotHealth {
    /// Whether all servers are.
    pub healthy: bool,
    /// How many may still fail.
    pub failure_tolerance: i64,
    /// Each server.
    #[serde(default, deserialize_with = "null_is_default")]
    pub servers: Vec<ServerHealth>,
}

/// How a server is.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
#[non_exhaustive]
pub struct ServerHealth {
    /// Its id.
    #[serde(rename = "ID")]
    pub id: String,
    /// Its node name.
    pub name: String,
    /// Its Raft address.
    #[serde(default)]
    pub address: String,
    /// Its version.
    #[serde(default)]
    pub version: String,
    /// Whether it leads.
    #[serde(default)]
    pub leader: bool,
    /// Whether it is healthy.
    pub healthy: bool,
    /// Whether it votes.
    #[serde(default)]
    pub voter: bool,
}

/// The gossip keys of a pool. They are secrets.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
#[non_exhaustive]
pub struct Keyring {
    /// Whether it is the pool between data centres.
    #[serde(rename = "WAN", default)]
    pub wan: bool,
    /// The data centre.
    pub datacenter: String,
    #[serde(default, deserialize_with = "null_is_default")]
    keys: BTreeMap<Key, u64>,
    /// How many members it has.
    #[serde(default)]
    pub num_nodes: u64,
}

impl Keyring {
    /// Each key with how many members have it.
    pub fn keys(&self) -> impl Iterator<Item = (SecretString, u64)> {
        self.keys.iter().map(|(key, count)| (SecretString::from(key.0.clone()), *count))
    }
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
struct Key(String);

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("<key>")
    }
}
