//! Networks that reach over several hosts.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::scalar::{NetworkId, Rest, Version, null_default};

/// A network as an engine lists it. Debug shows no value of what this crate does not know.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
#[non_exhaustive]
pub struct Network {
    /// The network's id.
    pub id: NetworkId,
    /// Its name. Networks of one machine may share it; those of the swarm may not.
    #[serde(default)]
    pub name: String,
    /// `swarm` or `local`.
    #[serde(default)]
    pub scope: String,
    /// Such as `overlay`.
    #[serde(default)]
    pub driver: String,
    /// True if its containers cannot reach out.
    #[serde(default)]
    pub internal: bool,
    /// True if plain containers may attach.
    #[serde(default)]
    pub attachable: bool,
    /// True for the routing mesh's own network.
    #[serde(default)]
    pub ingress: bool,
    /// Labels.
    #[serde(default, deserialize_with = "null_default")]
    pub labels: BTreeMap<String, String>,
    /// Everything else.
    #[serde(flatten)]
    pub rest: Rest,
}

impl Network {
    /// The value of one of its labels.
    #[must_use]
    pub fn label(&self, key: &str) -> Option<&str> {
        self.labels.get(key).map(String::as_str)
    }
}

/// What a network is wanted to be. It cannot be changed later.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct NetworkSpec {
    /// The name.
    pub name: String,
    /// The driver.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub driver: String,
    /// True if plain containers may attach.
    #[serde(default)]
    pub attachable: bool,
    /// True if its containers cannot reach out.
    #[serde(default)]
    pub internal: bool,
    /// Options of the driver.
    #[serde(default, deserialize_with = "null_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub options: BTreeMap<String, String>,
    /// Labels.
    #[serde(default, deserialize_with = "null_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Everything else, `IPAM` included: see [`subnet`](Self::subnet).
    #[serde(flatten)]
    pub rest: Rest,
}

impl NetworkSpec {
    /// An overlay network, which tasks on any host can attach to.
    #[must_use]
    pub fn overlay(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            driver: "overlay".to_owned(),
            attachable: false,
            internal: false,
            options: BTreeMap::new(),
            labels: BTreeMap::new(),
            rest: Rest::default(),
        }
    }

    /// Lets plain containers attach.
    #[must_use]
    pub fn attachable(mut self) -> Self {
        self.attachable = true;
        self
    }

    /// Keeps its containers from reaching out.
    #[must_use]
    pub fn internal(mut self) -> Self {
        self.internal = true;
        self
    }

    /// Encrypts what travels between the hosts.
    #[must_use]
    pub fn encrypted(mut self) -> Self {
        self.options.insert("encrypted".to_owned(), String::new());
        self
    }

    /// Its addresses, such as `10.20.0.0/24`. Without one the managers take a free part of the swarm's pool.
    #[must_use]
    pub fn subnet(mut self, subnet: impl Into<String>) -> Self {
        self.rest.insert("IPAM".to_owned(), json!({"Config": [{"Subnet": subnet.into()}]}));
        self
    }

    /// Adds a label.
    #[must_use]
    pub fn label(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.labels.insert(key.into(), value.into());
        self
    }
}

/// A network as a task sees it: the managers' own form, which has other names than [`Network`].
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
#[non_exhaustive]
pub struct AttachedNetwork {
    /// The network's id.
    #[serde(rename = "ID", default)]
    pub id: NetworkId,
    /// The network's version.
    #[serde(default)]
    pub version: Version,
    /// What the network was wanted to be.
    #[serde(default)]
    pub spec: AttachedNetworkSpec,
    /// Everything else.
    #[serde(flatten)]
    pub rest: Rest,
}

/// What a network was wanted to be, as a task sees it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
#[non_exhaustive]
pub struct AttachedNetworkSpec {
    /// The network's name.
    #[serde(default)]
    pub name: String,
    /// True for the routing mesh's own network.
    #[serde(default)]
    pub ingress: bool,
    /// Everything else.
    #[serde(flatten)]
    pub rest: Rest,
}
