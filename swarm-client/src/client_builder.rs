//! The settings of a client.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::client::Client;
use crate::endpoint::Endpoint;
use crate::error::{Error, Result};
use crate::managers::Engines;
#[cfg(feature = "tls")]
use crate::tls::Tls;
use crate::transport::{Limits, Wire};

/// Settings of a [`Client`].
#[derive(Clone)]
#[must_use]
pub struct ClientBuilder {
    endpoints: Vec<Result<Endpoint, String>>,
    limits: Limits,
    conflict_retries: u32,
    #[cfg(feature = "tls")]
    tls: Option<Tls>,
}

impl ClientBuilder {
    /// Adds an engine: `unix:///run/docker.sock` or `tcp://HOST[:PORT]`. Several are several managers of one swarm; the first
    /// is used first.
    pub fn endpoint(mut self, endpoint: impl AsRef<str>) -> Self {
        let text = endpoint.as_ref();
        self.endpoints.push(text.parse().map_err(|_| text.to_owned()));
        self
    }

    /// The certificates for endpoints with TLS (`https://HOST[:PORT]`). With several endpoints they hold for all.
    #[cfg(feature = "tls")]
    pub fn tls(mut self, tls: Tls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// For one connection. The default is 3 seconds: a host on the same site answers within one, and one lost packet costs
    /// another.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.limits.connect = timeout;
        self
    }

    /// For one request, from its sending to the end of the answer. The default is 30 seconds: a manager gives up by itself
    /// after 20. With several managers a shorter one finds the good one sooner when another is cut off.
    pub fn request_timeout(mut self, timeout: Duration) -> Self {
        self.limits.request = timeout;
        self
    }

    /// The longest answer that is read, in bytes. The default is 64 MiB.
    pub fn max_body(mut self, bytes: usize) -> Self {
        self.limits.body = bytes;
        self
    }

    /// How often a change is read and written anew because another writer came between, before the conflict is returned. The
    /// default is 60, and never longer than 30 seconds: with a dozen writers at once each gets through after some tries.
    pub fn max_conflict_retries(mut self, retries: u32) -> Self {
        self.conflict_retries = retries;
        self
    }

    pub(crate) fn push(mut self, endpoint: Endpoint) -> Self {
        self.endpoints.push(Ok(endpoint));
        self
    }

    /// Asks the endpoints, in their order, until one answers.
    ///
    /// # Errors
    /// If an endpoint cannot be read, none was given, a timeout is zero, or none answers.
    pub async fn connect(self) -> Result<Client> {
        for (setting, value) in
            [("connect_timeout", self.limits.connect), ("request_timeout", self.limits.request)]
        {
            if value.is_zero() {
                return Err(Error::Config {
                    setting,
                    value: format!("{value:?}"),
                    problem: "nothing answers in no time".to_owned(),
                    advice: "use some seconds",
                });
            }
        }
        let mut endpoints = Vec::new();
        for endpoint in self.endpoints {
            endpoints.push(endpoint.or_else(|text| text.parse())?);
        }
        #[cfg(feature = "tls")]
        if self.tls.is_none()
            && let Some(endpoint) = endpoints.iter().find(|e| matches!(e, Endpoint::Tls { .. }))
        {
            return Err(Error::Config {
                setting: "endpoint",
                value: endpoint.to_string(),
                problem: "it wants TLS, and the client has no certificates".to_owned(),
                advice: "give them with `tls(Tls::from_dir(..)?)`",
            });
        }
        let wire = Wire {
            limits: self.limits,
            #[cfg(feature = "tls")]
            tls: self.tls,
        };
        let mut endpoints = endpoints.into_iter();
        let Some(first) = endpoints.next() else {
            return Err(Error::Config {
                setting: "endpoint",
                value: String::new(),
                problem: "the client has none".to_owned(),
                advice: "add at least one, such as unix:///var/run/docker.sock",
            });
        };
        let engines = Engines::new(first, endpoints.collect(), wire, self.conflict_retries);
        engines.connect().await?;
        Ok(Client { engines: Arc::new(engines) })
    }
}

impl Default for ClientBuilder {
    fn default() -> Self {
        Self {
            conflict_retries: 60,
            #[cfg(feature = "tls")]
            tls: None,
            endpoints: Vec::new(),
            limits: Limits {
                connect: Duration::from_secs(3),
                request: Duration::from_secs(30),
                body: 64 << 20,
            },
        }
    }
}

impl fmt::Debug for ClientBuilder {
    /// Leaves out what could not be read, which may hold a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let endpoints: Vec<&Endpoint> = self.endpoints.iter().flatten().collect();
        f.debug_struct("ClientBuilder").field("endpoints", &endpoints).field("limits", &self.limits).finish()
    }
}
