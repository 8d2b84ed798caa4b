//! A node of the swarm.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use super::scalar::{NodeId, Rest, Version, null_default, open_enum};

/// A node of the swarm, as the managers see it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
#[non_exhaustive]
pub struct Node {
    /// The node's id.
    #[serde(rename = "ID")]
    pub id: NodeId,
    /// The version that an update must carry.
    #[serde(default)]
    pub version: Version,
    /// What a user can change.
    #[serde(default)]
    pub spec: NodeSpec,
    /// What the node reported when it joined.
    #[serde(default)]
    pub description: NodeDescription,
    /// What the managers know of it now.
    #[serde(default)]
    pub status: NodeStatus,
    /// Present on managers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manager_status: Option<ManagerStatus>,
    /// Everything else.
    #[serde(flatten)]
    pub rest: Rest,
}

impl Node {
    /// The node's id.
    #[must_use]
    pub fn id(&self) -> &NodeId {
        &self.id
    }

    /// The host's name. Two nodes can share one: a host that joined anew and its old entry.
    #[must_use]
    pub fn hostname(&self) -> &str {
        &self.description.hostname
    }

    /// The address at which other hosts reach this node, or `None` if the managers know none.
    ///
    /// The leader often reports itself as `0.0.0.0` or `127.0.0.1`; for managers the address of their manager port is taken
    /// then. A worker's loopback address means nothing to anyone else, and counts as none.
    #[must_use]
    pub fn addr(&self) -> Option<IpAddr> {
        let usable = |ip: &IpAddr| !ip.is_unspecified() && !ip.is_loopback();
        let status = self.status.addr.as_deref().and_then(|text| text.parse::<IpAddr>().ok());
        let manager = self.manager_status.as_ref().and_then(|m| m.addr.as_deref()).and_then(host_of);
        // A swarm of one machine may advertise loopback on purpose: then the manager's address says so too.
        status.filter(usable).or(manager.filter(|ip| !ip.is_unspecified()))
    }

    /// True if the node answers the managers.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.status.state == Some(NodeState::Ready)
    }

    /// True if the managers have given the node up. Neither ready nor down is possible: after an election each node is
    /// `unknown` until its next heartbeat.
    #[must_use]
    pub fn is_down(&self) -> bool {
        self.status.state == Some(NodeState::Down)
    }

    /// True if the node is to be a manager.
    #[must_use]
    pub fn is_manager(&self) -> bool {
        self.spec.role == Some(Role::Manager)
    }

    /// True if the node leads the managers.
    #[must_use]
    pub fn is_leader(&self) -> bool {
        self.manager_status.as_ref().is_some_and(|m| m.leader)
    }

    /// Whether the node takes new tasks; the engine's default is active.
    #[must_use]
    pub fn availability(&self) -> Availability {
        self.spec.availability.clone().unwrap_or(Availability::Active)
    }
}

/// What a user can change of a node.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct NodeSpec {
    /// Labels, which placement constraints can use as `node.labels.KEY`.
    #[serde(default, deserialize_with = "null_default")]
    pub labels: BTreeMap<String, String>,
    /// What the node is to be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
    /// Whether it takes new tasks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub availability: Option<Availability>,
    /// Everything else.
    #[serde(flatten)]
    pub rest: Rest,
}

/// What a node reported when it joined.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
#[non_exhaustive]
pub struct NodeDescription {
    /// The host's name.
    #[serde(default)]
    pub hostname: String,
    /// Everything else.
    #[serde(flatten)]
    pub rest: Rest,
}

/// What the managers know of a node now.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
#[non_exhaustive]
pub struct NodeStatus {
    /// Whether it answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<NodeState>,
    /// Why, in the managers' words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// The address as the managers saw it: prefer [`Node::addr`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub addr: Option<String>,
    /// Everything else.
    #[serde(flatten)]
    pub rest: Rest,
}

/// A manager's standing among the managers.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
#[non_exhaustive]
pub struct ManagerStatus {
    /// True for the leader.
    #[serde(default)]
    pub leader: bool,
    /// `reachable`, `unreachable` or `unknown`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reachability: Option<String>,
    /// Address and port of the manager among managers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub addr: Option<String>,
    /// Everything else.
    #[serde(flatten)]
    pub rest: Rest,
}

open_enum!(
    /// A node's role.
    Role {
        /// Runs tasks.
        Worker = "worker",
        /// Runs tasks and takes part in the managers' decisions.
        Manager = "manager",
    }
);

open_enum!(
    /// Whether a node takes new tasks.
    Availability {
        /// Takes new tasks.
        Active = "active",
        /// Keeps its tasks but takes none.
        Pause = "pause",
        /// Its tasks are moved away.
        Drain = "drain",
    }
);

open_enum!(
    /// Whether a node answers the managers.
    NodeState {
        /// Not heard of since the last election.
        Unheard = "unknown",
        /// Missed three heartbeats.
        Down = "down",
        /// Answers.
        Ready = "ready",
        /// Looks for another manager.
        Disconnected = "disconnected",
    }
);

fn host_of(addr: &str) -> Option<IpAddr> {
    addr.parse::<SocketAddr>().map(|a| a.ip()).or_else(|_| addr.parse()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_leader_s_useless_address_is_replaced() {
        for (status, manager, expected) in [
            ("198.18.0.11", None, Some("198.18.0.11")),
            ("0.0.0.0", Some("198.18.0.11:2377"), Some("198.18.0.11")),
            ("127.0.0.1", Some("198.18.0.11:2377"), Some("198.18.0.11")),
            ("0.0.0.0", Some("[fd00::1]:2377"), Some("fd00::1")),
            ("127.0.0.1", Some("127.0.0.1:2377"), Some("127.0.0.1")),
            ("0.0.0.0", Some("0.0.0.0:2377"), None),
            ("127.0.0.1", None, None),
            ("0.0.0.0", None, None),
            ("", None, None),
            ("garbage", Some("garbage"), None),
        ] {
            let mut value = json!({"ID": "n", "Status": {"Addr": status}});
            if let Some(addr) = manager {
                value["ManagerStatus"] = json!({"Addr": addr, "Leader": true});
            }
            let node: Node = serde_json::from_value(value).unwrap();
            assert_eq!(node.addr(), expected.map(|ip| ip.parse().unwrap()), "{status} {manager:?}");
        }
    }
}
