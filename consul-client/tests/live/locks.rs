//! Sessions and locks.

use std::time::{Duration, Instant};

use consul_client::{Client, Consistency, Error, Lost, SessionOptions};

use crate::{
    LOCK,
    agent::{Consul, FREE_WAIT, eventually},
};

/// The session that holds the lock's key.
async fn holder(client: &Client) -> Option<String> {
    client.kv().get_with(LOCK, Consistency::Consistent).await.unwrap().value.and_then(|pair| pair.session)
}

#[tokio::test]
#[ignore = "needs consul: ./test.sh runs it"]
async fn sessions_live_and_end() {
    let consul = Consul::start().await;
    let sessions = consul.client().sessions();
    let options = SessionOptions::default().name("s").ttl(Duration::from_secs(10)).lock_delay(Duration::ZERO);
    let id = sessions.create(&options).await.unwrap();
    assert_eq!(sessions.renew(&id).await.unwrap().name, "s");
    assert_eq!(sessions.info(&id).await.unwrap().unwrap().ttl, "10000ms");
    sessions.destroy(&id).await.unwrap();
    assert_eq!(sessions.info(&id).await.unwrap(), None);
    let error = sessions.renew(&id).await.unwrap_err();
    assert!(error.is_not_found() && !format!("{error} {error:?}").contains(&id), "{error}");
    sessions.destroy(&id).await.unwrap();
    let error = sessions.create(&SessionOptions::default().ttl(Duration::from_secs(9))).await.unwrap_err();
    assert!(matches!(error, Error::Rejected(_)), "{error}");
}

#[tokio::test]
#[ignore = "needs consul: ./test.sh runs it"]
async fn a_lock_passes_on_with_a_larger_fence() {
    let consul = Consul::start().await;
    let client = consul.client();
    let first = client.lock(LOCK).ttl(Duration::from_secs(10)).value("one").acquire().await.unwrap();
    assert!(first.is_held() && first.lease_deadline() > Instant::now() + Duration::from_secs(7));
    let pair = client.kv().get(LOCK).await.unwrap().value.unwrap();
    assert_eq!(
        (&pair.value[..], pair.flags, pair.modify_index),
        (&b"one"[..], 0x2ddccbc058a50c18, first.fence().0)
    );
    assert!(client.lock(LOCK).try_acquire().await.unwrap().is_none());

    let waiting = tokio::spawn(client.lock(LOCK).ttl(Duration::from_secs(10)).value("two").acquire());
    let given_up = tokio::time::timeout(Duration::from_millis(300), client.lock(LOCK).acquire()).await;
    assert!(given_up.is_err() && !waiting.is_finished());
    let (fence, lost, released) = (first.fence(), first.lost(), Instant::now());
    first.release().await.unwrap();
    assert_eq!(lost.await, Lost::Released);
    let second = tokio::time::timeout(FREE_WAIT, waiting).await.unwrap().unwrap().unwrap();
    assert!(second.fence() > fence, "{} > {fence}", second.fence());
    assert!(
        released.elapsed() < Duration::from_secs(2),
        "a release is not delayed: {:?}",
        released.elapsed()
    );

    drop(second);
    eventually("a dropped lock is released", async || holder(&client).await.is_none()).await;
    let third = client.lock(LOCK).acquire().await.unwrap();
    third.release().await.unwrap();
    let left = client.raw(http::Method::GET, "/v1/session/list", &[], None).await.unwrap();
    assert_eq!(left.body.trim_ascii(), b"[]", "no session stays behind");
}

#[tokio::test]
#[ignore = "needs consul: ./test.sh runs it"]
async fn a_lock_is_lost_with_its_session() {
    let consul = Consul::start().await;
    let client = consul.client();
    let delay = Duration::from_secs(1);
    let lock = client.lock(LOCK).lock_delay(delay).acquire().await.unwrap();
    let lost = tokio::spawn(lock.lost());
    client.sessions().destroy(&holder(&client).await.unwrap()).await.unwrap();
    let destroyed = Instant::now();
    // Told by the watch of the key, long before the next renewal (10 s) would fail.
    assert_eq!(tokio::time::timeout(Duration::from_secs(3), lost).await.unwrap().unwrap(), Lost::Taken);
    assert!(!lock.is_held());
    assert!(client.lock(LOCK).try_acquire().await.unwrap().is_none(), "barred by the lock delay");
    let next = client.lock(LOCK).acquire().await.unwrap();
    assert!(destroyed.elapsed() >= delay - Duration::from_millis(200), "{:?}", destroyed.elapsed());
    assert!(next.fence() > lock.fence());
    // The late release of one that lost it takes nothing from the next holder.
    lock.release().await.unwrap();
    assert!(next.is_held() && holder(&client).await.is_some());
}

#[tokio::test]
#[ignore = "needs consul: ./test.sh runs it"]
async fn a_lock_is_lost_at_the_deadline_when_consul_is_silent_and_not_before() {
    let mut consul = Consul::start().await;
    let client = consul.client();
    let lock = client.lock(LOCK).ttl(Duration::from_secs(10)).acquire().await.unwrap();
    consul.kill();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(lock.is_held(), "an outage shorter than the lease costs nothing");
    let (lost, deadline) = (lock.lost(), lock.lease_deadline());
    assert_eq!(lost.await, Lost::Deadline);
    let late = Instant::now().saturating_duration_since(deadline);
    assert!(Instant::now() >= deadline && late < Duration::from_millis(500), "{late:?} late");
    assert!(!lock.is_held());
}

#[tokio::test]
#[ignore = "needs consul: ./test.sh runs it"]
async fn a_contender_whose_session_ends_begins_anew() {
    let consul = Consul::start().await;
    let client = consul.client();
    let first = client.lock(LOCK).lock_delay(Duration::from_secs(3)).acquire().await.unwrap();
    let theirs = holder(&client).await.unwrap();
    client.sessions().destroy(&theirs).await.unwrap();
    let waiting = tokio::spawn(client.lock(LOCK).ttl(Duration::from_secs(60)).acquire());
    let mut contender = None;
    eventually("the contender waits out the lock delay", async || {
        let list = client.raw(http::Method::GET, "/v1/session/list", &[], None).await.unwrap();
        let text = String::from_utf8(list.body.to_vec()).unwrap();
        contender = text.split("\"ID\":\"").nth(1).and_then(|rest| rest.get(..36)).map(str::to_owned);
        contender.is_some()
    })
    .await;
    client.sessions().destroy(&contender.unwrap()).await.unwrap();
    // The transaction tells; the next renewal would only after 20 s.
    let second = tokio::time::timeout(Duration::from_secs(15), waiting).await.unwrap().unwrap().unwrap();
    assert!(second.fence() > first.fence());
}

#[tokio::test]
#[ignore = "needs consul: ./test.sh runs it"]
async fn a_key_of_another_kind_is_not_locked() {
    let consul = Consul::start().await;
    let client = consul.client();
    client.kv().put(LOCK, "precious").await.unwrap();
    let error = client.lock(LOCK).acquire().await.unwrap_err();
    assert!(error.is_conflict(), "{error}");
    assert_eq!(&client.kv().get(LOCK).await.unwrap().value.unwrap().value[..], b"precious");
}

#[tokio::test]
#[ignore = "needs consul: ./test.sh runs it"]
async fn consuls_own_lock_command_and_this_one_exclude_each_other() {
    let consul = Consul::start().await;
    let client = consul.client();
    // The tool appends `/.lock` to what it is given.
    let mut theirs = consul.command().args(["lock", "jobs", "sleep", "60"]).spawn().unwrap();
    let key = "jobs/.lock";
    eventually("the tool holds the lock", async || {
        client.kv().get(key).await.unwrap().value.is_some_and(|pair| pair.session.is_some())
    })
    .await;
    assert!(client.lock(key).try_acquire().await.unwrap().is_none());
    let waiting = tokio::spawn(client.lock(key).acquire());
    // The tool lets go on an interrupt, which the standard library cannot send.
    let interrupt =
        std::process::Command::new("kill").args(["-INT", &theirs.id().to_string()]).status().unwrap();
    assert!(interrupt.success());
    let ours = tokio::time::timeout(FREE_WAIT, waiting).await.unwrap().unwrap().unwrap();
    theirs.wait().unwrap();
    let refused = consul.command().args(["lock", "-try", "1s", "jobs", "true"]).status().unwrap();
    assert!(!refused.success() && ours.is_held());
    ours.release().await.unwrap();
    let granted = consul.command().args(["lock", "-try", "5s", "jobs", "true"]).status().unwrap();
    assert!(granted.success());
}
