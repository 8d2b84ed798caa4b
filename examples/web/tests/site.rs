//! The site as a browser sees it, without a socket; and one run over sockets for the drain.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use async_trait::async_trait;
use axum::{
    Router,
    body::Body,
    http::{Request, Response, StatusCode, header},
};
use http_body_util::BodyExt;
use session_store::{
    Applied, Durability, MemoryStore, Op, Record, RedisStore, SessionStore, StoreError, StoreKey,
};
use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::oneshot,
};
use tower::ServiceExt;
use web::{AppState, Settings, app, pages::Answer};

/// A browser: keeps its cookie, may go to any instance.
#[derive(Default)]
struct Browser {
    cookie: Option<String>,
}

impl Browser {
    async fn send(
        &mut self,
        site: &Router,
        method: &str,
        uri: &str,
        body: &str,
        id: Option<&str>,
    ) -> Response<Body> {
        let mut request = Request::builder().method(method).uri(uri);
        if let Some(cookie) = &self.cookie {
            request = request.header(header::COOKIE, cookie);
        }
        if let Some(id) = id {
            request = request.header("x-request-id", id);
        }
        let request = request.header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
        let response =
            site.clone().oneshot(request.body(Body::from(body.to_owned())).unwrap()).await.unwrap();
        for cookie in response.headers().get_all(header::SET_COOKIE) {
            assert_eq!(response.headers()[header::CACHE_CONTROL], "no-store");
            let text = cookie.to_str().unwrap();
            let pair = text.split(';').next().unwrap().to_owned();
            self.cookie = (!text.contains("Max-Age=0")).then_some(pair);
        }
        response
    }

    async fn get(&mut self, site: &Router, uri: &str) -> (StatusCode, String) {
        let response = self.send(site, "GET", uri, "", None).await;
        (response.status(), text(response).await)
    }

    async fn login(&mut self, site: &Router, user: &str) -> StatusCode {
        self.send(site, "POST", "/login", &format!("user={user}"), None).await.status()
    }

    async fn answer(&mut self, site: &Router, uri: &str, id: Option<&str>) -> Answer {
        let response = self.send(site, "GET", uri, "", id).await;
        serde_json::from_str(&text(response).await).unwrap()
    }
}

/// A store whose health can be switched off.
#[derive(Debug, Default)]
struct Switch {
    memory: MemoryStore,
    away: AtomicBool,
    silent: AtomicBool,
}

#[async_trait]
impl SessionStore for Switch {
    async fn load(&self, key: &StoreKey) -> Result<Option<Record>, StoreError> {
        self.memory.load(key).await
    }

    async fn apply(&self, key: &StoreKey, op: Op, durability: Durability) -> Result<Applied, StoreError> {
        self.memory.apply(key, op, durability).await
    }

    async fn sessions_of(&self, principal: &str) -> Result<Vec<StoreKey>, StoreError> {
        self.memory.sessions_of(principal).await
    }

    async fn health(&self) -> Result<(), StoreError> {
        if self.silent.load(SeqCst) {
            // As a host without power answers.
            std::future::pending::<()>().await;
        }
        if !self.away.load(SeqCst) {
            return Ok(());
        }
        let (store, reason) = ("switch".to_owned(), "it is off".to_owned());
        Err(StoreError::Unavailable { store, action: "a health check", reason, source: None })
    }
}

async fn text(response: Response<Body>) -> String {
    String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

fn site(store: Arc<dyn SessionStore>, instance: &str) -> Router {
    let settings = Settings { instance: instance.into(), host: "h1".into(), ..Settings::default() };
    app(AppState::new(settings, store))
}

#[tokio::test]
async fn a_user_logs_in_is_counted_by_two_instances_and_logs_out() {
    let store = Arc::new(MemoryStore::new());
    let (a, b) = (site(store.clone(), "a"), site(store, "b"));
    let mut user = Browser::default();
    let (status, page) = user.get(&a, "/").await;
    assert!(status == StatusCode::OK && page.contains("action=/login"), "{page}");
    assert_eq!(user.cookie, None, "looking at the login form needs no session");

    assert_eq!(user.login(&a, "ada").await, StatusCode::SEE_OTHER);
    let (_, page) = user.get(&b, "/").await;
    assert!(
        page.contains("<span id=user>ada</span>") && page.contains("<strong id=views>1</strong>"),
        "{page}"
    );
    let answer = user.answer(&a, "/views", None).await;
    assert_eq!(
        answer,
        Answer { user: Some("ada".into()), views: 2, instance: "a".into(), host: "h1".into() }
    );
    assert_eq!(user.answer(&b, "/whoami", None).await.views, 2, "whoami must not count");
    user.send(&a, "HEAD", "/", "", None).await;
    assert_eq!(user.answer(&b, "/whoami", None).await.views, 2, "HEAD must not count");

    let kept = Browser { cookie: user.cookie.clone() };
    assert_eq!(user.send(&b, "POST", "/logout", "", None).await.status(), StatusCode::SEE_OTHER);
    for mut browser in [user, kept] {
        assert_eq!(browser.get(&a, "/views").await.0, StatusCode::UNAUTHORIZED);
        assert_eq!(browser.answer(&a, "/whoami", None).await.user, None);
    }
}

#[tokio::test]
async fn a_request_sent_twice_counts_once() {
    let site = site(Arc::new(MemoryStore::new()), "a");
    let mut user = Browser::default();
    user.login(&site, "ada").await;
    for _ in 0..3 {
        assert_eq!(user.answer(&site, "/views", Some("r1")).await.views, 1);
    }
    assert_eq!(user.answer(&site, "/views", Some("r2")).await.views, 2);
    assert_eq!(user.answer(&site, "/views", None).await.views, 3);
    assert_eq!(user.answer(&site, "/views", None).await.views, 4);
}

#[tokio::test]
async fn names_are_limited_and_escaped() {
    let site = site(Arc::new(MemoryStore::new()), "<i>");
    let mut user = Browser::default();
    let long = "x".repeat(65);
    for bad in ["", "+++", "a%00b", "a%E2%80%AEb", "%0A", long.as_str()] {
        assert_eq!(user.login(&site, bad).await, StatusCode::UNPROCESSABLE_ENTITY, "{bad:?}");
    }
    assert_eq!(user.cookie, None);
    assert_eq!(user.login(&site, "%3Cscript%3E%22%26").await, StatusCode::SEE_OTHER);
    let (_, page) = user.get(&site, "/").await;
    assert!(page.contains("&lt;script&gt;&quot;&amp;") && page.contains("&lt;i&gt;"), "{page}");
    assert!(!page.contains("<script>") && !page.contains("<i>"), "{page}");
    let big = user.login(&site, &"y".repeat(10_000)).await;
    assert_eq!(big, StatusCode::PAYLOAD_TOO_LARGE);
}

#[tokio::test]
async fn a_planted_id_is_never_adopted_and_log_in_changes_it() {
    let site = site(Arc::new(MemoryStore::new()), "a");
    let planted = format!("id={}", session_store::SessionId::random().to_cookie_value());
    let mut user = Browser { cookie: Some(planted.clone()) };
    user.login(&site, "ada").await;
    assert_ne!(user.cookie.as_ref(), Some(&planted));
    let first = user.cookie.clone();
    user.login(&site, "grace").await;
    assert_ne!(user.cookie, first);
    let mut old = Browser { cookie: first };
    assert_eq!(
        old.answer(&site, "/whoami", None).await.user,
        None,
        "the id from before the log-in still works"
    );
    assert_eq!(user.answer(&site, "/views", None).await.views, 1, "one user sees another one's count");
}

#[tokio::test]
async fn a_store_that_is_away_fails_closed() {
    let nowhere = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap(); // closed again at once
    let store = RedisStore::open(&nowhere.to_string()).unwrap().deadline(Duration::from_millis(200));
    let site = site(Arc::new(store), "a");
    let cookie = format!("id={}", session_store::SessionId::random().to_cookie_value());
    let mut user = Browser { cookie: Some(cookie.clone()) };
    for uri in ["/", "/views", "/whoami"] {
        let response = user.send(&site, "GET", uri, "", None).await;
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE, "{uri}");
        assert_eq!(response.headers()[header::RETRY_AFTER], "1");
        assert_eq!(response.headers()["x-instance"], "a");
        assert!(text(response).await.contains("Try again"));
    }
    assert_eq!(user.login(&site, "ada").await, StatusCode::SERVICE_UNAVAILABLE);
    let logout = user.send(&site, "POST", "/logout", "", None).await;
    assert_eq!(
        logout.status(),
        StatusCode::SERVICE_UNAVAILABLE,
        "a log-out was acknowledged that did not happen"
    );
    assert_eq!(user.cookie, Some(cookie), "an outage changed the browser's session");
    assert_eq!(
        user.get(&site, "/healthz").await,
        (StatusCode::SERVICE_UNAVAILABLE, "store unreachable".into())
    );
    assert_eq!(user.get(&site, "/work?ms=0").await.0, StatusCode::OK, "work needs no session");
}

/// An instance stays ready for the length of an election, then is not, and is again when the store is back.
#[tokio::test(flavor = "multi_thread")]
async fn a_short_outage_leaves_an_instance_ready() {
    let store = Arc::new(Switch::default());
    let site = site(store.clone(), "a");
    let mut probe = Browser::default();
    let mut ready = async || probe.get(&site, "/healthz").await.0 == StatusCode::OK;
    assert!(ready().await);
    store.away.store(true, SeqCst);
    let start = Instant::now();
    while ready().await {
        assert!(start.elapsed() < Duration::from_secs(8), "ready long after the store went away");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(start.elapsed() > Duration::from_secs(3), "an election would turn every instance away");
    store.away.store(false, SeqCst);
    while !ready().await {
        assert!(start.elapsed() < Duration::from_secs(12), "not ready though the store is back");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A probe that gives up after half a second gets its answer although the store says nothing at all.
#[tokio::test(flavor = "multi_thread")]
async fn a_silent_store_keeps_no_probe_waiting() {
    let store = Arc::new(Switch::default());
    let site = site(store.clone(), "a");
    let mut probe = Browser::default();
    assert_eq!(probe.get(&site, "/healthz").await.0, StatusCode::OK);
    store.silent.store(true, SeqCst);
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(3) {
        let answer = tokio::time::timeout(Duration::from_millis(500), probe.get(&site, "/healthz")).await;
        assert_eq!(answer.expect("the probe gave up").0, StatusCode::OK);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn work_is_bounded() {
    let site = site(Arc::new(MemoryStore::new()), "a");
    let mut user = Browser::default();
    let (status, body) = user.get(&site, "/work?ms=1").await;
    assert!(status == StatusCode::OK && body.contains(r#""instance":"a""#), "{body}");
    assert_eq!(user.get(&site, "/work?ms=10001").await.0, StatusCode::BAD_REQUEST);
    assert_eq!(user.get(&site, "/work?ms=-1").await.0, StatusCode::BAD_REQUEST);
}

/// After the stop signal: not ready at once, still serving, then finishing what is in flight, then no listener.
#[tokio::test(flavor = "multi_thread")]
async fn an_instance_drains_before_it_stops() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let settings = Settings { drain: 1, ..Settings::default() };
    let (stop, stopped) = oneshot::channel::<()>();
    let server = tokio::spawn(web::serve(settings, listener, async move {
        let _ = stopped.await;
    }));
    assert!(fetch(address, "/healthz").await.unwrap().starts_with("HTTP/1.1 200"));
    stop.send(()).unwrap();
    let deadline = Instant::now() + Duration::from_millis(800);
    while !fetch(address, "/healthz").await.unwrap().contains("draining") {
        assert!(Instant::now() < deadline, "still ready well after the stop signal");
    }
    // A gateway that keeps its connection gets its answer, and then the end of the connection.
    let kept = send(address, "GET /whoami HTTP/1.1\r\nhost: web\r\n\r\n").await.unwrap();
    assert!(kept.starts_with("HTTP/1.1 200") && kept.contains("connection: close"), "{kept}");
    let in_flight = fetch(address, "/work?ms=1500").await.unwrap();
    assert!(in_flight.starts_with("HTTP/1.1 200"), "a request in flight was cut off: {in_flight}");
    server.await.unwrap().unwrap();
    assert!(fetch(address, "/healthz").await.is_err(), "the listener outlived the server");
}

/// At an address of their own: the site's users find no figures.
#[tokio::test]
async fn figures_are_told_where_no_user_comes() {
    let [listener, other] =
        [TcpListener::bind("127.0.0.1:0").await.unwrap(), TcpListener::bind("127.0.0.1:0").await.unwrap()];
    let [address, metrics] = [listener.local_addr().unwrap(), other.local_addr().unwrap()];
    let settings = Settings { metrics: Some(metrics), drain: 0, ..Settings::default() };
    let line = format!("{:#}", web::serve(settings.clone(), listener, async {}).await.unwrap_err());
    assert!(line.contains("--metrics") && line.contains(&metrics.to_string()), "{line}");
    drop(other);

    let listener = TcpListener::bind(address).await.unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let server = tokio::spawn(web::serve(settings, listener, async move {
        let _ = stopped.await;
    }));
    for path in ["/whoami", "/work?ms=30", "/views", "/nothing/ada"] {
        fetch(address, path).await.unwrap();
    }
    assert!(fetch(address, "/metrics").await.unwrap().starts_with("HTTP/1.1 404"));
    let page = fetch(metrics, "/metrics").await.unwrap();
    assert!(page.contains("content-type: application/openmetrics-text; version=1.0.0"), "{page}");
    for line in [
        "ha_web_ready 1",
        "ha_web_sessions 0",
        "ha_web_in_flight 0",
        "ha_web_requests_total{route=\"/whoami\",code=\"200\"} 1",
        "ha_web_requests_total{route=\"/views\",code=\"401\"} 1",
        // Whatever a stranger asks for is one line.
        "ha_web_requests_total{route=\"none\",code=\"404\"} 2",
        "ha_web_request_seconds_bucket{le=\"0.025\",route=\"/work\"} 0",
        "ha_web_request_seconds_count{route=\"/work\"} 1",
        "# EOF",
    ] {
        assert!(page.lines().any(|known| known == line), "{line} is not in {page}");
    }
    stop.send(()).unwrap();
    server.await.unwrap().unwrap();
    assert!(fetch(metrics, "/metrics").await.is_err(), "the figures outlived the server");
}

#[tokio::test]
async fn what_cannot_start_says_why() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let listen = listener.local_addr().unwrap().to_string();
    let error = web::run(Settings { listen: listen.clone(), ..Settings::default() }).await.unwrap_err();
    let line = format!("{error:#}");
    assert!(
        line.contains("--listen") && line.contains(&listen) && line.contains("another program"),
        "{line}"
    );
    let settings = Settings { session: "ftp://:secret@h".into(), ..Settings::default() };
    let line = format!("{:#}", web::serve(settings, listener, async {}).await.unwrap_err());
    assert!(line.contains("--session") && line.contains("ftp://") && !line.contains("secret"), "{line}");
}

async fn fetch(address: SocketAddr, path: &str) -> std::io::Result<String> {
    send(address, &format!("GET {path} HTTP/1.1\r\nhost: web\r\nconnection: close\r\n\r\n")).await
}

/// Sends a request and reads until the server closes.
async fn send(address: SocketAddr, request: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

#[tokio::test]
async fn a_fault_that_was_asked_for_leaves_readiness_alone_and_ends() {
    let store: Arc<dyn SessionStore> = Arc::new(MemoryStore::new());
    let faulty = app(AppState::new(Settings { faults: true, ..Settings::default() }, store.clone()));
    let mut browser = Browser::default();
    let fault = async |browser: &mut Browser, query: &str| {
        browser.send(&faulty, "POST", &format!("/fault?{query}"), "", None).await.status()
    };
    assert_eq!(fault(&mut browser, "status=500").await, StatusCode::NO_CONTENT);
    assert_eq!(browser.get(&faulty, "/whoami").await.0, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(browser.get(&faulty, "/healthz").await.0, StatusCode::OK);
    assert_eq!(fault(&mut browser, "slow=10").await, StatusCode::NO_CONTENT);
    let began = Instant::now();
    assert_eq!(browser.get(&faulty, "/work?ms=20").await.0, StatusCode::OK);
    assert!(began.elapsed() >= Duration::from_millis(200), "{:?}", began.elapsed());
    assert_eq!(fault(&mut browser, "").await, StatusCode::NO_CONTENT);
    assert_eq!(browser.get(&faulty, "/whoami").await.0, StatusCode::OK);
    assert_eq!(fault(&mut browser, "status=ten").await, StatusCode::BAD_REQUEST);

    let plain = app(AppState::new(Settings::default(), store));
    let refused = browser.send(&plain, "POST", "/fault?status=500", "", None).await.status();
    assert_eq!(refused, StatusCode::NOT_FOUND, "users can't break an instance");
}
