//! TLS: rustls with aws-lc-rs, given to each connection ready-made, so that no process-wide default is set or needed.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
};

use crate::{Error, Result, environment::TlsEnvironment};

/// How the agent's certificate is checked, and how this client proves who it is.
///
/// Without an authority of its own the system's certificates are trusted. Files are read when the client is built.
///
/// ```no_run
/// # fn run() -> consul_client::Result<()> {
/// use consul_client::{Client, Tls};
///
/// let tls = Tls::default().ca_file("ca.pem").identity("client.pem", "client-key.pem").server_name("server.dc1.consul");
/// let consul = Client::builder().address("https://10.0.0.7:8501").tls(tls).build()?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[must_use]
pub struct Tls {
    ca_files: Vec<PathBuf>,
    ca_dir: Option<PathBuf>,
    identity: Option<(PathBuf, PathBuf)>,
    server_name: Option<String>,
    unverified: bool,
}

impl Tls {
    /// Trusts the authorities in this PEM file, and no others than those that are named.
    pub fn ca_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.ca_files.push(path.into());
        self
    }

    /// Trusts the authorities in the files of this directory that hold PEM.
    pub fn ca_dir(mut self, path: impl Into<PathBuf>) -> Self {
        self.ca_dir = Some(path.into());
        self
    }

    /// Proves who this client is: a PEM file with the certificate (and what it was issued by), and one with its key.
    pub fn identity(mut self, certificate: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        self.identity = Some((certificate.into(), key.into()));
        self
    }

    /// The name that the agent's certificate must carry, instead of the address: Consul's own certificates are made out for
    /// `server.<data centre>.consul`.
    pub fn server_name(mut self, name: impl Into<String>) -> Self {
        self.server_name = Some(name.into());
        self
    }

    /// Takes any certificate. Whoever sits between this client and the agent can then read the token and everything else.
    pub fn danger_accept_any_certificate(mut self) -> Self {
        self.unverified = true;
        self
    }

    pub(crate) fn from_env(env: TlsEnvironment) -> Self {
        Self {
            ca_files: env.ca_file.into_iter().collect(),
            ca_dir: env.ca_dir,
            identity: env.identity,
            server_name: env.server_name,
            unverified: env.unverified,
        }
    }

    pub(crate) fn config(&self) -> Result<ClientConfig> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let broken = |error: rustls::Error| Error::setting("tls", "", format!("cannot be set up: {error}"));
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(broken)?;
        let builder = builder.dangerous().with_custom_certificate_verifier(self.verifier(provider)?);
        let Some((certificate, key)) = &self.identity else {
            return Ok(builder.with_no_client_auth());
        };
        let chain = certificates("client certificate", certificate)?;
        let key_pem = read("client key", key)?;
        let secret = PrivateKeyDer::from_pem_slice(&key_pem).map_err(|_| {
            Error::setting("client key", &key.display().to_string(), "holds no private key in PEM")
        })?;
        builder.with_client_auth_cert(chain, secret).map_err(|error| {
            let value = certificate.display().to_string();
            Error::setting("client certificate", &value, format!("does not go with its key: {error}"))
        })
    }

    fn verifier(&self, provider: Arc<CryptoProvider>) -> Result<Arc<dyn ServerCertVerifier>> {
        if self.unverified {
            return Ok(Arc::new(Checked { provider, rule: Rule::Any }));
        }
        let inner: Arc<dyn ServerCertVerifier> = if self.ca_files.is_empty() && self.ca_dir.is_none() {
            let system = rustls_platform_verifier::Verifier::new(Arc::clone(&provider));
            Arc::new(system.map_err(|error| {
                Error::setting("tls", "", format!("the system's certificates cannot be used: {error}"))
            })?)
        } else {
            let verifier =
                WebPkiServerVerifier::builder_with_provider(Arc::new(self.roots()?), Arc::clone(&provider));
            verifier.build().map_err(|error| {
                Error::setting("certificate authority", "", format!("cannot be used: {error}"))
            })?
        };
        let Some(name) = &self.server_name else {
            return Ok(inner);
        };
        let server = ServerName::try_from(name.clone())
            .map_err(|_| Error::setting("server name", name, "must be a DNS name or an IP address"))?;
        Ok(Arc::new(Checked { provider, rule: Rule::Named { inner, server } }))
    }

    fn roots(&self) -> Result<RootCertStore> {
        let mut roots = RootCertStore::empty();
        for path in &self.ca_files {
            for certificate in certificates("certificate authority", path)? {
                roots.add(certificate).map_err(|error| {
                    let value = path.display().to_string();
                    Error::setting("certificate authority", &value, format!("cannot be used: {error}"))
                })?;
            }
        }
        if let Some(dir) = &self.ca_dir {
            let value = dir.display().to_string();
            let unreadable =
                |error| Error::setting("certificate authorities", &value, format!("cannot be read: {error}"));
            for entry in std::fs::read_dir(dir).map_err(unreadable)? {
                let path = entry.map_err(unreadable)?.path();
                // Other files may lie there too.
                if let Ok(found) = certificates("certificate authority", &path) {
                    roots.add_parsable_certificates(found);
                }
            }
            if roots.is_empty() {
                return Err(Error::setting("certificate authorities", &value, "holds no certificate in PEM"));
            }
        }
        Ok(roots)
    }
}

fn read(what: &str, path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|error| {
        Error::setting(what, &path.display().to_string(), format!("cannot be read: {error}"))
    })
}

fn certificates(what: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let pem = read(what, path)?;
    let found: Vec<_> = CertificateDer::pem_slice_iter(&pem).filter_map(std::result::Result::ok).collect();
    if found.is_empty() {
        return Err(Error::setting(what, &path.display().to_string(), "holds no certificate in PEM"));
    }
    Ok(found)
}

/// Checks certificates by a rule of the user's. Whoever answers must hold the key of the certificate that it shows in any case.
#[derive(Debug)]
struct Checked {
    provider: Arc<CryptoProvider>,
    rule: Rule,
}

#[derive(Debug)]
enum Rule {
    /// As `inner` does, but for this name instead of the address that was dialled.
    Named { inner: Arc<dyn ServerCertVerifier>, server: ServerName<'static> },
    /// `CONSUL_HTTP_SSL_VERIFY=false`: it may be any.
    Any,
}

impl ServerCertVerifier for Checked {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match &self.rule {
            Rule::Named { inner, server } => {
                inner.verify_server_cert(end_entity, intermediates, server, ocsp_response, now)
            }
            Rule::Any => Ok(ServerCertVerified::assertion()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, known)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, known)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_or_wrong_file_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ca.pem");
        let message = |tls: Tls| tls.config().unwrap_err().to_string();
        assert!(message(Tls::default().ca_file(&path)).contains("ca.pem"));
        std::fs::write(&path, "no pem").unwrap();
        assert!(message(Tls::default().ca_file(&path)).contains("holds no certificate"));
        assert!(message(Tls::default().ca_dir(dir.path())).contains("holds no certificate"));
        let any = Tls::default().danger_accept_any_certificate();
        assert!(message(any.clone().identity(&path, &path)).contains("holds no certificate"));
        assert!(any.config().is_ok());
        assert!(Tls::default().config().is_ok());
        assert!(message(Tls::default().server_name("not a name")).contains("not a name"));
    }
}
