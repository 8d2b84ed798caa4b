//! A store that counts its calls and can fail, and a browser before a layer over it.

use async_trait::async_trait;
use http::{Request, Response, StatusCode, header};
use session_store::{
    Durability, Lifetime, MemoryStore, Op, Record, Session, SessionError, SessionLayer, SessionStore,
    StoreError, StoreKey,
    layer::{Outage, Update},
    op::Applied,
};
use std::{
    convert::Infallible,
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
};
use tower::{Layer, ServiceExt, service_fn};

#[derive(Debug, Default)]
pub(crate) struct Probe {
    pub(crate) memory: MemoryStore,
    pub(crate) loads: AtomicUsize,
    pub(crate) writes: AtomicUsize,
    pub(crate) fail_loads: AtomicBool,
    pub(crate) fail_writes: AtomicBool,
    pub(crate) hang_writes: AtomicBool,
    /// No replica confirms anything.
    pub(crate) alone: AtomicBool,
    /// Another instance changes the stock before the next write.
    pub(crate) conflict_once: AtomicBool,
}

impl Probe {
    /// Loads and writes since the last time.
    pub(crate) fn counts(&self) -> (usize, usize) {
        (self.loads.swap(0, SeqCst), self.writes.swap(0, SeqCst))
    }
}

pub(crate) fn away(failing: &AtomicBool) -> Result<(), StoreError> {
    let (store, reason) = ("probe".to_owned(), "told to fail".to_owned());
    let error = StoreError::Unavailable { store, action: "test", reason, source: None };
    if failing.load(SeqCst) { Err(error) } else { Ok(()) }
}

#[async_trait]
impl SessionStore for Probe {
    async fn load(&self, key: &StoreKey) -> Result<Option<Record>, StoreError> {
        self.loads.fetch_add(1, SeqCst);
        away(&self.fail_loads)?;
        self.memory.load(key).await
    }

    async fn apply(&self, key: &StoreKey, op: Op, durability: Durability) -> Result<Applied, StoreError> {
        self.writes.fetch_add(1, SeqCst);
        away(&self.fail_writes)?;
        if self.hang_writes.load(SeqCst) {
            std::future::pending::<()>().await;
        }
        if self.conflict_once.swap(false, SeqCst) {
            let other = session_store::Patch::new().set("stock", *b"7").commit();
            self.memory.apply(key, other, durability).await?;
        }
        let applied = self.memory.apply(key, op, durability).await;
        if self.alone.load(SeqCst) && durability != Durability::Primary {
            return Err(StoreError::NotDurable {
                store: "probe".into(),
                action: "write",
                wanted: 1,
                acked: 0,
            });
        }
        applied
    }

    fn durability(&self) -> Durability {
        Durability::replicas(1)
    }

    async fn sessions_of(&self, principal: &str) -> Result<Vec<StoreKey>, StoreError> {
        self.memory.sessions_of(principal).await
    }

    async fn health(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

pub(crate) struct Client {
    pub(crate) store: Arc<Probe>,
    pub(crate) lifetime: Lifetime,
    pub(crate) cookie: Option<String>,
    pub(crate) outage: Outage,
    pub(crate) commits: Durability,
    /// The layer's schema, with the migration to it.
    pub(crate) schema: Option<(u16, Migrate)>,
}

pub(crate) type Migrate = fn(u16, &mut Update<'_>) -> Result<(), SessionError>;

impl Client {
    pub(crate) fn new() -> Self {
        Self {
            store: Arc::default(),
            lifetime: Lifetime::default(),
            cookie: None,
            outage: Outage::default(),
            commits: Durability::Primary,
            schema: None,
        }
    }

    /// One request whose handler is `handler`. Keeps the cookie that comes back.
    pub(crate) async fn send<F, W>(&mut self, handler: W) -> Response<String>
    where
        W: Fn(Session) -> F + Clone + Send + 'static,
        F: Future<Output = Response<String>> + Send + 'static,
    {
        let inner = service_fn(move |request: Request<()>| {
            let done = handler(request.extensions().get::<Session>().unwrap().clone());
            async move { Ok::<_, Infallible>(done.await) }
        });
        let mut layer = SessionLayer::new(self.store.clone()).lifetime(self.lifetime).outage(self.outage);
        layer = layer.commits(self.commits);
        if let Some((version, migrate)) = self.schema {
            layer = layer.schema(version, migrate);
        }
        let service = layer.layer(inner);
        let mut request = Request::new(());
        if let Some(cookie) = &self.cookie {
            request.headers_mut().insert(header::COOKIE, cookie.parse().unwrap());
        }
        let response = service.oneshot(request).await.unwrap();
        if let Some(cookie) = response.headers().get(header::SET_COOKIE) {
            let text = cookie.to_str().unwrap();
            assert!(
                text.starts_with("__Host-id=") && text.contains("; Secure; HttpOnly; SameSite=Lax; Path=/")
            );
            assert_eq!(response.headers()[header::CACHE_CONTROL], "no-store");
            self.cookie = text.split(';').next().filter(|_| !text.contains("Max-Age=0")).map(str::to_owned);
        }
        response
    }

    pub(crate) async fn user(&mut self) -> String {
        let response =
            self.send(async |session: Session| ok(session.principal().await.unwrap().unwrap_or_default()));
        Box::pin(response).await.into_body()
    }
}

pub(crate) fn ok(body: impl ToString) -> Response<String> {
    Response::new(body.to_string())
}

pub(crate) fn status(status: StatusCode) -> Response<String> {
    Response::builder().status(status).body(String::new()).unwrap()
}

pub(crate) async fn login(session: Session) -> Response<String> {
    session.login("ada").await.unwrap();
    ok("")
}

pub(crate) async fn count(session: Session) -> Response<String> {
    session.add("views", 1);
    session.commit().await.unwrap();
    ok(session.get::<i64>("views").await.unwrap().unwrap())
}
