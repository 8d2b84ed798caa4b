//! How long is waited for whom, and who is blamed for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use balancer::{Endpoint, Probes, Update};
use hyper::Request;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use crate::support::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backend_that_dies_while_it_drains_is_not_waited_for() {
    let frozen = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let state = frozen.clone();
    let dying = Backend::start(move |request| {
        let wait = request.uri().path() == "/slow" || state.load(Ordering::Relaxed);
        async move {
            if wait {
                std::future::pending::<()>().await;
            }
            reply(200, "dying")
        }
    })
    .await;
    let front = Front::start(quick().probe("/healthz"), [dying.endpoint("a")]).await;
    let good = Backend::named("good").await;
    let began = Instant::now();
    let (answer, ()) = tokio::join!(front.get("/slow"), async {
        front.until("it works", |load| load.endpoints[0].in_flight == 1).await;
        front.gateway.apply(Update::Add(good.endpoint("b")));
        front.until("the other is ready", |load| load.endpoints[1].state == balancer::State::Ready).await;
        front.gateway.apply(Update::Remove("a".into()));
        frozen.store(true, Ordering::Relaxed);
    });
    assert_eq!(answer, (200, "good".to_owned()));
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_short_answer_that_stops_with_its_machine_is_asked_for_elsewhere() {
    // Healthy until it has sent half an answer; silent from then on.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let dying = Endpoint::new("dying", listener.local_addr().unwrap());
    let silent = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let state = silent.clone();
    let task = tokio::spawn(async move {
        let mut held = Vec::new();
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = [0; 4096];
            let n = stream.read(&mut head).await.unwrap();
            let probe = head[..n].starts_with(b"GET /healthz");
            if probe && !state.load(Ordering::Relaxed) {
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await.unwrap();
            } else if !probe {
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf").await.unwrap();
                state.store(true, Ordering::Relaxed);
            }
            held.push(stream);
        }
    });
    let rules = Probes::default().interval(Duration::from_millis(100)).timeout(Duration::from_millis(100));
    let front = Front::start(quick().probe_with("/healthz", rules), [dying]).await;
    front.until("it is ready", |load| load.endpoints[0].state == balancer::State::Ready).await;
    let good = Backend::named("whole").await;
    let began = Instant::now();
    let (answer, ()) = tokio::join!(front.get("/"), async {
        front.until("it went silent", |_| silent.load(Ordering::Relaxed)).await;
        front.gateway.apply(Update::Add(good.endpoint("good")));
    });
    assert_eq!(answer, (200, "whole".to_owned()));
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    task.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_attempt_cut_short_by_the_requests_own_time_is_blamed_on_nobody() {
    let ((a, first), (b, second)) = (black_hole().await, black_hole().await);
    let ms = Duration::from_millis;
    let config = quick().response_timeout(ms(400)).total_timeout(ms(600));
    let front = Front::start(config, [Endpoint::new("a", a), Endpoint::new("b", b)]).await;
    let (status, why) = front.get("/").await;
    assert_eq!(status, 504, "{why}");
    assert!(why.starts_with("the time for the request was up"), "{why}");
    let load = front.gateway.load();
    let counted: Vec<_> = load.endpoints.iter().map(|e| (e.requests, e.failures)).collect();
    assert!(counted == [(1, 1), (1, 0)] || counted == [(1, 0), (1, 1)], "{counted:?}");
    // An endpoint that has all of a request's time, and does not answer, is at fault.
    let config = quick().total_timeout(ms(300));
    let alone = Front::start(config, [Endpoint::new("a", a)]).await;
    assert_eq!(alone.get("/").await.0, 504);
    assert_eq!(alone.gateway.load().endpoints[0].failures, 1);
    first.abort();
    second.abort();
}

/// Takes connections and requests, and breaks off: a port whose process is gone behind a forwarder.
async fn broken() -> (std::net::SocketAddr, Arc<AtomicU64>, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let taken = Arc::new(AtomicU64::new(0));
    let count = taken.clone();
    let task = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = [0; 4096];
            let n = stream.read(&mut head).await.unwrap_or(0);
            count.fetch_add(u64::from(head[..n].starts_with(b"GET / ")), Ordering::Relaxed);
        }
    });
    (addr, taken, task)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_only_endpoint_that_breaks_off_is_given_time() {
    let (addr, taken, task) = broken().await;
    let front = Front::start(quick(), [Endpoint::new("a", addr)]).await;
    let began = Instant::now();
    let (status, why) = front.get("/").await;
    assert_eq!((status, taken.load(Ordering::Relaxed)), (502, 4), "{why}");
    assert!(began.elapsed() > Duration::from_millis(350), "{:?}", began.elapsed());
    // Another one that comes is taken at once, pause or not.
    let good = Backend::named("good").await;
    let (answer, came) = tokio::join!(front.get("/"), async {
        front.until("it was tried thrice", |_| taken.load(Ordering::Relaxed) == 7).await;
        front.gateway.apply(Update::Add(good.endpoint("b")));
        Instant::now()
    });
    assert_eq!(answer, (200, "good".to_owned()));
    assert!(came.elapsed() < Duration::from_millis(200), "{:?}", came.elapsed());
    task.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_wait_for_endpoints_that_break_off_until_they_are_back() {
    let ((a, taken, mut first), (b, _, mut second)) = (broken().await, broken().await);
    let front = Front::start(quick().probe("/healthz"), []).await;
    for (addr, endpoints) in
        [(a, vec![Endpoint::new("a", a)]), (b, vec![Endpoint::new("b1", b), Endpoint::new("b2", b)])]
    {
        // Known as ready, as it is when it has just died.
        for endpoint in &endpoints {
            front.gateway.apply(Update::Add(endpoint.clone()));
            front.gateway.pool().probe_result(
                &endpoint.id,
                balancer::ProbeOutcome::Passed,
                front.gateway.now(),
            );
        }
        let (answer, ()) = tokio::join!(front.get("/"), async {
            front.until("it waits", |load| load.waiting == 1).await;
            let gone = if addr == a { &mut first } else { &mut second };
            gone.abort();
            drop(gone.await);
            let back = Backend::on(addr, |_| async { reply(200, "back") }).await;
            sleep(Duration::from_millis(600)).await;
            drop(back);
        });
        assert_eq!(answer, (200, "back".to_owned()));
        front.gateway.apply(Update::reset([]));
    }
    assert!((1..4).contains(&taken.load(Ordering::Relaxed)), "{taken:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_post_is_not_given_up_on_suspicion() {
    let suspect = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let state = suspect.clone();
    let stuck = Backend::start(move |_| {
        let state = state.clone();
        async move {
            // Answers nothing, and then all.
            while state.load(Ordering::Relaxed) {
                sleep(Duration::from_millis(20)).await;
            }
            reply(200, "done")
        }
    })
    .await;
    let rules = Probes::default().interval(Duration::from_millis(100)).timeout(Duration::from_millis(100));
    let front = Front::start(quick().probe_with("/healthz", rules), [stuck.endpoint("a")]).await;
    front.until("it is ready", |load| load.endpoints[0].state == balancer::State::Ready).await;
    suspect.store(true, Ordering::Relaxed);
    let (answer, ()) = tokio::join!(front.send_body(Request::post("/"), "once"), async {
        front.until("it is taken out", |load| load.endpoints[0].state == balancer::State::Ejected).await;
        sleep(Duration::from_millis(50)).await;
        suspect.store(false, Ordering::Relaxed);
    });
    assert_eq!((answer, stuck.hits()), ((200, "done".to_owned()), 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_out_of_descriptors_blames_nobody() {
    const FEW: &str = "BALANCER_TEST_FEW_DESCRIPTORS";
    if std::env::var_os(FEW).is_none() {
        // Once more, in a process of its own that may have but a few.
        let test = "patience::a_gateway_out_of_descriptors_blames_nobody";
        let script = format!("ulimit -n 64 && exec \"$0\" --exact {test}");
        let this = std::env::current_exe().unwrap();
        let again =
            std::process::Command::new("sh").arg("-c").arg(script).arg(this).env(FEW, "1").output().unwrap();
        assert!(again.status.success(), "{again:?}");
        return;
    }
    let backend = Backend::named("a").await;
    let front = Front::start(quick().waiting_limit(0), []).await;
    let mut client = Client::connect(front.addr).await;
    // Accepted, and kept: the gateway has answered on it, without an endpoint.
    let get = || Request::get("/").header("host", "site").body(http_body_util::Full::default()).unwrap();
    assert_eq!(client.send(get()).await.unwrap().status(), 503);
    front.gateway.apply(Update::reset([backend.endpoint("a")]));
    let hoard: Vec<_> = std::iter::from_fn(|| std::fs::File::open("/dev/null").ok()).collect();
    assert!(!hoard.is_empty());
    let (answer, ()) = tokio::join!(client.send(get()), async {
        front.until("it is tried again", |load| load.endpoints[0].requests >= 3).await;
        drop(hoard);
    });
    assert_eq!(answer.unwrap().status(), 200);
    let load = front.gateway.load();
    assert_eq!((load.endpoints[0].failures, load.endpoints[0].state), (0, balancer::State::Ready));
}
