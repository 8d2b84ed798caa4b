//! Which instances of a service are healthy.

use serde::Deserialize;

use crate::{
    AgentService, Client, HealthCheck, Node, Query, Status, escape, request::Request, types::null_is_default,
};

/// See [`Client::health`].
#[derive(Debug, Clone)]
pub struct Health {
    client: Client,
}

impl Health {
    pub(crate) fn new(client: Client) -> Self {
        Self { client }
    }

    /// The instances of a service.
    pub fn service(&self, name: impl AsRef<str>) -> Query<ServiceEntry> {
        let path = escape::path("service", name.as_ref()).map(|name| format!("/v1/health/service/{name}"));
        Query::new(self.client.clone(), path.map(Request::get))
    }

    /// The instances of a service that speak Connect: its proxies, and those that speak it themselves.
    pub fn connect(&self, name: impl AsRef<str>) -> Query<ServiceEntry> {
        let path = escape::path("service", name.as_ref()).map(|name| format!("/v1/health/connect/{name}"));
        Query::new(self.client.clone(), path.map(Request::get))
    }

    /// The checks of a service, of all its instances.
    pub fn checks(&self, service: impl AsRef<str>) -> Query<HealthCheck> {
        let path = escape::path("service", service.as_ref()).map(|name| format!("/v1/health/checks/{name}"));
        Query::new(self.client.clone(), path.map(Request::get))
    }

    /// The checks of a node and of the services on it.
    pub fn node(&self, name: impl AsRef<str>) -> Query<HealthCheck> {
        let path = escape::path("node", name.as_ref()).map(|name| format!("/v1/health/node/{name}"));
        Query::new(self.client.clone(), path.map(Request::get))
    }

    /// The checks with this result, of the whole data centre.
    pub fn state(&self, status: Status) -> Query<HealthCheck> {
        let path = match status {
            Status::Passing => Ok("/v1/health/state/passing"),
            Status::Warning => Ok("/v1/health/state/warning"),
            Status::Critical => Ok("/v1/health/state/critical"),
            other => Err(crate::Error::invalid(
                "status",
                &format!("{other:?}"),
                "must be passing, warning or critical; maintenance shows as critical",
            )),
        };
        Query::new(self.client.clone(), path.map(Request::get))
    }

    /// All checks of the data centre.
    pub fn all(&self) -> Query<HealthCheck> {
        Query::new(self.client.clone(), Ok(Request::get("/v1/health/state/any")))
    }
}

impl Query<ServiceEntry> {
    /// Only instances all of whose checks pass.
    pub fn passing(self) -> Self {
        self.with(|request| request.flag("passing"))
    }

    /// Only instances with this tag; several tags must all be there.
    pub fn tag(self, tag: impl std::fmt::Display) -> Self {
        self.with(|request| request.param("tag", tag))
    }
}

/// An instance with its node and its checks.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
#[non_exhaustive]
pub struct ServiceEntry {
    /// Where it runs.
    pub node: Node,
    /// What it is.
    pub service: AgentService,
    /// How it and its node are.
    #[serde(default, deserialize_with = "null_is_default")]
    pub checks: Vec<HealthCheck>,
}

impl ServiceEntry {
    /// Where to reach it: its own address, or its node's when it has none.
    pub fn address(&self) -> &str {
        if self.service.address.is_empty() { &self.node.address } else { &self.service.address }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::Raw;

    #[test]
    fn the_query_is_built_from_what_was_asked() {
        let client = Client::builder().build().unwrap();
        let query =
            client.health().service("we b").passing().tag("a").tag("b").filter("x == y").near("_agent");
        let target = query.target().unwrap();
        assert_eq!(target, "/v1/health/service/we%20b?passing&tag=a&tag=b&filter=x%20%3D%3D%20y&near=_agent");
        assert!(client.health().service("../x").target().is_err());
        assert!(client.health().state(Status::Maintenance).target().is_err());
    }

    #[test]
    fn nulls_and_unknown_fields_are_no_trouble() {
        let body = r#"[{"Node":{"ID":"x","Node":"n1","Address":"127.0.0.1","Meta":null,"New":1},
            "Service":{"ID":"web-1","Service":"web","Tags":null,"Meta":null,"Port":0,"Address":"","Weights":{"Passing":1}},
            "Checks":[{"Node":"n1","CheckID":"c","Name":"","Status":"baffled","Output":"","ServiceID":"web-1"}]}]"#;
        let list: Vec<ServiceEntry> = Request::get("/").decode(&Raw::of(200, body)).unwrap().value;
        assert_eq!(list[0].address(), "127.0.0.1");
        assert_eq!(list[0].checks[0].status, Status::Unknown);
    }
}
