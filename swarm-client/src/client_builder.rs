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
    /// As given: whether `tcp://` means TLS is known when all is.
    endpoints: Vec<Given>,
    limits: Limits,
    conflict_retries: u32,
    #[cfg(feature = "tls")]
    tls: Option<Tls>,
    #[cfg(feature = "tls")]
    tls_from_env: bool,
}

#[derive(Clone)]
enum Given {
    Text(String),
    Read(Endpoint),
}

impl ClientBuilder {
    /// Adds an engine: `unix:///run/docker.sock` or `tcp://HOST[:PORT]`. Several are several managers of one swarm; the first
    /// is used first.
    pub fn endpoint(mut self, endpoint: impl AsRef<str>) -> Self {
        self.endpoints.push(Given::Text(endpoint.as_ref().to_owned()));
        self
    }

    /// The certificates for endpoints with TLS (`https://HOST[:PORT]`). With several endpoints they hold for all.
    #[cfg(feature = "tls")]
    pub fn tls(mut self, tls: Tls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// As docker's own command line: where `DOCKER_TLS_VERIFY` is set, `tcp://` means TLS too, on port 2376 unless another is
    /// given. Endpoints with TLS then find their certificates in the folder that `DOCKER_CERT_PATH` names (`~/.docker` unless it
    /// is set), if [`tls`](Self::tls) gave none. [`Client::from_env`] does the same.
    #[cfg(feature = "tls")]
    pub fn tls_from_env(mut self) -> Self {
        self.tls_from_env = true;
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
        self.endpoints.push(Given::Read(endpoint));
        self
    }

    /// Asks the endpoints, in their order, until one answers.
    ///
    /// # Errors
    /// If an endpoint cannot be read, none was given, a certificate is missing, a timeout is zero, or none answers.
    pub async fn connect(self) -> Result<Client> {
        self.connect_by(|name| std::env::var(name).ok()).await
    }

    pub(crate) async fn connect_by(self, env: impl Fn(&str) -> Option<String>) -> Result<Client> {
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
        #[cfg(feature = "tls")]
        let tcp_is_tls = self.tls_from_env && crate::tls::is_asked_for(&env);
        #[cfg(not(feature = "tls"))]
        let (tcp_is_tls, _) = (false, env);
        let endpoints: Result<Vec<Endpoint>> = self
            .endpoints
            .into_iter()
            .map(|given| match given {
                Given::Text(text) => Endpoint::parse_as("endpoint", &text, tcp_is_tls),
                Given::Read(endpoint) => Ok(endpoint),
            })
            .collect();
        let endpoints = endpoints?;
        #[cfg(feature = "tls")]
        let tls = match endpoints.iter().find(|e| matches!(e, Endpoint::Tls { .. })) {
            Some(_) if self.tls.is_none() && self.tls_from_env => Some(Tls::from_env_dir(env)?),
            Some(endpoint) if self.tls.is_none() => {
                return Err(Error::Config {
                    setting: "endpoint",
                    value: endpoint.to_string(),
                    problem: "it wants TLS, and the client has no certificates".to_owned(),
                    advice: "give them with `tls(Tls::from_dir(..)?)` or `tls_from_env()`",
                });
            }
            _ => self.tls,
        };
        let wire = Wire {
            limits: self.limits,
            #[cfg(feature = "tls")]
            tls,
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
            #[cfg(feature = "tls")]
            tls_from_env: false,
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
        let endpoints = self.endpoints.iter().filter_map(|given| match given {
            Given::Text(text) => text.parse().ok(),
            Given::Read(endpoint) => Some(endpoint.clone()),
        });
        let endpoints: Vec<Endpoint> = endpoints.collect();
        f.debug_struct("ClientBuilder").field("endpoints", &endpoints).field("limits", &self.limits).finish()
    }
}

#[cfg(all(test, feature = "tls"))]
mod tests {
    use super::*;

    async fn refused(builder: ClientBuilder, env: &[(&str, &str)]) -> String {
        let env = |name: &str| env.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        builder.connect_by(env).await.err().map(|error| error.to_string()).unwrap_or_default()
    }

    #[tokio::test]
    async fn the_environment_asks_for_tls_as_docker_has_it() {
        let two =
            || Client::builder().tls_from_env().endpoint("tcp://127.0.0.1:1").endpoint("https://127.0.0.1:1");
        // Which file is missing is said, by its whole path.
        let text = refused(two(), &[("DOCKER_TLS_VERIFY", "1"), ("DOCKER_CERT_PATH", "/nonexistent")]).await;
        assert!(text.starts_with("DOCKER_CERT_PATH is \"/nonexistent/ca.pem\": No such file"), "{text}");
        let text = refused(two(), &[("HOME", "/nonexistent")]).await;
        assert!(text.starts_with("DOCKER_CERT_PATH is \"/nonexistent/.docker/ca.pem\": "), "{text}");
        // Set to nothing is not set, and a socket needs no certificate.
        let one = || Client::builder().tls_from_env().endpoint("tcp://127.0.0.1:1");
        let text = refused(one(), &[("DOCKER_TLS_VERIFY", ""), ("HOME", "/nonexistent")]).await;
        assert!(text.contains("could not connect to tcp://127.0.0.1:1"), "{text}");
        let socket = Client::builder().tls_from_env().endpoint("unix:///nonexistent/docker.sock");
        let text = refused(socket, &[("DOCKER_TLS_VERIFY", "1")]).await;
        assert!(text.contains("could not connect to unix:///nonexistent/docker.sock"), "{text}");
        // Nobody who did not ask for the environment gets it.
        let text =
            refused(Client::builder().endpoint("tcp://127.0.0.1:1"), &[("DOCKER_TLS_VERIFY", "1")]).await;
        assert!(text.contains("could not connect to tcp://127.0.0.1:1"), "{text}");
        let text = refused(Client::builder().endpoint("https://h"), &[]).await;
        assert!(text.contains("it wants TLS, and the client has no certificates"), "{text}");
    }
}
