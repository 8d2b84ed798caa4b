//! Which instances of a service are healthy.

use serde::Deserialize;

use crate::{
    AgentService, Client, Consistency, HealthCheck, Node, Response, Result, Watch, escape, request::Request,
    types::null_is_default, watch::Source,
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

    /// A query for the instances of a service.
    pub fn service(&self, name: impl Into<String>) -> ServiceQuery {
        ServiceQuery {
            client: self.client.clone(),
            name: name.into(),
            passing: false,
            tags: Vec::new(),
            filter: None,
            consistency: None,
        }
    }
}

/// A query for the instances of a service: [`list`](Self::list) once or [`watch`](Self::watch) for ever.
#[derive(Debug, Clone)]
#[must_use = "a query does nothing until `list` or `watch`"]
pub struct ServiceQuery {
    client: Client,
    name: String,
    passing: bool,
    tags: Vec<String>,
    filter: Option<String>,
    consistency: Option<Consistency>,
}

impl ServiceQuery {
    /// Only instances all of whose checks pass.
    pub fn passing(mut self) -> Self {
        self.passing = true;
        self
    }

    /// Only instances with this tag; several tags must all be there.
    pub fn tag(mut self, tag: impl Into<String>) -> Self {
        self.tags.push(tag.into());
        self
    }

    /// Only instances that match an expression of Consul's filter language.
    pub fn filter(mut self, expression: impl Into<String>) -> Self {
        self.filter = Some(expression.into());
        self
    }

    /// How fresh. Unless set, a list asks the leader, and a watch any server (it goes on through an election).
    pub fn consistency(mut self, consistency: Consistency) -> Self {
        self.consistency = Some(consistency);
        self
    }

    /// The instances now.
    ///
    /// # Errors
    /// As any read. An empty list is what Consul answers for an unknown service, and also for one that the token may not see.
    pub async fn list(&self) -> Result<Response<Vec<ServiceEntry>>> {
        let request = self.request()?.consistency(self.consistency.unwrap_or_default());
        self.client.read(request).await
    }

    /// The instances now and after each change, for ever. See [`Watch`].
    pub fn watch(self) -> Watch<ServiceEntry> {
        let consistency = self.consistency.unwrap_or(Consistency::Stale);
        let source = Source { base: self.request(), consistency, decode: |request, raw| request.decode(raw) };
        Watch::new(self.client, source)
    }

    fn request(&self) -> Result<Request> {
        let mut request =
            Request::get(format!("/v1/health/service/{}", escape::path("service", &self.name)?));
        if self.passing {
            request = request.flag("passing");
        }
        for tag in &self.tags {
            request = request.param("tag", tag);
        }
        Ok(match &self.filter {
            Some(filter) => request.param("filter", filter),
            None => request,
        })
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
    use crate::{Meta, Status, request::Raw};

    #[test]
    fn the_query_is_built_from_what_was_asked() {
        let client = Client::builder().build().unwrap();
        let query = client.health().service("we b").passing().tag("a").tag("b").filter("x == y");
        let target = query.request().unwrap().target();
        assert_eq!(target, "/v1/health/service/we%20b?passing&tag=a&tag=b&filter=x%20%3D%3D%20y");
        assert!(client.health().service("../x").request().is_err());
    }

    #[test]
    fn nulls_and_unknown_fields_are_no_trouble() {
        let body = r#"[{"Node":{"ID":"x","Node":"n1","Address":"127.0.0.1","Meta":null,"New":1},
            "Service":{"ID":"web-1","Service":"web","Tags":null,"Meta":null,"Port":0,"Address":"","Weights":{"Passing":1}},
            "Checks":[{"Node":"n1","CheckID":"c","Name":"","Status":"baffled","Output":"","ServiceID":"web-1"}]}]"#;
        let raw = Raw { status: 200, meta: Meta::default(), body: body.into() };
        let list: Vec<ServiceEntry> = Request::get("/").decode(&raw).unwrap().value;
        assert_eq!(list[0].address(), "127.0.0.1");
        assert_eq!(list[0].checks[0].status, Status::Unknown);
    }
}
