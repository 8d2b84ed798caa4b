//! Keys and values.

use std::time::{Duration, Instant};

use consul_client::{Client, Consistency, Error};

use crate::{
    LOCK,
    agent::{Consul, FREE_WAIT, eventually},
};

#[tokio::test]
#[ignore = "needs consul: ./test.sh runs it"]
async fn keys_and_values() {
    let consul = Consul::start().await;
    let kv = consul.client().kv();
    assert_eq!(kv.get("a").await.unwrap().value, None);
    let odd = "dir/with space?#ä%2F&=+";
    for key in ["a", "ab", "a/b", odd] {
        kv.put(key, vec![0, 255, 1]).await.unwrap();
    }
    let pair = kv.get_with(odd, Consistency::Consistent).await.unwrap().value.unwrap();
    assert_eq!((pair.key.as_str(), &pair.value[..], pair.flags), (odd, &[0, 255, 1][..], 0));
    assert_eq!(kv.keys("a").await.unwrap().value, ["a", "a/b", "ab"]);
    assert_eq!(kv.keys("").await.unwrap().value.len(), 4);
    kv.delete("a").await.unwrap();
    assert_eq!(kv.keys("a").await.unwrap().value, ["a/b", "ab"], "a delete takes one key");
    kv.delete("a").await.unwrap();
    kv.delete_tree("a").await.unwrap();
    assert_eq!(kv.list("a").await.unwrap().value, []);
    assert_eq!(kv.list("").await.unwrap().value.len(), 1);
    assert!(kv.delete_tree("").await.is_err());
    kv.put("empty", "").await.unwrap();
    assert!(kv.get("empty").await.unwrap().value.unwrap().value.is_empty());
    kv.put("large", vec![7; 512 * 1024]).await.unwrap();
    assert_eq!(kv.get("large").await.unwrap().value.unwrap().value.len(), 512 * 1024);
    let error = kv.put("large", vec![7; 512 * 1024 + 1]).await.unwrap_err();
    assert!(matches!(error, Error::TooLarge(_)), "{error}");
}

#[tokio::test]
#[ignore = "needs consul: ./test.sh runs it"]
async fn compare_and_set() {
    let consul = Consul::start().await;
    let kv = consul.client().kv();
    assert!(kv.cas("a", "1", 0).await.unwrap());
    assert!(!kv.cas("a", "2", 0).await.unwrap());
    let index = kv.get("a").await.unwrap().value.unwrap().modify_index;
    assert!(kv.cas("a", "3", index).await.unwrap());
    assert!(!kv.cas("a", "4", index).await.unwrap());
    assert!(!kv.delete_cas("a", index).await.unwrap());
    assert!(!kv.cas_marked("a", "4", index).await.unwrap());
    let pair = kv.get("a").await.unwrap().value.unwrap();
    assert_eq!(&pair.value[..], b"3");
    // The same value again, and yet another write.
    assert!(kv.cas_marked("a", "3", pair.modify_index).await.unwrap());
    assert!(!kv.cas_marked("a", "3", pair.modify_index).await.unwrap());
    let pair = kv.get("a").await.unwrap().value.unwrap();
    assert!(kv.delete_cas("a", pair.modify_index).await.unwrap());
    assert_eq!(kv.get("a").await.unwrap().value, None);
}

#[tokio::test]
#[ignore = "needs consul: ./test.sh runs it"]
async fn keys_are_watched() {
    let consul = Consul::start().await;
    let kv = consul.client().kv();
    let (mut one, mut all) = (kv.watch("w/a"), kv.watch_prefix("w/"));
    assert!(one.next().await.unwrap().items.is_empty());
    assert!(all.next().await.unwrap().items.is_empty());
    kv.put("w/b", "b").await.unwrap();
    kv.put("w/a", "1").await.unwrap();
    assert_eq!(&one.next().await.unwrap().items[0].value[..], b"1");
    kv.delete("w/a").await.unwrap();
    assert!(one.next().await.unwrap().items.is_empty());
    eventually("the prefix shows b alone", async || {
        let snapshot = all.next().await.unwrap();
        snapshot.items.len() == 1 && snapshot.items[0].key == "w/b"
    })
    .await;
}

#[tokio::test]
#[ignore = "needs consul: ./test.sh runs it"]
async fn four_hundred_calls_at_once_all_succeed() {
    let consul = Consul::start().await;
    let client = consul.client();
    client.kv().put("a", "x").await.unwrap();
    // The server closes the connections beyond 200 of one address without a word.
    let calls = (0..400).map(|_| {
        let kv = client.kv();
        tokio::spawn(async move { kv.get("a").await })
    });
    for call in calls.collect::<Vec<_>>() {
        assert!(call.await.unwrap().unwrap().value.is_some());
    }
}

#[tokio::test]
#[ignore = "needs consul: ./test.sh runs it"]
async fn watches_that_take_all_their_connections_hold_up_no_call_and_no_lock() {
    let consul = Consul::start().await;
    let client = Client::builder().address(consul.address()).max_connections(2, 3).build().unwrap();
    let watches: Vec<_> = (0..3)
        .map(|i| {
            let mut watch = client.kv().watch(&format!("w/{i}"));
            tokio::spawn(async move { while watch.next().await.unwrap().items.is_empty() {} })
        })
        .collect();
    let ttl = Duration::from_secs(10);
    let lock = client.lock(LOCK).ttl(ttl).acquire().await.unwrap();
    // Longer than the lock would last without renewals.
    let began = Instant::now();
    while began.elapsed() < ttl + Duration::from_secs(1) {
        let kv = client.kv();
        let write = tokio::time::timeout(Duration::from_secs(5), kv.put("other", "x"));
        write.await.expect("a short call finds a connection of its own").unwrap();
        assert!(lock.is_held());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    for (i, watch) in watches.into_iter().enumerate() {
        assert!(!watch.is_finished());
        client.kv().put(&format!("w/{i}"), "x").await.unwrap();
        tokio::time::timeout(FREE_WAIT, watch).await.expect("the watch sees it").unwrap();
    }
    lock.release().await.unwrap();
}
