//! TLS on both sides.

use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use swarm_client::Tls;

use super::*;

struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    fn sign(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let cert = CertificateParams::new([name.to_owned()]).unwrap().signed_by(&key, &self.issuer).unwrap();
        (cert.pem(), key.serialize_pem())
    }
}

/// An engine that asks for a client certificate.
async fn engine(authority: &Authority, name: &str) -> String {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.pem.as_bytes()).unwrap()).unwrap();
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build().unwrap();
    let (cert, key) = authority.sign(name);
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(
            vec![CertificateDer::from_pem_slice(cert.as_bytes()).unwrap()],
            PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap(),
        )
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                if let Ok(stream) = acceptor.accept(stream).await {
                    let answer = |_: &support::Asked| Reply::ok(json!([]));
                    support::serve(stream, "1.47", Duration::ZERO, &answer, &std::sync::Mutex::default())
                        .await;
                }
            });
        }
    });
    format!("https://localhost:{port}")
}

#[tokio::test]
async fn both_sides_are_verified() {
    let ours = Authority::new();
    let url = engine(&ours, "localhost").await;
    let (cert, key) = ours.sign("client");
    let identity = Some((cert.as_bytes(), key.as_bytes()));
    let connect =
        |url: String, tls: Tls| async move { Client::builder().endpoint(url).tls(tls).connect().await };
    let good = Tls::from_pem(ours.pem.as_bytes(), identity).unwrap();
    assert!(connect(url.clone(), good.clone()).await.unwrap().nodes().list().await.unwrap().is_empty());

    // An engine of another authority, one of another name, and a client without a certificate.
    let theirs = Authority::new();
    let stranger = Tls::from_pem(theirs.pem.as_bytes(), identity).unwrap();
    assert!(connect(url.clone(), stranger).await.unwrap_err().is_unreachable());
    let elsewhere = engine(&ours, "elsewhere").await;
    let error = connect(elsewhere, good).await.unwrap_err();
    assert!(error.is_unreachable() && error.to_string().contains("not valid for name"), "{error}");
    let nobody = Tls::from_pem(ours.pem.as_bytes(), None).unwrap();
    assert!(connect(url.clone(), nobody).await.is_err());
    // Without certificates nothing is sent at all.
    let error = Client::builder().endpoint(&url).connect().await.unwrap_err().to_string();
    assert!(error.contains("it wants TLS, and the client has no certificates"), "{error}");
}
