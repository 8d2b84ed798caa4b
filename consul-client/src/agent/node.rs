//! The agent itself: who it is, whom it sees, maintenance, joining and leaving.

use std::collections::BTreeMap;

use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};

use super::Agent;
use crate::{Result, escape, request::Request, types::null_is_default};

impl Agent {
    /// Who this agent is.
    ///
    /// # Errors
    /// As any read; denied without the right to read the agent.
    pub async fn self_info(&self) -> Result<AgentInfo> {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Wire {
            config: AgentInfo,
        }
        Ok(self.client.read::<Wire>(Request::get("/v1/agent/self")).await?.value.config)
    }

    /// The members of the gossip pool that this agent sees, dead ones too.
    ///
    /// # Errors
    /// As any read.
    pub async fn members(&self) -> Result<Vec<Member>> {
        Ok(self.client.read(Request::get("/v1/agent/members")).await?.value)
    }

    /// The servers of all data centres, as this server sees them.
    ///
    /// # Errors
    /// As any read.
    pub async fn wan_members(&self) -> Result<Vec<Member>> {
        Ok(self.client.read(Request::get("/v1/agent/members").param("wan", 1)).await?.value)
    }

    /// What the agent measures of itself.
    ///
    /// # Errors
    /// As any read.
    pub async fn metrics(&self) -> Result<Metrics> {
        Ok(self.client.read(Request::get("/v1/agent/metrics")).await?.value)
    }

    /// Takes the whole node out, or puts it back: with `Some(reason)` nothing on it passes.
    ///
    /// # Errors
    /// As any write.
    pub async fn node_maintenance(&self, reason: Option<&str>) -> Result<()> {
        let request = Request::put("/v1/agent/maintenance").repeatable();
        let request = request.param("enable", reason.is_some()).maybe("reason", reason);
        self.client.call(&request).await.map(drop)
    }

    /// Joins the gossip pool that an agent at this address is in.
    ///
    /// # Errors
    /// As any write; [`Error::Server`](crate::Error::Server) when nobody answers there.
    pub async fn join(&self, address: &str) -> Result<()> {
        let path = format!("/v1/agent/join/{}", escape::path("address", address)?);
        self.client.call(&Request::put(path).repeatable()).await.map(drop)
    }

    /// As [`join`](Self::join), the pool between data centres.
    ///
    /// # Errors
    /// As [`join`](Self::join).
    pub async fn join_wan(&self, address: &str) -> Result<()> {
        let path = format!("/v1/agent/join/{}", escape::path("address", address)?);
        self.client.call(&Request::put(path).param("wan", 1).repeatable()).await.map(drop)
    }

    /// Says goodbye and stops: the agent is gone afterwards.
    ///
    /// # Errors
    /// As any write.
    pub async fn leave(&self) -> Result<()> {
        self.client.call(&Request::put("/v1/agent/leave")).await.map(drop)
    }

    /// Counts a failed member as one that left.
    ///
    /// # Errors
    /// As any write.
    pub async fn force_leave(&self, node: &str) -> Result<()> {
        let path = format!("/v1/agent/force-leave/{}", escape::path("node", node)?);
        self.client.call(&Request::put(path).repeatable()).await.map(drop)
    }

    /// As [`force_leave`](Self::force_leave), and forgets it altogether: else it stays in the list of members for days.
    ///
    /// # Errors
    /// As any write.
    pub async fn prune(&self, node: &str) -> Result<()> {
        let path = format!("/v1/agent/force-leave/{}", escape::path("node", node)?);
        self.client.call(&Request::put(path).flag("prune").repeatable()).await.map(drop)
    }

    /// Reads its configuration files again.
    ///
    /// # Errors
    /// As any write.
    pub async fn reload(&self) -> Result<()> {
        self.client.call(&Request::put("/v1/agent/reload").repeatable()).await.map(drop)
    }

    /// Sets a token that the agent itself uses, until it restarts, or for ever if it keeps them.
    ///
    /// # Errors
    /// As any write.
    pub async fn set_token(&self, which: AgentToken, token: &SecretString) -> Result<()> {
        #[derive(Serialize)]
        #[serde(rename_all = "PascalCase")]
        struct Wire<'a> {
            token: &'a str,
        }
        let path = match which {
            AgentToken::Default => "/v1/agent/token/default",
            AgentToken::Agent => "/v1/agent/token/agent",
            AgentToken::AgentMaster => "/v1/agent/token/agent_master",
            AgentToken::Replication => "/v1/agent/token/replication",
        };
        let request = Request::put(path).repeatable().json(&Wire { token: token.expose_secret() })?;
        self.client.call(&request).await.map(drop)
    }
}

/// A token that an agent uses itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AgentToken {
    /// For calls that bring none.
    Default,
    /// For its own work, such as keeping its services in the catalog.
    Agent,
    /// For its own endpoints while no server can be asked (`agent_recovery` in newer versions).
    AgentMaster,
    /// For the replication from the primary data centre.
    Replication,
}

/// An agent's own settings.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
#[non_exhaustive]
pub struct AgentInfo {
    /// Its data centre.
    pub datacenter: String,
    /// Its node's name.
    pub node_name: String,
    /// Its node's id.
    #[serde(default, rename = "NodeID")]
    pub node_id: String,
    /// Whether it is a server.
    pub server: bool,
    /// Its version.
    #[serde(default)]
    pub version: String,
}

/// A member of the gossip pool.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
#[non_exhaustive]
pub struct Member {
    /// The node's name.
    pub name: String,
    /// Its address.
    pub addr: String,
    /// Its gossip port.
    pub port: u16,
    /// How it is.
    pub status: MemberStatus,
    /// What it says of itself: `role`, `dc`, `build` and more.
    #[serde(default, deserialize_with = "null_is_default")]
    pub tags: BTreeMap<String, String>,
}

/// How a member is (Serf's numbers on the wire).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(from = "u8")]
#[non_exhaustive]
pub enum MemberStatus {
    /// Answers.
    Alive,
    /// Is saying goodbye.
    Leaving,
    /// Said goodbye.
    Left,
    /// Stopped answering.
    Failed,
    /// A number that this crate does not know.
    Unknown,
}

impl From<u8> for MemberStatus {
    fn from(number: u8) -> Self {
        match number {
            1 => Self::Alive,
            2 => Self::Leaving,
            3 => Self::Left,
            4 => Self::Failed,
            _ => Self::Unknown,
        }
    }
}

/// What an agent measured in the last full interval of ten seconds.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase")]
#[non_exhaustive]
pub struct Metrics {
    /// When, in UTC.
    pub timestamp: String,
    /// Present values.
    #[serde(default, deserialize_with = "null_is_default")]
    pub gauges: Vec<Gauge>,
    /// How often something happened.
    #[serde(default, deserialize_with = "null_is_default")]
    pub counters: Vec<Sample>,
    /// How long something took, in milliseconds.
    #[serde(default, deserialize_with = "null_is_default")]
    pub samples: Vec<Sample>,
}

/// A present value.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase")]
#[non_exhaustive]
pub struct Gauge {
    /// Its name.
    pub name: String,
    /// The value.
    pub value: f64,
    /// What it is of.
    #[serde(default, deserialize_with = "null_is_default")]
    pub labels: BTreeMap<String, String>,
}

/// Values over the interval.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase")]
#[non_exhaustive]
pub struct Sample {
    /// Its name.
    pub name: String,
    /// How many.
    pub count: u64,
    /// All together.
    pub sum: f64,
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
    /// The mean.
    pub mean: f64,
    /// What it is of.
    #[serde(default, deserialize_with = "null_is_default")]
    pub labels: BTreeMap<String, String>,
}
