//! TLS on both sides.

use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use swarm_client::Tls;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

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

/// An engine that asks for a client certificate of the authority that signed its own.
async fn engine(authority: &Authority, name: &str) -> String {
    engine_that_wants(authority, authority, name).await
}

/// One that asks for certificates of `clients`.
async fn engine_that_wants(clients: &Authority, authority: &Authority, name: &str) -> String {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(clients.pem.as_bytes()).unwrap()).unwrap();
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

    // An engine of another authority, one of another name, and clients that the engine does not know: each is told apart, nothing
    // was done, and trying again would not help.
    let theirs = Authority::new();
    let told = |error: Error, why: &str| {
        let text = error.to_string();
        assert!(error.is_unreachable() && !error.is_retryable() && !error.is_outcome_unknown(), "{text}");
        assert!(text.contains(why), "{text}");
    };
    let stranger = Tls::from_pem(theirs.pem.as_bytes(), identity).unwrap();
    let why = "the engine's certificate is not of the authority in ca.pem (invalid peer certificate: ";
    told(connect(url.clone(), stranger).await.unwrap_err(), why);
    let elsewhere = engine(&ours, "elsewhere").await;
    told(
        connect(elsewhere, good.clone()).await.unwrap_err(),
        "the engine's certificate is for another name (",
    );
    let nobody = || Tls::from_pem(ours.pem.as_bytes(), None).unwrap();
    let (cert, key) = theirs.sign("client");
    let other = || Tls::from_pem(ours.pem.as_bytes(), Some((cert.as_bytes(), key.as_bytes()))).unwrap();
    // The refusal and the end of the connection are two packets: it must not depend on which is seen first.
    for _ in 0..20 {
        let error = connect(url.clone(), nobody()).await.unwrap_err();
        told(error, "the engine asks for a client certificate, and there is none (");
        let error = connect(url.clone(), other()).await.unwrap_err();
        told(error, "the engine refuses this client's certificate (cert.pem) (");
    }
    // An engine that speaks in the clear answers the greeting as it answers anything that is no request.
    let plain = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = format!("https://localhost:{}", plain.local_addr().unwrap().port());
    tokio::spawn(async move {
        let (mut stream, _) = plain.accept().await.unwrap();
        let mut greeting = [0; 4096];
        let _ = stream.read(&mut greeting).await;
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n").await.unwrap();
    });
    told(connect(at, good).await.unwrap_err(), "it does not speak TLS (");
    // Without certificates nothing is sent at all.
    let error = Client::builder().endpoint(&url).connect().await.unwrap_err().to_string();
    assert!(error.contains("it wants TLS, and the client has no certificates"), "{error}");
}

#[tokio::test]
async fn a_write_goes_on_to_the_next_manager_when_one_does_not_take_the_certificate() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let (cert, key) = ours.sign("client");
    let tls = Tls::from_pem(ours.pem.as_bytes(), Some((cert.as_bytes(), key.as_bytes()))).unwrap();
    // The first asks for certificates of another authority, the second has one of another authority itself.
    let urls = [
        engine_that_wants(&theirs, &ours, "localhost").await,
        engine_that_wants(&ours, &theirs, "localhost").await,
        engine(&ours, "localhost").await,
    ];
    let builder = urls.iter().fold(Client::builder().tls(tls.clone()), |b, url| b.endpoint(url));
    let swarm = builder.connect().await.unwrap();
    let spec = ServiceSpec::builder("web", "web:1").build();
    let error = swarm.services().create(&spec).await.unwrap_err().to_string();
    // The engine of these tests answers an empty list to everything.
    assert!(error.contains(&urls[2]), "{error}");
    let error = Client::builder().tls(tls).endpoint(&urls[0]).endpoint(&urls[1]).connect().await.unwrap_err();
    let text = error.to_string();
    for why in ["refuses this client's certificate", "not of the authority"] {
        assert!(error.is_unreachable() && text.contains(why), "{text}");
    }
}

#[cfg(feature = "bollard")]
#[tokio::test]
async fn bollard_speaks_over_the_same_connections() {
    let ours = Authority::new();
    let url = engine(&ours, "localhost").await;
    let (cert, key) = ours.sign("client");
    let tls = Tls::from_pem(ours.pem.as_bytes(), Some((cert.as_bytes(), key.as_bytes()))).unwrap();
    let client = Client::builder().endpoint(&url).tls(tls).connect().await.unwrap();
    let listed = client.bollard().unwrap().list_containers(None).await.unwrap();
    assert!(listed.is_empty());
    let elsewhere = engine(&Authority::new(), "localhost").await;
    let other = client.bollard_at(&elsewhere.parse().unwrap()).unwrap();
    let error = other.list_containers(None).await.unwrap_err().to_string();
    assert!(error.contains("the engine's certificate is not of the authority in ca.pem"), "{error}");
}
