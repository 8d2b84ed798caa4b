//! Sessions: what a lock hangs on.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{
    Client, Error, Query, Result,
    environment::go_duration,
    escape,
    request::{Request, millis},
    types::null_is_default,
};

/// See [`Client::sessions`].
#[derive(Debug, Clone)]
pub struct Sessions {
    client: Client,
}

impl Sessions {
    pub(crate) fn new(client: Client) -> Self {
        Self { client }
    }

    /// Creates a session and returns its id. Not repeated after a lost answer: an orphan with a TTL expires by itself.
    ///
    /// # Errors
    /// [`Error::Rejected`] for a TTL outside 10 s to 86,400 s or an unknown check; otherwise as any write.
    pub async fn create(&self, options: &SessionOptions) -> Result<String> {
        self.create_within(options, None).await
    }

    pub(crate) async fn create_within(
        &self,
        options: &SessionOptions,
        deadline: Option<Duration>,
    ) -> Result<String> {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Created {
            #[serde(rename = "ID")]
            id: String,
        }
        let mut request = Request::put("/v1/session/create").json(&Wire::from(options))?;
        request.deadline = deadline;
        Ok(self.client.read::<Created>(request).await?.value.id)
    }

    /// Starts the session's TTL anew. Consul lets a session live for up to twice its TTL; do not count on more than once.
    ///
    /// # Errors
    /// [`Error::NotFound`] when the session is gone.
    pub async fn renew(&self, id: &str) -> Result<Session> {
        let request = renew_request(id)?;
        let sessions: Vec<Session> = self.client.read(request.clone()).await?.value;
        sessions.into_iter().next().ok_or_else(|| empty(&request))
    }

    /// Ends the session. Its keys stay barred for the lock delay. An unknown id is no error.
    ///
    /// # Errors
    /// As any write.
    pub async fn destroy(&self, id: &str) -> Result<()> {
        self.client.call(&destroy_request(id)?).await.map(drop)
    }

    /// The session, or `None` when it is gone.
    ///
    /// # Errors
    /// As any read.
    pub async fn info(&self, id: &str) -> Result<Option<Session>> {
        let path = format!("/v1/session/info/{}", escape::path("session id", id)?);
        let request = Request::get(path).shown_as("/v1/session/info/..");
        Ok(self.client.read::<Vec<Session>>(request).await?.value.into_iter().next())
    }

    /// All sessions.
    pub fn list(&self) -> Query<Session> {
        Query::new(self.client.clone(), Ok(Request::get("/v1/session/list")))
    }

    /// The sessions that are tied to a node.
    pub fn of_node(&self, name: &str) -> Query<Session> {
        let path = escape::path("node", name).map(|name| format!("/v1/session/node/{name}"));
        Query::new(self.client.clone(), path.map(Request::get))
    }
}

/// What a new session shall be. The default is Consul's: it lives with the agent's node, and has a lock delay of 15 s.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[must_use]
pub struct SessionOptions {
    name: Option<String>,
    ttl: Option<Duration>,
    lock_delay: Option<Duration>,
    behavior: Option<Behavior>,
    checks: Option<Vec<String>>,
    node: Option<String>,
}

impl SessionOptions {
    /// A name for people.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// How long it lives without a renewal: 10 s to 86,400 s. Consul waits for up to twice that.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl);
        self
    }

    /// How long its keys stay barred after it ended otherwise than by release: 0 to 60 s.
    pub fn lock_delay(mut self, delay: Duration) -> Self {
        self.lock_delay = Some(delay);
        self
    }

    /// What happens to its keys when it ends.
    pub fn behavior(mut self, behavior: Behavior) -> Self {
        self.behavior = Some(behavior);
        self
    }

    /// The node checks that end it when they fail; Consul's default is `serfHealth`, an empty list means the TTL alone.
    pub fn checks<I: IntoIterator<Item = S>, S: Into<String>>(mut self, checks: I) -> Self {
        self.checks = Some(checks.into_iter().map(Into::into).collect());
        self
    }

    /// The node that it lives with, instead of the agent's own. In another data centre than the agent's one of that must be named,
    /// with an empty list of [`checks`](Self::checks) or that node's own.
    pub fn node(mut self, name: impl Into<String>) -> Self {
        self.node = Some(name.into());
        self
    }
}

/// What happens to a session's keys when it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Behavior {
    /// They are released and stay.
    Release,
    /// They are deleted.
    Delete,
}

/// A session. The id is left out of `Debug`: whoever knows it can end it.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
#[non_exhaustive]
pub struct Session {
    /// The id.
    #[serde(rename = "ID")]
    pub id: String,
    /// The name for people.
    #[serde(default, deserialize_with = "null_is_default")]
    pub name: String,
    /// The node that it is tied to.
    #[serde(default, deserialize_with = "null_is_default")]
    pub node: String,
    /// What happens to its keys.
    pub behavior: Behavior,
    /// The TTL as Consul writes it, e.g. `15s`; empty without one. See [`ttl_duration`](Self::ttl_duration).
    #[serde(default, rename = "TTL", deserialize_with = "null_is_default")]
    pub ttl: String,
    /// How long its keys stay barred after it ended (nanoseconds on the wire).
    #[serde(default, deserialize_with = "nanos")]
    pub lock_delay: Duration,
    /// The node checks that end it when they fail.
    #[serde(default, alias = "Checks", deserialize_with = "null_is_default")]
    pub node_checks: Vec<String>,
    /// The index at which it was created.
    #[serde(default)]
    pub create_index: u64,
}

impl Session {
    /// The TTL, if it has one.
    pub fn ttl_duration(&self) -> Option<Duration> {
        go_duration(&self.ttl)
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("name", &self.name)
            .field("node", &self.node)
            .field("ttl", &self.ttl)
            .finish_non_exhaustive()
    }
}

fn nanos<'de, D: serde::Deserializer<'de>>(deserializer: D) -> std::result::Result<Duration, D::Error> {
    // Go's durations are signed.
    let nanos = Option::<i64>::deserialize(deserializer)?.unwrap_or_default();
    Ok(Duration::from_nanos(nanos.max(0).unsigned_abs()))
}

pub(crate) fn renew_request(id: &str) -> Result<Request> {
    let path = format!("/v1/session/renew/{}", escape::path("session id", id)?);
    Ok(Request::put(path).shown_as("/v1/session/renew/..").repeatable())
}

pub(crate) fn destroy_request(id: &str) -> Result<Request> {
    let path = format!("/v1/session/destroy/{}", escape::path("session id", id)?);
    Ok(Request::put(path).shown_as("/v1/session/destroy/..").repeatable())
}

fn empty(request: &Request) -> Error {
    Error::Decode {
        endpoint: request.endpoint(),
        reason: "a list without the session".to_owned(),
        write: true,
    }
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Wire<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(rename = "TTL", skip_serializing_if = "Option::is_none")]
    ttl: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lock_delay: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    behavior: Option<Behavior>,
    #[serde(skip_serializing_if = "Option::is_none")]
    checks: Option<&'a [String]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<&'a str>,
}

impl<'a> From<&'a SessionOptions> for Wire<'a> {
    fn from(options: &'a SessionOptions) -> Self {
        Self {
            name: options.name.as_deref(),
            ttl: options.ttl.map(millis),
            lock_delay: options.lock_delay.map(millis),
            behavior: options.behavior,
            checks: options.checks.as_deref(),
            node: options.node.as_deref(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_set_is_sent() {
        let wire = |options: &SessionOptions| serde_json::to_value(Wire::from(options)).unwrap();
        assert_eq!(wire(&SessionOptions::default()), serde_json::json!({}));
        let options = SessionOptions::default()
            .ttl(Duration::from_secs(15))
            .lock_delay(Duration::ZERO)
            .checks(Vec::<String>::new());
        assert_eq!(wire(&options), serde_json::json!({"TTL": "15000ms", "LockDelay": "0ms", "Checks": []}));
    }

    #[test]
    fn a_session_id_is_in_no_message() {
        assert!(!renew_request("abc-id").unwrap().endpoint().contains("abc-id"));
        assert_eq!(renew_request("abc-id").unwrap().target(), "/v1/session/renew/abc-id");
    }
}
