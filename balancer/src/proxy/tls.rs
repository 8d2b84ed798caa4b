//! TLS for clients, with certificates that can be changed while serving.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

/// Certificates and keys of a listener; TLS 1.2 and 1.3, HTTP/2 and HTTP/1.1 by ALPN.
///
/// With several certificates the one whose names cover the name that the client asks for is taken, else the first.
/// Connections that are open keep what they have; new ones get the newest. The provider is aws-lc-rs; nothing is
/// installed for the process.
#[derive(Clone, Debug)]
pub struct Tls {
    config: Arc<ServerConfig>,
    keys: Arc<Keys>,
    files: Arc<Mutex<Files>>,
}

/// Why certificates can't be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file can't be read.
    #[error("{path} can't be read: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// No certificate, or no key, or one that is no such thing.
    #[error("certificates or key of {of} are no PEM that can be read: {source}")]
    Pem {
        /// Of which pair.
        of: String,
        /// Why.
        source: rustls::pki_types::pem::Error,
    },
    /// The key does not fit, or is of a kind that is not supported.
    #[error("the certificate and key of {of} can't be used: {source}")]
    Pair {
        /// Which pair.
        of: String,
        /// Why.
        source: rustls::Error,
    },
    /// What endpoints are to prove is no name.
    #[error("{name:?} is neither a name nor an address that a certificate could have")]
    Name {
        /// What was given.
        name: String,
    },
    /// There must be one at least.
    #[error("no certificate is given")]
    None,
}

#[derive(Debug, Default)]
struct Files {
    pairs: Vec<(PathBuf, PathBuf)>,
    read_at: Vec<Option<SystemTime>>,
}

#[derive(Debug)]
struct Keys(ArcSwap<Vec<Named>>);

/// The names that a certificate covers, and what is needed to prove them.
type Named = (Vec<String>, Arc<CertifiedKey>);

impl Tls {
    /// From pairs of certificate chain and key, both as PEM.
    ///
    /// # Errors
    /// The first pair that can't be used, and why.
    pub fn from_pem<'a>(pairs: impl IntoIterator<Item = (&'a [u8], &'a [u8])>) -> Result<Self, TlsError> {
        let pairs = pairs.into_iter().enumerate();
        let keys = pairs.map(|(n, (chain, key))| certified(&format!("pair {n}"), chain, key));
        Self::new(keys.collect::<Result<_, _>>()?, Files::default())
    }

    /// From pairs of files: certificate chain and key. They are looked at again about every ten seconds while serving,
    /// and read anew when they have changed; what can't be used then is told, and the last good ones stay.
    ///
    /// # Errors
    /// The first file or pair that can't be used, and why.
    pub fn from_files(
        pairs: impl IntoIterator<Item = (impl Into<PathBuf>, impl Into<PathBuf>)>,
    ) -> Result<Self, TlsError> {
        let pairs: Vec<_> = pairs.into_iter().map(|(chain, key)| (chain.into(), key.into())).collect();
        let mut files = Files { pairs, read_at: Vec::new() };
        files.read_at = files.stamps();
        Self::new(files.read()?, files)
    }

    fn new(keys: Vec<Named>, files: Files) -> Result<Self, TlsError> {
        if keys.is_empty() {
            return Err(TlsError::None);
        }
        let keys = Arc::new(Keys(ArcSwap::from_pointee(keys)));
        let provider = Arc::new(aws_lc_rs::default_provider());
        let versions = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let versions = versions.map_err(|source| TlsError::Pair { of: "the provider".into(), source })?;
        let mut config = versions
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(&keys) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Self { config: Arc::new(config), keys, files: Arc::new(Mutex::new(files)) })
    }

    /// Replaces all certificates, for new connections.
    ///
    /// # Errors
    /// The first pair that can't be used, and why; the old ones stay then.
    pub fn replace<'a>(&self, pairs: impl IntoIterator<Item = (&'a [u8], &'a [u8])>) -> Result<(), TlsError> {
        let pairs = pairs.into_iter().enumerate();
        let keys: Vec<_> = pairs
            .map(|(n, (chain, key))| certified(&format!("pair {n}"), chain, key))
            .collect::<Result<_, _>>()?;
        if keys.is_empty() {
            return Err(TlsError::None);
        }
        self.keys.0.store(Arc::new(keys));
        Ok(())
    }

    /// Reads the files anew if one of them has changed; whether it did.
    ///
    /// # Errors
    /// The first file or pair that can't be used, and why; the old ones stay then, and it is tried again when a file
    /// changes again.
    pub fn reload(&self) -> Result<bool, TlsError> {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        let stamps = files.stamps();
        if stamps == files.read_at {
            return Ok(false);
        }
        files.read_at = stamps;
        self.keys.0.store(Arc::new(files.read()?));
        Ok(true)
    }

    pub(crate) fn acceptor(&self) -> tokio_rustls::TlsAcceptor {
        Arc::clone(&self.config).into()
    }
}

impl Files {
    fn stamps(&self) -> Vec<Option<SystemTime>> {
        let paths = self.pairs.iter().flat_map(|(chain, key)| [chain, key]);
        paths.map(|path| fs::metadata(path).and_then(|data| data.modified()).ok()).collect()
    }

    fn read(&self) -> Result<Vec<Named>, TlsError> {
        let read =
            |path: &PathBuf| fs::read(path).map_err(|source| TlsError::File { path: path.clone(), source });
        let pairs = self
            .pairs
            .iter()
            .map(|(chain, key)| certified(&chain.display().to_string(), &read(chain)?, &read(key)?));
        pairs.collect()
    }
}

impl ResolvesServerCert for Keys {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let keys = self.0.load();
        let asked = hello.server_name().map(str::to_ascii_lowercase);
        let covers = |names: &[String], asked: &str| {
            names.iter().any(|name| match name.strip_prefix("*.") {
                Some(domain) => asked.split_once('.').is_some_and(|(_, rest)| rest == domain),
                None => name == asked,
            })
        };
        let fitting = asked.and_then(|asked| keys.iter().find(|(names, _)| covers(names, &asked)));
        fitting.or_else(|| keys.first()).map(|(_, key)| Arc::clone(key))
    }
}

/// A chain and its key, with the names that the certificate covers.
fn certified(of: &str, chain: &[u8], key: &[u8]) -> Result<Named, TlsError> {
    let pem = |source| TlsError::Pem { of: of.to_owned(), source };
    let chain = CertificateDer::pem_slice_iter(chain).collect::<Result<Vec<_>, _>>().map_err(pem)?;
    let key = PrivateKeyDer::from_pem_slice(key).map_err(pem)?;
    let pair = |source| TlsError::Pair { of: of.to_owned(), source };
    let first = chain.first().ok_or_else(|| pair(rustls::Error::NoCertificatesPresented))?;
    let names = names(first).map_err(|error| {
        pair(rustls::Error::InvalidCertificate(rustls::CertificateError::Other(rustls::OtherError(
            Arc::new(error),
        ))))
    })?;
    let key = CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider()).map_err(pair)?;
    Ok((names, Arc::new(key)))
}

fn names(certificate: &CertificateDer<'_>) -> Result<Vec<String>, webpki::Error> {
    let certificate = webpki::EndEntityCert::try_from(certificate)?;
    Ok(certificate.valid_dns_names().map(str::to_ascii_lowercase).collect())
}
