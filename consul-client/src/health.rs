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
    /// Only instances all of whose checks pass, those of their node among them: an agent that dies takes every instance of its node
    /// out, dead or alive. Whoever can ask the instances does without this, and looks at [`ServiceEntry::standing`].
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

    /// What its checks say together, with the agent's death told apart from the instance's.
    pub fn standing(&self) -> Standing {
        let mut lost = false;
        for check in self.checks.iter().filter(|check| check.status != Status::Passing) {
            if !check.is_of_agent() {
                return Standing::Failing;
            }
            lost = true;
        }
        if lost { Standing::AgentLost } else { Standing::Passing }
    }
}

/// What the checks of an instance say together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Standing {
    /// All pass, as [`passing`](Query::passing) has it.
    Passing,
    /// All passed when they were last heard of, and then the agent of its node fell silent. Its host is gone, or only the agent is
    /// and the instance serves on: Consul cannot tell, so ask the instance. A client's agent stays listed like this for days;
    /// a server's is taken out of the catalog within seconds of the next election, and its instances with it.
    AgentLost,
    /// A check of its own or of its node does not pass.
    Failing,
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
    fn an_agents_death_is_told_from_its_instances() {
        let standing = |agent: &str, node: &str, own: &str| {
            let check = |id: &str, status: &str, service: &str| serde_json::json!({"CheckID": id, "Status": status, "ServiceID": service});
            let checks = [
                check("serfHealth", agent, ""),
                check("_node_maintenance", node, ""),
                // A service may call its own check as it likes.
                check("serfHealth", own, "web-1"),
            ];
            let entry = serde_json::json!({"Node": {"Node": "n1", "Address": "127.0.0.1"},
                "Service": {"ID": "web-1", "Service": "web"}, "Checks": checks});
            serde_json::from_value::<ServiceEntry>(entry).unwrap().standing()
        };
        assert_eq!(standing("passing", "passing", "passing"), Standing::Passing);
        assert_eq!(standing("critical", "passing", "passing"), Standing::AgentLost);
        assert_eq!(standing("critical", "passing", "critical"), Standing::Failing);
        assert_eq!(standing("critical", "critical", "passing"), Standing::Failing);
        assert_eq!(standing("passing", "passing", "warning"), Standing::Failing);
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
