//! What several endpoints share. Unknown fields of an answer are left aside; `null` lists and maps are empty.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};

/// A machine that runs an agent, or an external one.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
#[non_exhaustive]
pub struct Node {
    /// The node's name.
    pub node: String,
    /// Its address.
    pub address: String,
    /// Its data centre.
    #[serde(default, deserialize_with = "null_is_default")]
    pub datacenter: String,
    /// What the operator noted.
    #[serde(default, deserialize_with = "null_is_default")]
    pub meta: BTreeMap<String, String>,
}

/// An instance of a service, as its agent knows it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
#[non_exhaustive]
pub struct AgentService {
    /// Unique per agent.
    #[serde(rename = "ID")]
    pub id: String,
    /// The service's name.
    pub service: String,
    /// Tags.
    #[serde(default, deserialize_with = "null_is_default")]
    pub tags: Vec<String>,
    /// What the registration noted.
    #[serde(default, deserialize_with = "null_is_default")]
    pub meta: BTreeMap<String, String>,
    /// Empty when the service is at its node's address.
    #[serde(default, deserialize_with = "null_is_default")]
    pub address: String,
    /// 0 when the registration gave none.
    #[serde(default, deserialize_with = "null_is_default")]
    pub port: u16,
    /// Its share of DNS SRV answers.
    #[serde(default, deserialize_with = "null_is_default")]
    pub weights: Weights,
    /// `connect-proxy`, `mesh-gateway` and the like; empty for a plain service.
    #[serde(default, deserialize_with = "null_is_default")]
    pub kind: String,
}

/// An instance's share of DNS SRV answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[non_exhaustive]
pub struct Weights {
    /// While it passes.
    pub passing: u32,
    /// While it warns.
    pub warning: u32,
}

/// Consul's own.
impl Default for Weights {
    fn default() -> Self {
        Self { passing: 1, warning: 1 }
    }
}

/// A health check's last result.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
#[non_exhaustive]
pub struct HealthCheck {
    /// The node that it runs on.
    #[serde(default, deserialize_with = "null_is_default")]
    pub node: String,
    /// Unique per agent.
    #[serde(rename = "CheckID")]
    pub check_id: String,
    /// For people.
    #[serde(default, deserialize_with = "null_is_default")]
    pub name: String,
    /// The result.
    pub status: Status,
    /// What the check wrote.
    #[serde(default, deserialize_with = "null_is_default")]
    pub output: String,
    /// The service that it is about; empty for the node.
    #[serde(default, rename = "ServiceID", deserialize_with = "null_is_default")]
    pub service_id: String,
    /// That service's name.
    #[serde(default, deserialize_with = "null_is_default")]
    pub service_name: String,
    /// For people.
    #[serde(default, deserialize_with = "null_is_default")]
    pub notes: String,
}

impl HealthCheck {
    /// Whether it is about the node and not about a service on it.
    pub fn is_of_node(&self) -> bool {
        self.service_id.is_empty()
    }

    /// Whether it is Consul's own check of a node: passing for as long as other agents reach that node's agent by gossip. It says
    /// nothing of the services there.
    pub fn is_of_agent(&self) -> bool {
        self.is_of_node() && self.check_id == SERF_HEALTH
    }
}

/// The result of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Status {
    /// Well.
    Passing,
    /// In use, but ailing; `passing` queries leave it out.
    Warning,
    /// Not to be used.
    Critical,
    /// Taken out by an operator.
    Maintenance,
    /// A word that this crate does not know.
    #[serde(other)]
    Unknown,
}

/// What Consul calls its own check of a node's agent.
const SERF_HEALTH: &str = "serfHealth";

/// What a registration at an agent and one in the catalog say of an instance alike.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Described {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) address: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) port: Option<u16>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) tags: Vec<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) meta: BTreeMap<String, String>,
}

/// The setters of what is [`Described`], for a type with such a field.
macro_rules! describe {
    () => {
        /// Where the instance listens, when that is not its node's address.
        pub fn address(mut self, address: impl Into<String>) -> Self {
            self.described.address = Some(address.into());
            self
        }

        /// The port.
        pub fn port(mut self, port: u16) -> Self {
            self.described.port = Some(port);
            self
        }

        /// Adds a tag.
        pub fn tag(mut self, tag: impl Into<String>) -> Self {
            self.described.tags.push(tag.into());
            self
        }

        /// Adds a note: at most 64 of them, keys up to 128 and values up to 512 characters.
        pub fn meta(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
            self.described.meta.insert(key.into(), value.into());
            self
        }
    };
}
pub(crate) use describe;

/// Go writes an empty list or map as `null`.
pub(crate) fn null_is_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}
