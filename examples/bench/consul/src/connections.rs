//! What many callers cost.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tokio::net::{TcpListener, TcpStream};

/// How many of `calls` reads fail when `tasks` make them at once. A server closes what exceeds 200 connections of one address.
pub async fn failures(address: &str, tasks: usize, calls: usize) -> usize {
    let client = consul_client::Client::builder().address(address).build().expect("a good address");
    let workers: Vec<_> = (0..tasks)
        .map(|_| {
            let kv = client.kv();
            tokio::spawn(async move {
                let mut failures = 0;
                for _ in 0..calls / tasks {
                    let found = kv.get("bench/00/key").await;
                    failures += usize::from(!found.is_ok_and(|found| found.value.is_some()));
                }
                failures
            })
        })
        .collect();
    let mut failures = 0;
    for worker in workers {
        failures += worker.await.expect("a worker ends well");
    }
    failures
}

/// How many connections `subscribers` of one service take, counted at a proxy, from the first to a change that all have seen.
pub async fn for_subscribers(address: &str, subscribers: usize) -> usize {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let proxy = listener.local_addr().expect("an address").to_string();
    let (count, target) = (Arc::new(AtomicUsize::new(0)), address.to_owned());
    let counted = Arc::clone(&count);
    tokio::spawn(async move {
        while let Ok((mut from, _)) = listener.accept().await {
            counted.fetch_add(1, Ordering::SeqCst);
            let target = target.clone();
            tokio::spawn(async move {
                if let Ok(mut to) = TcpStream::connect(target).await {
                    let _ = tokio::io::copy_bidirectional(&mut from, &mut to).await;
                }
            });
        }
    });
    let direct = consul_client::Client::builder().address(address).build().expect("a good address");
    let client = consul_client::Client::builder().address(proxy).build().expect("a good address");
    let shared = client.health().service("bench").passing().watch().share();
    let waiting: Vec<_> = (0..subscribers)
        .map(|_| {
            let mut subscriber = shared.subscribe();
            tokio::spawn(async move {
                while subscriber.next().await.is_some_and(|snapshot| snapshot.items.is_empty()) {}
            })
        })
        .collect();
    while shared.latest().is_none() {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    let instance = consul_client::ServiceRegistration::new("bench", "bench-1").port(1);
    direct.agent().register(&instance).await.expect("a registration");
    for subscriber in waiting {
        subscriber.await.expect("a subscriber ends well");
    }
    count.load(Ordering::SeqCst)
}
