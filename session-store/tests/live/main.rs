//! The Redis store against real servers on loopback, failovers included.
#![cfg(all(feature = "redis", feature = "conformance", unix))]
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod durability;
mod faults;
#[cfg(feature = "tls")]
mod secure;
mod servers;
mod store;

use session_store::{
    CommitId, Durability, Lifetime, Loaded, Outcome, Patch, SessionId, SessionStore, StoreKey,
    lifetime::unix_now,
};

fn key_of_nobody() -> StoreKey {
    SessionId::random().key()
}

async fn create(store: &dyn SessionStore) -> StoreKey {
    let key = SessionId::random().key();
    let id = Some(CommitId::random());
    let made = store.create(&key, Lifetime::default(), Some("ada".into()), Patch::new(), id).await.unwrap();
    assert_eq!(made.outcome, Outcome::Saved { version: 1 });
    key
}

async fn add(store: &dyn SessionStore, key: &StoreKey) {
    let commit = Patch::new().add("views", 1).commit();
    let applied = store.apply(key, commit, Durability::Primary).await.unwrap();
    assert!(applied.outcome.is_done(), "{:?}", applied.outcome);
}

async fn find(store: &dyn SessionStore, key: &StoreKey) -> &'static str {
    match store.find(key, unix_now()).await.unwrap() {
        Loaded::Live { .. } => "live",
        _ => "over",
    }
}
