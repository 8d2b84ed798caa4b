//! A service to register.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::{
    Check,
    types::{Described, Weights, describe},
};

/// A service instance for [`Agent::register`](crate::Agent::register).
///
/// Only what is set is sent: Consul 1.8 refuses fields that it does not know, even empty ones.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
#[must_use]
pub struct ServiceRegistration {
    name: String,
    #[serde(rename = "ID")]
    id: String,
    #[serde(flatten)]
    described: Described,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    checks: Vec<Check>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    enable_tag_override: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    weights: Option<Weights>,
    #[serde(flatten)]
    more: BTreeMap<String, serde_json::Value>,
}

impl ServiceRegistration {
    /// An instance of the service `name`; `id` is unique per agent. At the agent's address, without port and checks.
    pub fn new(name: impl Into<String>, id: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            id: id.into(),
            described: Described::default(),
            checks: Vec::new(),
            enable_tag_override: false,
            weights: None,
            more: BTreeMap::new(),
        }
    }

    describe!();

    /// Adds a check. The instance passes while all its checks and its node's do.
    pub fn check(mut self, check: Check) -> Self {
        self.checks.push(check);
        self
    }

    /// Lets others change the tags in the catalog without this agent changing them back.
    pub fn enable_tag_override(mut self) -> Self {
        self.enable_tag_override = true;
        self
    }

    /// Its share of DNS SRV answers, while it passes and while it warns.
    pub fn weights(mut self, passing: u32, warning: u32) -> Self {
        self.weights = Some(Weights { passing, warning });
        self
    }

    /// Sets a field that has no method here (`Proxy`, `Connect`, `Kind`, `TaggedAddresses`, ..), under Consul's own name.
    pub fn field(mut self, name: impl Into<String>, value: impl Into<serde_json::Value>) -> Self {
        self.more.insert(name.into(), value.into());
        self
    }

    /// The checks.
    pub fn checks(&self) -> &[Check] {
        &self.checks
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::Status;

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
