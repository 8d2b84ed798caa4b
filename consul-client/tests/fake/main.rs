//! Servers that misbehave: garbage, silence, redirects, lost answers, lies about emptiness.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod connections;
#[cfg(feature = "testing")]
mod in_process;
#[cfg(feature = "testing")]
#[path = "../scenarios/mod.rs"]
mod scenarios;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use consul_client::{Client, ClientBuilder, Error, WatchState};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Mutex,
};

/// What the server does with a request.
enum Reply {
    /// Writes this and closes.
    Bytes(String),
    /// Closes without a word.
    Close,
    /// Keeps the connection open and says nothing.
    Silence,
    /// Writes the head of a stream and then zeros for as long as they are taken.
    Endless,
}

/// An HTTP server of which each answer is chosen by `answer(request line and headers, number of the request from 0)`.
struct Fake {
    address: String,
    requests: Arc<AtomicUsize>,
    heads: Arc<Mutex<Vec<String>>>,
    most_at_once: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
}

impl Fake {
    async fn start(answer: impl Fn(&str, usize) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (requests, most_at_once) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (heads, open, answer) = (Arc::default(), Arc::new(AtomicUsize::new(0)), Arc::new(answer));
        let (count, most, log) = (Arc::clone(&requests), Arc::clone(&most_at_once), Arc::clone(&heads));
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (count, most, open) = (Arc::clone(&count), Arc::clone(&most), Arc::clone(&open));
                let (answer, log): (_, Arc<Mutex<Vec<String>>>) = (Arc::clone(&answer), Arc::clone(&log));
                tokio::spawn(async move {
                    most.fetch_max(open.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    let _ = serve(stream, &count, &log, &*answer).await;
                    open.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        Self { address, requests, heads, most_at_once, task }
    }

    fn builder(&self) -> ClientBuilder {
        Client::builder().address(&self.address)
    }

    fn client(&self) -> Client {
        self.builder().build().unwrap()
    }

    fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(
    mut stream: TcpStream,
    count: &AtomicUsize,
    log: &Mutex<Vec<String>>,
    answer: &(dyn Fn(&str, usize) -> Reply + Send + Sync),
) -> std::io::Result<()> {
    let mut read = Vec::new();
    let head = loop {
        if stream.read_buf(&mut read).await? == 0 {
            return Ok(());
        }
        let text = String::from_utf8_lossy(&read);
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.to_lowercase().split("content-length: ").nth(1).map_or(0, |rest| {
                rest.lines().next().and_then(|line| line.trim().parse::<usize>().ok()).unwrap_or(0)
            });
            if body.len() >= length {
                break head.to_owned();
            }
        }
    };
    log.lock().await.push(head.clone());
    match answer(&head, count.fetch_add(1, Ordering::SeqCst)) {
        Reply::Bytes(text) => {
            stream.write_all(text.as_bytes()).await?;
            stream.shutdown().await
        }
        Reply::Close => Ok(()),
        Reply::Silence => std::future::pending().await,
        Reply::Endless => {
            stream.write_all(b"HTTP/1.1 200 OK\r\nx-consul-index: 1\r\nconnection: close\r\n\r\n").await?;
            loop {
                stream.write_all(&[b'0'; 65536]).await?;
            }
        }
    }
}

fn answer_with(status: &str, headers: &str, body: &str) -> Reply {
    Reply::Bytes(format!(
        "HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n{headers}\r\n{body}",
        body.len()
    ))
}

fn ok(index: u64, body: &str) -> Reply {
    answer_with("200 OK", &format!("x-consul-index: {index}\r\nx-consul-knownleader: true\r\n"), body)
}

const PAIR: &str = r#"[{"Key":"a","Value":"eA==","Flags":0,"CreateIndex":1,"ModifyIndex":2}]"#;
const ENTRY: &str = r#"[{"Node":{"Node":"n","Address":"127.0.0.1"},"Service":{"ID":"web-1","Service":"web","Port":80},"Checks":[]}]"#;

#[tokio::test]
async fn garbage_is_a_clear_error_and_is_not_asked_for_again() {
    for (body, sign) in [
        ("<html>hi</html>", "HTML"),
        (&PAIR[..30], "too early"),
        ("{\"Key\":1}", "another shape"),
        ("null", "another shape"),
        ("", "too early"),
    ] {
        let fake = Fake::start(move |_, _| ok(1, body)).await;
        let error = fake.client().kv().get("a").await.unwrap_err();
        assert!(
            matches!(error, Error::Decode { .. }) && error.to_string().contains(sign),
            "{body:?}: {error}"
        );
        assert_eq!(fake.requests(), 1);
    }
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let fake =
        Fake::start(|_, _| answer_with("301 Moved Permanently", "location: /v1/kv/other\r\n", "")).await;
    let error = fake.client().kv().put("a", "x").await.unwrap_err();
    assert!(matches!(error, Error::Rejected(_)) && error.status() == Some(301), "{error}");
    assert_eq!(fake.requests(), 1);
}

#[tokio::test]
async fn an_endless_or_huge_answer_stops_at_the_limit() {
    let endless = Fake::start(|_, _| Reply::Endless).await;
    let huge = Fake::start(|_, _| {
        Reply::Bytes("HTTP/1.1 200 OK\r\nx-consul-index: 1\r\ncontent-length: 100000000\r\n\r\n".into())
    });
    for fake in [endless, huge.await] {
        let client = fake.builder().max_answer_bytes(1 << 20).build().unwrap();
        let error = client.kv().get("a").await.unwrap_err();
        assert!(error.to_string().contains("limit of 1048576 bytes"), "{error}");
    }
}

#[tokio::test]
async fn silence_ends_with_the_deadline() {
    let fake = Fake::start(|_, _| Reply::Silence).await;
    let builder =
        fake.builder().request_timeout(Duration::from_millis(200)).deadline(Duration::from_millis(500));
    let (client, began) = (builder.build().unwrap(), Instant::now());
    let read = client.kv().get("a").await.unwrap_err();
    let write = client.kv().delete_cas("a", 7).await.unwrap_err();
    assert!(matches!(read, Error::NoAnswer { .. }) && !read.maybe_applied(), "{read}");
    assert!(matches!(write, Error::Ambiguous { .. }) && write.maybe_applied(), "{write}");
    assert!(began.elapsed() < Duration::from_secs(3));
}

#[tokio::test]
async fn a_404_that_is_not_consuls_is_no_absent_key() {
    let proxy = Fake::start(|_, _| answer_with("404 Not Found", "", "no such route")).await;
    let kv = proxy.client().kv();
    assert!(kv.get("a").await.unwrap_err().is_not_found());
    assert!(kv.list("a").await.unwrap_err().is_not_found());
    let consul = Fake::start(|_, _| answer_with("404 Not Found", "x-consul-index: 7\r\n", "")).await;
    let absent = consul.client().kv().get("a").await.unwrap();
    assert_eq!((absent.value, absent.meta.index), (None, Some(7)));
}

#[tokio::test]
async fn an_election_is_waited_out() {
    let fake = Fake::start(|_, n| match n {
        0 | 1 => answer_with("500 Internal Server Error", "", "No cluster leader"),
        _ => answer_with("200 OK", "", "true"),
    })
    .await;
    // Even a write that must not happen twice: without a leader it did not happen once.
    assert!(fake.client().kv().cas("a", "x", 3).await.unwrap());
    assert_eq!(fake.requests(), 3);
}

#[tokio::test]
async fn a_lost_answer_is_asked_for_again_only_where_that_does_no_harm() {
    let lossy = || Fake::start(|_, n| if n == 0 { Reply::Close } else { answer_with("200 OK", "", "true") });
    let fake = lossy().await;
    fake.client().kv().put("a", "x").await.unwrap();
    assert_eq!(fake.requests(), 2);
    let fake = lossy().await;
    let error = fake.client().events().fire("deploy", "x").send().await.unwrap_err();
    assert!(error.maybe_applied(), "{error}");
    assert_eq!(fake.requests(), 1);
    // A second try of a compare-and-set does no harm: only the first success finds the index.
    let fake = lossy().await;
    assert!(fake.client().kv().cas("a", "x", 3).await.unwrap());
    assert_eq!(fake.requests(), 2);
    let fake = lossy().await;
    assert!(fake.client().kv().delete_cas("a", 3).await.unwrap());
    assert_eq!(fake.requests(), 2);
}

#[tokio::test]
async fn an_equal_value_alone_does_not_tell_whose_it_is() {
    // The answer is lost, and then the key holds what was to be written there: by this write or by another one.
    let lossy = || {
        Fake::start(|head, n| match n {
            0 => Reply::Close,
            _ if head.starts_with("GET") => ok(9, PAIR),
            _ => answer_with("200 OK", "", "false"),
        })
    };
    let fake = lossy().await;
    let error = fake.client().kv().cas("a", "x", 1).await.unwrap_err();
    assert!(error.maybe_applied() && error.to_string().contains("changed since"), "{error}");
    let fake = lossy().await;
    let error = fake.client().kv().delete_cas("a", 1).await.unwrap_err();
    assert!(error.maybe_applied(), "{error}");
    // A release asks only whether the session holds the key.
    let fake = lossy().await;
    assert!(fake.client().kv().release("a", "x", "session").await.unwrap());
}

#[tokio::test]
async fn a_marked_compare_and_set_is_resolved_by_reading() {
    // The key bears the mark of the write, or another one.
    let lossy = |value: &'static str, mark: fn(u64) -> u64| {
        let marks = std::sync::Mutex::new(Vec::new());
        Fake::start(move |head, n| {
            let mut marks = marks.lock().unwrap();
            if head.starts_with("GET") {
                let flags = mark(marks[0]);
                return ok(
                    9,
                    &format!(
                        r#"[{{"Key":"a","Value":"{value}","Flags":{flags},"CreateIndex":1,"ModifyIndex":9}}]"#
                    ),
                );
            }
            let flags = head.split("flags=").nth(1).and_then(|rest| rest.split(['&', ' ']).next()).unwrap();
            marks.push(flags.parse::<u64>().unwrap());
            assert!(
                marks.iter().all(|mark| *mark == marks[0] && *mark != 0),
                "one mark for all attempts: {marks:?}"
            );
            if n == 0 { Reply::Close } else { answer_with("200 OK", "", "false") }
        })
    };
    // Who changes the value and keeps the flags shows that this write came before.
    for value in ["eA==", "eQ=="] {
        let ours = lossy(value, |mark| mark).await;
        assert!(ours.client().kv().cas_marked("a", "x", 1).await.unwrap());
    }
    for mark in [(|mark| mark ^ 1) as fn(u64) -> u64, |_| 0] {
        let theirs = lossy("eA==", mark).await;
        // Ours may have been there and overwritten: nobody can tell.
        let error = theirs.client().kv().cas_marked("a", "x", 1).await.unwrap_err();
        assert!(error.maybe_applied(), "{error}");
    }
}

#[tokio::test]
async fn a_write_stays_ambiguous_when_a_later_attempt_did_not_get_through() {
    let fake = Fake::start(|_, n| match n {
        0 => Reply::Close,
        _ => answer_with("403 Forbidden", "", "Permission denied"),
    })
    .await;
    let error = fake.client().kv().put("a", "x").await.unwrap_err();
    assert!(error.maybe_applied() && error.status() == Some(403), "{error}");
}

#[tokio::test]
async fn a_callers_fault_is_not_repeated() {
    let fake = Fake::start(|_, _| answer_with("500 Internal Server Error", "", "Invalid Session TTL")).await;
    let error = fake.client().kv().get("a").await.unwrap_err();
    assert!(matches!(error, Error::Rejected(_)), "{error}");
    assert_eq!(fake.requests(), 1);
}

#[tokio::test]
async fn the_token_goes_into_a_header_and_nowhere_else() {
    let fake =
        Fake::start(|head, _| answer_with("400 Bad Request", "", &format!("what is this: {head}"))).await;
    let client = fake.builder().token("hunter2-token").build().unwrap();
    let error = client.raw(http::Method::POST, "/v1/x", &[("q", "private")], None).await.unwrap_err();
    assert!(fake.heads.lock().await[0].to_lowercase().contains("x-consul-token: hunter2-token"));
    assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
}

#[tokio::test]
async fn an_agent_that_is_down_is_passed_over() {
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let dead = gone.local_addr().unwrap().to_string();
    drop(gone);
    let fake = Fake::start(|_, _| answer_with("200 OK", "", "true")).await;
    let client = Client::builder().address(&dead).address(&fake.address).build().unwrap();
    let began = Instant::now();
    assert!(client.kv().cas("a", "x", 0).await.unwrap());
    assert!(began.elapsed() < Duration::from_millis(500));
    let alone = Client::builder().address(&dead).deadline(Duration::from_millis(300)).build().unwrap();
    let error = alone.kv().cas("a", "x", 0).await.unwrap_err();
    assert!(matches!(error, Error::NotSent { .. }) && error.to_string().contains(&dead), "{error}");
}

#[tokio::test]
async fn many_calls_share_few_connections() {
    let fake = Fake::start(|_, _| ok(1, PAIR)).await;
    let client = fake.builder().max_connections(8, 1).build().unwrap();
    let calls = (0..400).map(|_| {
        let kv = client.kv();
        tokio::spawn(async move { kv.get("a").await.map(|answer| answer.value.is_some()) })
    });
    for call in calls.collect::<Vec<_>>() {
        assert!(call.await.unwrap().unwrap());
    }
    // The server closes after each answer, so a closing connection can overlap with the next one.
    let most = fake.most_at_once.load(Ordering::SeqCst);
    assert!(most <= 16, "{most} connections at once");
}

#[tokio::test]
async fn an_empty_answer_that_a_quorum_denies_is_not_passed_on() {
    let fake = Fake::start(|head, n| match (head.contains("consistent"), n) {
        (true, _) => ok(9, ENTRY),
        (false, 0) => ok(5, ENTRY),
        (false, 1) => ok(6, "[]"),
        (false, 2) => answer_with("500 Internal Server Error", "", "No cluster leader"),
        (false, 3..6) => ok(7, "[]"),
        _ => ok(20, &ENTRY.replace("80", "81")),
    })
    .await;
    let mut watch = fake.client().health().service("web").passing().watch();
    let first = watch.next().await.unwrap();
    assert_eq!((first.items[0].service.port, first.index), (80, 5));
    let second = watch.next().await.unwrap();
    assert_eq!(second.items[0].service.port, 81);
    assert!(fake.heads.lock().await.iter().any(|head| head.contains("consistent")));
}

#[tokio::test]
async fn an_empty_list_without_an_index_is_a_failure() {
    let fake = Fake::start(|_, _| answer_with("200 OK", "", "[]")).await;
    let mut watch = fake.client().health().service("web").watch();
    assert!(tokio::time::timeout(Duration::from_millis(500), watch.next()).await.is_err());
    let WatchState::Failing { error, .. } = watch.state() else { panic!("{:?}", watch.state()) };
    assert!(error.to_string().contains("X-Consul-Index"), "{error}");
    // Half a second of failures: growing pauses, not a storm.
    assert!(fake.requests() < 10, "{}", fake.requests());
}

#[tokio::test]
async fn an_answer_without_a_leader_is_passed_on_as_stale_and_an_old_one_is_not() {
    let headers = |index: u64, contact: u64, leader: bool| {
        format!(
            "x-consul-index: {index}\r\nx-consul-lastcontact: {contact}\r\nx-consul-knownleader: {leader}\r\n"
        )
    };
    let fake = Fake::start(move |_, n| match n {
        0 => answer_with("200 OK", &headers(5, 800, false), ENTRY),
        1..5 => answer_with("200 OK", &headers(6, 31_000, true), &ENTRY.replace("80", "81")),
        _ => answer_with("200 OK", &headers(7, 10, true), &ENTRY.replace("80", "82")),
    })
    .await;
    let mut watch = fake.client().health().service("web").watch();
    let first = watch.next().await.unwrap();
    assert_eq!(first.last_contact, Some(Duration::from_millis(800)));
    assert!(matches!(watch.state(), WatchState::Stale { .. }), "{:?}", watch.state());
    assert_eq!(watch.next().await.unwrap().items[0].service.port, 82);
    assert!(watch.state().is_live());
}

#[tokio::test]
async fn what_the_token_may_not_see_is_not_nothing() {
    let head = "x-consul-index: 7\r\nx-consul-results-filtered-by-acls: true\r\n";
    let fake = Fake::start(move |_, _| answer_with("200 OK", head, "[]")).await;
    let mut watch = fake.client().health().service("web").watch();
    assert!(tokio::time::timeout(Duration::from_millis(200), watch.next()).await.is_err());
    let WatchState::Failing { error, .. } = watch.state() else { panic!("{:?}", watch.state()) };
    assert!(error.is_denied(), "{error}");
}

#[tokio::test]
async fn an_index_that_runs_ahead_without_news_is_no_hot_loop() {
    let fake = Fake::start(|_, n| ok(n as u64 + 1, ENTRY)).await;
    let mut watch = fake.client().health().service("web").watch();
    watch.next().await.unwrap();
    assert!(
        tokio::time::timeout(Duration::from_secs(1), watch.next()).await.is_err(),
        "equal content was repeated"
    );
    assert!(watch.state().is_live());
    assert!(fake.requests() <= 14, "{} requests in a second", fake.requests());
}

#[tokio::test]
async fn a_name_that_cannot_be_asked_for_is_told_by_the_state() {
    let fake = Fake::start(|_, _| ok(1, "[]")).await;
    let watch = fake.client().kv().watch("a//b");
    assert!(matches!(watch.state(), WatchState::Failing { .. }));
}

#[tokio::test]
async fn a_server_without_a_leader_is_left_for_the_next() {
    let isolated =
        Fake::start(|_, _| answer_with("500 Internal Server Error", "", "No cluster leader")).await;
    let good = Fake::start(|_, _| answer_with("200 OK", "", "true")).await;
    let client = isolated.builder().address(&good.address).build().unwrap();
    for _ in 0..3 {
        assert!(client.kv().cas("a", "x", 0).await.unwrap());
    }
    assert_eq!((isolated.requests(), good.requests()), (1, 3));

    // What is asked once, as by a watch, leaves it as well.
    let good = Fake::start(|_, n| if n == 0 { ok(5, ENTRY) } else { Reply::Silence }).await;
    let client = isolated.builder().address(&good.address).build().unwrap();
    let mut watch = client.health().service("web").watch();
    let first = tokio::time::timeout(Duration::from_secs(5), watch.next()).await.unwrap().unwrap();
    assert_eq!(first.items[0].service.port, 80);
    assert_eq!(isolated.requests(), 2);
}

#[tokio::test]
async fn a_watch_leaves_a_server_that_fell_behind_or_lost_its_leader() {
    for (contact, leader) in [(31_000, true), (0, false)] {
        let head = format!(
            "x-consul-index: 5\r\nx-consul-lastcontact: {contact}\r\nx-consul-knownleader: {leader}\r\n"
        );
        let behind = Fake::start(move |_, _| answer_with("200 OK", &head, ENTRY)).await;
        let good = Fake::start(|_, n| if n == 0 { ok(5, ENTRY) } else { Reply::Silence }).await;
        let client = behind.builder().address(&good.address).build().unwrap();
        let mut watch = client.health().service("web").watch();
        let first = tokio::time::timeout(Duration::from_secs(5), watch.next()).await;
        assert!(first.is_ok(), "{:?}", watch.state());
        // Equal content is not shown again, but the state tells.
        let mut state = watch.subscribe_state();
        let live = async { state.wait_for(WatchState::is_live).await.map(|_| ()).unwrap() };
        tokio::select! {
            () = live => {}
            next = watch.next() => panic!("{next:?}"),
            () = tokio::time::sleep(Duration::from_secs(5)) => panic!("{:?}", watch.state()),
        }
        assert_eq!(behind.requests(), 1);
    }
}

#[tokio::test]
async fn impatient_callers_do_not_begin_at_the_same_dead_address_for_ever() {
    let silent = Fake::start(|_, _| Reply::Silence).await;
    let good = Fake::start(|_, _| answer_with("200 OK", "", "true")).await;
    let client = silent.builder().address(&good.address).build().unwrap();
    let kv = client.kv();
    assert!(tokio::time::timeout(Duration::from_millis(200), kv.put("a", "x")).await.is_err());
    // The next one begins elsewhere.
    kv.put("a", "x").await.unwrap();
    assert_eq!((silent.requests(), good.requests()), (1, 1));
}

#[tokio::test]
async fn a_lock_afar_is_refused_too_where_the_agent_may_not_be_asked_for_its_data_centre() {
    let fake = Fake::start(|head, _| match head {
        head if head.contains("/v1/agent/self") => answer_with("403 Forbidden", "", "Permission denied"),
        head if head.contains("/v1/session/create") => {
            answer_with("500 Internal Server Error", "", "Missing node registration")
        }
        _ => answer_with("404 Not Found", "x-consul-index: 1\r\n", ""),
    })
    .await;
    let afar = fake.client().with_datacenter("dc2");
    // An agent that has just started says the same for a while, so half the TTL is given to it.
    let lock = afar.lock("l").ttl(Duration::from_secs(10)).acquire();
    let error =
        tokio::time::timeout(Duration::from_secs(30), lock).await.expect("no endless wait").unwrap_err();
    assert!(matches!(error, Error::Invalid { .. }) && error.to_string().contains("may not ask"), "{error}");
}

#[tokio::test]
async fn a_watch_that_is_given_up_while_it_waits_leaves_nothing() {
    let quiet =
        Fake::start(|head, _| if head.contains("index=") { Reply::Silence } else { ok(5, ENTRY) }).await;
    let other = Fake::start(|_, _| ok(5, ENTRY)).await;
    let client = quiet.builder().address(&other.address).build().unwrap();
    for _ in 0..3 {
        let mut watch = client.health().service("web").watch();
        watch.next().await.unwrap();
        assert!(tokio::time::timeout(Duration::from_millis(50), watch.next()).await.is_err());
    }
    assert_eq!(other.requests(), 0);
}
