//! Auth methods and the rules that bind what they trust to roles.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::types::null_is_default;

/// Whom to trust besides Consul's own tokens. Fields that this crate does not know are kept when it is written back.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[non_exhaustive]
pub struct AuthMethod {
    /// The name; unique.
    pub name: String,
    /// `kubernetes` or `jwt`.
    #[serde(rename = "Type")]
    pub kind: String,
    /// For people.
    pub description: String,
    /// By kind; may hold secrets. Left out of lists.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_is_default")]
    pub config: BTreeMap<String, Value>,
    #[serde(flatten)]
    rest: BTreeMap<String, Value>,
}

impl AuthMethod {
    /// A new one.
    pub fn new(
        name: impl Into<String>,
        kind: impl Into<String>,
        config: impl IntoIterator<Item = (String, Value)>,
    ) -> Self {
        let config = config.into_iter().collect();
        Self { name: name.into(), kind: kind.into(), config, ..Self::default() }
    }
}

/// Without the configuration, which may hold secrets.
impl std::fmt::Debug for AuthMethod {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AuthMethod")
            .field("name", &self.name)
            .field("kind", &self.kind)
            .field("description", &self.description)
            .finish_non_exhaustive()
    }
}

/// Which of those that an auth method trusts become what.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[non_exhaustive]
pub struct BindingRule {
    /// Consul's; empty in a new one.
    #[serde(rename = "ID", skip_serializing_if = "String::is_empty")]
    pub id: String,
    /// For people.
    pub description: String,
    /// The auth method's name.
    pub auth_method: String,
    /// An expression over what the method knows of them; empty for all.
    pub selector: String,
    /// `service` or `role`.
    pub bind_type: String,
    /// The name of the service or role, with variables.
    pub bind_name: String,
}

impl BindingRule {
    /// A new one, such as `BindingRule::new("k8s", "role", "web")`.
    pub fn new(
        auth_method: impl Into<String>,
        bind_type: impl Into<String>,
        bind_name: impl Into<String>,
    ) -> Self {
        Self {
            auth_method: auth_method.into(),
            bind_type: bind_type.into(),
            bind_name: bind_name.into(),
            ..Self::default()
        }
    }
}
