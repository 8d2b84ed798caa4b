//! A second endpoint is asked when the first one stalls.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use balancer::proxy::Hedge;
use balancer::{Config, RoundRobin};
use http::{Method, Request};
use tokio::time::{Instant, sleep};

use crate::support::*;

/// Answers at once, but each `nth` request after two seconds.
async fn stalling(nth: u64) -> Backend {
    let count = Arc::new(AtomicU64::new(0));
    Backend::start(move |_| {
        let number = count.fetch_add(1, Ordering::Relaxed) + 1;
        async move {
            if number.is_multiple_of(nth) {
                sleep(Duration::from_secs(2)).await;
            }
            reply(200, "stalls")
        }
    })
    .await
}

fn get(path: &str) -> Request<http_body_util::Full<bytes::Bytes>> {
    Request::get(path).header("host", "x").body(http_body_util::Full::default()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stall_costs_a_hedge_and_not_its_length() {
    let (a, b, c) = (Backend::named("a").await, Backend::named("b").await, stalling(40).await);
    let config = quick().hedge(Hedge::sharing(0.25));
    let rules = Config::default().policy(RoundRobin::default());
    let front = Front::of(rules, config, [a.endpoint("a"), b.endpoint("b"), c.endpoint("c")]).await;
    // Without figures of the others nothing is known to be slow.
    let mut client = Client::connect(front.addr).await;
    let warm = Instant::now();
    while warm.elapsed() < Duration::from_millis(1500) {
        assert_eq!(client.send(get("/")).await.unwrap().status(), 200);
        sleep(Duration::from_millis(10)).await;
        if c.hits() > 30 && warm.elapsed() > Duration::from_millis(700) {
            break;
        }
    }
    let (before, began) = (front.gateway.load(), Instant::now());
    let mut slowest = Duration::ZERO;
    for _ in 0..300 {
        let began = Instant::now();
        assert_eq!(client.send(get("/")).await.unwrap().status(), 200);
        slowest = slowest.max(began.elapsed());
    }
    let load = front.gateway.load();
    let hedges = load.hedges_total - before.hedges_total;
    println!("{hedges} hedges, slowest {slowest:?}, {:?} in all", began.elapsed());
    assert!(hedges >= 1, "{load:?}");
    assert!(slowest < Duration::from_millis(1500), "a stall of two seconds came through: {slowest:?}");
    assert!(load.hedges_total * 4 <= load.requests_total + 4, "the budget: {load:?}");
    // What was called off is counted out.
    front.until("nothing is in flight", |load| load.endpoints.iter().all(|e| e.in_flight == 0)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_fails_quickly_does_not_win_and_a_post_is_sent_once() {
    let slow = Arc::new(AtomicBool::new(false));
    let (is_slow, is_bad) = (slow.clone(), slow.clone());
    let right = Backend::start(move |_| {
        let slow = is_slow.load(Ordering::Relaxed);
        async move {
            if slow {
                sleep(Duration::from_millis(400)).await;
            }
            reply(200, "right")
        }
    })
    .await;
    let quick_to_fail = Backend::start(move |request: Request<hyper::body::Incoming>| {
        let bad = is_bad.load(Ordering::Relaxed) && request.method() == Method::GET;
        async move { reply(if bad { 500 } else { 200 }, "wrong") }
    })
    .await;
    let config = quick().hedge(Hedge::sharing(1.0));
    let rules = Config::default().policy(RoundRobin::default());
    let front = Front::of(rules, config, [right.endpoint("right"), quick_to_fail.endpoint("wrong")]).await;
    let mut client = Client::connect(front.addr).await;
    let warm = Instant::now();
    while warm.elapsed() < Duration::from_millis(1200) {
        client.send(get("/")).await.unwrap();
        sleep(Duration::from_millis(10)).await;
    }
    slow.store(true, Ordering::Relaxed);
    let (before, hedged) = (right.hits(), front.gateway.load().hedges_total);
    let mut good = 0;
    for _ in 0..6 {
        good += u64::from(client.send(get("/")).await.unwrap().status() == 200);
    }
    assert_eq!(good, right.hits() - before, "each that was sent to the right one first was answered by it");
    assert!(good >= 1 && front.gateway.load().hedges_total > hedged, "{:?}", front.gateway.load());

    let (sent, hedged) = (right.hits() + quick_to_fail.hits(), front.gateway.load().hedges_total);
    for _ in 0..4 {
        let post = Request::post("/").header("host", "x").body(http_body_util::Full::from("x")).unwrap();
        assert_eq!(client.send(post).await.unwrap().status(), 200);
    }
    assert_eq!(right.hits() + quick_to_fail.hits(), sent + 4);
    assert_eq!(front.gateway.load().hedges_total, hedged);
}
