//! Typed keys, updates that run again, and values of older versions.

use crate::support::{Client, login, ok};
use http::StatusCode;
use session_store::{Durability, Gone, Patch, Session, SessionError, SessionStore, TypedKey, layer::Update};
use std::sync::atomic::Ordering::SeqCst;

const STOCK: TypedKey<i32> = TypedKey::new("stock");
const NAME: TypedKey<String> = TypedKey::new("name");
const VIEWS: TypedKey<i64> = TypedKey::new("views");

#[tokio::test]
async fn typed_keys_hold_their_type() {
    let mut client = Client::new();
    let own = async |session: Session| {
        session.set(NAME, &"lamp".to_owned()).unwrap();
        session.add(VIEWS, 2);
        session.remove(STOCK);
        let text: Option<String> = session.get("name").await.unwrap(); // the same value, by its name
        ok(format!("{:?} {:?} {text:?}", session.get(NAME).await.unwrap(), session.get(VIEWS).await.unwrap()))
    };
    let body = client.send(own).await.into_body();
    assert_eq!(body, r#"Some("lamp") Some(2) Some("lamp")"#);
}

/// Requests that all read a value and write it anew: each sees what the others wrote, so none is lost.
#[tokio::test(flavor = "multi_thread")]
async fn updates_run_again_until_they_fit() {
    let mut client = Client::new();
    client.send(login).await;
    let tasks = (0..32).map(|_| {
        let mut client =
            Client { store: client.store.clone(), cookie: client.cookie.clone(), ..Client::new() };
        tokio::spawn(async move {
            for _ in 0..5 {
                let raise = async |session: Session| {
                    tokio::task::yield_now().await;
                    let stock = session.update(|values| {
                        let stock = values.get(STOCK)?.unwrap_or_default() + 1;
                        values.set(STOCK, &stock)?;
                        Ok(stock)
                    });
                    ok(stock.await.unwrap())
                };
                let response = Box::pin(client.send(raise)).await;
                assert!(response.body().parse::<i32>().unwrap() > 0);
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap();
    }
    let read = async |session: Session| ok(session.get(STOCK).await.unwrap().unwrap());
    assert_eq!(client.send(read).await.body(), "160");
}

/// What a closure reads counts, not only what it writes; what it does not touch does not.
#[tokio::test]
async fn an_update_depends_on_what_it_reads() {
    let mut client = Client::new();
    client.send(login).await;
    for (other, runs) in [("stock", 2), ("theme", 1)] {
        let store = client.store.clone();
        let slow = move |session: Session| {
            let store = store.clone();
            async move {
                session.principal().await.unwrap(); // loads
                for key in store.sessions_of("ada").await.unwrap() {
                    let patch = Patch::new().set(other, "7".to_owned()).commit();
                    store.memory.apply(&key, patch, Durability::Primary).await.unwrap();
                }
                let mut runs = 0;
                let update = session.update(|values| {
                    runs += 1;
                    assert_eq!(values.principal(), Some("ada"));
                    let enough = values.get(STOCK)?.unwrap_or_default() >= 0;
                    values.set("enough", &enough)
                });
                update.await.unwrap();
                ok(runs)
            }
        };
        assert_eq!(client.send(slow).await.body(), &runs.to_string(), "{other}");
    }
}

#[tokio::test]
async fn an_update_creates_writes_nothing_or_says_why_not() {
    let mut client = Client::new();
    let nothing = async |session: Session| {
        session.update(|values| values.get(STOCK).map(drop)).await.unwrap();
        ok(session.update(|_| Err::<(), _>(SessionError::Conflict)).await.is_err())
    };
    assert_eq!(client.send(nothing).await.body(), "true");
    assert_eq!((client.cookie.as_ref(), client.store.counts()), (None, (0, 0)), "something was written");
    let first = async |session: Session| {
        session.set(NAME, &"lamp".to_owned()).unwrap();
        let length = session.update(|values| {
            let length = values.get(NAME)?.unwrap_or_default().len();
            values.add("length", i64::try_from(length).unwrap_or_default());
            Ok(length)
        });
        ok(length.await.unwrap())
    };
    assert_eq!(client.send(first).await.body(), "4", "an update sees what the request changed before");
    assert_eq!(client.store.counts(), (0, 2));

    let beside = async |session: Session| {
        let other = session.clone();
        let update = session.update(|values| {
            other.add(VIEWS, 1); // what a clone changes meanwhile is committed later, not lost
            values.set(STOCK, &1)
        });
        update.await.unwrap();
        ok("")
    };
    client.send(beside).await;
    let read = async |session: Session| ok(session.get(VIEWS).await.unwrap().unwrap_or_default());
    assert_eq!(client.send(read).await.body(), "1");

    client.send(login).await;
    let store = client.store.clone();
    let late = move |session: Session| {
        let store = store.clone();
        async move {
            session.principal().await.unwrap();
            store.memory.revoke_all("ada", None).await.unwrap();
            let done = session.update(|values| values.set(STOCK, &1)).await;
            ok(matches!(done, Err(SessionError::Gone(Gone::Deleted))))
        }
    };
    assert_eq!(client.send(late).await.body(), "true", "an update went past a log-out");
    assert_eq!(client.user().await, "");
}

/// Version 2 keeps a name in two parts, which version 1 had in one.
fn split_names(from: u16, values: &mut Update<'_>) -> Result<(), SessionError> {
    if from < 2
        && let Some(name) = values.get(NAME)?
    {
        let (first, last) = name.split_once(' ').unwrap_or((&name, ""));
        values.set("first", first)?;
        values.set("last", last)?;
        values.remove(NAME);
    }
    Ok(())
}

#[tokio::test]
async fn older_values_are_migrated_once_and_newer_ones_left_alone() {
    let mut client = Client::new();
    client.send(login).await;
    let set = async |session: Session| {
        session.set(NAME, &"Ada Lovelace".to_owned()).unwrap();
        ok("")
    };
    client.send(set).await;
    client.store.counts();
    client.schema = Some((2, split_names));
    let read = async |session: Session| {
        let parts = (session.get::<String>("first").await, session.get::<String>("last").await);
        ok(format!("{:?} {:?} {:?}", parts.0.unwrap(), parts.1.unwrap(), session.get(NAME).await.unwrap()))
    };
    let migrated = r#"Some("Ada") Some("Lovelace") None"#;
    assert_eq!(client.send(read).await.body(), migrated);
    assert_eq!(client.store.counts(), (1, 1));
    assert_eq!(client.send(read).await.body(), migrated);
    assert_eq!(client.store.counts(), (1, 0), "a session was migrated twice");

    // An instance of the older version beside it: it sees what there is, and what it changes keeps the rest.
    client.schema = Some((1, |_, _| panic!("migrated backwards")));
    client.send(set).await;
    client.schema = Some((2, split_names));
    let body = client.send(read).await.into_body();
    assert_eq!(body, r#"Some("Ada") Some("Lovelace") Some("Ada Lovelace")"#);
    let mut fresh = Client { store: client.store.clone(), ..Client::new() };
    fresh.schema = Some((2, |_, _| panic!("a new session was migrated")));
    fresh.send(login).await;
    assert_eq!(fresh.user().await, "ada");
}

/// Two instances find the same old session at once: one migrates it, the other takes what it finds then.
#[tokio::test]
async fn a_migration_that_loses_a_race_looks_again() {
    let mut client = Client::new();
    client.send(login).await;
    let set = async |session: Session| {
        session.set(STOCK, &1).unwrap();
        ok("")
    };
    client.send(set).await;
    client.store.conflict_once.store(true, SeqCst);
    client.schema = Some((1, |_, values| {
        let stock = values.get(STOCK)?.unwrap_or_default();
        values.set(STOCK, &(stock + 1))
    }));
    let read = async |session: Session| ok(session.get(STOCK).await.unwrap().unwrap());
    assert_eq!(client.send(read).await.body(), "8", "the newer value was not the one that was migrated");
}

#[tokio::test]
async fn a_migration_that_fails_shows_nothing_and_saves_nothing() {
    let mut client = Client::new();
    client.send(login).await;
    client.schema = Some((1, |_, _| Err(SessionError::Value { key: "x".into(), reason: "is not known" })));
    let shrug = async |session: Session| {
        let user = session.principal().await.ok().flatten().unwrap_or_default();
        session.add(VIEWS, 1);
        ok(user)
    };
    client.store.counts();
    let response = client.send(shrug).await;
    assert_eq!((response.status(), response.body().as_str()), (StatusCode::INTERNAL_SERVER_ERROR, ""));
    assert_eq!(client.store.counts(), (1, 0));
    client.schema = None;
    assert_eq!(client.user().await, "ada");
}
