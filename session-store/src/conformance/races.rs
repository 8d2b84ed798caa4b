//! Checks that race: whatever the order, the promise holds.

use super::support::*;
use crate::{Durability, Gone, Loaded, Outcome, Patch, SessionStore};
use std::{sync::Arc, time::Duration};

/// 64 tasks add 50 times to one counter: nothing is lost or doubled.
pub async fn no_update_is_lost(store: Arc<dyn SessionStore>) {
    adds_add_up(&[store], TASKS, ADDS).await;
}

/// Tasks that share these stores, which are several openings of the same one, add to one counter: nothing is lost or doubled.
pub async fn adds_add_up(stores: &[Arc<dyn SessionStore>], tasks: usize, adds: i64) {
    let first = stores.first().expect("give at least one store");
    let key = login(&**first, "ada").await;
    let adders = stores.iter().cycle().take(tasks).cloned().map(|store| {
        tokio::spawn(async move {
            for _ in 0..adds {
                let outcome = commit(&*store, &key, Patch::new().add("views", 1)).await;
                assert!(outcome.is_done(), "an add was refused: {outcome:?}");
            }
        })
    });
    for adder in adders.collect::<Vec<_>>() {
        adder.await.expect("a task of the lost-update check failed");
    }
    let all = i64::try_from(tasks).expect("fewer tasks") * adds;
    assert_eq!(live(&**first, &key).await.counter("views"), Some(all), "adds were lost or doubled");
}

/// Deletes race with saves and rotations: whatever the order, an acknowledged delete leaves no session under any key.
pub async fn deletes_win_races(store: Arc<dyn SessionStore>) {
    for round in 0..RACES {
        let (old, new) = (login(&*store, "ada").await, key());
        let grace = if round % 2 == 0 { GRACE } else { Duration::ZERO };
        let saver = tokio::spawn({
            let store = store.clone();
            async move {
                for key in [old, new, old, new] {
                    commit(&*store, &key, Patch::new().add("views", 1)).await;
                }
            }
        });
        let rotator = tokio::spawn({
            let store = store.clone();
            async move { store.rotate(&old, &new, grace).await.expect("rotate failed").outcome }
        });
        let outcome = store.delete(&old).await.expect("delete failed");
        let rotated = rotator.await.expect("the rotation failed");
        saver.await.expect("the saves failed");
        for key in [old, new] {
            let found = find(&*store, &key).await;
            let over = !matches!(found, Loaded::Live { .. });
            assert!(over, "a session survived its delete ({outcome:?}, rotation {rotated:?})");
        }
    }
}

/// Revocations race with commits and rotations: once it is acknowledged, no session that there was is left under any key.
pub async fn revocations_win_races(store: Arc<dyn SessionStore>) {
    for round in 0..RACES {
        let user = format!("user {}", rand::random::<u64>());
        let (a, b, c, d) = (login(&*store, &user).await, login(&*store, &user).await, key(), key());
        let saver = tokio::spawn({
            let store = store.clone();
            async move {
                for key in [a, b, c, a, b, d] {
                    commit(&*store, &key, Patch::new().add("views", 1)).await;
                }
            }
        });
        let rotator = tokio::spawn({
            let store = store.clone();
            async move {
                store.rotate(&b, &c, GRACE).await.expect("rotate failed");
                store.rotate(&c, &d, Duration::ZERO).await.expect("rotate failed");
            }
        });
        if round % 2 == 0 {
            tokio::task::yield_now().await;
        }
        store.revoke_all(&user, None).await.expect("revoke_all failed");
        let left = store.sessions_of(&user).await.expect("sessions_of failed");
        assert_eq!(left, [], "a session was listed after all had been ended");
        rotator.await.expect("the rotations failed");
        saver.await.expect("the saves failed");
        for key in [a, b, c, d] {
            let found = find(&*store, &key).await;
            assert!(!matches!(found, Loaded::Live { .. }), "a session survived the revocation of all");
        }
    }
}

/// A session that is rotated again and again while requests follow it loses none of their changes.
pub async fn rotations_lose_nothing_under_load(store: Arc<dyn SessionStore>) {
    let first = login(&*store, "ada").await;
    let adders = (0..4).map(|_| {
        let store = store.clone();
        tokio::spawn(async move {
            let (mut key, mut done) = (first, 0);
            while done < ADDS {
                let found = find(&*store, &key).await;
                let Loaded::Live { key: now, record } = found else { panic!("lost on the way: {found:?}") };
                let op = Patch::new().add("views", 1).commit();
                let outcome = store.apply_from(&now, &record, op, Durability::Primary).await;
                match outcome.expect("apply failed").outcome {
                    Outcome::Gone(Gone::Rotated) => {} // moved between the two: follow it
                    outcome => {
                        assert!(outcome.is_done(), "{outcome:?}");
                        done += 1;
                    }
                }
                key = now;
            }
        })
    });
    let adders = adders.collect::<Vec<_>>();
    let mut last = first;
    for _ in 0..ROTATIONS {
        let next = key();
        let outcome = store.rotate(&last, &next, GRACE).await.expect("rotate failed").outcome;
        assert!(outcome.is_done(), "a rotation was refused: {outcome:?}");
        last = next;
        tokio::task::yield_now().await;
    }
    for adder in adders {
        adder.await.expect("an adder failed");
    }
    assert_eq!(live(&*store, &last).await.counter("views"), Some(4 * ADDS), "adds were lost or doubled");
}

const TASKS: usize = 64;
const ADDS: i64 = 50;
const RACES: usize = 40;
/// Fewer than a load follows.
const ROTATIONS: usize = 7;
