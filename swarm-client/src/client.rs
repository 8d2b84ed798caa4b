//! The client: what it hands out.

use std::fmt;
use std::sync::Arc;
#[cfg(feature = "bollard")]
use std::time::Duration;

use bytes::Bytes;
use serde::de::DeserializeOwned;

use crate::blobs::{Configs, Secrets};
use crate::client_builder::ClientBuilder;
use crate::endpoint::Endpoint;
use crate::error::{Error, Result};
use crate::managers::Engines;
use crate::model::EngineInfo;
use crate::networks::Networks;
use crate::nodes::Nodes;
use crate::request::{Request, Target, without_values};
use crate::services::Services;
use crate::swarm::SwarmApi;
use crate::tasks::Tasks;
use crate::transport::Pieces;

/// A client of one swarm, through one or several of its engines. Cloning is cheap, and clones share what they learn.
///
/// With several endpoints a call goes to the one that answered last, and moves on when that one cannot be reached, is no
/// manager, is locked or sees no leader. Reads move on after a timeout or a broken answer too; writes do not, unless the
/// answer proves that nothing was done or the write may be done twice. For each endpoint a call takes at most the
/// connect and the request timeout together, whatever it has to ask there; a change that meets other writers is several calls.
#[derive(Clone)]
pub struct Client {
    pub(crate) engines: Arc<Engines>,
}

impl Client {
    /// Connects to the engine that the environment names: `DOCKER_HOST`, or else the local socket (`/var/run/docker.sock`, or
    /// the one of a rootless or desktop installation). Docker's contexts are not read.
    ///
    /// # Errors
    /// If the setting cannot be used, or if the engine does not answer: the message names both and what to do.
    pub async fn from_env() -> Result<Self> {
        Self::from_lookup(|name| std::env::var(name).ok()).await
    }

    async fn from_lookup(env: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let endpoint = Endpoint::from_env(&env, std::path::Path::exists)?;
        let builder = ClientBuilder::default();
        #[cfg(feature = "tls")]
        let builder = builder.tls_from_env();
        let what = match env("DOCKER_HOST").filter(|value| !value.is_empty()) {
            Some(value) => format!("connect (DOCKER_HOST is {value:?})"),
            None => "connect (DOCKER_HOST is not set, so the local socket is used)".to_owned(),
        };
        builder.push(endpoint).connect_by(env).await.map_err(|error| match error {
            Error::Unreachable { endpoint, source, .. } => Error::Unreachable { what, endpoint, source },
            other => other,
        })
    }

    /// Starts a client of chosen engines.
    pub fn builder() -> ClientBuilder {
        ClientBuilder::default()
    }

    /// What the engine says of itself. With several endpoints it is the one that the client uses at the moment.
    ///
    /// # Errors
    /// If no engine answers.
    pub async fn info(&self) -> Result<EngineInfo> {
        self.call(Request::get("read the engine's info", &["info"]).target(Target::AnyEngine)).await
    }

    /// The swarm as a whole: init, join, leave, tokens, settings.
    #[must_use]
    pub fn swarm(&self) -> SwarmApi {
        SwarmApi::new(self.clone())
    }

    /// The services.
    #[must_use]
    pub fn services(&self) -> Services {
        Services::new(self.clone())
    }

    /// The nodes.
    #[must_use]
    pub fn nodes(&self) -> Nodes {
        Nodes::new(self.clone())
    }

    /// The tasks.
    #[must_use]
    pub fn tasks(&self) -> Tasks {
        Tasks::new(self.clone())
    }

    /// The secrets.
    #[must_use]
    pub fn secrets(&self) -> Secrets {
        Secrets::new(self.clone())
    }

    /// The configs.
    #[must_use]
    pub fn configs(&self) -> Configs {
        Configs::new(self.clone())
    }

    /// The networks of the swarm.
    #[must_use]
    pub fn networks(&self) -> Networks {
        Networks::new(self.clone())
    }

    /// The endpoint that calls go to first at the moment.
    #[must_use]
    pub fn endpoint(&self) -> &Endpoint {
        &self.engines.current().endpoint
    }

    /// All endpoints, in the order given.
    pub fn endpoints(&self) -> impl Iterator<Item = &Endpoint> {
        self.engines.sites().map(|site| &site.endpoint)
    }

    #[cfg(feature = "bollard")]
    pub(crate) fn request_timeout(&self) -> Duration {
        self.engines.wire.limits.request
    }

    pub(crate) fn conflict_retries(&self) -> u32 {
        self.engines.conflict_retries
    }

    /// Calls and reads the answer.
    pub(crate) async fn call<T: DeserializeOwned>(&self, request: Request) -> Result<T> {
        let (answer, endpoint) = self.engines.send(&request).await?;
        serde_json::from_slice(&answer.body).map_err(|error| Error::Decode {
            what: request.what,
            endpoint,
            problem: without_values(&error.to_string()),
        })
    }

    /// Calls and hands out the answer piece by piece.
    pub(crate) async fn open(&self, request: Request) -> Result<Opened> {
        let request = request.stream();
        let (answer, endpoint) = self.engines.send(&request).await?;
        let missing = || Error::Decode {
            what: request.what.clone(),
            endpoint: endpoint.clone(),
            problem: "it has no body".to_owned(),
        };
        let pieces = answer.stream.ok_or_else(missing)?;
        Ok(Opened { pieces, what: request.what, endpoint })
    }

    /// Calls and hands out the answer's bytes.
    pub(crate) async fn call_bytes(&self, request: Request) -> Result<(Bytes, Endpoint)> {
        let (answer, endpoint) = self.engines.send(&request).await?;
        Ok((answer.body, endpoint))
    }

    /// Calls and drops the answer's body.
    pub(crate) async fn call_unit(&self, request: Request) -> Result<()> {
        self.engines.send(&request).await.map(|_| ())
    }
}

/// An answer that is read piece by piece.
#[derive(Debug)]
pub(crate) struct Opened {
    pieces: Pieces,
    what: String,
    pub(crate) endpoint: Endpoint,
}

impl Opened {
    /// The next piece, or `None` at the proper end.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>> {
        self.pieces.next().await.map_err(|error| Error::Interrupted {
            what: self.what.clone(),
            endpoint: self.endpoint.clone(),
            source: error.into(),
        })
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let endpoints: Vec<String> = self.endpoints().map(ToString::to_string).collect();
        f.debug_struct("Client").field("endpoints", &endpoints).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_failed_start_names_the_setting_its_value_and_what_to_do() {
        let from = |host: &'static str| {
            Client::from_lookup(move |name| (name == "DOCKER_HOST").then(|| host.to_owned()))
        };
        let error = from("unix:///nonexistent/docker.sock").await.unwrap_err();
        assert!(error.is_unreachable());
        let text = error.to_string();
        assert!(text.starts_with("connect (DOCKER_HOST is \"unix:///nonexistent/docker.sock\"): "), "{text}");
        assert!(text.ends_with("check that the engine runs and that the address is right"), "{text}");
        let text = from("ssh://h").await.unwrap_err().to_string();
        assert!(text.starts_with("DOCKER_HOST is \"ssh://h\": ssh is not supported"), "{text}");
    }
}
