//! The engine client for what is not Swarm's: containers, images, networks, logs, statistics.

use bollard::{API_DEFAULT_VERSION, Docker};

use crate::client::Client;
use crate::endpoint::Endpoint;
use crate::error::{Error, Result};

impl Client {
    /// Bollard's client of the engine that this client uses at the moment.
    ///
    /// Do not update services through it: its types lose a service's health check and every field that they do not know.
    ///
    /// # Errors
    /// If bollard refuses the endpoint. Nothing is sent.
    pub fn bollard(&self) -> Result<Docker> {
        self.bollard_at(self.endpoint())
    }

    /// Bollard's client of this engine, with this client's request timeout.
    ///
    /// # Errors
    /// As for [`bollard`](Self::bollard).
    pub fn bollard_at(&self, endpoint: &Endpoint) -> Result<Docker> {
        // Bollard counts whole seconds, and 0 would be no time at all.
        let seconds = self.request_timeout().as_secs().max(1);
        let address = endpoint.to_string();
        match endpoint {
            Endpoint::Tcp { .. } => Docker::connect_with_http(&address, seconds, API_DEFAULT_VERSION),
            #[cfg(feature = "tls")]
            Endpoint::Tls { .. } => Docker::connect_with_custom_transport(
                over_tls(std::sync::Arc::clone(&self.engines), endpoint.clone()),
                Some(&address),
                seconds,
                API_DEFAULT_VERSION,
            ),
            #[cfg(unix)]
            Endpoint::Unix(_) => Docker::connect_with_unix(&address, seconds, API_DEFAULT_VERSION),
            #[cfg(not(unix))]
            Endpoint::Unix(_) => return Err(refused(address, "this system has no such sockets".to_owned())),
        }
        .map_err(|error| refused(address, error.to_string()))
    }
}

/// Bollard's requests over this crate's connections. Bollard's own TLS reads the system's authorities and another provider.
#[cfg(feature = "tls")]
fn over_tls(
    engines: std::sync::Arc<crate::managers::Engines>,
    endpoint: Endpoint,
) -> impl Fn(bollard::BollardRequest) -> Passed + Send + Sync + 'static {
    move |request| {
        let (engines, endpoint) = (std::sync::Arc::clone(&engines), endpoint.clone());
        Box::pin(async move {
            let sent = crate::transport::pass_on(&engines.wire, &endpoint, request).await;
            sent.map_err(|err| bollard::errors::Error::IOError { err })
        })
    }
}

#[cfg(feature = "tls")]
type Passed = std::pin::Pin<
    Box<
        dyn Future<Output = Result<http::Response<hyper::body::Incoming>, bollard::errors::Error>>
            + Send
            + 'static,
    >,
>;

fn refused(value: String, problem: String) -> Error {
    Error::Config {
        setting: "endpoint",
        value,
        problem,
        advice: "use unix:///path/to/docker.sock or tcp://host:2375",
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn both_kinds_of_endpoint_are_taken() {
        let limits =
            crate::transport::Limits { connect: Duration::ZERO, request: Duration::from_millis(10), body: 0 };
        let engines = crate::managers::Engines::new(
            Endpoint::Unix("/run/docker.sock".into()),
            Vec::new(),
            crate::transport::Wire::plain(limits),
            0,
        );
        let client = Client { engines: std::sync::Arc::new(engines) };
        // Bollard looks for the socket's file at once; the error names the endpoint.
        if let Err(error) = client.bollard() {
            assert!(error.to_string().starts_with("endpoint is \"unix:///run/docker.sock\": "), "{error}");
        }
        assert!(client.bollard_at(&"tcp://127.0.0.1:1".parse().unwrap()).is_ok());
    }
}
