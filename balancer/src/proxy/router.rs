//! Several services behind one listener.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use arc_swap::ArcSwap;

use super::config::Config;
use super::gateway::{Gateway, Inner, Load};
use crate::error::ConfigError;
use crate::pool::Pool;
use crate::routing::{Rule, Table};

/// Sends requests to one of several gateways by host and path. Changed live by [`set`](Self::set).
///
/// Each gateway keeps its own pool, connections, waiting room, budget and figures; listeners, limits on connections and
/// the drain are the router's. What no rule covers is answered 404.
#[derive(Clone, Debug)]
pub struct Router {
    pub(crate) edge: Gateway,
    pub(crate) routes: Arc<Routes>,
}

/// One route of a [`Router`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Route {
    /// Which requests.
    pub rule: Rule,
    /// Beside other routes; the rule's length when `None`.
    pub priority: Option<u32>,
    /// Where they go.
    pub gateway: Gateway,
}

impl Route {
    /// A route with the priority of its rule.
    pub fn new(rule: Rule, gateway: Gateway) -> Self {
        Self { rule, priority: None, gateway }
    }

    /// Sets the priority.
    #[must_use]
    pub fn priority(mut self, priority: Option<u32>) -> Self {
        self.priority = priority;
        self
    }
}

impl Router {
    /// Without routes. Of the settings those on connections, limits and the drain are used.
    ///
    /// # Errors
    /// A setting that can't work, by name.
    pub fn new(config: Config) -> Result<Self, ConfigError> {
        let config = Config { probe: None, ..config };
        let nobody = Arc::new(Pool::new(crate::Config::default(), 0)?);
        Ok(Self { edge: Gateway::new(nobody, config)?, routes: Arc::default() })
    }

    /// Replaces all routes, now. Requests under way stay where they are and end there, those of a service that has no
    /// route any more included; what waits for an endpoint of such a service waits until its deadline.
    pub fn set(&self, routes: impl IntoIterator<Item = Route>) {
        let routes: Vec<_> = routes.into_iter().collect();
        let services: BTreeMap<usize, Arc<Inner>> = routes
            .iter()
            .map(|route| (Arc::as_ptr(&route.gateway.inner) as usize, Arc::clone(&route.gateway.inner)))
            .collect();
        let table =
            routes.into_iter().map(|route| (route.rule, route.priority, route.gateway.inner)).collect();
        self.routes.now.store(Arc::new(Now { table, services: services.into_values().collect() }));
        // A service that comes while the router drains must not say that it is ready.
        if self.edge.inner.closing.load(Ordering::Acquire) {
            self.routes.close();
        }
    }

    /// Requests that no route covers: each was answered 404. The routes' own figures are their gateways'.
    pub fn load(&self) -> Load {
        self.edge.load()
    }

    /// The rules, in the order in which they are tried, with the gateways that they lead to.
    pub fn routes(&self) -> Vec<(Rule, Gateway)> {
        let now = self.routes.now.load();
        now.table.iter().map(|(rule, inner)| (rule.clone(), Gateway { inner: Arc::clone(inner) })).collect()
    }

    /// Whether it serves and does not drain.
    pub fn ready(&self) -> bool {
        self.edge.ready()
    }

    /// Closes the listeners and waits for what is in flight; see [`Gateway::quiesce`].
    pub async fn quiesce(&self, within: Duration) -> usize {
        self.edge.quiesce(within).await
    }
}

#[derive(Debug, Default)]
pub(crate) struct Routes {
    now: ArcSwap<Now>,
}

#[derive(Debug, Default)]
struct Now {
    table: Table<Arc<Inner>>,
    services: Vec<Arc<Inner>>,
}

impl Routes {
    pub(crate) fn find(&self, host: &str, path: &str) -> Option<Arc<Inner>> {
        self.now.load().table.find(host, path).cloned()
    }

    pub(crate) fn services(&self) -> Vec<Arc<Inner>> {
        self.now.load().services.clone()
    }

    /// Has all services drain, or not.
    pub(crate) fn close(&self) {
        for service in &self.now.load().services {
            service.closing.store(true, Ordering::Release);
        }
    }
}
