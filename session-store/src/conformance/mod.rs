//! What every store must pass. Each check panics with the promise that is broken; run it in a test of your store.
//!
//! The checks use fresh random keys only, so they can share one store, run at the same time and be repeated. [`run`] takes about two seconds
//! where a step takes a millisecond.

mod races;
mod support;

pub use races::{
    adds_add_up, deletes_win_races, no_update_is_lost, revocations_win_races,
    rotations_lose_nothing_under_load,
};

use crate::{
    CommitId, Durability, Gone, Lifetime, Loaded, Mode, Op, Outcome, Patch, SessionStore, StoreKey, Value,
    lifetime::unix_now,
};
use std::{sync::Arc, time::Duration};
use support::*;

/// Runs every check.
pub async fn run(store: Arc<dyn SessionStore>) {
    unknown_ids_are_not_adopted(&*store).await;
    ids_do_not_collide(&*store).await;
    commits_are_idempotent(&*store).await;
    changes_merge_or_conflict(&*store).await;
    deletes_win(&*store).await;
    rotations_are_atomic(&*store).await;
    sessions_end(&*store).await;
    users_are_indexed(&*store).await;
    sessions_are_counted(&*store).await;
    limits_hold(&*store).await;
    schemas_are_kept(&*store).await;
    clocks_may_differ(&*store).await;
    sweeps_spare_the_living(&*store).await;
    revocations_are_complete(&*store).await;
    deletes_win_races(store.clone()).await;
    revocations_win_races(store.clone()).await;
    rotations_lose_nothing_under_load(store.clone()).await;
    no_update_is_lost(store).await;
}

/// A commit, touch or rotation to a key that holds nothing creates nothing.
pub async fn unknown_ids_are_not_adopted(store: &dyn SessionStore) {
    let (key, other) = (key(), key());
    for op in
        [Patch::new().add("views", 1).commit(), Op::Touch, Op::Delete, rotate(other, None, Duration::ZERO)]
    {
        let applied = store.apply(&key, op, Durability::Primary).await.expect("apply failed");
        assert_eq!(applied.outcome, Outcome::Gone(Gone::Absent), "a step was taken on nothing");
    }
    assert_eq!(find(store, &key).await, Loaded::Absent, "an unknown id was adopted");
    assert_eq!(find(store, &other).await, Loaded::Absent, "a rotation of nothing made something");
}

/// Creating and rotating take unused keys only, and repeating the same creation answers as the first time.
pub async fn ids_do_not_collide(store: &dyn SessionStore) {
    let (ada, grace) = (login(store, "ada").await, login(store, "grace").await);
    let applied =
        store.create(&ada, Lifetime::default(), None, Patch::new(), None).await.expect("create failed");
    assert_eq!(applied.outcome, Outcome::Collision, "a session was overwritten by a new one");
    let applied = apply(store, &ada, rotate(grace, None, Duration::ZERO)).await;
    assert_eq!(applied, Outcome::Collision, "a session was overwritten by a rotation");
    assert_eq!(
        live(store, &ada).await.principal.as_deref(),
        Some("ada"),
        "a refused rotation changed the session"
    );
    assert_eq!(live(store, &grace).await.principal.as_deref(), Some("grace"), "a session was overwritten");

    let (key, id) = (key(), Some(CommitId::random()));
    for _ in 0..2 {
        let applied = store.create(&key, Lifetime::default(), None, Patch::new().add("n", 1), id).await;
        let applied = applied.expect("create failed");
        assert_eq!(applied.outcome, Outcome::Saved { version: 1 }, "a repeated creation answers differently");
    }
    assert_eq!(live(store, &key).await.counter("n"), Some(1), "a repeated creation counted twice");
}

/// A commit that is sent twice changes nothing the second time, also after other commits.
pub async fn commits_are_idempotent(store: &dyn SessionStore) {
    let key = login(store, "ada").await;
    let id = Some(CommitId::of("request 1"));
    let send = async |id| {
        let patch = Patch::new().add("views", 1);
        store.commit(&key, None, patch, Mode::Merge, id).await.expect("commit failed")
    };
    let first = send(id).await;
    assert_eq!(send(id).await.outcome, first.outcome, "a repeated commit answers differently");
    send(Some(CommitId::of("request 2"))).await;
    let again = send(id).await;
    assert_eq!(again.outcome, first.outcome, "a repeated commit answers differently after another one");
    let views = again.record.and_then(|record| record.counter("views"));
    assert_eq!(views, Some(2), "a repeated commit counted twice or answers no current record");
}

/// Different keys merge; the same key conflicts; compare-and-set takes its version only; removed keys do not come back.
pub async fn changes_merge_or_conflict(store: &dyn SessionStore) {
    let key = login(store, "ada").await;
    let put = async |base, name: &str, mode| {
        let patch = Patch::new().set(name, name);
        store.commit(&key, Some(base), patch, mode, None).await.expect("commit failed").outcome
    };
    let base = live(store, &key).await.version;
    assert_eq!(put(base, "a", Mode::Merge).await, Outcome::Saved { version: base + 1 });
    assert_eq!(
        put(base, "b", Mode::Merge).await,
        Outcome::Merged { version: base + 2 },
        "different keys must merge"
    );
    assert_eq!(
        put(base, "a", Mode::Merge).await,
        Outcome::Conflict { current: base + 2 },
        "a lost update was not seen"
    );
    assert_eq!(put(base, "c", Mode::CompareAndSet).await, Outcome::Conflict { current: base + 2 });
    assert_eq!(put(base + 2, "c", Mode::CompareAndSet).await, Outcome::Saved { version: base + 3 });
    let outcome = commit(store, &key, Patch::new().remove("a")).await;
    assert_eq!(outcome, Outcome::Saved { version: base + 4 });
    assert_eq!(
        put(base + 3, "a", Mode::Merge).await,
        Outcome::Conflict { current: base + 4 },
        "a removed value came back unseen"
    );
    let record = live(store, &key).await;
    assert_eq!(record.keys().collect::<Vec<_>>(), ["b", "c"]);
    assert_eq!(record.get("b"), Some(&Value::Bytes(b"b".as_slice().into())));
    let outcome = commit(store, &key, Patch::new().add("b", 1)).await;
    assert_eq!(outcome, Outcome::NotCounter { key: "b".into() });
}

/// After a delete no save, touch, rotation, repeat or creation brings the session back.
pub async fn deletes_win(store: &dyn SessionStore) {
    let (key, id) = (key(), Some(CommitId::random()));
    let create = || store.create(&key, Lifetime::default(), Some("ada".into()), Patch::new(), id);
    create().await.expect("create failed");
    let late = Some(CommitId::random());
    let save = || store.commit(&key, None, Patch::new().add("views", 1), Mode::Merge, late);
    save().await.expect("commit failed");
    let outcome = store.delete(&key).await.expect("delete failed");
    assert!(outcome.is_done(), "a live session could not be deleted: {outcome:?}");
    for late in [save().await, store.touch(&key).await, store.rotate(&key, &support::key(), GRACE).await] {
        let outcome = late.expect("a late step failed").outcome;
        assert_eq!(outcome, Outcome::Gone(Gone::Deleted), "a late step was taken on a deleted session");
    }
    assert_eq!(
        create().await.expect("create failed").outcome,
        Outcome::Collision,
        "a repeated creation revived it"
    );
    assert_eq!(find(store, &key).await, Loaded::Revoked, "a deleted session is back");
    assert!(
        store.load(&key).await.expect("load failed").is_some_and(|record| record.keys().next().is_none())
    );
}

/// A rotation moves everything in one step; the old key leads to the new one within its grace, and a log-in ends it at once.
pub async fn rotations_are_atomic(store: &dyn SessionStore) {
    let (a, b, c) = (key(), key(), key());
    let first = Patch::new().set("cart", *b"[1]");
    store.create(&a, Lifetime::default(), None, first, None).await.expect("create failed");
    let id = store.rotate(&a, &b, GRACE).await.expect("rotate failed");
    assert!(id.outcome.is_done() && id.record.is_some_and(|record| record.get("cart").is_some()));
    let Loaded::Live { key: found, .. } = find(store, &a).await else {
        panic!("the old id was dropped inside its grace")
    };
    assert_eq!(found, b, "the old id leads elsewhere");
    let late = commit(store, &a, Patch::new().add("views", 1)).await;
    assert_eq!(late, Outcome::Gone(Gone::Rotated), "a save under the old key was taken");

    let op = rotate(c, Some("ada"), GRACE);
    let outcome = apply(store, &b, op.clone()).await;
    assert!(outcome.is_done(), "log-in was refused: {outcome:?}");
    assert!(apply(store, &b, op).await.is_done(), "a repeated log-in answers differently");
    assert_eq!(live(store, &c).await.principal.as_deref(), Some("ada"));
    assert!(live(store, &c).await.get("cart").is_some(), "log-in lost the anonymous session's values");
    for old in [a, b] {
        assert_eq!(find(store, &old).await, Loaded::Rotated, "an id from before the log-in is logged in");
    }

    let d = key();
    assert!(apply(store, &c, rotate(d, Some("grace"), GRACE)).await.is_done());
    assert!(live(store, &d).await.get("cart").is_none(), "one user got the values of another");

    let (e, f) = (login(store, "ada").await, key());
    store.rotate(&e, &f, SHORT).await.expect("rotate failed");
    until("the grace ends", async || matches!(find(store, &e).await, Loaded::Live { .. })).await;
    live(store, &f).await;
}

/// Idle and absolute lifetime end a session, touching renews only the first, and nothing is saved afterwards.
pub async fn sessions_end(store: &dyn SessionStore) {
    let start = async |idle, absolute| {
        let key = key();
        let made = store.create(&key, Lifetime { idle, absolute }, None, Patch::new(), None).await;
        assert!(made.expect("create failed").outcome.is_done());
        key
    };
    let (idle, absolute, kept) =
        (start(SHORT, LONG).await, start(LONG, SHORT).await, start(LONG, LONG).await);
    let over = async |key: &StoreKey| matches!(find(store, key).await, Loaded::Expired | Loaded::Absent);
    until("the idle lifetime ends", async || !over(&idle).await).await;
    until("the absolute lifetime ends", async || {
        store.touch(&absolute).await.expect("touch failed");
        !over(&absolute).await
    })
    .await;
    for key in [idle, absolute] {
        let outcome = commit(store, &key, Patch::new().add("views", 1)).await;
        assert!(matches!(outcome, Outcome::Gone(_)), "an ended session was saved: {outcome:?}");
        let outcome = store.touch(&key).await.expect("touch failed").outcome;
        assert!(matches!(outcome, Outcome::Gone(_)), "an ended session was renewed: {outcome:?}");
    }
    let before = live(store, &kept).await;
    until("a touch renews the session", async || {
        store.touch(&kept).await.expect("touch failed");
        live(store, &kept).await.touched_at <= before.touched_at
    })
    .await;
    assert_eq!(live(store, &kept).await.version, before.version, "a touch looks like a change");
}

/// The index of a user's sessions follows log-in, rotation, log-out and expiry.
pub async fn users_are_indexed(store: &dyn SessionStore) {
    let user = format!("user {:?} {}", key(), rand::random::<u64>());
    let sessions = async || {
        let mut keys = store.sessions_of(&user).await.expect("sessions_of failed");
        keys.sort();
        keys
    };
    assert_eq!(sessions().await, []);
    let (a, b, c) = (login(store, &user).await, login(store, &user).await, key());
    let both = |x: StoreKey, y: StoreKey| [x.min(y), x.max(y)];
    assert_eq!(sessions().await, both(a, b));
    store.rotate(&a, &c, GRACE).await.expect("rotate failed");
    assert_eq!(sessions().await, both(b, c), "a rotation left the index behind");
    store.delete(&b).await.expect("delete failed");
    assert_eq!(sessions().await, [c], "a log-out left the index behind");
    assert!(apply(store, &c, rotate(key(), Some("someone else"), GRACE)).await.is_done());
    assert_eq!(sessions().await, [], "another user's log-in left the index behind");
    let short = Lifetime { idle: SHORT, absolute: LONG };
    store.create(&key(), short, Some(user.clone()), Patch::new(), None).await.expect("create failed");
    until("an expired session leaves the index", async || !sessions().await.is_empty()).await;
}

/// Where a store says about how many sessions there are, those that are certainly there are among them.
pub async fn sessions_are_counted(store: &dyn SessionStore) {
    let user = format!("one of fifty {}", rand::random::<u64>());
    let before = store.about_how_many().await.expect("about_how_many failed");
    for _ in 0..50 {
        login(store, &user).await;
    }
    let after = store.about_how_many().await.expect("about_how_many failed");
    assert_eq!(before.is_some(), after.is_some(), "a store counts or it does not");
    assert!(after.is_none_or(|count| count >= 50), "{after:?} of at least 50 sessions");
    assert_eq!(store.revoke_all(&user, None).await.expect("revoke_all failed"), 50);
}

/// Ending all sessions of a user spares the one that is excepted and everybody else, and nothing in flight brings one back.
pub async fn revocations_are_complete(store: &dyn SessionStore) {
    let user = format!("user {}", rand::random::<u64>());
    let (a, b, c, other) = (
        login(store, &user).await,
        login(store, &user).await,
        login(store, &user).await,
        login(store, "ada").await,
    );
    let moved = key();
    store.rotate(&c, &moved, GRACE).await.expect("rotate failed");
    let seen = live(store, &a).await;
    let revoke = async |except| store.revoke_all(&user, except).await.expect("revoke_all failed");
    assert_eq!(revoke(Some(&b)).await, 2, "not every other session was ended");
    for key in [a, c, moved] {
        assert!(!matches!(find(store, &key).await, Loaded::Live { .. }), "a session survived its revocation");
    }
    let late = Patch::new().add("views", 1).commit();
    let late = store.apply_from(&a, &seen, late, Durability::Primary).await.expect("apply failed").outcome;
    assert_eq!(late, Outcome::Gone(Gone::Deleted), "a commit in flight was taken after the revocation");
    let late = apply(store, &moved, rotate(key(), Some(&user), GRACE)).await;
    assert_eq!(late, Outcome::Gone(Gone::Deleted), "a rotation in flight was taken after the revocation");
    assert_eq!(store.sessions_of(&user).await.expect("sessions_of failed"), [b], "the index differs");
    live(store, &b).await;
    live(store, &other).await;
    assert_eq!(revoke(None).await, 1);
    assert_eq!(revoke(None).await, 0, "a session was ended twice");
    assert!(!matches!(find(store, &b).await, Loaded::Live { .. }));
    live(store, &login(store, &user).await).await; // a user who was logged out may log in again
}

/// Forgetting what is over leaves alone what is not, tombstones included.
pub async fn sweeps_spare_the_living(store: &dyn SessionStore) {
    let (kept, ended) = (login(store, "ada").await, login(store, "ada").await);
    store.delete(&ended).await.expect("delete failed");
    let over = key();
    let lifetime = Lifetime { idle: Duration::from_millis(1), absolute: LONG };
    store.create(&over, lifetime, None, Patch::new(), None).await.expect("create failed");
    until("a session ends", async || matches!(find(store, &over).await, Loaded::Live { .. })).await;
    store.sweep(usize::MAX).await.expect("sweep failed");
    live(store, &kept).await;
    assert_eq!(find(store, &ended).await, Loaded::Revoked, "a tombstone was forgotten too early");
    assert!(matches!(find(store, &over).await, Loaded::Expired | Loaded::Absent));
}

/// What is too large is refused, and the session stays as it was.
pub async fn limits_hold(store: &dyn SessionStore) {
    let key = login(store, "ada").await;
    let before = live(store, &key).await;
    let patches = [
        Patch::new().set("big", vec![b'1'; crate::codec::MAX_RECORD]),
        Patch::new().set("k".repeat(crate::codec::MAX_KEY + 1), *b"1"),
        (0..=crate::codec::MAX_VALUES).fold(Patch::new(), |patch, number| patch.add(number.to_string(), 1)),
    ];
    for patch in patches {
        let refused = store.apply(&key, patch.commit(), Durability::Primary).await;
        assert!(refused.is_err_and(|error| error.is_too_large()), "a record past its limits was taken");
    }
    assert_eq!(live(store, &key).await, before, "a refused commit changed the session");
}

/// The version of the application's values is kept until a commit says another one, and moves with a rotation.
pub async fn schemas_are_kept(store: &dyn SessionStore) {
    let (key, new) = (login(store, "ada").await, key());
    assert_eq!(live(store, &key).await.schema, 0);
    let upgrade = Patch::new().set("a", *b"1").schema(7);
    assert!(commit(store, &key, upgrade).await.is_done());
    assert!(commit(store, &key, Patch::new().add("views", 1)).await.is_done());
    store.touch(&key).await.expect("touch failed");
    store.rotate(&key, &new, GRACE).await.expect("rotate failed");
    assert_eq!(live(store, &new).await.schema, 7, "the schema of the values was lost");
}

/// Hosts whose clocks differ by half a minute see the same sessions.
pub async fn clocks_may_differ(store: &dyn SessionStore) {
    let (key, ended) = (login(store, "ada").await, login(store, "ada").await);
    store.delete(&ended).await.expect("delete failed");
    for now in [unix_now().saturating_sub(30_000), unix_now().saturating_add(30_000)] {
        for (key, lives) in [(&key, true), (&ended, false)] {
            let found = store.find(key, now).await.expect("load failed");
            assert_eq!(
                matches!(found, Loaded::Live { .. }),
                lives,
                "another clock sees another session: {found:?}"
            );
        }
    }
}

/// For stores that outlive the process: what was acknowledged is there when the store is opened again, and what ended stays ended.
pub async fn restarts_lose_nothing(open: impl AsyncFn() -> Arc<dyn SessionStore>) {
    let user = format!("user {}", rand::random::<u64>());
    let (kept, ended, id) = {
        let store = open().await;
        let (kept, ended) = (login(&*store, &user).await, login(&*store, &user).await);
        let id = Some(CommitId::of("before the restart"));
        let patch = Patch::new().add("views", 1);
        store.commit(&kept, None, patch, Mode::Merge, id).await.expect("commit failed");
        store.delete(&ended).await.expect("delete failed");
        (kept, ended, id)
    };
    let store = open().await;
    assert_eq!(live(&*store, &kept).await.counter("views"), Some(1), "a commit was lost by a restart");
    assert_eq!(find(&*store, &ended).await, Loaded::Revoked, "a log-out was lost by a restart");
    assert_eq!(store.sessions_of(&user).await.expect("sessions_of failed"), [kept], "the index was lost");
    let again = store.commit(&kept, None, Patch::new().add("views", 1), Mode::Merge, id).await;
    let views = again.expect("commit failed").record.and_then(|record| record.counter("views"));
    assert_eq!(views, Some(1), "a commit that was sent again after a restart counted twice");
}
