//! The listener passes from one process to the next; here from one gateway to another.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use balancer::proxy::{Gateway, handover};
use balancer::{Config, Pool, Update};
use tokio::net::TcpListener;
use tokio::time::{sleep, timeout};

use crate::support::*;

fn gateway(backend: &Backend) -> Gateway {
    let gateway = Gateway::new(Arc::new(Pool::new(Config::default(), 7).unwrap()), quick()).unwrap();
    gateway.apply(Update::reset([backend.endpoint("a")]));
    gateway
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_refuses_and_resets_no_connection() {
    let backend = Backend::named("fine").await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("gateway.sock");
    assert!(handover::take(&path).await.unwrap().is_none(), "nobody is there yet");

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let over = Arc::new(AtomicBool::new(false));
    let asked = Arc::new(AtomicUsize::new(0));
    let clients: Vec<_> = (0..8)
        .map(|_| {
            let (over, asked) = (over.clone(), asked.clone());
            tokio::spawn(async move {
                while !over.load(Ordering::Relaxed) {
                    // A new connection for each: those are what a restart loses.
                    let answer = raw(addr, "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
                    assert!(answer.starts_with("HTTP/1.1 200 "), "lost: {answer:?}");
                    asked.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();

    let mut next = Some(listener);
    let mut serving: Vec<tokio::task::JoinHandle<_>> = Vec::new();
    for generation in 0..4 {
        let taken = handover::take(&path).await.unwrap();
        assert_eq!(taken.is_some(), generation > 0);
        let (listener, taken) = match taken {
            Some(mut taken) => (taken.listeners().pop().unwrap(), Some(taken)),
            None => (next.take().unwrap(), None),
        };
        let offer = handover::Offer::bind(&path).unwrap();
        let spare = handover::duplicate(&listener).unwrap();
        let gateway = gateway(&backend);
        let served = gateway.clone();
        serving.push(tokio::spawn(async move {
            let shutdown = async {
                offer.taken(&[spare]).await.unwrap();
            };
            served.serve(listener, shutdown).await
        }));
        while !gateway.ready() {
            sleep(Duration::from_millis(5)).await;
        }
        if let Some(taken) = taken {
            taken.ready().await.unwrap();
        }
        sleep(Duration::from_millis(400)).await;
    }
    over.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.unwrap();
    }
    assert!(asked.load(Ordering::Relaxed) > 100, "{asked:?} asked");
    let last = serving.pop().unwrap();
    for old in serving {
        assert_eq!(
            timeout(Duration::from_secs(5), old).await.expect("it does not end").unwrap().unwrap().cut,
            0
        );
    }
    // A successor that dies before it is ready changes nothing: the next one may ask.
    drop(handover::take(&path).await.unwrap());
    let mut again = handover::take(&path).await.unwrap().expect("nobody offers any more");
    assert_eq!(again.listeners().len(), 1);
    last.abort();
}
