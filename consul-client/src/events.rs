//! User events: short messages that gossip carries to all agents.

use bytes::Bytes;
use serde::Deserialize;

use crate::{
    Client, EventWatch, Query, Result, escape, kv::base64_bytes, request::Request, types::null_is_default,
};

/// See [`Client::events`].
///
/// Gossip carries an event once, to the agents that are there: no answer, no order, no promise. An agent remembers the last 256.
#[derive(Debug, Clone)]
pub struct Events {
    client: Client,
}

impl Events {
    pub(crate) fn new(client: Client) -> Self {
        Self { client }
    }

    /// An event to be fired: `payload` is limited to about 100 bytes, with the filters (a UDP packet has to hold it all).
    pub fn fire(&self, name: impl Into<String>, payload: impl Into<Bytes>) -> Fire {
        let (name, payload) = (name.into(), payload.into());
        Fire { client: self.client.clone(), name, payload, node: None, service: None, tag: None }
    }

    /// The last events that this agent saw, the oldest first.
    pub fn list(&self) -> Query<Event> {
        Query::new(self.client.clone(), Ok(Request::get("/v1/event/list")))
    }

    /// Each event with this name that this agent sees from now on, once, for ever. See [`EventWatch`].
    pub fn watch(&self, name: &str) -> EventWatch {
        EventWatch::new(self.client.clone(), Request::get("/v1/event/list").param("name", name))
    }

    /// As [`watch`](Self::watch), every event whatever its name.
    pub fn watch_all(&self) -> EventWatch {
        EventWatch::new(self.client.clone(), Request::get("/v1/event/list"))
    }
}

impl Query<Event> {
    /// Only events with this name.
    pub fn name(self, name: impl std::fmt::Display) -> Self {
        self.with(|request| request.param("name", name))
    }
}

/// An event to be fired.
#[derive(Debug, Clone)]
#[must_use = "nothing is fired until `send`"]
pub struct Fire {
    client: Client,
    name: String,
    payload: Bytes,
    node: Option<String>,
    service: Option<String>,
    tag: Option<String>,
}

impl Fire {
    /// Only for nodes whose name matches this regular expression.
    pub fn node(mut self, expression: impl Into<String>) -> Self {
        self.node = Some(expression.into());
        self
    }

    /// Only for nodes that run a service whose name matches this regular expression.
    pub fn service(mut self, expression: impl Into<String>) -> Self {
        self.service = Some(expression.into());
        self
    }

    /// Only for nodes that run such a service with a tag that matches; needs [`service`](Self::service).
    pub fn tag(mut self, expression: impl Into<String>) -> Self {
        self.tag = Some(expression.into());
        self
    }

    /// Fires it, and returns it with its id. Not repeated after a lost answer: it would come twice.
    ///
    /// # Errors
    /// As any write; [`Error::Rejected`](crate::Error::Rejected) when it is too large.
    pub async fn send(self) -> Result<Event> {
        let request = Request::put(format!("/v1/event/fire/{}", escape::path("event", &self.name)?))
            .maybe("node", self.node)
            .maybe("service", self.service)
            .maybe("tag", self.tag)
            .bytes(self.payload);
        Ok(self.client.read(request).await?.value)
    }
}

/// A user event.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
#[non_exhaustive]
pub struct Event {
    /// Unique.
    #[serde(rename = "ID")]
    pub id: String,
    /// Its name.
    pub name: String,
    /// What was sent along.
    #[serde(default, deserialize_with = "base64_bytes")]
    pub payload: Bytes,
    /// The filter for nodes; empty for all.
    #[serde(default, deserialize_with = "null_is_default")]
    pub node_filter: String,
    /// The filter for services; empty for all.
    #[serde(default, deserialize_with = "null_is_default")]
    pub service_filter: String,
    /// The filter for tags; empty for all.
    #[serde(default, deserialize_with = "null_is_default")]
    pub tag_filter: String,
    /// Serf's logical time; 0 in the answer to firing.
    #[serde(default, rename = "LTime")]
    pub ltime: u64,
}

/// Without the payload, which is the user's.
impl std::fmt::Debug for Event {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Event")
            .field("id", &self.id)
            .field("name", &self.name)
            .field("payload_bytes", &self.payload.len())
            .finish_non_exhaustive()
    }
}
