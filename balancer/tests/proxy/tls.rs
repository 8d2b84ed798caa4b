//! TLS, and certificates that change while serving.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use balancer::proxy::{Gateway, Tls, TlsError};
use balancer::{Config, Pool, Update};
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use crate::support::*;

struct Pair {
    chain: String,
    key: String,
    der: CertificateDer<'static>,
}

fn pair(names: &[&str]) -> Pair {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let made = rcgen::generate_simple_self_signed(names).unwrap();
    Pair { chain: made.cert.pem(), key: made.signing_key.serialize_pem(), der: made.cert.der().clone() }
}

impl Pair {
    fn pem(&self) -> (&[u8], &[u8]) {
        (self.chain.as_bytes(), self.key.as_bytes())
    }
}

/// Connects as a client that trusts these certificates only; the protocol that was agreed on, and the stream.
async fn connect(
    addr: std::net::SocketAddr,
    name: &str,
    roots: &[&Pair],
    alpn: &[&str],
) -> std::io::Result<(Option<Vec<u8>>, tokio_rustls::client::TlsStream<TcpStream>)> {
    let mut store = rustls::RootCertStore::empty();
    for root in roots {
        store.add(root.der.clone()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config =
        rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config = config.with_root_certificates(store).with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let stream = connector.connect(name, TcpStream::connect(addr).await?).await?;
    Ok((stream.get_ref().1.alpn_protocol().map(<[u8]>::to_vec), stream))
}

async fn start(tls: &Tls, backend: &Backend) -> (Gateway, std::net::SocketAddr) {
    let pool = Arc::new(Pool::new(Config::default(), 7).unwrap());
    let gateway = Gateway::new(pool, quick()).unwrap();
    gateway.apply(Update::reset([backend.endpoint("a")]));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let (serving, tls) = (gateway.clone(), tls.clone());
    tokio::spawn(async move { serving.serve_tls(listener, &tls, std::future::pending()).await });
    (gateway, addr)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_protocols_and_the_certificate_by_name() {
    let backend = Backend::start(|request| async move {
        reply(200, request.headers()["x-forwarded-proto"].as_bytes().to_vec())
    })
    .await;
    let (a, b) = (pair(&["a.example"]), pair(&["*.b.example"]));
    let tls = Tls::from_pem([a.pem(), b.pem()]).unwrap();
    let (_gateway, addr) = start(&tls, &backend).await;

    let (alpn, stream) = connect(addr, "a.example", &[&a], &["h2", "http/1.1"]).await.unwrap();
    assert_eq!(alpn.as_deref(), Some(&b"h2"[..]));
    let (mut sender, driver) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(driver);
    let request = Request::get("https://a.example/").body(Full::<Bytes>::default()).unwrap();
    let body = sender.send_request(request).await.unwrap().into_body().collect().await.unwrap().to_bytes();
    assert_eq!(body, "https");

    let (alpn, stream) = connect(addr, "x.b.example", &[&b], &["http/1.1"]).await.unwrap();
    assert_eq!(alpn.as_deref(), Some(&b"http/1.1"[..]));
    let (mut sender, driver) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(driver);
    let request = Request::get("/").header("host", "x.b.example").body(Full::<Bytes>::default()).unwrap();
    assert_eq!(sender.send_request(request).await.unwrap().status(), 200);
    assert!(connect(addr, "x.b.example", &[&a], &[]).await.is_err(), "another certificate is not enough");
    // Who speaks no TLS gets nothing, and hurts nobody.
    assert!(!raw(addr, "GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.contains("200"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_change_while_connections_stay() {
    let backend = Backend::named("fine").await;
    let folder = tempfile::tempdir().unwrap();
    let (chain, key) = (folder.path().join("chain.pem"), folder.path().join("key.pem"));
    let age = |seconds| SystemTime::now() - Duration::from_secs(seconds);
    let write = |pair: &Pair, seconds| {
        for (path, text) in [(&chain, &pair.chain), (&key, &pair.key)] {
            std::fs::write(path, text).unwrap();
            std::fs::File::options().write(true).open(path).unwrap().set_modified(age(seconds)).unwrap();
        }
    };
    let (old, new) = (pair(&["a.example"]), pair(&["a.example"]));
    write(&old, 100);
    let tls = Tls::from_files([(&chain, &key)]).unwrap();
    let (_gateway, addr) = start(&tls, &backend).await;
    let (_, kept) = connect(addr, "a.example", &[&old], &["http/1.1"]).await.unwrap();
    let (mut sender, driver) = hyper::client::conn::http1::handshake(TokioIo::new(kept)).await.unwrap();
    tokio::spawn(driver);

    assert!(!tls.reload().unwrap(), "nothing has changed");
    write(&new, 50);
    assert!(tls.reload().unwrap());
    assert!(connect(addr, "a.example", &[&old], &[]).await.is_err());
    connect(addr, "a.example", &[&new], &[]).await.unwrap();
    let request = Request::get("/").header("host", "a.example").body(Full::<Bytes>::default()).unwrap();
    assert_eq!(
        timeout(Duration::from_secs(3), sender.send_request(request)).await.unwrap().unwrap().status(),
        200
    );

    // What can't be used is told, and the last good pair stays.
    std::fs::write(&key, "no key").unwrap();
    assert!(matches!(tls.reload(), Err(TlsError::Pem { .. })));
    connect(addr, "a.example", &[&new], &[]).await.unwrap();
    std::fs::write(&key, &old.key).unwrap();
    std::fs::File::options().write(true).open(&key).unwrap().set_modified(age(20)).unwrap();
    let error = tls.reload().unwrap_err();
    assert!(matches!(error, TlsError::Pair { .. }) && error.to_string().contains("chain.pem"), "{error}");
    assert!(matches!(Tls::from_pem([]), Err(TlsError::None)));
}
