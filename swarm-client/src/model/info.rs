//! What an engine says of itself.

use serde::{Deserialize, Serialize};

use super::scalar::{NodeId, Rest, null_default, open_enum};

/// An engine, from `GET /info`. Of the one engine that answered, not of the swarm.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
#[non_exhaustive]
pub struct EngineInfo {
    /// The host's name.
    #[serde(default)]
    pub name: String,
    /// The engine's own id, which is not its node id.
    #[serde(rename = "ID", default)]
    pub id: String,
    /// The engine's release.
    #[serde(default)]
    pub server_version: String,
    /// Processors.
    #[serde(rename = "NCPU", default)]
    pub ncpu: u64,
    /// Memory in bytes.
    #[serde(default)]
    pub mem_total: u64,
    /// Its place in a swarm.
    pub swarm: SwarmInfo,
    /// Everything else.
    #[serde(flatten)]
    pub rest: Rest,
}

/// An engine's place in a swarm.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
#[non_exhaustive]
pub struct SwarmInfo {
    /// Whether it is a member.
    #[serde(rename = "LocalNodeState")]
    pub state: LocalNodeState,
    /// Its node id; empty if it is no member.
    #[serde(rename = "NodeID", default, deserialize_with = "null_default")]
    pub node_id: NodeId,
    /// The address that it advertises; empty if it is no member.
    #[serde(default)]
    pub node_addr: String,
    /// True if it is a manager at work.
    #[serde(default)]
    pub control_available: bool,
    /// Why it is in the state `error`, else empty.
    #[serde(default)]
    pub error: String,
    /// Everything else.
    #[serde(flatten)]
    pub rest: Rest,
}

open_enum!(
    /// Whether an engine is a member of a swarm.
    LocalNodeState {
        /// In no swarm.
        Inactive = "inactive",
        /// Joining.
        Pending = "pending",
        /// A member.
        Active = "active",
        /// Joining failed or membership was lost.
        Error = "error",
        /// A manager that waits for its unlock key.
        Locked = "locked",
    }
);
