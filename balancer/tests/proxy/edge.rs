//! Who a client is, where it belongs, how much it may have, and what is told of it.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use balancer::proxy::{AccessLog, Forwarding, HashBy, Sticky};
use balancer::{Config, Limits, Maglev, Update};
use hyper::Request;
use hyper::body::Incoming;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use crate::support::*;

fn lines(request: &Request<Incoming>, names: &[&str]) -> String {
    let line = |name: &&str| request.headers().get(*name).map(|v| format!("{name}={}", v.to_str().unwrap()));
    names.iter().filter_map(line).collect::<Vec<_>>().join(" ")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trusted_proxy_is_believed_and_others_are_not() {
    let backend = Backend::start(|request| async move {
        reply(200, lines(&request, &["x-forwarded-for", "x-forwarded-proto", "forwarded", "via"]))
    })
    .await;
    let request =
        || Request::get("/").header("x-forwarded-for", "192.0.2.7").header("x-forwarded-proto", "https");
    let strict = Front::start(quick(), [backend.endpoint("a")]).await;
    assert_eq!(strict.send(request()).await.1, "x-forwarded-for=127.0.0.1 x-forwarded-proto=http");
    let config = quick().trusted(["127.0.0.1".parse().unwrap()]).forwarding(Forwarding::Both).via("edge");
    let front = Front::start(config, [backend.endpoint("a")]).await;
    assert_eq!(
        front.send(request()).await.1,
        "x-forwarded-for=192.0.2.7, 127.0.0.1 x-forwarded-proto=https \
         forwarded=for=127.0.0.1;host=\"site\";proto=http via=1.1 edge"
    );
    let answer = raw(front.addr, "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    assert!(answer.contains("via: 1.1 edge\r\n"), "{answer}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cookie_keeps_a_client_on_its_endpoint_until_that_drains() {
    let backends = [Backend::named("a").await, Backend::named("b").await, Backend::named("c").await];
    let endpoints: Vec<_> = ["a", "b", "c"].iter().zip(&backends).map(|(id, b)| b.endpoint(id)).collect();
    let front = Front::start(quick().sticky(Sticky::new("home", [7; 32])), endpoints).await;
    let ask = async |cookie: &str| {
        let cookie = if cookie.is_empty() { String::new() } else { format!("Cookie: x=y; {cookie}\r\n") };
        let answer =
            raw(front.addr, &format!("GET / HTTP/1.1\r\nHost: s\r\nConnection: close\r\n{cookie}\r\n")).await;
        let set = answer.lines().find_map(|line| line.strip_prefix("set-cookie: "));
        (
            answer.rsplit("\r\n").next().unwrap().to_owned(),
            set.map(|set| set.split(';').next().unwrap().to_owned()),
        )
    };
    let (home, set) = ask("").await;
    let cookie = set.expect("no cookie");
    for _ in 0..10 {
        assert_eq!(ask(&cookie).await, (home.clone(), None), "the cookie is followed, and not set again");
    }
    let (_, forged) = ask(&format!("home={home}")).await;
    assert!(forged.is_some(), "what we have not made is worth nothing");
    front.gateway.apply(Update::Drain(home.as_str().into()));
    let (moved, set) = ask(&cookie).await;
    assert!(moved != home && set.is_some_and(|set| set != cookie), "a drain moves it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_header_goes_to_the_same_endpoint() {
    let backends = [Backend::named("a").await, Backend::named("b").await, Backend::named("c").await];
    let endpoints: Vec<_> = ["a", "b", "c"].iter().zip(&backends).map(|(id, b)| b.endpoint(id)).collect();
    let rules = Config::default().policy(Maglev::default());
    let front = Front::of(rules, quick().hash_by(HashBy::Header("x-tenant".into())), endpoints).await;
    let mut seen = std::collections::BTreeSet::new();
    for tenant in 0..12 {
        let ask = || front.send(Request::get("/").header("x-tenant", tenant.to_string()));
        let (first, second) = (ask().await.1, ask().await.1);
        assert_eq!(first, second);
        seen.insert(first);
    }
    assert_eq!(seen.len(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_beyond_the_limit_waits_and_is_served() {
    let busy = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let most = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let (now, peak) = (busy.clone(), most.clone());
    let backend = Backend::start(move |_| {
        let (now, peak) = (now.clone(), peak.clone());
        async move {
            use std::sync::atomic::Ordering::SeqCst;
            peak.fetch_max(now.fetch_add(1, SeqCst) + 1, SeqCst);
            sleep(Duration::from_millis(20)).await;
            now.fetch_sub(1, SeqCst);
            reply(200, "done")
        }
    })
    .await;
    let front =
        Front::of(Config::default().limits(Limits::per_endpoint(3)), quick(), [backend.endpoint("a")]).await;
    let results = join_all((0..30).map(|_| front.get("/")).collect()).await;
    assert!(results.iter().all(|(status, body)| (*status, body.as_str()) == (200, "done")), "{results:?}");
    assert!((2..=3).contains(&most.load(std::sync::atomic::Ordering::SeqCst)), "{most:?} at once");
    front.until("all is counted out", |load| load.in_flight == 0 && load.waiting == 0).await;
}

/// All of them at the same time.
async fn join_all<F: Future>(futures: Vec<F>) -> Vec<F::Output> {
    let mut futures: Vec<_> = futures.into_iter().map(|future| (Box::pin(future), None)).collect();
    std::future::poll_fn(|cx| {
        let mut waiting = false;
        for (future, result) in &mut futures {
            if result.is_none() {
                match future.as_mut().poll(cx) {
                    std::task::Poll::Ready(output) => *result = Some(output),
                    std::task::Poll::Pending => waiting = true,
                }
            }
        }
        if waiting { std::task::Poll::Pending } else { std::task::Poll::Ready(()) }
    })
    .await;
    futures.into_iter().filter_map(|(_, result)| result).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_has_so_many_connections() {
    let backend = Backend::named("fine").await;
    let front = Front::start(quick().max_connections_per_client(2), [backend.endpoint("a")]).await;
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut stream = TcpStream::connect(front.addr).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        assert!(stream.read(&mut [0; 512]).await.unwrap() > 0);
        held.push(stream);
    }
    let mut third = TcpStream::connect(front.addr).await.unwrap();
    let _ = third.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(
        timeout(Duration::from_secs(2), third.read(&mut [0])).await.expect("it is kept").unwrap_or(0),
        0
    );
    held.clear();
    for _ in 0..100 {
        if !raw(front.addr, "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.is_empty() {
            return;
        }
        sleep(Duration::from_millis(10)).await;
    }
    panic!("the room of those that left is not given again");
}

#[test]
fn the_access_log_tells_of_requests_and_of_nobodys_secrets() {
    let told = Arc::new(Mutex::new(Vec::new()));
    let subscriber = Collect(told.clone());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tracing::subscriber::with_default(subscriber, || {
        runtime.block_on(async {
            let backend = Backend::named("fine").await;
            let front =
                Front::start(quick().access_log(AccessLog::sampled(1.0)), [backend.endpoint("web.1")]).await;
            front.send(Request::get("/path?token=secret").header("cookie", "id=secret")).await;
            front.until("it is over", |load| load.in_flight == 0).await;
            let quiet = AccessLog::sampled(0.0);
            let front = Front::start(quick().access_log(quiet), [backend.endpoint("web.1")]).await;
            front.get("/quiet").await;
            front.gateway.apply(Update::reset([]));
            front.until("it is over", |load| load.in_flight == 0).await;
        });
    });
    let told = told.lock().unwrap();
    assert_eq!(told.len(), 1, "{told:?}");
    for part in [
        "client=127.0.0.1",
        "method=GET",
        "path=\"/path\"",
        "status=200",
        "endpoint=\"web.1\"",
        "attempts=1",
        "bytes=4",
        "host=\"site\"",
    ] {
        assert!(told[0].contains(part), "{part}: {}", told[0]);
    }
    assert!(!told[0].contains("secret"), "{}", told[0]);
}

/// Keeps the events of the access log.
struct Collect(Arc<Mutex<Vec<String>>>);

impl tracing::Subscriber for Collect {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.target() == "balancer::access"
    }
    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }
    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn event(&self, event: &tracing::Event<'_>) {
        struct Line(String);
        impl tracing::field::Visit for Line {
            fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
                self.0.push_str(&format!("{}={value:?} ", field.name()));
            }
        }
        let mut line = Line(String::new());
        event.record(&mut line);
        self.0.lock().unwrap().push(line.0);
    }
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
}
