//! The services behind one gateway: each has a pool, a waiting room, probes and figures of its own.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result};
use balancer::proxy::{self, Gateway, Load, Route, Router, Sticky};
use balancer::routing::{Rule, labels as rules};
use balancer::{Pool, Update};
use serde::Serialize;

use super::routes::Labels;

/// What a gateway serves; a clone is another handle on the same.
#[derive(Clone)]
pub struct Services {
    inner: Arc<Inner>,
}

struct Inner {
    router: Router,
    config: proxy::Config,
    /// What all gateways sign their cookies with.
    sticky_key: Option<Vec<u8>>,
    /// The service that gets what no route covers, as long as it has no routes of its own.
    rest: Option<String>,
    all: Mutex<BTreeMap<String, Known>>,
}

struct Known {
    gateway: Gateway,
    routes: Vec<rules::Route>,
    /// The labels that were looked at last.
    labels: Labels,
}

/// The load of one service.
#[derive(Clone, Debug, Serialize)]
pub struct ServiceLoad {
    /// Its name.
    pub service: String,
    /// Its rules; none for the one that gets the rest.
    pub rules: Vec<String>,
    /// What it has to do.
    #[serde(flatten)]
    pub load: Load,
}

/// The load of a gateway: of all services together, and of each.
#[derive(Clone, Debug, Serialize)]
pub struct WholeLoad {
    /// Sums; of the latencies the highest.
    #[serde(flatten)]
    pub all: Load,
    /// Requests that no route covered, answered 404.
    pub unrouted_total: u64,
    /// By name.
    pub services: Vec<ServiceLoad>,
}

impl Services {
    /// With these settings for each service. What no route covers goes to `rest`; it is there from the start.
    ///
    /// # Errors
    /// When a setting is refused.
    pub fn new(config: proxy::Config, rest: Option<&str>, sticky_key: Option<Vec<u8>>) -> Result<Self> {
        let router = Router::new(config.clone()).context("the gateway's settings were refused")?;
        let rest = rest.map(str::to_owned);
        let all = Mutex::default();
        let services =
            Self { inner: Arc::new(Inner { router, config, sticky_key, rest: rest.clone(), all }) };
        if let Some(rest) = rest {
            services.set(&rest, &Labels::new())?;
        }
        Ok(services)
    }

    /// What listens.
    pub fn router(&self) -> &Router {
        &self.inner.router
    }

    /// Whether it serves and does not drain.
    pub fn ready(&self) -> bool {
        self.inner.router.ready()
    }

    /// The gateway of a service.
    pub fn gateway(&self, service: &str) -> Option<Gateway> {
        self.all().get(service).map(|known| known.gateway.clone())
    }

    /// All names.
    pub fn names(&self) -> Vec<String> {
        self.all().keys().cloned().collect()
    }

    /// Takes in a change of a service's replicas.
    pub fn apply(&self, service: &str, update: Update) {
        if let Some(gateway) = self.gateway(service) {
            gateway.apply(update);
        }
    }

    /// Takes in a service's labels, new or changed; whether it is served. Requests under way stay where they are.
    ///
    /// # Errors
    /// When a label can't be used; the service then keeps the routes that it has.
    pub fn set(&self, service: &str, labels: &Labels) -> Result<bool> {
        let mut all = self.all();
        let is_rest = self.inner.rest.as_deref() == Some(service);
        if all.get(service).is_some_and(|known| known.labels == *labels) {
            return Ok(true);
        }
        let pairs = labels.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let read = rules::read(service, pairs);
        let routes = match read {
            Ok(routes) => routes,
            Err(error) => {
                if let Some(known) = all.get_mut(service) {
                    // Said once.
                    known.labels.clone_from(labels);
                }
                return Err(error).with_context(|| format!("the routes of {service} stay as they are"));
            }
        };
        if routes.is_empty() && !is_rest {
            all.remove(service);
            self.publish(&all);
            return Ok(false);
        }
        for name in rules::ignored(labels.keys().map(String::as_str)) {
            tracing::info!(%service, label = %name, "has no effect here");
        }
        let cookie = |routes: &[rules::Route]| routes.iter().find_map(|route| route.sticky.clone());
        let known = all.get(service);
        let gateway = match known {
            Some(known) if cookie(&known.routes) == cookie(&routes) => known.gateway.clone(),
            // The pool, and what it knows of the replicas, stays.
            Some(known) => self.build(Arc::clone(known.gateway.pool()), cookie(&routes))?,
            None => {
                let rules = balancer::Config::default().probes(balancer::Probes::default());
                self.build(Arc::new(Pool::new(rules, rand::random())?), cookie(&routes))?
            }
        };
        let said: Vec<_> = routes.iter().map(|route| route.rule.to_string()).collect();
        tracing::info!(%service, rules = ?said, "routed");
        all.insert(service.to_owned(), Known { gateway, routes, labels: labels.clone() });
        self.publish(&all);
        Ok(true)
    }

    /// Forgets a service; the one that gets the rest loses its own routes only.
    pub fn remove(&self, service: &str) {
        if self.inner.rest.as_deref() == Some(service) {
            // Without labels nothing can be wrong with them.
            let _ = self.set(service, &Labels::new());
            return;
        }
        let mut all = self.all();
        if all.remove(service).is_some() {
            tracing::info!(%service, "no longer routed");
            self.publish(&all);
        }
    }

    /// What there is to do, of each service.
    pub fn loads(&self) -> Vec<ServiceLoad> {
        self.all().iter().map(|(service, known)| known.load(service)).collect()
    }

    /// What there is to do for one service.
    pub fn load(&self, service: &str) -> Option<ServiceLoad> {
        self.all().get(service).map(|known| known.load(service))
    }

    /// What there is to do, of all services.
    pub fn whole_load(&self) -> WholeLoad {
        let services = self.loads();
        let unrouted = self.inner.router.load();
        let mut all = unrouted.clone();
        let highest = |a: Option<f64>, b: Option<f64>| a.into_iter().chain(b).reduce(f64::max);
        for ServiceLoad { load, .. } in &services {
            all.in_flight += load.in_flight;
            all.waiting += load.waiting;
            all.requests_total += load.requests_total;
            all.responses_5xx_total += load.responses_5xx_total;
            all.rejected_total += load.rejected_total;
            all.retries_total += load.retries_total;
            all.hedges_total += load.hedges_total;
            all.rate_per_second += load.rate_per_second;
            // A 404 of our own takes no time and says nothing of a service.
            (all.latency_p50, all.latency_p95, all.latency_p99) = (None, None, None);
            all.endpoints.extend(load.endpoints.iter().cloned());
        }
        for ServiceLoad { load, .. } in &services {
            all.latency_p50 = highest(all.latency_p50, load.latency_p50);
            all.latency_p95 = highest(all.latency_p95, load.latency_p95);
            all.latency_p99 = highest(all.latency_p99, load.latency_p99);
        }
        WholeLoad { all, unrouted_total: unrouted.requests_total, services }
    }

    fn build(&self, pool: Arc<Pool>, cookie: Option<String>) -> Result<Gateway> {
        let mut config = self.inner.config.clone();
        config.sticky = cookie.map(|cookie| match &self.inner.sticky_key {
            Some(key) => Sticky::new(cookie, key.as_slice()),
            None => Sticky::with_own_key(cookie),
        });
        Gateway::new(pool, config).context("the gateway's settings were refused")
    }

    fn publish(&self, all: &BTreeMap<String, Known>) {
        let mut routes = Vec::new();
        let mut seen: BTreeMap<(String, Option<u32>), &str> = BTreeMap::new();
        for (service, known) in all {
            for route in &known.routes {
                if let Some(first) = seen.insert((route.rule.to_string(), route.priority), service) {
                    tracing::warn!(rule = %route.rule, %first, second = %service, "two services have the same rule: the first gets the requests");
                }
                routes.push(Route::new(route.rule.clone(), known.gateway.clone()).priority(route.priority));
            }
        }
        let rest = self.inner.rest.as_ref().and_then(|rest| all.get(rest));
        if let Some(rest) = rest.filter(|rest| rest.routes.is_empty()) {
            // Behind all others, whatever their priority.
            routes.push(Route::new(Rule::any(), rest.gateway.clone()).priority(Some(0)));
        }
        self.inner.router.set(routes);
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<String, Known>> {
        self.inner.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn load(&self, service: &str) -> ServiceLoad {
        let rules = self.routes.iter().map(|route| route.rule.to_string()).collect();
        ServiceLoad { service: service.to_owned(), rules, load: self.gateway.load() }
    }
}

#[cfg(test)]
mod tests {
    use balancer::Endpoint;

    use super::*;
    use crate::roles::gateway::config;

    fn services(rest: Option<&str>) -> Services {
        Services::new(config("/healthz", std::time::Duration::from_secs(1)), rest, None).unwrap()
    }

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn rules_of(services: &Services) -> Vec<String> {
        services.router().routes().iter().map(|(rule, _)| rule.to_string()).collect()
    }

    #[tokio::test]
    async fn a_service_alone_gets_everything_and_with_labels_what_they_say() {
        let services = services(Some("web"));
        assert_eq!(rules_of(&services), ["any"]);
        services.set("shop", &labels(&[("balancer.host", "shop.example")])).unwrap();
        assert_eq!(rules_of(&services), ["Host(`shop.example`)", "any"]);
        services.set("web", &labels(&[("balancer.path", "/")])).unwrap();
        assert_eq!(rules_of(&services), ["Host(`shop.example`)", "PathPrefix(`/`)"]);
        services.remove("web");
        services.remove("shop");
        assert_eq!(rules_of(&services), ["any"]);
        assert_eq!(services.names(), ["web"]);
    }

    #[tokio::test]
    async fn labels_that_can_not_be_used_leave_the_routes_as_they_are() {
        let services = services(None);
        services.set("shop", &labels(&[("balancer.host", "a.example")])).unwrap();
        let bad = labels(&[("balancer.rule", "Host(")]);
        let error = format!("{:#}", services.set("shop", &bad).unwrap_err());
        assert!(error.starts_with("the routes of shop stay as they are: label balancer.rule"), "{error}");
        assert!(services.set("new", &bad).is_err());
        assert_eq!(rules_of(&services), ["Host(`a.example`)"]);
        assert!(!services.set("shop", &labels(&[("balancer.enable", "false")])).unwrap());
        assert!(rules_of(&services).is_empty() && services.names().is_empty());
    }

    #[tokio::test]
    async fn another_cookie_keeps_the_replicas() {
        let services = services(None);
        let with = |cookie: &str| labels(&[("balancer.host", "a.example"), ("balancer.sticky", cookie)]);
        services.set("shop", &with("one")).unwrap();
        services.apply("shop", Update::Add(Endpoint::new("shop.1", "127.0.0.1:9".parse().unwrap())));
        services.set("shop", &with("two")).unwrap();
        assert_eq!(services.load("shop").unwrap().load.endpoints.len(), 1);
    }

    #[tokio::test]
    async fn the_load_is_of_each_and_of_all() {
        let services = services(Some("web"));
        services.set("shop", &labels(&[("balancer.host", "shop.example")])).unwrap();
        for (service, id) in [("web", "web.1"), ("shop", "shop.1"), ("shop", "shop.2")] {
            services.apply(service, Update::Add(Endpoint::new(id, "127.0.0.1:9".parse().unwrap())));
        }
        let whole = serde_json::to_value(services.whole_load()).unwrap();
        assert_eq!(whole["endpoints"].as_array().unwrap().len(), 3);
        assert_eq!((&whole["in_flight"], &whole["unrouted_total"]), (&0.into(), &0.into()));
        assert_eq!(whole["services"][0]["service"], "shop");
        assert_eq!(whole["services"][0]["rules"][0], "Host(`shop.example`)");
        assert_eq!(whole["services"][0]["endpoints"].as_array().unwrap().len(), 2);
        assert_eq!(serde_json::to_value(services.load("web")).unwrap()["endpoints"][0]["id"], "web.1");
        assert!(services.load("nobody").is_none());
    }
}
