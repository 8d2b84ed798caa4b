//! TLS to the engine: who it must be, and who we are.
//!
//! An engine that listens on TCP and asks for a client certificate gives root to whoever holds one, so both sides are always
//! verified: there is no switch that turns this off.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::error::{Error, Result};
use crate::tls_refusal::{is_alert, refusal};

/// The certificates for TLS to the engine. Debug shows none of them.
#[derive(Clone)]
pub struct Tls {
    config: Arc<ClientConfig>,
    has_identity: bool,
}

impl Tls {
    /// From PEM texts: the authority that signed the engine's certificate, and, if the engine asks for one, this client's own
    /// certificate with its private key.
    ///
    /// # Errors
    /// [`Error::Config`], which names the part that cannot be used.
    pub fn from_pem(ca: &[u8], identity: Option<(&[u8], &[u8])>) -> Result<Self> {
        let bad = |part: &'static str, problem: String| Error::Config {
            setting: "tls",
            value: part.to_owned(),
            problem,
            advice: "give PEM files as `docker` has them: ca.pem, cert.pem, key.pem",
        };
        let mut roots = RootCertStore::empty();
        for cert in certificates(ca).map_err(|problem| bad("ca", problem))? {
            roots.add(cert).map_err(|error| bad("ca", error.to_string()))?;
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| bad("protocol", error.to_string()))?
            .with_root_certificates(roots);
        let has_identity = identity.is_some();
        let config = match identity {
            None => builder.with_no_client_auth(),
            Some((cert, key)) => {
                let chain = certificates(cert).map_err(|problem| bad("cert", problem))?;
                // The parser's words could repeat a piece of the key.
                let key = PrivateKeyDer::from_pem_slice(key)
                    .map_err(|_| bad("key", "it holds no private key in PEM form".to_owned()))?;
                builder
                    .with_client_auth_cert(chain, key)
                    .map_err(|error| bad("cert and key", error.to_string()))?
            }
        };
        Ok(Self { config: Arc::new(config), has_identity })
    }

    /// As docker's own command line has them: `None` unless `DOCKER_TLS_VERIFY` is set; then from the folder that
    /// `DOCKER_CERT_PATH` names, or `~/.docker`.
    ///
    /// # Errors
    /// As for [`from_dir`](Self::from_dir).
    pub fn from_env() -> Result<Option<Self>> {
        let env = |name: &str| std::env::var(name).ok();
        if is_asked_for(env) { Self::from_env_dir(env).map(Some) } else { Ok(None) }
    }

    pub(crate) fn from_env_dir(env: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let set = |name: &str| env(name).filter(|value| !value.is_empty());
        let dir = set("DOCKER_CERT_PATH").map(PathBuf::from);
        Self::from_dir(dir.unwrap_or_else(|| PathBuf::from(set("HOME").unwrap_or_default()).join(".docker")))
    }

    /// From a folder as `DOCKER_CERT_PATH` names it: `ca.pem`, and `cert.pem` with `key.pem` unless neither is there.
    ///
    /// # Errors
    /// [`Error::Config`], which names the file that cannot be read or used.
    pub fn from_dir(dir: impl AsRef<Path>) -> Result<Self> {
        let dir = dir.as_ref();
        let read = |name: &str| {
            let path = dir.join(name);
            std::fs::read(&path).map_err(|error| {
                (
                    error.kind(),
                    Error::Config {
                        setting: "DOCKER_CERT_PATH",
                        value: path.display().to_string(),
                        problem: error.to_string(),
                        advice: "name the folder that holds ca.pem, cert.pem and key.pem",
                    },
                )
            })
        };
        let ca = read("ca.pem").map_err(|(_, error)| error)?;
        match (read("cert.pem"), read("key.pem")) {
            (Ok(cert), Ok(key)) => Self::from_pem(&ca, Some((&cert, &key))),
            (Err((io::ErrorKind::NotFound, _)), Err((io::ErrorKind::NotFound, _))) => {
                Self::from_pem(&ca, None)
            }
            (Err((_, error)), _) | (_, Err((_, error))) => Err(error),
        }
    }

    pub(crate) async fn connect(&self, host: &str, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let name = ServerName::try_from(host.to_owned()).map_err(|_| {
            io::Error::new(io::ErrorKind::InvalidInput, "the host's name fits no certificate")
        })?;
        let connected = TlsConnector::from(Arc::clone(&self.config)).connect(name, stream).await;
        connected.map_err(|error| self.refusal(&error).unwrap_or(error))
    }

    /// The refusal of a certificate that an error stands for, if it does.
    fn refusal(&self, error: &(dyn std::error::Error + 'static)) -> Option<io::Error> {
        refusal(error, self.has_identity)
    }

    /// The same after the handshake, where only an alert is a refusal: with TLS 1.3 an engine looks at the client's certificate last. Whatever else
    /// happens then broke a stream on which something may have been done.
    pub(crate) fn late_refusal(&self, error: &(dyn std::error::Error + 'static)) -> Option<io::Error> {
        self.refusal(error).filter(|_| is_alert(error))
    }
}

/// Whether the environment wants TLS for `tcp://` addresses.
pub(crate) fn is_asked_for(env: impl Fn(&str) -> Option<String>) -> bool {
    env("DOCKER_TLS_VERIFY").is_some_and(|value| !value.is_empty())
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tls(redacted)")
    }
}

fn certificates(pem: &[u8]) -> std::result::Result<Vec<CertificateDer<'static>>, String> {
    let all: std::result::Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let all = all.map_err(|_| "it is not readable as PEM".to_owned())?;
    if all.is_empty() { Err("it holds no certificate".to_owned()) } else { Ok(all) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_used_is_named_and_a_key_is_never_shown() {
        let error = Tls::from_pem(b"nothing", None).unwrap_err().to_string();
        assert!(error.starts_with("tls is \"ca\": it holds no certificate; "), "{error}");
        let made = rcgen::generate_simple_self_signed(["engine".to_owned()]).unwrap();
        let ca = made.cert.pem();
        let broken = "-----BEGIN PRIVATE KEY-----\nhunter2\n-----END PRIVATE KEY-----\n";
        let error = Tls::from_pem(ca.as_bytes(), Some((ca.as_bytes(), broken.as_bytes()))).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
        let error = Tls::from_dir("/nonexistent").unwrap_err().to_string();
        assert!(error.starts_with("DOCKER_CERT_PATH is \"/nonexistent/ca.pem\": "), "{error}");
        assert_eq!(format!("{:?}", Tls::from_pem(ca.as_bytes(), None).unwrap()), "Tls(redacted)");
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
            let _ = Tls::from_pem(&bytes, Some((&bytes, &bytes)));
        }
    }
}
