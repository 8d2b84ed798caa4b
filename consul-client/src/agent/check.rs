//! A health check.

use std::{collections::BTreeMap, time::Duration};

use serde::{Serialize, Serializer};

use crate::{Status, request::millis};

/// A health check that the agent runs, or waits for.
///
/// A new check is critical until its first result, unless [`initial_status`](Self::initial_status) says otherwise.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
#[must_use]
pub struct Check {
    #[serde(rename = "HTTP", skip_serializing_if = "Option::is_none")]
    http: Option<String>,
    #[serde(rename = "TCP", skip_serializing_if = "Option::is_none")]
    tcp: Option<String>,
    #[serde(rename = "GRPC", skip_serializing_if = "Option::is_none")]
    grpc: Option<String>,
    #[serde(rename = "GRPCUseTLS", skip_serializing_if = "std::ops::Not::not")]
    grpc_use_tls: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    args: Vec<String>,
    #[serde(rename = "DockerContainerID", skip_serializing_if = "Option::is_none")]
    docker_container: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    shell: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    alias_service: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    alias_node: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    method: Option<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    header: BTreeMap<String, Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<String>,
    #[serde(rename = "TLSSkipVerify", skip_serializing_if = "std::ops::Not::not")]
    tls_skip_verify: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    success_before_passing: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    failures_before_critical: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    notes: Option<String>,
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
        Self { http: Some(url.into()), interval: Some(DEFAULT_INTERVAL), ..Self::default() }
    }

    /// The agent connects to `host:port`. Every 10 s unless [`interval`](Self::interval) is set.
    pub fn tcp(address: impl Into<String>) -> Self {
        Self { tcp: Some(address.into()), interval: Some(DEFAULT_INTERVAL), ..Self::default() }
    }

    /// Critical unless [`Agent::update_ttl`](crate::Agent::update_ttl) is called within `ttl`, again and again.
    pub fn ttl(ttl: Duration) -> Self {
        Self { ttl: Some(ttl), ..Self::default() }
    }

    /// The agent asks a gRPC server at `host:port[/service]` by gRPC's health protocol, with TLS if `tls`. Every 10 s unless set.
    pub fn grpc(address: impl Into<String>, tls: bool) -> Self {
        let grpc = Some(address.into());
        Self { grpc, grpc_use_tls: tls, interval: Some(DEFAULT_INTERVAL), ..Self::default() }
    }

    /// The agent runs a program: 0 passes, 1 warns, the rest fails. Agents refuse it unless they are set to allow scripts.
    pub fn script<I: IntoIterator<Item = S>, S: Into<String>>(args: I) -> Self {
        let args = args.into_iter().map(Into::into).collect();
        Self { args, interval: Some(DEFAULT_INTERVAL), ..Self::default() }
    }

    /// As [`script`](Self::script), inside a Docker container of the agent's host, by this shell.
    pub fn docker<I: IntoIterator<Item = S>, S: Into<String>>(
        container: impl Into<String>,
        shell: impl Into<String>,
        args: I,
    ) -> Self {
        let (docker_container, shell) = (Some(container.into()), Some(shell.into()));
        Self { docker_container, shell, ..Self::script(args) }
    }

    /// As another service of this agent is.
    pub fn alias_service(id: impl Into<String>) -> Self {
        Self { alias_service: Some(id.into()), ..Self::default() }
    }

    /// As a node is.
    pub fn alias_node(name: impl Into<String>) -> Self {
        Self { alias_node: Some(name.into()), ..Self::default() }
    }

    /// The method of an HTTP check (`GET` unless set).
    pub fn method(mut self, method: impl Into<String>) -> Self {
        self.method = Some(method.into());
        self
    }

    /// Adds a header to an HTTP check.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.header.entry(name.into()).or_default().push(value.into());
        self
    }

    /// The body of an HTTP check.
    pub fn body(mut self, body: impl Into<String>) -> Self {
        self.body = Some(body.into());
        self
    }

    /// Takes any certificate in an HTTPS or gRPC check.
    pub fn tls_skip_verify(mut self) -> Self {
        self.tls_skip_verify = true;
        self
    }

    /// How often in a row it must succeed to pass, and fail to be critical.
    pub fn thresholds(mut self, success_before_passing: u32, failures_before_critical: u32) -> Self {
        self.success_before_passing = Some(success_before_passing);
        self.failures_before_critical = Some(failures_before_critical);
        self
    }

    /// A note for people.
    pub fn notes(mut self, notes: impl Into<String>) -> Self {
        self.notes = Some(notes.into());
        self
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

    /// How often a check that the agent runs does.
    pub fn interval(mut self, interval: Duration) -> Self {
        self.interval = Some(interval);
        self
    }

    /// How long it may take (Consul's default is 10 s).
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
}

impl Check {
    pub(super) fn own_id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    pub(super) fn ttl_of(&self) -> Option<Duration> {
        self.ttl
    }

    /// Without its id, for the endpoint that calls it otherwise.
    pub(super) fn without_id(mut self) -> (Option<String>, Self) {
        (self.id.take(), self)
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
    use serde_json::{json, to_value};

    use super::*;

    #[test]
    fn every_kind_is_written_as_consul_reads_it() {
        for (check, wanted) in [
            (
                Check::tcp("h:1").id("c").name("n"),
                json!({"TCP": "h:1", "Interval": "10000ms", "CheckID": "c", "Name": "n"}),
            ),
            (Check::ttl(Duration::from_secs(3)).notes("x"), json!({"TTL": "3000ms", "Notes": "x"})),
            (Check::grpc("h:1/s", true), json!({"GRPC": "h:1/s", "GRPCUseTLS": true, "Interval": "10000ms"})),
            (Check::script(["a", "b"]), json!({"Args": ["a", "b"], "Interval": "10000ms"})),
            (
                Check::docker("c1", "/bin/sh", ["a"]),
                json!({"DockerContainerID": "c1", "Shell": "/bin/sh", "Args": ["a"], "Interval": "10000ms"}),
            ),
            (Check::alias_service("web-1"), json!({"AliasService": "web-1"})),
            (Check::alias_node("n1"), json!({"AliasNode": "n1"})),
            (
                Check::http("u").method("POST").header("a", "b").body("x").tls_skip_verify().thresholds(2, 3),
                json!({"HTTP": "u", "Interval": "10000ms", "Method": "POST", "Header": {"a": ["b"]}, "Body": "x",
                    "TLSSkipVerify": true, "SuccessBeforePassing": 2, "FailuresBeforeCritical": 3}),
            ),
        ] {
            assert_eq!(to_value(check).unwrap(), wanted);
        }
    }
}
