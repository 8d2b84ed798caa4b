//! What is registered, healthy or not. For traffic use [`Health`](crate::Health).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    AgentService, Client, Node, Query, Response, Result, Status, escape,
    request::{Raw, Request},
    types::{Described, describe, null_is_default},
};

/// See [`Client::catalog`].
#[derive(Debug, Clone)]
pub struct Catalog {
    client: Client,
}

impl Catalog {
    pub(crate) fn new(client: Client) -> Self {
        Self { client }
    }

    /// All services with the tags in use, by name.
    pub fn services(&self) -> Query<ServiceTags> {
        Query::decoded_by(self.client.clone(), Ok(Request::get("/v1/catalog/services")), decode_services)
    }

    /// All nodes.
    pub fn nodes(&self) -> Query<Node> {
        Query::new(self.client.clone(), Ok(Request::get("/v1/catalog/nodes")))
    }

    /// All instances of a service.
    pub fn service(&self, name: &str) -> Query<CatalogService> {
        let path = escape::path("service", name).map(|name| format!("/v1/catalog/service/{name}"));
        Query::new(self.client.clone(), path.map(Request::get))
    }

    /// The instances of a service that speak Connect: its proxies, and those that speak it themselves.
    pub fn connect(&self, name: &str) -> Query<CatalogService> {
        let path = escape::path("service", name).map(|name| format!("/v1/catalog/connect/{name}"));
        Query::new(self.client.clone(), path.map(Request::get))
    }

    /// A node and what runs there, or `None` when there is no such node.
    ///
    /// # Errors
    /// As any read.
    pub async fn node(&self, name: &str) -> Result<Response<Option<NodeServices>>> {
        let path = format!("/v1/catalog/node/{}", escape::path("node", name)?);
        self.client.read(Request::get(path)).await
    }

    /// The services behind an ingress or terminating gateway.
    pub fn gateway_services(&self, gateway: &str) -> Query<GatewayService> {
        let path =
            escape::path("gateway", gateway).map(|name| format!("/v1/catalog/gateway-services/{name}"));
        Query::new(self.client.clone(), path.map(Request::get))
    }

    /// The data centres that this one knows, the nearest first.
    ///
    /// # Errors
    /// As any read.
    pub async fn datacenters(&self) -> Result<Vec<String>> {
        Ok(self.client.read(Request::get("/v1/catalog/datacenters")).await?.value)
    }

    /// Writes a node, and with it a service or a check, straight into the catalog: for what has no agent of its own. What an agent
    /// reports itself, it overwrites again within minutes.
    ///
    /// # Errors
    /// As any write.
    pub async fn register(&self, entry: &CatalogRegistration) -> Result<()> {
        let request = Request::put("/v1/catalog/register").repeatable().json(entry)?;
        self.client.call(&request).await.map(drop)
    }

    /// Removes a service of a node, a check of a node, or (without either) the node with everything on it.
    ///
    /// # Errors
    /// As any write; what is not there is no error.
    pub async fn deregister(&self, node: &str, what: Deregister<'_>) -> Result<()> {
        #[derive(Serialize)]
        #[serde(rename_all = "PascalCase")]
        struct Wire<'a> {
            node: &'a str,
            #[serde(rename = "ServiceID", skip_serializing_if = "Option::is_none")]
            service_id: Option<&'a str>,
            #[serde(rename = "CheckID", skip_serializing_if = "Option::is_none")]
            check_id: Option<&'a str>,
        }
        let (service_id, check_id) = match what {
            Deregister::Node => (None, None),
            Deregister::Service(id) => (Some(id), None),
            Deregister::Check(id) => (None, Some(id)),
        };
        let wire = Wire { node, service_id, check_id };
        let request = Request::put("/v1/catalog/deregister").repeatable().json(&wire)?;
        self.client.call(&request).await.map(drop)
    }
}

/// What [`Catalog::deregister`] removes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Deregister<'a> {
    /// The node, its services and its checks.
    Node,
    /// The service with this id.
    Service(&'a str),
    /// The check with this id.
    Check(&'a str),
}

/// A service's name with the tags that its instances carry.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[non_exhaustive]
pub struct ServiceTags {
    /// The service's name.
    pub name: String,
    /// Each tag once.
    pub tags: Vec<String>,
}

/// A node and what runs there.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
#[non_exhaustive]
pub struct NodeServices {
    /// The node.
    pub node: Node,
    /// Its services, by id.
    #[serde(default, deserialize_with = "null_is_default")]
    pub services: BTreeMap<String, AgentService>,
}

/// A service behind a gateway.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
#[non_exhaustive]
pub struct GatewayService {
    /// The gateway.
    pub gateway: ServiceName,
    /// The service.
    pub service: ServiceName,
    /// `ingress-gateway` or `terminating-gateway`.
    #[serde(default, deserialize_with = "null_is_default")]
    pub gateway_kind: String,
    /// The port of the gateway's listener.
    #[serde(default, deserialize_with = "null_is_default")]
    pub port: u16,
    /// The listener's protocol.
    #[serde(default, deserialize_with = "null_is_default")]
    pub protocol: String,
}

/// A service's name as the gateway endpoints write it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
#[non_exhaustive]
pub struct ServiceName {
    /// The name.
    pub name: String,
}

/// An instance of a service in the catalog.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
#[non_exhaustive]
pub struct CatalogService {
    /// The node's name.
    pub node: String,
    /// The node's address.
    pub address: String,
    /// The node's data centre.
    #[serde(default, deserialize_with = "null_is_default")]
    pub datacenter: String,
    /// The instance's id.
    #[serde(rename = "ServiceID")]
    pub service_id: String,
    /// The service's name.
    pub service_name: String,
    /// Empty when the service is at its node's address.
    #[serde(default, deserialize_with = "null_is_default")]
    pub service_address: String,
    /// 0 when the registration gave none.
    #[serde(default, deserialize_with = "null_is_default")]
    pub service_port: u16,
    /// Tags.
    #[serde(default, deserialize_with = "null_is_default")]
    pub service_tags: Vec<String>,
    /// What the registration noted.
    #[serde(default, deserialize_with = "null_is_default")]
    pub service_meta: BTreeMap<String, String>,
}

/// What [`Catalog::register`] writes: a node, and what hangs on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
#[must_use]
pub struct CatalogRegistration {
    node: String,
    address: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    node_meta: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    service: Option<ExternalService>,
    #[serde(skip_serializing_if = "Option::is_none")]
    check: Option<ExternalCheck>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    skip_node_update: bool,
}

impl CatalogRegistration {
    /// A node at this address.
    pub fn new(node: impl Into<String>, address: impl Into<String>) -> Self {
        Self {
            node: node.into(),
            address: address.into(),
            node_meta: BTreeMap::new(),
            service: None,
            check: None,
            skip_node_update: false,
        }
    }

    /// Adds a note to the node. Consul's external monitor looks for `external-node` and `external-probe`.
    pub fn node_meta(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.node_meta.insert(key.into(), value.into());
        self
    }

    /// Leaves the node itself as it is, if it is there.
    pub fn skip_node_update(mut self) -> Self {
        self.skip_node_update = true;
        self
    }

    /// With a service on it.
    pub fn service(mut self, service: ExternalService) -> Self {
        self.service = Some(service);
        self
    }

    /// With the result of a check: of the node, or of the service with `service_id`. Nobody runs it; write it anew to change it.
    pub fn check(mut self, id: impl Into<String>, status: Status, service_id: Option<&str>) -> Self {
        let id = id.into();
        let service_id = service_id.map(str::to_owned);
        self.check = Some(ExternalCheck { name: id.clone(), check_id: id, status, service_id });
        self
    }
}

/// A service without an agent of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
#[must_use]
pub struct ExternalService {
    service: String,
    #[serde(rename = "ID")]
    id: String,
    #[serde(flatten)]
    described: Described,
}

impl ExternalService {
    /// An instance `id` of the service `name`.
    pub fn new(name: impl Into<String>, id: impl Into<String>) -> Self {
        Self { service: name.into(), id: id.into(), described: Described::default() }
    }

    describe!();
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
struct ExternalCheck {
    #[serde(rename = "CheckID")]
    check_id: String,
    name: String,
    status: Status,
    #[serde(rename = "ServiceID", skip_serializing_if = "Option::is_none")]
    service_id: Option<String>,
}

fn decode_services(request: &Request, raw: &Raw) -> Result<Response<Vec<ServiceTags>>> {
    let services = request.decode::<Option<BTreeMap<String, Option<Vec<String>>>>>(raw)?;
    let tags =
        |(name, tags): (String, Option<Vec<String>>)| ServiceTags { name, tags: tags.unwrap_or_default() };
    Ok(services.map(|services| services.unwrap_or_default().into_iter().map(tags).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_set_is_sent() {
        let bare = serde_json::to_value(CatalogRegistration::new("n", "10.0.0.1")).unwrap();
        assert_eq!(bare, serde_json::json!({"Node": "n", "Address": "10.0.0.1"}));
        let full = CatalogRegistration::new("n", "10.0.0.1")
            .skip_node_update()
            .service(ExternalService::new("db", "db-1").port(5432).tag("a"))
            .check("alive", Status::Passing, Some("db-1"));
        assert_eq!(
            serde_json::to_value(full).unwrap(),
            serde_json::json!({"Node": "n", "Address": "10.0.0.1", "SkipNodeUpdate": true,
                "Service": {"Service": "db", "ID": "db-1", "Port": 5432, "Tags": ["a"]},
                "Check": {"CheckID": "alive", "Name": "alive", "Status": "passing", "ServiceID": "db-1"}})
        );
    }

    #[test]
    fn services_come_as_a_list_in_order() {
        let raw = Raw::of(200, r#"{"web":["b","a"],"consul":null}"#);
        let list = decode_services(&Request::get("/"), &raw).unwrap().value;
        assert_eq!(
            list.iter().map(|s| (s.name.as_str(), s.tags.len())).collect::<Vec<_>>(),
            [("consul", 0), ("web", 2)]
        );
    }
}
