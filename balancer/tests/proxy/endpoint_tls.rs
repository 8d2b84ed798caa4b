//! TLS to endpoints: who proves the service's name is asked, nobody else, and in clear nobody.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use balancer::proxy::{EndpointTls, Protocol, TlsError};
use balancer::{Endpoint, State};
use bytes::Bytes;
use http::{Response, Version};
use http_body_util::Full;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use tokio::net::TcpListener;

use crate::support::*;

struct Pair {
    chain: String,
    key: String,
}

fn pair(name: &str) -> Pair {
    let made = rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
    Pair { chain: made.cert.pem(), key: made.signing_key.serialize_pem() }
}

fn certificate(pair: &Pair) -> rustls::pki_types::CertificateDer<'static> {
    rustls::pki_types::CertificateDer::from_pem_slice(pair.chain.as_bytes()).unwrap()
}

/// An endpoint that speaks TLS with this certificate, to clients with one of `clients` where that is said; it answers the
/// version and the scheme of what it was asked.
async fn endpoint(id: &str, own: &Pair, clients: Option<&Pair>) -> Endpoint {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(provider.clone());
    let builder = builder.with_safe_default_protocol_versions().unwrap();
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(clients) => {
            let mut roots = rustls::RootCertStore::empty();
            roots.add(certificate(clients)).unwrap();
            let verifier =
                rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            builder.with_client_cert_verifier(verifier.build().unwrap())
        }
    };
    let key = PrivateKeyDer::from_pem_slice(own.key.as_bytes()).unwrap();
    let mut config = builder.with_single_cert(vec![certificate(own)], key).unwrap();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = Endpoint::new(id, listener.local_addr().unwrap());
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                let service = service_fn(|request: http::Request<hyper::body::Incoming>| async move {
                    let said = format!("{:?} {:?}", request.version(), request.uri().scheme_str());
                    Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(said))))
                });
                let io = TokioIo::new(stream);
                if http2 {
                    let http = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                    drop(http.serve_connection(io, service).await);
                } else {
                    drop(hyper::server::conn::http1::Builder::new().serve_connection(io, service).await);
                }
            });
        }
    });
    endpoint
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_and_probes_go_over_tls_by_both_protocols() {
    let own = pair("shop.internal");
    for (protocol, said) in [
        (Protocol::Http1, format!("{:?} None", Version::HTTP_11)),
        (Protocol::Http2, format!("{:?} Some(\"https\")", Version::HTTP_2)),
    ] {
        let tls = EndpointTls::new("shop.internal", [own.chain.as_bytes()]).unwrap();
        let mut config = quick().probe("/healthz").endpoint_tls(tls);
        config.protocol = protocol;
        let front = Front::start(config, [endpoint("a", &own, None).await]).await;
        front.until("the probe passes", |load| load.endpoints[0].state == State::Ready).await;
        for _ in 0..3 {
            assert_eq!(front.get("/").await, (200, said.clone()));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_can_not_prove_the_name_is_not_asked() {
    let (own, other) = (pair("shop.internal"), pair("shop.internal"));
    let wrong_name = pair("else.internal");
    let plain = Backend::named("in clear").await;
    let tls = EndpointTls::new("shop.internal", [own.chain.as_bytes(), wrong_name.chain.as_bytes()]).unwrap();
    let endpoints = [
        endpoint("good", &own, None).await,
        endpoint("unknown authority", &other, None).await,
        endpoint("wrong name", &wrong_name, None).await,
        plain.endpoint("plain"),
    ];
    let front = Front::start(quick().endpoint_tls(tls), endpoints).await;
    for _ in 0..20 {
        assert_eq!(front.get("/").await.0, 200);
    }
    let load = front.gateway.load();
    let answered = |id: &str| {
        let one = load.endpoints.iter().find(|one| one.id.as_str() == id).unwrap();
        one.requests - one.failures
    };
    assert_eq!(answered("good"), 20, "{load:?}");
    assert_eq!(plain.hits(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_gateway_proves_itself_where_it_has_to() {
    let (own, ours) = (pair("shop.internal"), pair("gateway.internal"));
    let config = quick().total_timeout(Duration::from_secs(2));
    let without = EndpointTls::new("shop.internal", [own.chain.as_bytes()]).unwrap();
    let front =
        Front::start(config.clone().endpoint_tls(without), [endpoint("a", &own, Some(&ours)).await]).await;
    assert!(front.get("/").await.0 >= 500);
    let with = EndpointTls::with_certificate(
        "shop.internal",
        [own.chain.as_bytes()],
        ours.chain.as_bytes(),
        ours.key.as_bytes(),
    )
    .unwrap();
    let front = Front::start(config.endpoint_tls(with), [endpoint("a", &own, Some(&ours)).await]).await;
    assert_eq!(front.get("/").await.0, 200);
}

#[test]
fn what_can_not_be_used_is_said() {
    let own = pair("shop.internal");
    let authority = [own.chain.as_bytes()];
    assert!(matches!(EndpointTls::new("not a name", authority), Err(TlsError::Name { .. })));
    assert!(matches!(EndpointTls::new("a", []), Err(TlsError::None)));
    assert!(matches!(
        EndpointTls::new("a", [&b"-----BEGIN CERTIFICATE-----\nx"[..]]),
        Err(TlsError::Pem { .. })
    ));
    let tls = EndpointTls::with_certificate("a", authority, authority[0], b"no key");
    assert!(matches!(tls, Err(TlsError::Pem { .. })));
    let debug =
        format!("{:?}", EndpointTls::with_certificate("a", authority, authority[0], own.key.as_bytes()));
    assert!(debug.contains("name") && !debug.contains("key"), "{debug}");
}
