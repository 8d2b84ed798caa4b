//! Policies and roles.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::types::null_is_default;

/// A policy: what whoever has it may do.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[non_exhaustive]
pub struct Policy {
    /// Consul's; empty in a new one.
    #[serde(rename = "ID", skip_serializing_if = "String::is_empty")]
    pub id: String,
    /// The name; unique.
    pub name: String,
    /// For people.
    pub description: String,
    /// In Consul's language; empty in lists.
    pub rules: String,
    /// The data centres where it holds; all when empty.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub datacenters: Vec<String>,
}

impl Policy {
    /// A new policy, such as `Policy::new("readers", "key_prefix \"\" { policy = \"read\" }")`.
    pub fn new(name: impl Into<String>, rules: impl Into<String>) -> Self {
        Self { name: name.into(), rules: rules.into(), ..Self::default() }
    }
}

/// A role: policies under a name. Fields that this crate does not know are kept when it is written back.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[non_exhaustive]
pub struct Role {
    /// Consul's; empty in a new one.
    #[serde(rename = "ID", skip_serializing_if = "String::is_empty")]
    pub id: String,
    /// The name; unique.
    pub name: String,
    /// For people.
    pub description: String,
    /// What it may do.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub policies: Vec<Link>,
    #[serde(flatten)]
    rest: BTreeMap<String, Value>,
}

impl Role {
    /// A new role with these policies, by name.
    pub fn new(name: impl Into<String>, policies: impl IntoIterator<Item = impl Into<String>>) -> Self {
        let policies = policies.into_iter().map(Link::by_name).collect();
        Self { name: name.into(), policies, ..Self::default() }
    }
}

/// A policy or role, by id, name or both.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[non_exhaustive]
pub struct Link {
    /// The id; empty when only the name is known.
    #[serde(rename = "ID", skip_serializing_if = "String::is_empty")]
    pub id: String,
    /// The name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
}

impl Link {
    /// The one with this name.
    pub fn by_name(name: impl Into<String>) -> Self {
        Self { id: String::new(), name: name.into() }
    }
}
