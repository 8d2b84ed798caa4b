//! A user's own sessions.

use crate::support::{Client, login, ok};
use session_store::{Session, SessionStore, StoreKey};

/// A user sees all of their sessions, ends one, the others, or all; nobody else's.
#[tokio::test]
async fn users_end_their_own_sessions() {
    let (mut phone, mut laptop, mut other) = (Client::new(), Client::new(), Client::new());
    (laptop.store, other.store) = (phone.store.clone(), phone.store.clone());
    let grace = async |session: Session| ok(session.login("grace").await.is_ok());
    let list = async |session: Session| {
        let own = session.own_sessions().await.unwrap();
        ok(format!("{} {}", own.len(), own.iter().filter(|one| one.is_current).count()))
    };
    assert_eq!(phone.send(list).await.body(), "0 0");
    phone.send(login).await;
    laptop.send(login).await;
    other.send(grace).await;
    assert_eq!(phone.send(list).await.body(), "2 1");

    let end_other = async |session: Session| {
        let own = session.own_sessions().await.unwrap();
        let key = own.iter().find(|one| !one.is_current).unwrap().key;
        let key = StoreKey::parse(&key.to_text()).unwrap();
        ok(format!("{} {}", session.end(&key).await.unwrap(), session.end(&key).await.unwrap()))
    };
    assert_eq!(phone.send(end_other).await.body(), "true false");
    assert_eq!((laptop.user().await, phone.user().await), (String::new(), "ada".to_owned()));
    let foreign = phone.store.sessions_of("grace").await.unwrap()[0];
    let end_foreign = move |session: Session| async move { ok(session.end(&foreign).await.unwrap()) };
    assert_eq!(phone.send(end_foreign).await.body(), "false", "somebody else's session was ended");

    laptop.send(login).await;
    let others = async |session: Session| ok(session.logout_others().await.unwrap());
    assert_eq!(laptop.send(others).await.body(), "1");
    assert_eq!((laptop.user().await, phone.user().await), ("ada".to_owned(), String::new()));
    phone.cookie = None;
    phone.send(login).await;
    let everywhere = async |session: Session| ok(session.logout_everywhere().await.unwrap());
    assert_eq!(laptop.send(everywhere).await.body(), "2");
    assert_eq!(laptop.cookie, None);
    assert_eq!((phone.user().await, other.user().await), (String::new(), "grace".to_owned()));
}
