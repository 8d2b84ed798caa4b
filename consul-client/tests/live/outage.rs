//! All servers are gone for half a minute.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use consul_client::{Check, Client, Election};
use tokio::net::{TcpListener, TcpStream};

use crate::{
    agent::{Consul, FREE_WAIT, eventually},
    shows, web,
};

/// Passes connections on to a server and counts them. Where the server is down, a connection is closed at once.
async fn counting_proxy(target: String) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let count = Arc::new(AtomicUsize::new(0));
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
    (address, count)
}

#[tokio::test]
#[ignore = "needs consul: ./test.sh runs it"]
async fn everything_recovers_by_itself_and_nobody_storms() {
    let mut servers = Consul::start_three().await;
    let (mut builder, mut counts) = (Client::builder(), Vec::new());
    for server in &servers {
        let (address, count) = counting_proxy(server.address()).await;
        builder = builder.address(address);
        counts.push(count);
    }
    let client = builder.build().unwrap();
    let requests = || counts.iter().map(|count| count.load(Ordering::SeqCst)).sum::<usize>();
    let agent = servers[0].client().agent();
    // Longer than the outage: else the agent comes back with a check that has run out, and the set is empty in truth until it is renewed.
    let ttl = Check::ttl(Duration::from_secs(90));
    let kept = agent.keep_registered(web("web-1", 1).check(ttl)).await.unwrap();
    let shared = client.health().service("web").passing().watch().share();
    let mut watches: Vec<_> = (0..10).map(|_| client.health().service("web").passing().watch()).collect();
    for watch in &mut watches {
        shows(watch, &["web-1"]).await;
    }
    let stand = |name: &'static str| -> Election {
        // Sessions live for twice their TTL after the new leader, and then the lock delay.
        let election = client.election("outage/leader").ttl(Duration::from_secs(10));
        election.lock_delay(Duration::from_secs(1)).value(name).campaign().unwrap()
    };
    let elections = [stand("one"), stand("two")];
    eventually("one leads", async || elections.iter().any(|one| one.leadership().is_some())).await;
    let writers: Vec<_> = (0..4)
        .map(|i| {
            let kv = client.kv();
            tokio::spawn(async move {
                loop {
                    // Whatever fails is simply tried anew, as a careless caller does.
                    if kv.put(&format!("outage/{i}"), "x").await.is_ok() {
                        tokio::time::sleep(Duration::from_millis(500)).await;
                    }
                }
            })
        })
        .collect();
    let watching: Vec<_> = watches
        .into_iter()
        .map(|mut watch| {
            tokio::spawn(async move {
                loop {
                    let snapshot = watch.next().await.expect("a watch never ends");
                    assert!(!snapshot.items.is_empty(), "the outage was passed on as an empty set");
                    if snapshot.items.len() == 2 {
                        return watch;
                    }
                }
            })
        })
        .collect();
    for server in &mut servers {
        server.kill();
    }
    let (before, down) = (requests(), Instant::now());
    tokio::time::sleep(Duration::from_secs(30)).await;
    let sent = requests() - before;
    println!("{sent} requests to three servers that were down for {:?}", down.elapsed());
    // 11 watches, 4 writers, 2 candidates with a keeper each: with pauses that grow to 1-2 s, each sends about 25 in that time.
    assert!(sent < 19 * 60, "{sent} requests in 30 s");
    let held = elections.iter().filter(|one| one.leadership().is_some()).count();
    assert_eq!(held, 0, "nobody leads beyond the lease");
    assert_eq!(shared.latest().unwrap().items.len(), 1, "the last good set stays");
    // All at once: one alone finds no quorum.
    let (a, rest) = servers.split_at_mut(1);
    let (b, c) = rest.split_at_mut(1);
    tokio::join!(a[0].restart(), b[0].restart(), c[0].restart());
    eventually("somebody leads again", async || elections.iter().any(|one| one.leadership().is_some())).await;
    agent.register(&web("web-2", 2)).await.unwrap();
    for watch in watching {
        let watch = tokio::time::timeout(FREE_WAIT, watch).await.expect("the watches go on").unwrap();
        assert!(watch.state().is_live(), "{:?}", watch.state());
    }
    for writer in writers {
        assert!(!writer.is_finished());
        writer.abort();
    }
    kept.deregister().await.unwrap();
}
