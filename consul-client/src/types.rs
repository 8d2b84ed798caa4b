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

/// Go writes an empty list or map as `null`.
pub(crate) fn null_is_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}
