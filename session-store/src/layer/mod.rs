//! The tower layer: one [`Session`] handle in each request's extensions.
//!
//! Nothing is sent to the store for a request that never asks its session. One that does costs one read, and one write if it changed
//! something; the write is done before the response head leaves, so what a user saw is what is stored. A response of 500 and above saves nothing.
//! When the store fails, the response is 503 with `Retry-After`: a session is never made up after a failed load. [`Outage::Anonymous`] shows pages
//! that only read as to somebody who is not logged in, instead.
#![cfg_attr(
    feature = "axum",
    doc = r#"
With axum a handler takes its [`Session`] as an argument:

```
use axum::{Router, extract::Path, routing::post};
use session_store::{Session, SessionError, SessionLayer, TypedKey};

const CART: TypedKey<Vec<u32>> = TypedKey::new("cart");

async fn add(session: Session, Path(article): Path<u32>) -> Result<String, SessionError> {
    let count = session.update(|values| {
        let mut cart = values.get(CART)?.unwrap_or_default();
        cart.push(article);
        values.set(CART, &cart)?; // if another request changed the cart meanwhile, this closure runs again
        Ok(cart.len())
    });
    Ok(format!("{} articles", count.await?))
}

# #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), session_store::StoreError> {
let layer = SessionLayer::new(session_store::connect("memory:").await?);
let app: Router = Router::new().route("/cart/{article}", post(add)).layer(layer);
# use tower::ServiceExt;
# let request = http::Request::post("/cart/7").body(axum::body::Body::empty()).unwrap();
# let answer = app.oneshot(request).await.unwrap();
# assert!(answer.status() == 200 && answer.headers().contains_key("set-cookie"));
# Ok(()) }
```
"#
)]

#[cfg(feature = "axum")]
mod axum;
mod cookie;
mod outage;
mod outcome;
mod own;
mod service;
mod session;
mod update;
mod value;

#[cfg(feature = "axum")]
pub use axum::NoSessionLayer;
pub use cookie::{CookieConfig, CookieName, CookieNameError, SameSite};
pub use outage::Outage;
pub use outcome::{Commit, SessionError};
pub use own::OwnSession;
pub use service::SessionService;
pub use session::Session;
pub use update::Update;
pub use value::{Key, TypedKey};

use crate::{
    lifetime::Lifetime,
    store::{Durability, SessionStore},
};
use std::sync::Arc;
use update::Migration;

/// Adds sessions to a tower service over HTTP.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), session_store::StoreError> {
/// use session_store::{CookieConfig, Lifetime, SessionLayer};
///
/// let store = session_store::connect("memory:").await?;
/// let layer = SessionLayer::new(store).lifetime(Lifetime::default()).cookie(CookieConfig::default());
/// # drop(layer); Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct SessionLayer {
    pub(crate) store: Arc<dyn SessionStore>,
    pub(crate) lifetime: Lifetime,
    pub(crate) cookie: CookieConfig,
    pub(crate) outage: Outage,
    pub(crate) commits: Durability,
    pub(crate) migration: Option<Migration>,
}

impl SessionLayer {
    /// A layer over a store, with the default [`Lifetime`] and [`CookieConfig`].
    #[must_use]
    pub fn new(store: Arc<dyn SessionStore>) -> Self {
        let (lifetime, cookie, outage) = (Lifetime::default(), CookieConfig::default(), Outage::default());
        Self { store, lifetime, cookie, outage, commits: Durability::Primary, migration: None }
    }

    /// How long new sessions live.
    #[must_use]
    pub fn lifetime(mut self, lifetime: Lifetime) -> Self {
        self.lifetime = lifetime;
        self
    }

    /// Which cookie carries the id.
    #[must_use]
    pub fn cookie(mut self, cookie: CookieConfig) -> Self {
        self.cookie = cookie;
        self
    }

    /// What a request gets whose session cannot be read now.
    #[must_use]
    pub fn outage(mut self, outage: Outage) -> Self {
        self.outage = outage;
        self
    }

    /// How safe ordinary commits and new sessions have to be before they are answered. [`Durability::Primary`] by default: what was answered
    /// in the last moments of a primary may be lost with it. With replicas a commit takes a round trip more, and without enough of them it is
    /// [`StoreError::NotDurable`](crate::StoreError::NotDurable), though it was done. Log-outs, log-ins that change the id and revocations have
    /// [`SessionStore::durability`], which is the usual argument here too.
    #[must_use]
    pub fn commits(mut self, durability: Durability) -> Self {
        self.commits = durability;
        self
    }

    /// Which version of its values the application works with. A session of an older one is brought up to it when it is first loaded: `migrate` is
    /// told the older version (0: from before there was one) and changes values; all instances may try, one succeeds. While instances of
    /// both versions run, the older ones see what the newer ones wrote, and leave it as it is.
    #[must_use]
    pub fn schema<F>(mut self, version: u16, migrate: F) -> Self
    where
        F: Fn(u16, &mut Update<'_>) -> Result<(), SessionError> + Send + Sync + 'static,
    {
        self.migration = Some(Migration { to: version, step: Arc::new(migrate) });
        self
    }
}

impl<S> tower_layer::Layer<S> for SessionLayer {
    type Service = SessionService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        SessionService::new(inner, self.clone())
    }
}
