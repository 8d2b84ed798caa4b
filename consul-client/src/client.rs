//! [`Client`]: the door to everything else.

use std::{fmt, sync::Arc};

use bytes::Bytes;
use http::Method;

use crate::{
    Agent, Catalog, ClientBuilder, Error, Health, Kv, LockBuilder, Meta, Operator, Response, Result,
    Sessions, StatusApi,
    address::Address,
    request::{Raw, Request},
    transport::Transport,
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
///     let done: bool = kv.cas("jobs/count", "7", pair.modify_index).await?;
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Client {
    transport: Arc<Transport>,
}

impl Client {
    /// From `CONSUL_HTTP_ADDR`, `CONSUL_HTTP_TOKEN_FILE` or `CONSUL_HTTP_TOKEN`, and `CONSUL_HTTP_AUTH`; without them the agent on
    /// 127.0.0.1:8500 and no token.
    ///
    /// # Errors
    /// [`Error::Setting`] that names the variable: an unknown form of address, a token file that cannot be read, or a setting that
    /// is not built in yet (`CONSUL_HTTP_SSL=true`, `CONSUL_NAMESPACE`, `CONSUL_PARTITION`).
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

    /// Sessions. For a lock use [`lock`](Self::lock), which keeps its own.
    pub fn sessions(&self) -> Sessions {
        Sessions::new(self.clone())
    }

    /// A lock on `key` that renews itself, says when it is lost, and carries a fence.
    pub fn lock(&self, key: impl Into<String>) -> LockBuilder {
        LockBuilder::new(self.clone(), key.into())
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
        let Raw { status, meta, body } = self.call(&request).await?;
        tracing::trace!(path, status, "raw consul call");
        Ok(RawResponse { status, meta, body })
    }

    pub(crate) fn new(transport: Transport) -> Self {
        Self { transport: Arc::new(transport) }
    }

    pub(crate) async fn call(&self, request: &Request) -> Result<Raw> {
        self.transport.call(request).await
    }

    /// Which address the next call goes to first.
    pub(crate) fn turn(&self) -> usize {
        self.transport.turn()
    }

    /// Lets the next call begin elsewhere, if it is still that address's turn.
    pub(crate) fn leave(&self, turn: usize) {
        self.transport.leave(turn);
    }

    /// Sends and decodes.
    pub(crate) async fn read<T: serde::de::DeserializeOwned>(&self, request: Request) -> Result<Response<T>> {
        request.decode(&self.call(&request).await?)
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let addresses: Vec<_> = self.transport.addresses.iter().map(Address::as_str).collect();
        f.debug_struct("Client").field("addresses", &addresses).finish_non_exhaustive()
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
