//! How a service is reached.

use serde::{Deserialize, Serialize};

use super::scalar::{Rest, null_default, open_enum};

/// How a service is reached: name resolution and published ports.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct EndpointSpec {
    /// Absent means a virtual address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<EndpointMode>,
    /// Published ports.
    #[serde(default, deserialize_with = "null_default", skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<PortConfig>,
    /// Everything else.
    #[serde(flatten)]
    pub rest: Rest,
}

/// One published port.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct PortConfig {
    /// Absent means TCP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Protocol>,
    /// The container's port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_port: Option<u16>,
    /// The host's port; absent in a spec means that the engine picks one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub published_port: Option<u16>,
    /// Absent means ingress.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub publish_mode: Option<PublishMode>,
    /// Everything else.
    #[serde(flatten)]
    pub rest: Rest,
}

impl PortConfig {
    /// True for TCP, which is what an absent protocol means.
    #[must_use]
    pub fn is_tcp(&self) -> bool {
        matches!(self.protocol, None | Some(Protocol::Tcp))
    }
}

/// A network that tasks attach to.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct NetworkAttachment {
    /// The network's id or name.
    #[serde(default)]
    pub target: String,
    /// Further names of the service on that network.
    #[serde(default, deserialize_with = "null_default", skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<String>,
    /// Everything else.
    #[serde(flatten)]
    pub rest: Rest,
}

open_enum!(
    /// What a service's name resolves to.
    EndpointMode {
        /// One virtual address.
        Vip = "vip",
        /// The tasks' addresses.
        Dnsrr = "dnsrr",
    }
);

open_enum!(
    /// A port's protocol.
    Protocol {
        /// TCP.
        Tcp = "tcp",
        /// UDP.
        Udp = "udp",
        /// SCTP.
        Sctp = "sctp",
    }
);

open_enum!(
    /// Where a port is published.
    PublishMode {
        /// On every node, through the routing mesh.
        Ingress = "ingress",
        /// On the node that runs the task.
        Host = "host",
    }
);
