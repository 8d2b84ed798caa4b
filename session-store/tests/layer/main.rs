//! The tower layer over a store that counts its calls and can fail.
#![cfg(feature = "tower")]
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

#[cfg(feature = "axum")]
mod examples;
mod own;
mod support;
mod values;

use http::{StatusCode, header};
use session_store::{
    Durability, Gone, Session, SessionStore,
    layer::{Commit, Outage},
};
use std::{
    sync::atomic::Ordering::SeqCst,
    time::{Duration, Instant},
};
use support::*;

#[tokio::test]
async fn a_request_costs_what_it_uses() {
    let mut client = Client::new();
    let response = client.send(async |_| ok("")).await;
    assert!(response.headers().is_empty(), "an untouched session left a trace");
    assert_eq!(client.store.counts(), (0, 0));
    client.send(async |session: Session| ok(session.principal().await.unwrap().is_some())).await;
    assert_eq!(client.store.counts(), (0, 0), "no cookie, no load");
    client.send(login).await;
    assert_eq!(client.store.counts(), (0, 1));
    let read = async |session: Session| {
        session.get::<i64>("views").await.unwrap();
        session.clone().get::<String>("name").await.unwrap();
        ok(session.principal().await.unwrap().unwrap())
    };
    let response = client.send(read).await;
    assert_eq!(
        (response.headers()[header::VARY].as_bytes(), response.body().as_str()),
        (&b"cookie"[..], "ada")
    );
    assert_eq!(client.store.counts(), (1, 0), "one load for all reads");
    assert_eq!(client.send(count).await.body(), "1");
    assert_eq!(client.store.counts(), (1, 1));
}

#[tokio::test]
async fn changes_are_committed_before_the_response_and_not_on_errors() {
    let mut client = Client::new();
    client.send(login).await;
    let set = async |session: Session| {
        session.set("theme", "dark").unwrap();
        ok("")
    };
    client.send(set).await;
    let broken = async |session: Session| {
        session.set("theme", "light").unwrap();
        status(StatusCode::INTERNAL_SERVER_ERROR)
    };
    client.send(broken).await;
    let read = async |session: Session| ok(session.get::<String>("theme").await.unwrap().unwrap_or_default());
    assert_eq!(client.send(read).await.body(), "dark");
    let asked = async |session: Session| {
        session.set("theme", "light").unwrap();
        session.commit().await.unwrap();
        session.set("theme", "blue").unwrap();
        status(StatusCode::INTERNAL_SERVER_ERROR)
    };
    client.send(asked).await;
    assert_eq!(client.send(read).await.body(), "light", "a handler that asks is heard, whatever it answers");
    let own = async |session: Session| {
        session.set("n", &1).unwrap();
        session.add("n", 2);
        session.remove("theme");
        let theme = session.get::<String>("theme").await.unwrap();
        ok(format!("{:?} {theme:?}", session.get::<i64>("n").await.unwrap()))
    };
    assert_eq!(client.send(own).await.body(), "Some(3) None", "a request sees its own changes");
}

#[tokio::test]
async fn a_value_of_another_type_is_an_error_that_does_not_quote_it() {
    let mut client = Client::new();
    let set = async |session: Session| {
        session.set("note", "private").unwrap();
        let error = session.get::<i64>("note").await.unwrap_err();
        ok(format!("{error} {error:?}"))
    };
    let text = client.send(set).await.into_body();
    assert!(text.contains("note") && !text.contains("private"), "{text}");
}

#[tokio::test]
async fn log_in_changes_the_id_and_log_out_ends_it() {
    let mut client = Client::new();
    let cart = async |session: Session| {
        session.set("cart", &[1, 2]).unwrap();
        ok("")
    };
    client.send(cart).await;
    let anonymous = client.cookie.clone().unwrap();
    client.send(login).await;
    assert_ne!(client.cookie.as_ref(), Some(&anonymous));
    let read =
        async |session: Session| ok(session.get::<Vec<i32>>("cart").await.unwrap().unwrap_or_default().len());
    assert_eq!(client.send(read).await.body(), "2", "the cart survives the log-in");
    let kept = client.cookie.clone();
    client.cookie = Some(anonymous);
    assert_eq!(client.user().await, "", "the id from before the log-in is logged in");
    let late = async |session: Session| {
        session.set("theme", "dark").unwrap();
        ok(session.commit().await.unwrap() == Commit::Gone(Gone::Rotated))
    };
    let response = client.send(late).await;
    assert_eq!(response.body(), "true");
    assert!(
        response.headers().get(header::SET_COOKIE).is_none(),
        "a late request takes the new id from the browser"
    );
    client.cookie.clone_from(&kept);
    let logout = async |session: Session| {
        session.add("views", 1);
        session.logout().await.unwrap();
        ok("")
    };
    client.send(logout).await;
    assert_eq!(client.cookie, None);
    client.cookie = kept;
    assert_eq!(client.user().await, "", "a log-out left the session alive");
}

/// A request that began before the log-out ends after it: nothing comes back, and the page is not broken by it.
#[tokio::test]
async fn a_late_save_loses_against_a_log_out() {
    let mut client = Client::new();
    client.send(login).await;
    let store = client.store.clone();
    let slow = move |session: Session| {
        let store = store.clone();
        async move {
            session.principal().await.unwrap();
            for key in store.sessions_of("ada").await.unwrap() {
                store.memory.delete(&key).await.unwrap();
            }
            session.add("views", 1);
            ok(format!("{:?}", matches!(session.commit().await.unwrap(), Commit::Gone(_))))
        }
    };
    let response = client.send(slow).await;
    assert_eq!((response.status(), response.body().as_str()), (StatusCode::OK, "true"));
    assert!(response.headers().get(header::SET_COOKIE).is_none(), "a late save made a new session");
    assert_eq!(client.user().await, "");
}

/// The handler leaves the saving to the layer, and its page must not say that something was saved which was not.
#[tokio::test]
async fn a_page_whose_change_came_too_late_does_not_leave() {
    let mut client = Client::new();
    client.send(login).await;
    let store = client.store.clone();
    let slow = move |session: Session| {
        let store = store.clone();
        async move {
            session.principal().await.unwrap();
            for key in store.sessions_of("ada").await.unwrap() {
                store.memory.delete(&key).await.unwrap();
            }
            session.set("cart", &vec![1]).unwrap();
            ok("added")
        }
    };
    let response = client.send(slow).await;
    assert_eq!((response.status(), response.body().as_str()), (StatusCode::UNAUTHORIZED, ""));
}

/// This host may be wrong about it: its clock may be ahead of the host's where the session is live.
#[tokio::test]
async fn a_log_out_asks_the_store_although_the_session_seems_to_be_gone() {
    let mut client = Client::new();
    client.lifetime.idle = Duration::from_millis(1);
    client.send(login).await;
    tokio::time::sleep(Duration::from_millis(30)).await;
    client.store.counts();
    let log_out = async |session: Session| {
        session.logout().await.unwrap();
        ok("")
    };
    client.send(log_out).await;
    assert_eq!(client.store.counts(), (1, 1), "the session was not ended where it is kept");
}

#[tokio::test]
async fn a_request_sent_twice_takes_effect_once() {
    let mut client = Client::new();
    client.send(login).await;
    let named = async |session: Session| {
        session.idempotency("request 7");
        let first = count(session.clone()).await;
        count(session).await;
        first
    };
    assert_eq!(client.send(named).await.body(), "1");
    client.send(named).await;
    let read = async |session: Session| ok(session.get::<i64>("views").await.unwrap().unwrap());
    assert_eq!(
        client.send(read).await.body(),
        "2",
        "two commits of one request are two, and its repetition none"
    );
}

#[tokio::test]
async fn a_value_read_and_changed_by_two_is_a_conflict() {
    let mut client = Client::new();
    client.send(login).await;
    let store = client.store.clone();
    let slow = move |session: Session| {
        let store = store.clone();
        async move {
            let stock: Option<i32> = session.get("stock").await.unwrap();
            for key in store.sessions_of("ada").await.unwrap() {
                let other = session_store::Patch::new().set("stock", *b"5").commit();
                store.memory.apply(&key, other, Durability::Primary).await.unwrap();
            }
            session.set("stock", &(stock.unwrap_or_default() + 1)).unwrap();
            ok("saved")
        }
    };
    let response = client.send(slow).await;
    assert_eq!((response.status(), response.body().as_str()), (StatusCode::CONFLICT, ""));
}

#[tokio::test]
async fn an_outage_fails_closed() {
    let mut client = Client::new();
    client.send(login).await;
    let cookie = client.cookie.clone();
    let shrug = async |session: Session| {
        let user = session.principal().await.unwrap_or_default(); // a handler that ignores the failure
        session.set("cart", &1).unwrap();
        ok(user.unwrap_or_default())
    };
    client.store.fail_loads.store(true, SeqCst);
    client.store.counts();
    let response = client.send(shrug).await;
    assert_eq!((response.status(), response.body().as_str()), (StatusCode::SERVICE_UNAVAILABLE, ""));
    assert_eq!(response.headers()[header::RETRY_AFTER], "1");
    assert_eq!(client.store.counts(), (1, 0), "a session was written after a failed load");
    client.store.fail_loads.store(false, SeqCst);

    client.store.fail_writes.store(true, SeqCst);
    assert_eq!(client.send(shrug).await.status(), StatusCode::SERVICE_UNAVAILABLE, "a lost save looks saved");
    let logout = async |session: Session| {
        let _ = session.logout().await;
        ok("you are logged out")
    };
    let response = client.send(logout).await;
    assert_eq!((response.status(), response.body().as_str()), (StatusCode::SERVICE_UNAVAILABLE, ""));
    assert_eq!(client.cookie, cookie, "an outage changed the cookie");
    client.store.fail_writes.store(false, SeqCst);
    assert_eq!(client.user().await, "ada");
}

/// What only the primary has is not shown as done: a log-out stays refused until a replica has it, however often it is tried.
/// Pages may go on without a session where the application says so; what changes one never does, and the browser keeps its cookie.
#[tokio::test]
async fn an_outage_can_show_pages_to_nobody() {
    let mut client = Client { outage: Outage::Anonymous, ..Client::new() };
    client.send(login).await;
    let (cookie, store) = (client.cookie.clone(), client.store.clone());
    client.store.counts();
    let page = async |session: Session| {
        let user = session.principal().await.unwrap().unwrap_or_else(|| "nobody".to_owned());
        let views = session.get::<i64>("views").await.unwrap();
        ok(format!("{user} {views:?} {}", session.is_available().await))
    };
    assert_eq!(client.send(page).await.body(), "ada None true");
    store.fail_loads.store(true, SeqCst);
    client.store.counts();
    let response = client.send(page).await;
    assert_eq!((response.status(), response.body().as_str()), (StatusCode::OK, "nobody None false"));
    assert!(
        response.headers().contains_key(header::VARY) && !response.headers().contains_key(header::SET_COOKIE)
    );
    assert_eq!(client.store.counts(), (1, 0), "it is asked for once a request, and nothing is written");
    let reads_and_adds = async |session: Session| {
        session.principal().await.unwrap();
        session.add("views", 1);
        ok("")
    };
    let logs_in = async |session: Session| ok(session.login("eve").await.is_err());
    let logs_out = async |session: Session| ok(session.logout().await.is_err());
    for response in
        [client.send(reads_and_adds).await, client.send(logs_in).await, client.send(logs_out).await]
    {
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert!(response.headers().contains_key(header::RETRY_AFTER) && response.body().is_empty());
    }
    assert_eq!((client.store.counts().1, &client.cookie), (0, &cookie));
    store.fail_loads.store(false, SeqCst);
    assert_eq!(client.send(page).await.body(), "ada None true");
}

#[tokio::test]
async fn a_log_out_that_is_not_durable_is_not_acknowledged() {
    let logout = async |session: Session| {
        let _ = session.logout().await;
        ok("you are logged out")
    };
    let mut client = Client::new();
    client.send(login).await;
    client.store.alone.store(true, SeqCst);
    for _ in 0..2 {
        let response = client.send(logout).await;
        assert_eq!((response.status(), response.body().as_str()), (StatusCode::SERVICE_UNAVAILABLE, ""));
        assert_eq!(response.headers()[header::RETRY_AFTER], "1");
        assert!(client.cookie.is_some(), "the browser forgot what it has to end");
    }
    assert_eq!(client.user().await, "", "it is over on the primary");
    let again = async |session: Session| ok(session.login("grace").await.is_ok());
    client.send(count).await; // an anonymous session, for a log-in that rotates
    assert_eq!(client.send(again).await.status(), StatusCode::SERVICE_UNAVAILABLE);
    client.store.alone.store(false, SeqCst);
    assert_eq!(client.send(logout).await.body(), "you are logged out");
    assert_eq!(client.cookie, None);
}

#[tokio::test]
async fn commits_wait_for_replicas_where_the_layer_says_so() {
    let visit = async |session: Session| {
        session.add("views", 1);
        ok("counted")
    };
    let mut client = Client::new();
    client.store.alone.store(true, SeqCst);
    assert_eq!(client.send(visit).await.status(), StatusCode::OK, "the primary is enough by default");
    client.commits = Durability::replicas(1);
    assert_eq!(client.send(visit).await.status(), StatusCode::SERVICE_UNAVAILABLE);
    let mut stranger = Client { store: client.store.clone(), commits: client.commits, ..Client::new() };
    assert_eq!(stranger.send(visit).await.status(), StatusCode::SERVICE_UNAVAILABLE, "a new session too");
    client.store.alone.store(false, SeqCst);
    assert_eq!(client.send(visit).await.body(), "counted");
}

/// A handler that gives up on a commit cannot pass it off as done.
#[tokio::test]
async fn a_commit_that_nobody_waited_for_is_no_success() {
    let mut client = Client::new();
    client.send(login).await;
    client.store.hang_writes.store(true, SeqCst);
    let hasty = async |session: Session| {
        session.add("views", 1);
        assert!(tokio::time::timeout(Duration::from_millis(10), session.commit()).await.is_err());
        ok("counted")
    };
    let response = client.send(hasty).await;
    assert_eq!((response.status(), response.body().as_str()), (StatusCode::SERVICE_UNAVAILABLE, ""));
}

#[tokio::test]
async fn use_renews_a_session_and_idleness_ends_it() {
    let mut client = Client::new();
    client.lifetime.idle = Duration::from_millis(400);
    client.send(login).await;
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(900) {
        assert_eq!(client.user().await, "ada", "a session in use ended");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let (loads, writes) = client.store.counts();
    assert!(writes > 1 && writes < loads / 2, "{writes} renewals for {loads} reads");
    tokio::time::sleep(Duration::from_millis(450)).await;
    assert_eq!(client.user().await, "", "an unused session lives on");
}

#[tokio::test]
async fn foreign_cookies_are_no_session() {
    let mut client = Client::new();
    let long = "x".repeat(5000);
    for value in ["", "x", &long, "__Host-id=", "%00", "../../etc/passwd"] {
        client.cookie = Some(format!("__Host-id={value}"));
        assert_eq!(client.user().await, "");
    }
    assert_eq!(client.store.counts(), (0, 0), "what cannot be an id is not asked for");
}
