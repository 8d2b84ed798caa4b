//! A service to register, and its checks.

use std::{collections::BTreeMap, time::Duration};

use serde::{Serialize, Serializer};

use crate::{Status, request::millis};

/// A service instance for [`Agent::register`](crate::Agent::register).
///
/// Only what is set is sent: Consul 1.8 refuses fields that it does not know, even empty ones.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct ServiceRegistration {
    name: String,
    #[serde(rename = "ID")]
    id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<u16>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tags: Vec<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    meta: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    checks: Vec<Check>,
}

impl ServiceRegistration {
    /// An instance of the service `name`; `id` is unique per agent. At the agent's address, without port and checks.
    pub fn new(name: impl Into<String>, id: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            id: id.into(),
            address: None,
            port: None,
            tags: Vec::new(),
            meta: BTreeMap::new(),
            checks: Vec::new(),
        }
    }

    /// Where the instance listens, when that is not the agent's address.
    pub fn address(mut self, address: impl Into<String>) -> Self {
        self.address = Some(address.into());
        self
    }

    /// The port.
    pub fn port(mut self, port: u16) -> Self {
        self.port = Some(port);
        self
    }

    /// Adds a tag.
    pub fn tag(mut self, tag: impl Into<String>) -> Self {
        self.tags.push(tag.into());
        self
    }

    /// Adds a note: at most 64 of them, keys up to 128 and values up to 512 characters.
    pub fn meta(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.meta.insert(key.into(), value.into());
        self
    }

    /// Adds a check. The instance passes while all its checks and its node's do.
    pub fn check(mut self, check: Check) -> Self {
        self.checks.push(check);
        self
    }

    /// The instance's id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The service's name.
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// A health check that the agent runs, or waits for.
///
/// A new check is critical until its first result, unless [`initial_status`](Self::initial_status) says otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Check {
    #[serde(rename = "HTTP", skip_serializing_if = "Option::is_none")]
    http: Option<String>,
    #[serde(rename = "TCP", skip_serializing_if = "Option::is_none")]
    tcp: Option<String>,
    #[serde(rename = "TTL", skip_serializing_if = "Option::is_none", serialize_with = "as_millis")]
    ttl: Option<Duration>,
    #[serde(rename = "CheckID", skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "as_millis")]
    interval: Option<Duration>,
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "as_millis")]
    timeout: Option<Duration>,
    #[serde(
        rename = "DeregisterCriticalServiceAfter",
        skip_serializing_if = "Option::is_none",
        serialize_with = "as_millis"
    )]
    deregister_critical_after: Option<Duration>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<Status>,
}

impl Check {
    /// The agent asks `url`: 2xx passes, 429 warns, the rest fails. Every 10 s unless [`interval`](Self::interval) is set.
    pub fn http(url: impl Into<String>) -> Self {
        Self { http: Some(url.into()), interval: Some(DEFAULT_INTERVAL), ..Self::empty() }
    }

    /// The agent connects to `host:port`. Every 10 s unless [`interval`](Self::interval) is set.
    pub fn tcp(address: impl Into<String>) -> Self {
        Self { tcp: Some(address.into()), interval: Some(DEFAULT_INTERVAL), ..Self::empty() }
    }

    /// Critical unless [`Agent::update_ttl`](crate::Agent::update_ttl) is called within `ttl`, again and again.
    pub fn ttl(ttl: Duration) -> Self {
        Self { ttl: Some(ttl), ..Self::empty() }
    }

    /// The check's id, unique per agent; `service:<service id>` unless set (with `:1`, `:2`, ... when there are several).
    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.id = Some(id.into());
        self
    }

    /// A name for people.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// How often an HTTP or TCP check runs.
    pub fn interval(mut self, interval: Duration) -> Self {
        self.interval = Some(interval);
        self
    }

    /// How long an HTTP or TCP check may take (Consul's default is 10 s).
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Removes the service after it was critical for so long. Consul looks every 30 s and takes no less than a minute.
    pub fn deregister_critical_after(mut self, after: Duration) -> Self {
        self.deregister_critical_after = Some(after);
        self
    }

    /// The status until the first result.
    pub fn initial_status(mut self, status: Status) -> Self {
        self.status = Some(status);
        self
    }

    fn empty() -> Self {
        Self {
            http: None,
            tcp: None,
            ttl: None,
            id: None,
            name: None,
            interval: None,
            timeout: None,
            deregister_critical_after: None,
            status: None,
        }
    }
}

fn as_millis<S: Serializer>(duration: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    match duration {
        Some(duration) => serializer.serialize_str(&millis(*duration)),
        None => serializer.serialize_none(),
    }
}

const DEFAULT_INTERVAL: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_set_is_sent() {
        let bare = serde_json::to_value(ServiceRegistration::new("web", "web-1")).unwrap();
        assert_eq!(bare, serde_json::json!({"Name": "web", "ID": "web-1"}));
        let check = Check::http("http://h/healthz")
            .interval(Duration::from_millis(1500))
            .deregister_critical_after(Duration::from_secs(60))
            .initial_status(Status::Passing);
        let full = ServiceRegistration::new("web", "web-1").port(80).tag("a").meta("k", "v").check(check);
        assert_eq!(
            serde_json::to_value(full).unwrap(),
            serde_json::json!({"Name": "web", "ID": "web-1", "Port": 80, "Tags": ["a"], "Meta": {"k": "v"}, "Checks": [{
                "HTTP": "http://h/healthz", "Interval": "1500ms", "DeregisterCriticalServiceAfter": "60000ms", "Status": "passing"}]})
        );
    }
}
