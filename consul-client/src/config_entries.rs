//! Configuration entries: defaults of services and proxies, routers, splitters, resolvers, gateways.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    Client, Consistency, Query, Response, Result, Watch, escape,
    request::{Raw, Request},
};

/// See [`Client::config_entries`].
#[derive(Debug, Clone)]
pub struct ConfigEntries {
    client: Client,
}

impl ConfigEntries {
    pub(crate) fn new(client: Client) -> Self {
        Self { client }
    }

    /// One entry, or `None`.
    ///
    /// # Errors
    /// As any read.
    pub async fn get(&self, kind: &str, name: &str) -> Result<Response<Option<ConfigEntry>>> {
        let request = one(kind, name)?;
        let found = decode_one(&request, &self.client.call(&request).await?)?;
        Ok(found.map(|mut entries| entries.pop()))
    }

    /// All entries of a kind.
    pub fn list(&self, kind: &str) -> Query<ConfigEntry> {
        let path = escape::path("kind", kind).map(|kind| format!("/v1/config/{kind}"));
        Query::new(self.client.clone(), path.map(Request::get))
    }

    /// One entry now and after each change, for ever: one item while it exists, none while it does not. See [`Watch`].
    pub fn watch(&self, kind: &str, name: &str) -> Watch<ConfigEntry> {
        Query::decoded_by(self.client.clone(), one(kind, name), decode_one)
            .watched_from(Consistency::Stale)
            .watch()
    }

    /// Writes an entry, whatever is there.
    ///
    /// # Errors
    /// As any write; [`Error::Rejected`](crate::Error::Rejected) for a field or a combination that Consul does not take.
    pub async fn set(&self, entry: &ConfigEntry) -> Result<()> {
        let request = Request::put("/v1/config").repeatable().json(entry)?;
        self.client.call(&request).await.map(drop)
    }

    /// Writes an entry if it is still the one that was read: its `modify_index`, or 0 for a new one. False when it is not.
    ///
    /// # Errors
    /// As [`set`](Self::set). [`Error::Ambiguous`](crate::Error::Ambiguous) when an answer was lost and the entry was changed meanwhile,
    /// by this write or by another.
    pub async fn cas(&self, entry: &ConfigEntry) -> Result<bool> {
        let request = Request::put("/v1/config").param("cas", entry.modify_index).json(entry)?;
        self.client.write_if(request).await
    }

    /// Deletes an entry; an absent one is no error.
    ///
    /// # Errors
    /// As any write; [`Error::Rejected`](crate::Error::Rejected) when others rely on it.
    pub async fn delete(&self, kind: &str, name: &str) -> Result<()> {
        self.client.call(&Request::delete(path(kind, name)?).repeatable()).await.map(drop)
    }
}

/// A configuration entry.
///
/// The kinds are many and grow with each version, so their fields are JSON under Consul's own names; what is not touched survives an
/// update.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
#[non_exhaustive]
pub struct ConfigEntry {
    /// The kind, such as `service-defaults`.
    pub kind: String,
    /// The name; `global` for `proxy-defaults`.
    pub name: String,
    /// The index of its last change; 0 in a new one.
    #[serde(default, skip_serializing)]
    pub modify_index: u64,
    #[serde(default, skip_serializing)]
    create_index: u64,
    /// Everything else.
    #[serde(flatten)]
    pub fields: BTreeMap<String, Value>,
}

impl ConfigEntry {
    /// A new entry.
    pub fn new(kind: impl Into<String>, name: impl Into<String>) -> Self {
        let fields = BTreeMap::new();
        Self { kind: kind.into(), name: name.into(), modify_index: 0, create_index: 0, fields }
    }

    /// Sets a field, under Consul's own name.
    #[must_use]
    pub fn field(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.fields.insert(name.into(), value.into());
        self
    }
}

fn path(kind: &str, name: &str) -> Result<String> {
    Ok(format!("/v1/config/{}/{}", escape::path("kind", kind)?, escape::path("name", name)?))
}

fn one(kind: &str, name: &str) -> Result<Request> {
    Ok(Request::get(path(kind, name)?).absent_ok())
}

fn decode_one(request: &Request, raw: &Raw) -> Result<Response<Vec<ConfigEntry>>> {
    Ok(request.decode_optional::<ConfigEntry>(raw)?.map(|entry| entry.into_iter().collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_survives_and_indexes_are_not_sent_back() {
        let json = r#"{"Kind":"service-defaults","Name":"web","Protocol":"http","Expose":{},"CreateIndex":1,"ModifyIndex":7}"#;
        let entry: ConfigEntry = serde_json::from_str(json).unwrap();
        assert_eq!(entry.modify_index, 7);
        assert_eq!(
            serde_json::to_value(entry).unwrap(),
            serde_json::json!({"Kind": "service-defaults", "Name": "web", "Protocol": "http", "Expose": {}})
        );
    }
}
