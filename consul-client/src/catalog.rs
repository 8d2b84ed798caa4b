//! What is registered, healthy or not. For traffic use [`Health`](crate::Health).

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::{Client, Node, Response, Result, escape, request::Request, types::null_is_default};

/// See [`Client::catalog`].
#[derive(Debug, Clone)]
pub struct Catalog {
    client: Client,
}

impl Catalog {
    pub(crate) fn new(client: Client) -> Self {
        Self { client }
    }

    /// All services with the tags in use.
    ///
    /// # Errors
    /// As any read.
    pub async fn services(&self) -> Result<Response<BTreeMap<String, Vec<String>>>> {
        self.client.read(Request::get("/v1/catalog/services")).await
    }

    /// All nodes.
    ///
    /// # Errors
    /// As any read.
    pub async fn nodes(&self) -> Result<Response<Vec<Node>>> {
        self.client.read(Request::get("/v1/catalog/nodes")).await
    }

    /// All instances of a service.
    ///
    /// # Errors
    /// As any read.
    pub async fn service(&self, name: &str) -> Result<Response<Vec<CatalogService>>> {
        let path = format!("/v1/catalog/service/{}", escape::path("service", name)?);
        self.client.read(Request::get(path)).await
    }
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
