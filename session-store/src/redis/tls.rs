//! TLS to Redis and its Sentinels: rustls with aws-lc-rs, set up here once and not by redis-rs, which would read the machine's certificates at each connect
//! and take whatever provider the process has installed.

use crate::{connect::config, error::StoreError};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};
use std::{fmt, sync::Arc};

/// How a server's certificate is checked, and what this side shows of itself. For `rediss://` and `rediss+sentinel://`; what a URL says
/// (`ca`, `cert`, `key`, `server-name`) goes before.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let (ca, cert, key) = (vec![], vec![], vec![]);
/// let tls = session_store::TlsOptions::new().ca_pem(ca).client_pem(cert, key).server_name("redis.internal");
/// let options = session_store::StoreOptions::new().tls(tls);
/// # drop(options); Ok(()) }
/// ```
#[derive(Clone, Default)]
pub struct TlsOptions {
    pub(super) ca: Option<Vec<u8>>,
    pub(super) client: Option<(Vec<u8>, Vec<u8>)>,
    pub(super) server_name: Option<String>,
}

impl TlsOptions {
    /// The certificates that this machine trusts, the name that the URL or the Sentinels say, and no certificate of its own.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Trusts these certificates (PEM, one or more) and no others.
    #[must_use]
    pub fn ca_pem(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.ca = Some(pem.into());
        self
    }

    /// Shows this certificate (PEM, with the chain), for servers that ask for one (`tls-auth-clients`), and proves it by this key (PEM).
    #[must_use]
    pub fn client_pem(mut self, certificate: impl Into<Vec<u8>>, key: impl Into<Vec<u8>>) -> Self {
        self.client = Some((certificate.into(), key.into()));
        self
    }

    /// Expects this name in every server's certificate, whatever address it is reached at. Sentinels usually name a master by its IP address.
    #[must_use]
    pub fn server_name(mut self, name: impl Into<String>) -> Self {
        self.server_name = Some(name.into());
        self
    }

    /// Ready to connect with. What is wrong with it is said now.
    pub(super) fn build(&self, url: &str) -> Result<Tls, StoreError> {
        let bad = |reason: String| config(url, reason, HINT);
        let mut roots = RootCertStore::empty();
        match &self.ca {
            Some(pem) => {
                for certificate in CertificateDer::pem_slice_iter(pem) {
                    let certificate =
                        certificate.map_err(|error| bad(format!("its CA is no PEM: {error:?}")))?;
                    roots.add(certificate).map_err(|error| bad(format!("its CA cannot be used: {error}")))?;
                }
                if roots.is_empty() {
                    return Err(bad("its CA holds no certificate".into()));
                }
            }
            None => {
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
                if roots.is_empty() {
                    return Err(bad("this machine trusts no certificates".into()));
                }
            }
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let builder = builder.map_err(|error| bad(error.to_string()))?.with_root_certificates(roots);
        let settings = match &self.client {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                let chain = CertificateDer::pem_slice_iter(certificate).collect::<Result<Vec<_>, _>>();
                let chain =
                    chain.map_err(|error| bad(format!("the client's certificate is no PEM: {error:?}")))?;
                // What a parser says about a key may quote it.
                let key = PrivateKeyDer::from_pem_slice(key)
                    .map_err(|_| bad("the client's key is no private key in PEM".into()))?;
                builder
                    .with_client_auth_cert(chain, key)
                    .map_err(|error| bad(format!("the client's certificate cannot be used: {error}")))?
            }
        };
        let server_name = self.server_name.as_deref().map(name).transpose();
        let server_name = server_name.map_err(|name| bad(format!("{name:?} is no name of a server")))?;
        Ok(Tls { settings: Arc::new(settings), server_name })
    }
}

impl fmt::Debug for TlsOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsOptions")
            .field("own_ca", &self.ca.is_some())
            .field("shows_certificate", &self.client.is_some())
            .field("server_name", &self.server_name)
            .finish()
    }
}

/// TLS as it is used at each connect.
#[derive(Clone)]
pub(super) struct Tls {
    pub(super) settings: Arc<ClientConfig>,
    server_name: Option<ServerName<'static>>,
}

impl Tls {
    /// The name that the certificate of the server at `host` has to hold.
    pub(super) fn name_of(&self, host: &str) -> Result<ServerName<'static>, String> {
        self.server_name.clone().map_or_else(|| name(host), Ok)
    }
}

fn name(text: &str) -> Result<ServerName<'static>, String> {
    ServerName::try_from(text.to_owned()).map_err(|_| text.to_owned())
}

const HINT: &str = "write ?ca=PATH to trust a CA, ?cert=PATH&key=PATH to show a certificate, ?server-name=NAME to expect another name";
