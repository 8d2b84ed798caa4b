//! The tower layer: one [`Session`] handle in each request's extensions.
//!
//! Nothing is sent to the store for a request that never asks its session. One that does costs one read, and one write if it changed
//! something; the write is done before the response head leaves, so what a user saw is what is stored. A response of 500 and above saves nothing.
//! When the store fails, the response is 503 with `Retry-After`: a session is never made up after a failed load.

mod cookie;
mod outcome;
mod own;
mod service;
mod session;

pub use cookie::CookieConfig;
pub use outcome::{Commit, SessionError};
pub use own::OwnSession;
pub use service::SessionService;
pub use session::Session;

use crate::{lifetime::Lifetime, store::SessionStore};
use std::sync::Arc;

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
}

impl SessionLayer {
    /// A layer over a store, with the default [`Lifetime`] and [`CookieConfig`].
    #[must_use]
    pub fn new(store: Arc<dyn SessionStore>) -> Self {
        Self { store, lifetime: Lifetime::default(), cookie: CookieConfig::default() }
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
}

impl<S> tower_layer::Layer<S> for SessionLayer {
    type Service = SessionService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        SessionService::new(inner, self.clone())
    }
}
