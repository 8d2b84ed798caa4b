//! Prepared queries: look-ups that the cluster keeps, with failover to other data centres.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    Client, Query, Response, Result, ServiceEntry, escape, request::Request, types::null_is_default,
};

/// See [`Client::prepared_queries`].
#[derive(Debug, Clone)]
pub struct PreparedQueries {
    client: Client,
}

impl PreparedQueries {
    pub(crate) fn new(client: Client) -> Self {
        Self { client }
    }

    /// Creates one and returns its id. Not repeated after a lost answer.
    ///
    /// # Errors
    /// As any write; [`Error::Rejected`](crate::Error::Rejected) for a name that is taken.
    pub async fn create(&self, query: &PreparedQuery) -> Result<String> {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Created {
            #[serde(rename = "ID")]
            id: String,
        }
        let request = Request::new(http::Method::POST, "/v1/query").json(query)?;
        Ok(self.client.read::<Created>(request).await?.value.id)
    }

    /// Replaces the one with this id.
    ///
    /// # Errors
    /// As any write; [`Error::NotFound`](crate::Error::NotFound) for an unknown id.
    pub async fn update(&self, id: &str, query: &PreparedQuery) -> Result<()> {
        let request = Request::put(path(id)?).repeatable().json(query)?;
        self.client.call(&request).await.map(drop)
    }

    /// The one with this id, or `None`.
    ///
    /// # Errors
    /// As any read.
    pub async fn get(&self, id: &str) -> Result<Option<PreparedQuery>> {
        match self.client.read::<Vec<PreparedQuery>>(Request::get(path(id)?)).await {
            Ok(found) => Ok(found.value.into_iter().next()),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// All that the token may see.
    pub fn all(&self) -> Query<PreparedQuery> {
        Query::new(self.client.clone(), Ok(Request::get("/v1/query")))
    }

    /// Deletes the one with this id.
    ///
    /// # Errors
    /// As any write.
    pub async fn delete(&self, id: &str) -> Result<()> {
        self.client.call(&Request::delete(path(id)?).repeatable()).await.map(drop)
    }

    /// Runs the one with this id or name: the instances, of this data centre or of the first other one that has any.
    ///
    /// # Errors
    /// As any read; [`Error::NotFound`](crate::Error::NotFound) for an unknown one.
    pub async fn execute(&self, id_or_name: &str) -> Result<Response<Executed>> {
        self.execute_with(id_or_name, &Execute::default()).await
    }

    /// As [`execute`](Self::execute), with a limit and an order.
    ///
    /// # Errors
    /// As [`execute`](Self::execute).
    pub async fn execute_with(&self, id_or_name: &str, how: &Execute) -> Result<Response<Executed>> {
        let mut request = Request::get(format!("{}/execute", path(id_or_name)?))
            .maybe("limit", how.limit)
            .maybe("near", how.near.as_ref());
        if how.connect {
            request = request.param("connect", true);
        }
        self.client.read(request).await
    }

    /// The one that `name` would run, with a template's variables filled in.
    ///
    /// # Errors
    /// As [`execute`](Self::execute).
    pub async fn explain(&self, name: &str) -> Result<PreparedQuery> {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Explained {
            query: PreparedQuery,
        }
        let request = Request::get(format!("{}/explain", path(name)?));
        Ok(self.client.read::<Explained>(request).await?.value.query)
    }
}

fn path(id: &str) -> Result<String> {
    Ok(format!("/v1/query/{}", escape::path("prepared query", id)?))
}

/// A prepared query. Start with [`new`](Self::new); what is not set is not sent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[non_exhaustive]
pub struct PreparedQuery {
    /// Consul's; empty in a new one.
    #[serde(rename = "ID", skip_serializing)]
    pub id: String,
    /// The name to run it by; may be empty.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Deleted with this session, when it is not empty.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub session: String,
    /// What makes it a template for many names.
    #[serde(skip_serializing_if = "QueryTemplate::is_none")]
    pub template: QueryTemplate,
    /// What it looks up.
    pub service: QueryService,
    /// For answers by DNS.
    #[serde(rename = "DNS", skip_serializing_if = "QueryDns::is_none")]
    pub dns: QueryDns,
}

impl PreparedQuery {
    /// A query `name` for the instances of `service`.
    pub fn new(name: impl Into<String>, service: impl Into<String>) -> Self {
        let service = QueryService { service: service.into(), ..QueryService::default() };
        Self { name: name.into(), service, ..Self::default() }
    }

    /// Only instances without a warning.
    #[must_use]
    pub fn only_passing(mut self) -> Self {
        self.service.only_passing = true;
        self
    }

    /// Only instances with this tag; with `!` before it, without.
    #[must_use]
    pub fn tag(mut self, tag: impl Into<String>) -> Self {
        self.service.tags.push(tag.into());
        self
    }

    /// The nearest to this node first; `_agent` is the asking agent's.
    #[must_use]
    pub fn near(mut self, node: impl Into<String>) -> Self {
        self.service.near = node.into();
        self
    }

    /// When nothing is there, asks up to so many of the nearest data centres, and then the named ones in order.
    #[must_use]
    pub fn failover(mut self, nearest: u32, named: impl IntoIterator<Item = impl Into<String>>) -> Self {
        let datacenters = named.into_iter().map(Into::into).collect();
        self.service.failover = QueryFailover { nearest_n: nearest, datacenters };
        self
    }
}

/// What a prepared query looks up.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[non_exhaustive]
pub struct QueryService {
    /// The service's name.
    pub service: String,
    /// Where to look when nothing is there.
    #[serde(skip_serializing_if = "QueryFailover::is_none")]
    pub failover: QueryFailover,
    /// Whether a warning takes an instance out.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub only_passing: bool,
    /// Whose nearest come first.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub near: String,
    /// Tags that must be there, or with `!` must not.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub tags: Vec<String>,
    /// Notes that the node must have.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_is_default")]
    pub node_meta: BTreeMap<String, String>,
    /// Notes that the instance must have.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_is_default")]
    pub service_meta: BTreeMap<String, String>,
    /// Whether to answer with Connect proxies.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub connect: bool,
}

/// Where a prepared query looks when nothing is there.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[non_exhaustive]
pub struct QueryFailover {
    /// How many of the nearest data centres.
    #[serde(deserialize_with = "null_is_default")]
    pub nearest_n: u32,
    /// Then these, in order.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub datacenters: Vec<String>,
}

impl QueryFailover {
    fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// What makes a prepared query a template.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[non_exhaustive]
pub struct QueryTemplate {
    /// `name_prefix_match`, or empty.
    #[serde(rename = "Type")]
    pub kind: String,
    /// Takes the name apart; its groups are variables.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub regexp: String,
    /// Whether tags that come out empty are left out.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub remove_empty_tags: bool,
}

impl QueryTemplate {
    fn is_none(&self) -> bool {
        self.kind.is_empty()
    }
}

/// How a prepared query is answered by DNS.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[non_exhaustive]
pub struct QueryDns {
    /// The TTL of the answer, such as `10s`; empty for the agent's own.
    #[serde(rename = "TTL", deserialize_with = "null_is_default")]
    pub ttl: String,
}

impl QueryDns {
    fn is_none(&self) -> bool {
        self.ttl.is_empty()
    }
}

/// How [`PreparedQueries::execute_with`] runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Execute {
    /// At most so many instances.
    pub limit: Option<u32>,
    /// Whose nearest come first, instead of the query's own choice.
    pub near: Option<String>,
    /// Answer with Connect proxies.
    pub connect: bool,
}

/// What a prepared query found.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
#[non_exhaustive]
pub struct Executed {
    /// The service.
    pub service: String,
    /// The instances.
    #[serde(default, deserialize_with = "null_is_default")]
    pub nodes: Vec<ServiceEntry>,
    /// The data centre that they are in.
    #[serde(default)]
    pub datacenter: String,
    /// How many data centres were asked before that one.
    #[serde(default)]
    pub failovers: u32,
}
