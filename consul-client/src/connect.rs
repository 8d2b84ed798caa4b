//! The service mesh: intentions, the discovery chain, certificates.

use std::collections::BTreeMap;

use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Client, Query, Response, Result, escape, request::Request, types::null_is_default};

/// See [`Client::connect`].
#[derive(Debug, Clone)]
pub struct Connect {
    client: Client,
}

impl Connect {
    pub(crate) fn new(client: Client) -> Self {
        Self { client }
    }

    /// All intentions, the most specific first.
    pub fn intentions(&self) -> Query<Intention> {
        Query::new(self.client.clone(), Ok(Request::get("/v1/connect/intentions")))
    }

    /// The intention with this id, or `None`.
    ///
    /// # Errors
    /// As any read.
    pub async fn intention(&self, id: &str) -> Result<Option<Intention>> {
        match self.client.read(Request::get(intention_path(id)?)).await {
            Ok(found) => Ok(Some(found.value)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Creates an intention and returns its id. Not repeated after a lost answer.
    ///
    /// # Errors
    /// As any write; [`Error::Rejected`](crate::Error::Rejected) when the pair has one already.
    pub async fn create_intention(&self, intention: &Intention) -> Result<String> {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Created {
            #[serde(rename = "ID")]
            id: String,
        }
        let request = Request::new(http::Method::POST, "/v1/connect/intentions").json(intention)?;
        Ok(self.client.read::<Created>(request).await?.value.id)
    }

    /// Writes an intention back: the one with its id becomes this.
    ///
    /// # Errors
    /// As any write.
    pub async fn update_intention(&self, intention: &Intention) -> Result<()> {
        let request = Request::put(intention_path(&intention.id)?).repeatable().json(intention)?;
        self.client.call(&request).await.map(drop)
    }

    /// Deletes an intention.
    ///
    /// # Errors
    /// As any write.
    pub async fn delete_intention(&self, id: &str) -> Result<()> {
        self.client.call(&Request::delete(intention_path(id)?).repeatable()).await.map(drop)
    }

    /// The intentions that concern a service as the source, or as the destination.
    ///
    /// # Errors
    /// As any read.
    pub async fn match_intentions(&self, side: Side, service: &str) -> Result<Response<Vec<Intention>>> {
        let by = match side {
            Side::Source => "source",
            Side::Destination => "destination",
        };
        let request = Request::get("/v1/connect/intentions/match").param("by", by).param("name", service);
        let found: Response<BTreeMap<String, Option<Vec<Intention>>>> = self.client.read(request).await?;
        Ok(found.map(|mut found| found.remove(service).flatten().unwrap_or_default()))
    }

    /// Whether `source` may talk to `destination`.
    ///
    /// # Errors
    /// As any read.
    pub async fn check_intention(&self, source: &str, destination: &str) -> Result<bool> {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Checked {
            allowed: bool,
        }
        let request = Request::get("/v1/connect/intentions/check")
            .param("source", source)
            .param("destination", destination);
        Ok(self.client.read::<Checked>(request).await?.value.allowed)
    }

    /// Where a request for a service goes, after routers, splitters and resolvers.
    ///
    /// # Errors
    /// As any read.
    pub async fn discovery_chain(&self, service: &str) -> Result<Response<DiscoveryChain>> {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Wire {
            chain: DiscoveryChain,
        }
        let path = format!("/v1/discovery-chain/{}", escape::path("service", service)?);
        Ok(self.client.read::<Wire>(Request::get(path)).await?.map(|wire| wire.chain))
    }

    /// The certificates that are trusted in the mesh.
    ///
    /// # Errors
    /// As any read.
    pub async fn ca_roots(&self) -> Result<Response<CaRoots>> {
        self.client.read(Request::get("/v1/connect/ca/roots")).await
    }

    /// How the mesh's certificate authority is set.
    ///
    /// # Errors
    /// As any read.
    pub async fn ca_config(&self) -> Result<CaConfig> {
        Ok(self.client.read(Request::get("/v1/connect/ca/configuration")).await?.value)
    }

    /// Sets the certificate authority; another provider or key makes a new root, which the mesh changes over to.
    ///
    /// # Errors
    /// As any write.
    pub async fn set_ca_config(&self, config: &CaConfig) -> Result<()> {
        let request = Request::put("/v1/connect/ca/configuration").repeatable().json(config)?;
        self.client.call(&request).await.map(drop)
    }

    /// A certificate for a service with its key, from this agent, which renews it in time.
    ///
    /// # Errors
    /// As any read.
    pub async fn leaf(&self, service: &str) -> Result<Leaf> {
        let path = format!("/v1/agent/connect/ca/leaf/{}", escape::path("service", service)?);
        Ok(self.client.read(Request::get(path)).await?.value)
    }

    /// Whether whoever shows a certificate may talk to `target`, in this agent's view, and why.
    ///
    /// # Errors
    /// As any read.
    pub async fn authorize(&self, target: &str, uri: &str, serial: &str) -> Result<Authorized> {
        #[derive(Serialize)]
        #[serde(rename_all = "PascalCase")]
        struct Wire<'a> {
            target: &'a str,
            #[serde(rename = "ClientCertURI")]
            uri: &'a str,
            client_cert_serial: &'a str,
        }
        let wire = Wire { target, uri, client_cert_serial: serial };
        let request =
            Request::new(http::Method::POST, "/v1/agent/connect/authorize").repeatable().json(&wire)?;
        Ok(self.client.read(request).await?.value)
    }
}

fn secret<'de, D: serde::Deserializer<'de>>(deserializer: D) -> std::result::Result<SecretString, D::Error> {
    Ok(SecretString::from(String::deserialize(deserializer)?))
}

fn intention_path(id: &str) -> Result<String> {
    Ok(format!("/v1/connect/intentions/{}", escape::path("intention", id)?))
}

/// A side of an intention.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    /// Who calls.
    Source,
    /// Who is called.
    Destination,
}

/// Whether one service may talk to another. Fields that this crate does not know are kept when it is written back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
#[non_exhaustive]
pub struct Intention {
    /// Consul's; empty in a new one.
    #[serde(rename = "ID", default, skip_serializing_if = "String::is_empty")]
    pub id: String,
    /// Who calls; `*` for all.
    pub source_name: String,
    /// Who is called; `*` for all.
    pub destination_name: String,
    /// Whether they may.
    pub action: Action,
    /// For people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Notes.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_is_default")]
    pub meta: BTreeMap<String, String>,
    /// The most specific wins; Consul's.
    #[serde(default, skip_serializing)]
    pub precedence: i64,
    #[serde(default, skip_serializing)]
    create_index: u64,
    #[serde(default, skip_serializing)]
    modify_index: u64,
    #[serde(flatten)]
    rest: BTreeMap<String, Value>,
}

impl Intention {
    /// A new one.
    pub fn new(source: impl Into<String>, destination: impl Into<String>, action: Action) -> Self {
        Self {
            id: String::new(),
            source_name: source.into(),
            destination_name: destination.into(),
            action,
            description: String::new(),
            meta: BTreeMap::new(),
            precedence: 0,
            create_index: 0,
            modify_index: 0,
            rest: BTreeMap::new(),
        }
    }
}

/// Whether they may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// They may.
    Allow,
    /// They may not.
    Deny,
}

/// Where a request for a service goes: a graph that begins at `start_node`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase")]
#[non_exhaustive]
pub struct DiscoveryChain {
    /// The service.
    pub service_name: String,
    /// The data centre.
    #[serde(default)]
    pub datacenter: String,
    /// `tcp`, `http`, `http2` or `grpc`.
    #[serde(default)]
    pub protocol: String,
    /// The name of the first node.
    pub start_node: String,
    /// Routers, splitters and resolvers by name, as Consul writes them.
    #[serde(default, deserialize_with = "null_is_default")]
    pub nodes: BTreeMap<String, Value>,
    /// What resolvers point to.
    #[serde(default, deserialize_with = "null_is_default")]
    pub targets: BTreeMap<String, ChainTarget>,
}

/// What a resolver points to.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
#[non_exhaustive]
pub struct ChainTarget {
    /// The id.
    #[serde(rename = "ID")]
    pub id: String,
    /// The service.
    pub service: String,
    /// The part of its instances; empty for all.
    #[serde(default)]
    pub service_subset: String,
    /// The data centre.
    #[serde(default)]
    pub datacenter: String,
    /// The name in the TLS handshake.
    #[serde(rename = "SNI", default)]
    pub sni: String,
}

/// The certificates that are trusted in the mesh.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
#[non_exhaustive]
pub struct CaRoots {
    /// The one that signs now.
    #[serde(rename = "ActiveRootID")]
    pub active_root_id: String,
    /// The mesh's name in SPIFFE ids.
    pub trust_domain: String,
    /// All that are trusted.
    #[serde(default, deserialize_with = "null_is_default")]
    pub roots: Vec<CaRoot>,
}

/// How the mesh's certificate authority is set. Fields that this crate does not know are kept when it is written back.
/// `Debug` leaves the settings out: a private key may be among them.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
#[non_exhaustive]
pub struct CaConfig {
    /// `consul`, `vault` or `aws-pca`.
    pub provider: String,
    /// The provider's settings, under Consul's own names.
    #[serde(default, deserialize_with = "null_is_default")]
    pub config: BTreeMap<String, Value>,
    #[serde(default, skip_serializing)]
    create_index: u64,
    #[serde(default, skip_serializing)]
    modify_index: u64,
    #[serde(flatten)]
    rest: BTreeMap<String, Value>,
}

impl std::fmt::Debug for CaConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CaConfig").field("provider", &self.provider).finish_non_exhaustive()
    }
}

/// A trusted certificate.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
#[non_exhaustive]
pub struct CaRoot {
    /// The id.
    #[serde(rename = "ID")]
    pub id: String,
    /// For people.
    pub name: String,
    /// The certificate in PEM.
    #[serde(rename = "RootCert")]
    pub root_cert: String,
    /// Whether it signs now.
    pub active: bool,
}

/// A service's certificate with its key.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
#[non_exhaustive]
pub struct Leaf {
    /// The serial number.
    pub serial_number: String,
    /// The certificate in PEM.
    #[serde(rename = "CertPEM")]
    pub cert_pem: String,
    /// Its key in PEM.
    #[serde(rename = "PrivateKeyPEM", deserialize_with = "secret")]
    pub private_key_pem: SecretString,
    /// The service.
    pub service: String,
    /// Its SPIFFE id.
    #[serde(rename = "ServiceURI")]
    pub service_uri: String,
    /// When it begins to hold (RFC 3339).
    pub valid_after: String,
    /// When it ceases to (RFC 3339).
    pub valid_before: String,
}

/// An agent's word on a connection.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
#[non_exhaustive]
pub struct Authorized {
    /// Whether it is allowed.
    pub authorized: bool,
    /// Why, in Consul's words.
    pub reason: String,
}
