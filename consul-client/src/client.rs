//! [`Client`]: the door to everything else.

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use http::Method;
use tokio::sync::OwnedSemaphorePermit;

use crate::{
    Acl, Agent, Catalog, ClientBuilder, ConfigEntries, Connect, Consistency, Coordinates, ElectionBuilder,
    EphemeralBuilder, Error, Events, Health, Kv, LockBuilder, Meta, Operator, PreparedQueries, Response,
    Result, SemaphoreBuilder, Sessions, Snapshots, StatusApi, Txn,
    address::Address,
    conditional,
    dial::Body,
    pool::Exchange,
    request::{Raw, Request},
    scope::Scope,
    token::header,
    transport::{Transport, broke},
};

/// A handle to one or more Consul agents. Clones are cheap and share connections.
///
/// Every call ends within a deadline (20 s unless set otherwise) and repeats by itself what may be repeated: anything that never
/// left or that the server refused for want of a leader, and reads and idempotent writes whose answer was lost.
///
/// A repetition is a `tracing` event at debug level: fields `endpoint`, `error`, `delay_ms`.
///
/// ```no_run
/// # async fn run() -> consul_client::Result<()> {
/// let consul = consul_client::Client::builder().address("127.0.0.1:8500").token("...").build()?;
/// let kv = consul.kv();
/// if let Some(pair) = kv.get("jobs/count").await?.value {
///     // False when somebody was faster: read again and decide anew.
///     let done: bool = kv.cas_marked("jobs/count", "7", pair.modify_index).await?;
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Client {
    transport: Arc<Transport>,
    scope: Arc<Scope>,
}

impl Client {
    /// From HashiCorp's variables; without them the agent on 127.0.0.1:8500 and no token.
    ///
    /// | Variable | Means |
    /// |---|---|
    /// | `CONSUL_HTTP_ADDR` | `host:port`, `http://..`, `https://..` (feature `tls`) or `unix://..` |
    /// | `CONSUL_HTTP_TOKEN_FILE`, `CONSUL_HTTP_TOKEN` | the ACL token; the file wins, and is read again when its token is denied |
    /// | `CONSUL_HTTP_AUTH` | `user[:password]` for a proxy before the agent |
    /// | `CONSUL_HTTP_SSL` | true: TLS, whatever the address says |
    /// | `CONSUL_HTTP_SSL_VERIFY` | false: any certificate is taken |
    /// | `CONSUL_CACERT`, `CONSUL_CAPATH` | the authorities, a PEM file or a directory of them |
    /// | `CONSUL_CLIENT_CERT`, `CONSUL_CLIENT_KEY` | who this client is, PEM files; only together |
    /// | `CONSUL_TLS_SERVER_NAME` | the name in the agent's certificate |
    /// | `CONSUL_NAMESPACE`, `CONSUL_PARTITION` | sent along with each call; servers without them refuse it |
    ///
    /// `CONSUL_GRPC_ADDR` is not looked at: nothing here speaks gRPC.
    ///
    /// # Errors
    /// [`Error::Setting`] that names the variable: an unknown form of address, a file that is not there, half of a pair.
    pub fn from_env() -> Result<Self> {
        Self::builder_from_env()?.build()
    }

    /// As [`from_env`](Self::from_env), with the rest still to be set. An address set on it comes after the environment's.
    pub fn builder_from_env() -> Result<ClientBuilder> {
        ClientBuilder::from_env()
    }

    /// A client with everything at its default: the agent on 127.0.0.1:8500, no token.
    pub fn builder() -> ClientBuilder {
        ClientBuilder::default()
    }

    /// Who leads, who votes.
    pub fn status(&self) -> StatusApi {
        StatusApi::new(self.clone())
    }

    /// This agent: its services, its checks, the members it sees. A registration belongs to the agent that took it, so register
    /// through a client with a single address.
    pub fn agent(&self) -> Agent {
        Agent::new(self.clone())
    }

    /// Which instances of a service are healthy, once or as an endless stream.
    pub fn health(&self) -> Health {
        Health::new(self.clone())
    }

    /// What is registered, healthy or not.
    pub fn catalog(&self) -> Catalog {
        Catalog::new(self.clone())
    }

    /// Keys and values.
    pub fn kv(&self) -> Kv {
        Kv::new(self.clone())
    }

    /// Several operations at once: all happen, or none.
    pub fn txn(&self) -> Txn {
        Txn::new(self.clone())
    }

    /// Sessions. For a lock use [`lock`](Self::lock), which keeps its own.
    pub fn sessions(&self) -> Sessions {
        Sessions::new(self.clone())
    }

    /// A lock on `key` that renews itself, says when it is lost, and carries a fence.
    pub fn lock(&self, key: impl Into<String>) -> LockBuilder {
        LockBuilder::new(self.clone(), key.into())
    }

    /// A lock on `key` that is sought again whenever it is lost: one candidate leads, the others know who.
    pub fn election(&self, key: impl Into<String>) -> ElectionBuilder {
        ElectionBuilder::new(self.clone(), key.into())
    }

    /// A lock with `limit` slots, kept under `prefix`.
    pub fn semaphore(&self, prefix: impl Into<String>, limit: u64) -> SemaphoreBuilder {
        SemaphoreBuilder::new(self.clone(), prefix.into(), limit)
    }

    /// A key that is there for as long as its owner lives.
    pub fn ephemeral(&self, key: impl Into<String>) -> EphemeralBuilder {
        EphemeralBuilder::new(self.clone(), key.into())
    }

    /// User events: short messages that gossip carries to all agents.
    pub fn events(&self) -> Events {
        Events::new(self.clone())
    }

    /// Look-ups that the cluster keeps, with failover to other data centres.
    pub fn prepared_queries(&self) -> PreparedQueries {
        PreparedQueries::new(self.clone())
    }

    /// Access control: tokens, policies, roles, auth methods, login.
    pub fn acl(&self) -> Acl {
        Acl::new(self.clone())
    }

    /// Configuration entries: defaults of services and proxies, routers, splitters, resolvers, gateways.
    pub fn config_entries(&self) -> ConfigEntries {
        ConfigEntries::new(self.clone())
    }

    /// The service mesh: intentions, the discovery chain, certificates.
    pub fn connect(&self) -> Connect {
        Connect::new(self.clone())
    }

    /// How far nodes are from each other.
    pub fn coordinates(&self) -> Coordinates {
        Coordinates::new(self.clone())
    }

    /// The whole state of the cluster as a stream of bytes, out and in.
    pub fn snapshot(&self) -> Snapshots {
        Snapshots::new(self.clone())
    }

    /// The cluster's inner workings.
    pub fn operator(&self) -> Operator {
        Operator::new(self.clone())
    }

    /// Any call that has no method of its own. `path` starts with `/v1/` and is already escaped; an empty value in `query` sends the
    /// name alone. Only a `GET` is repeated after a lost answer. Answers from 300 on are errors, sorted as everywhere.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a path that would not arrive as it stands; otherwise as the server answers.
    pub async fn raw(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, &str)],
        body: Option<Bytes>,
    ) -> Result<RawResponse> {
        let (path, request) = (path.to_owned(), raw_request(method, path, query, body)?);
        let Raw { status, meta, body, .. } = self.call(&request).await?;
        tracing::trace!(path, status, "raw consul call");
        Ok(RawResponse { status, meta, body })
    }

    /// The same client for another data centre: every call of this handle is about that one.
    #[must_use]
    pub fn with_datacenter(&self, name: impl Into<String>) -> Self {
        self.scoped(|scope| scope.datacenter = Some(name.into()))
    }

    /// The same client with another freshness of its reads. A query's own choice wins.
    #[must_use]
    pub fn with_consistency(&self, consistency: Consistency) -> Self {
        self.scoped(|scope| scope.consistency = Some(consistency))
    }

    /// The same client with another ACL token; an empty one means the anonymous token.
    ///
    /// # Errors
    /// [`Error::Setting`] for a token that no header can carry.
    pub fn with_token(&self, token: &str) -> Result<Self> {
        let token = header("token", token)?;
        Ok(self.scoped(|scope| scope.token = Some(token)))
    }

    /// The same client for a namespace (Consul Enterprise).
    #[must_use]
    pub fn with_namespace(&self, name: impl Into<String>) -> Self {
        self.scoped(|scope| scope.namespace = Some(name.into()))
    }

    /// The same client for an admin partition (Consul Enterprise).
    #[must_use]
    pub fn with_partition(&self, name: impl Into<String>) -> Self {
        self.scoped(|scope| scope.partition = Some(name.into()))
    }

    fn scoped(&self, change: impl FnOnce(&mut Scope)) -> Self {
        let mut scope = Scope::clone(&self.scope);
        change(&mut scope);
        Self { transport: Arc::clone(&self.transport), scope: Arc::new(scope) }
    }

    pub(crate) fn new(transport: Transport, scope: Scope) -> Self {
        Self { transport: Arc::new(transport), scope: Arc::new(scope) }
    }

    pub(crate) async fn call(&self, request: &Request) -> Result<Raw> {
        if self.scope.is_empty() {
            return self.transport.call(request).await;
        }
        self.transport.call(&self.scope.apply(request.clone())).await
    }

    pub(crate) async fn stream(
        &self,
        request: Request,
        body: Body,
        limit: Duration,
    ) -> Result<(Exchange, OwnedSemaphorePermit)> {
        self.transport.stream(&self.scope.apply(request), body, limit).await
    }

    /// A long answer as it comes, and what its head said.
    pub(crate) async fn chunks(
        &self,
        request: Request,
        limit: Duration,
    ) -> Result<(Meta, impl futures_core::Stream<Item = Result<Bytes>> + Send + use<>)> {
        let (response, slot) = self.stream(request.clone(), Body::Whole(None), limit).await?;
        let meta = Meta::from_headers(&response.headers);
        let chunks = futures_util::stream::unfold(Some((response, slot)), move |state| {
            let request = request.clone();
            async move {
                let (mut response, slot) = state?;
                match response.chunk().await {
                    Ok(Some(chunk)) => Some((Ok(chunk), Some((response, slot)))),
                    Ok(None) => None,
                    Err(error) => Some((Err(broke(error, &request)), None)),
                }
            }
        });
        Ok((meta, chunks))
    }

    /// The data centre that this handle's calls are about, if it was named.
    pub(crate) fn datacenter(&self) -> Option<&str> {
        self.scope.datacenter.as_deref()
    }

    /// The freshness that this handle asks for.
    pub(crate) fn consistency(&self) -> Option<Consistency> {
        self.scope.consistency
    }

    /// The limit of a call with all its repetitions.
    pub(crate) fn deadline(&self) -> Duration {
        self.transport.deadline
    }

    /// Which address the next call goes to first.
    pub(crate) fn turn(&self) -> usize {
        self.transport.turn()
    }

    /// Lets the next call begin elsewhere, if it is still that address's turn.
    pub(crate) fn leave(&self, turn: usize) {
        self.transport.leave(turn);
    }

    /// A write with a condition on an index; repeated after a lost answer.
    pub(crate) async fn write_if(&self, request: Request) -> Result<bool> {
        let once = |left| {
            let request = request.clone().within(left);
            async move { Ok(self.read(request).await?.value) }
        };
        conditional::until_told(self.deadline(), once).await?.or_unknown()
    }

    /// Sends and decodes.
    pub(crate) async fn read<T: serde::de::DeserializeOwned>(&self, request: Request) -> Result<Response<T>> {
        request.decode(&self.call(&request).await?)
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let addresses: Vec<_> = self.transport.addresses.iter().map(Address::as_str).collect();
        f.debug_struct("Client")
            .field("addresses", &addresses)
            .field("scope", &self.scope)
            .finish_non_exhaustive()
    }
}

/// The answer to [`Client::raw`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct RawResponse {
    /// The HTTP status, 200 to 299.
    pub status: u16,
    /// Index and freshness.
    pub meta: Meta,
    /// The body as it came.
    pub body: Bytes,
}

fn raw_request(method: Method, path: &str, query: &[(&str, &str)], body: Option<Bytes>) -> Result<Request> {
    let dots = |part: &str| matches!(part.to_ascii_lowercase().replace("%2e", ".").as_str(), "." | "..");
    if !path.starts_with("/v1/") || path.contains("//") || path.split('/').any(dots) {
        return Err(Error::invalid("path", path, "must start with /v1/ and hold no `//`, `.` or `..`"));
    }
    if path.contains(|c: char| {
        matches!(c, '?' | '#' | '\\') || c.is_whitespace() || c.is_control() || !c.is_ascii()
    }) {
        return Err(Error::invalid(
            "path",
            path,
            "must be escaped and without a query; give that as `query`",
        ));
    }
    let repeatable = method == Method::GET;
    let mut request = Request::new(method, path);
    if repeatable {
        request = request.repeatable();
    }
    for (name, value) in query {
        request = if value.is_empty() { request.flag(name) } else { request.param(name, value) };
    }
    Ok(match body {
        Some(body) => request.bytes(body),
        None => request,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_raw_path_arrives_as_it_stands_or_not_at_all() {
        for path in
            ["v1/x", "/v1/a//b", "/v1/../x", "/v1/%2E%2e/x", "/v1/a?b", "/v1/a b", "/v1/ä", "/v1/a\\b"]
        {
            assert!(raw_request(Method::GET, path, &[], None).is_err(), "{path}");
        }
        let request = raw_request(Method::PUT, "/v1/a%20b", &[("x", ""), ("y", "1")], None).unwrap();
        assert_eq!((request.target().as_str(), request.repeatable), ("/v1/a%20b?x&y=1", false));
    }
}
