//! Endpoints die, hang, break off and come back under load.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use balancer::{Endpoint, Update};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::support::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killing_a_backend_under_load_fails_no_get() {
    for probes in [false, true] {
        let (a, b) = (Backend::named("a").await, Backend::named("b").await);
        let config = if probes { quick().probe("/healthz") } else { quick() };
        let front = Front::start(config, [a.endpoint("a"), b.endpoint("b")]).await;
        let (sent, failures, _) = front
            .under_load(16, async {
                front
                    .until("both get their share", |load| load.endpoints.iter().all(|e| e.requests > 50))
                    .await;
                drop(b);
                let before = front.gateway.load().requests_total;
                sleep(Duration::from_millis(1000)).await;
                front.until("it goes on", |load| load.requests_total > before + 100).await;
            })
            .await;
        assert!(failures.is_empty(), "of {sent}, with probes {probes}: {failures:?}");
        front.until("all is counted out", |load| load.in_flight == 0).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backend_that_hangs_costs_a_second_and_no_get() {
    let frozen = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let state = frozen.clone();
    let hanging = Backend::start(move |_| {
        let state = state.clone();
        async move {
            while state.load(Ordering::Relaxed) {
                sleep(Duration::from_millis(50)).await;
            }
            reply(200, "b")
        }
    })
    .await;
    let good = Backend::named("a").await;
    let front = Front::start(quick().probe("/healthz"), [good.endpoint("a"), hanging.endpoint("b")]).await;
    let (sent, failures, slowest) = front
        .under_load(16, async {
            front.until("both are ready", |load| load.endpoints.iter().all(|e| e.requests > 10)).await;
            frozen.store(true, Ordering::Relaxed);
            sleep(Duration::from_millis(2500)).await;
        })
        .await;
    assert!(failures.is_empty(), "of {sent}: {failures:?}");
    assert!(slowest > Duration::from_millis(300), "nothing hung: {slowest:?}");
    assert!(slowest < Duration::from_millis(4000), "{slowest:?}");
    let told: Vec<_> = front.gateway.events().into_iter().map(|event| event.text).collect();
    assert!(told.iter().any(|text| text.contains("failed probes in a row")), "{told:?}");
    // It comes back by probe.
    frozen.store(false, Ordering::Relaxed);
    front.until("it recovers", |load| load.endpoints[1].state == balancer::State::Ready).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_endpoint_that_never_answers_probes_is_never_used() {
    let (addr, hole) = black_hole().await;
    let good = Backend::named("a").await;
    let front =
        Front::start(quick().probe("/healthz"), [good.endpoint("a"), Endpoint::new("hole", addr)]).await;
    let (sent, failures, slowest) = front
        .under_load(4, async {
            sleep(Duration::from_millis(700)).await;
            front.until("it is under load", |load| load.requests_total > 20).await;
        })
        .await;
    assert!(failures.is_empty(), "of {sent}: {failures:?}");
    assert!(slowest < Duration::from_millis(3000), "{slowest:?}");
    assert_eq!(front.gateway.load().endpoints[1].requests, 0);
    hole.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_kills_is_not_tried_for_ever() {
    let mut tasks = Vec::new();
    let taken = Arc::new(AtomicU64::new(0));
    let mut endpoints = Vec::new();
    for n in 0..6 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        endpoints.push(Endpoint::new(format!("e{n}"), listener.local_addr().unwrap()));
        let taken = taken.clone();
        tasks.push(tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                drop(stream.read(&mut [0; 4096]).await);
                taken.fetch_add(1, Ordering::Relaxed);
            }
        }));
    }
    let front = Front::start(quick().max_attempts(3), endpoints).await;
    assert_eq!(front.get("/").await.0, 502);
    assert_eq!(taken.load(Ordering::Relaxed), 3);
    tasks.iter().for_each(JoinHandle::abort);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn membership_churn_under_load_fails_no_get() {
    let backends = [
        Backend::named("a").await,
        Backend::named("b").await,
        Backend::named("c").await,
        Backend::named("d").await,
    ];
    let all: Vec<_> = backends.iter().enumerate().map(|(n, b)| b.endpoint(&format!("e{n}"))).collect();
    let front = Front::start(quick(), all.clone()).await;
    let (sent, failures, _) = front
        .under_load(16, async {
            for round in 0..20usize {
                let part =
                    all.iter().enumerate().filter(|(n, _)| (round + n) % 3 != 0).map(|(_, e)| e.clone());
                front.gateway.apply(Update::reset(part));
                sleep(Duration::from_millis(100)).await;
            }
            front.until("it was under load", |load| load.requests_total > 300).await;
        })
        .await;
    assert!(failures.is_empty(), "of {sent}: {failures:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_short_answer_that_breaks_off_is_asked_for_elsewhere() {
    let permits = Arc::new(tokio::sync::Semaphore::new(100));
    let (addr, task) = scripted("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf", permits).await;
    let good = Backend::named("whole").await;
    let front = Front::start(quick(), [Endpoint::new("breaking", addr), good.endpoint("good")]).await;
    for _ in 0..6 {
        assert_eq!(front.get("/").await, (200, "whole".to_owned()));
    }
    assert!(front.gateway.load().retries_total > 0);
    task.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kept_connection_that_dies_is_replaced_and_blamed_on_nobody() {
    // Answers the first request of each connection, takes the second one, and closes.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let seconds = Arc::new(AtomicU64::new(0));
    let taken = seconds.clone();
    let task = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let taken = taken.clone();
            tokio::spawn(async move {
                assert!(stream.read(&mut [0; 4096]).await.unwrap() > 0);
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.unwrap();
                taken.fetch_add(u64::from(stream.read(&mut [0; 4096]).await.unwrap() > 0), Ordering::Relaxed);
            });
        }
    });
    let front = Front::start(quick(), [Endpoint::new("a", addr)]).await;
    for _ in 0..6 {
        assert_eq!(front.get("/").await, (200, "ok".to_owned()));
    }
    assert!(seconds.load(Ordering::Relaxed) >= 3, "no connection was used twice");
    let load = front.gateway.load();
    assert_eq!((load.endpoints[0].failures, load.retries_total), (0, 0));
    task.abort();
}

/// A replica that answers 500 in a millisecond draws requests until it is ejected; with the setting nobody sees one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_status_that_is_to_be_retried_is_seen_by_nobody_while_another_endpoint_is_there() {
    for (statuses, seen) in [(vec![500], false), (vec![], true)] {
        let bad = Backend::start(|_| async { reply(500, "no") }).await;
        let good = Backend::named("a").await;
        let config = quick().retry_statuses(statuses);
        let front = Front::start(config, [good.endpoint("a"), bad.endpoint("b")]).await;
        let (mut answers, mut posts) = (Vec::new(), Vec::new());
        for _ in 0..20 {
            answers.push(front.get("/").await.0);
            posts.push(front.send_body(http::Request::post("/"), "x").await.0);
        }
        assert_eq!(answers.contains(&500), seen, "{answers:?}");
        assert!(bad.hits() > 0, "it was never asked");
    }
}

#[tokio::test]
async fn where_all_fail_the_last_answer_is_passed_on_and_a_post_is_sent_once() {
    let fails = || Backend::start(|_| async { reply(500, "mine") });
    let (a, b) = (fails().await, fails().await);
    let front = Front::start(quick().retry_statuses([500, 503]), [a.endpoint("a"), b.endpoint("b")]).await;
    assert_eq!(front.get("/").await, (500, "mine".to_owned()));
    assert_eq!(a.hits() + b.hits(), 2, "each was asked once");
    assert_eq!(front.send_body(http::Request::post("/"), "x").await.0, 500);
    assert_eq!(a.hits() + b.hits(), 3, "what is not idempotent is not repeated");
    let wrong = quick().retry_statuses([200]).validate().unwrap_err().to_string();
    assert!(wrong.contains("retry_statuses") && wrong.contains("200"), "{wrong}");
}
