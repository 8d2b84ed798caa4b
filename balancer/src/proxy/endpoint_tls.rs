//! TLS to endpoints.

use std::fmt;
use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};

use super::config::Protocol;
use super::tls::TlsError;

/// How endpoints prove who they are, and what the gateway shows them; TLS 1.2 and 1.3.
///
/// Endpoints are reached by address and come and go, so that all of them prove one name, the service's own: a name in
/// their certificates, or an address where they have one. It is sent as SNI too. Only the authorities that are given are
/// believed: what the machine trusts for browsers says nothing about who may answer for a service.
#[derive(Clone)]
pub struct EndpointTls {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

impl EndpointTls {
    /// Endpoints prove `name` by certificates of these authorities, each a PEM with one or several.
    ///
    /// # Errors
    /// A name that is none, no authority, or the first that can't be used.
    pub fn new<'a>(name: &str, authorities: impl IntoIterator<Item = &'a [u8]>) -> Result<Self, TlsError> {
        Self::with(name, authorities, None)
    }

    /// The same, and the gateway proves itself by this certificate chain and key, both as PEM.
    ///
    /// # Errors
    /// As [`new`](Self::new), and a pair that can't be used.
    pub fn with_certificate<'a>(
        name: &str,
        authorities: impl IntoIterator<Item = &'a [u8]>,
        chain: &[u8],
        key: &[u8],
    ) -> Result<Self, TlsError> {
        Self::with(name, authorities, Some((chain, key)))
    }

    fn with<'a>(
        name: &str,
        authorities: impl IntoIterator<Item = &'a [u8]>,
        own: Option<(&[u8], &[u8])>,
    ) -> Result<Self, TlsError> {
        let server = ServerName::try_from(name.to_owned());
        let server = server.map_err(|_| TlsError::Name { name: name.to_owned() })?;
        let mut roots = RootCertStore::empty();
        for (n, pem) in authorities.into_iter().enumerate() {
            let of = format!("authority {n}");
            for certificate in certificates(&of, pem)? {
                roots.add(certificate).map_err(|source| TlsError::Pair { of: of.clone(), source })?;
            }
        }
        if roots.is_empty() {
            return Err(TlsError::None);
        }
        let pair = |source| TlsError::Pair { of: "the gateway's certificate".into(), source };
        let provider = Arc::new(aws_lc_rs::default_provider());
        let versions = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let builder = versions.map_err(pair)?.with_root_certificates(roots);
        let config = match own {
            None => builder.with_no_client_auth(),
            Some((chain, key)) => {
                let of = "the gateway's certificate";
                let key = PrivateKeyDer::from_pem_slice(key)
                    .map_err(|source| TlsError::Pem { of: of.into(), source })?;
                builder.with_client_auth_cert(certificates(of, chain)?, key).map_err(pair)?
            }
        };
        Ok(Self { config: Arc::new(config), name: server })
    }

    /// For endpoints that are spoken to like this.
    pub(crate) fn speaking(&self, protocol: Protocol) -> Self {
        let mut config = ClientConfig::clone(&self.config);
        config.alpn_protocols = vec![match protocol {
            Protocol::Http1 => b"http/1.1".to_vec(),
            Protocol::Http2 => b"h2".to_vec(),
        }];
        Self { config: Arc::new(config), name: self.name.clone() }
    }

    pub(crate) fn connector(&self) -> tokio_rustls::TlsConnector {
        Arc::clone(&self.config).into()
    }

    pub(crate) fn name(&self) -> ServerName<'static> {
        self.name.clone()
    }
}

impl PartialEq for EndpointTls {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.config, &other.config) && self.name == other.name
    }
}

impl fmt::Debug for EndpointTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EndpointTls").field("name", &self.name).finish_non_exhaustive()
    }
}

fn certificates(of: &str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let read = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>();
    read.map_err(|source| TlsError::Pem { of: of.to_owned(), source })
}
