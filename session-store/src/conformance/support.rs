//! What the checks share.

use crate::{
    CommitId, Durability, Lifetime, Loaded, Op, Outcome, Patch, SessionId, SessionStore, StoreKey,
    lifetime::unix_now, record::Record,
};
use std::time::{Duration, Instant};

pub(super) fn key() -> StoreKey {
    SessionId::random().key()
}

pub(super) async fn login(store: &dyn SessionStore, principal: &str) -> StoreKey {
    let key = key();
    let made = store.create(&key, Lifetime::default(), Some(principal.into()), Patch::new(), None).await;
    assert_eq!(made.expect("create failed").outcome, Outcome::Saved { version: 1 });
    key
}

pub(super) fn rotate(to: StoreKey, principal: Option<&str>, grace: Duration) -> Op {
    let (principal, id) = (principal.map(str::to_owned), Some(CommitId::random()));
    Op::Rotate { to, principal, patch: Patch::new(), grace, id }
}

pub(super) async fn apply(store: &dyn SessionStore, key: &StoreKey, op: Op) -> Outcome {
    store.apply(key, op, Durability::Primary).await.expect("apply failed").outcome
}

pub(super) async fn commit(store: &dyn SessionStore, key: &StoreKey, patch: Patch) -> Outcome {
    apply(store, key, patch.commit()).await
}

pub(super) async fn find(store: &dyn SessionStore, key: &StoreKey) -> Loaded {
    store.find(key, unix_now()).await.expect("load failed")
}

pub(super) async fn live(store: &dyn SessionStore, key: &StoreKey) -> Record {
    match find(store, key).await {
        Loaded::Live { record, .. } => *record,
        other => panic!("a session is missing: {other:?}"),
    }
}

/// Polls until `still` is false; fails after a deadline.
pub(super) async fn until(what: &str, still: impl AsyncFn() -> bool) {
    let start = Instant::now();
    while still().await {
        assert!(start.elapsed() < PATIENCE, "waited {PATIENCE:?} in vain until {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub(super) const SHORT: Duration = Duration::from_millis(150);
pub(super) const LONG: Duration = Duration::from_secs(60);
pub(super) const GRACE: Duration = Duration::from_secs(30);
const PATIENCE: Duration = Duration::from_secs(10);
