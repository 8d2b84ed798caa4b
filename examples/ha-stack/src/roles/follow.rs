//! A gateway follows Consul: which services there are, by which labels they are routed, and where their replicas are.

use std::collections::BTreeMap;
use std::time::Duration;

use consul_client::KvPair;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::labels;
use super::members::Members;
use super::routes::{self, Book, Labels, Record};
use super::services::Services;

/// A service, and the routing labels of each of its registered instances: one that only its agent has left still serves.
type Seen = (String, Vec<Labels>);

/// Feeds one service, whatever labels it has; never ends by itself.
pub async fn one(consul: consul_client::Client, service: String, probe: String, services: Services) {
    let (tell, _) = mpsc::channel(1);
    replicas(consul, service, probe, services, tell).await;
}

/// Follows every service that has routing labels, and `rest` in any case; never ends by itself.
pub async fn all(consul: consul_client::Client, rest: Option<String>, probe: String, services: Services) {
    let began = Instant::now();
    let (tell, mut told) = mpsc::channel::<Seen>(64);
    let mut followed: BTreeMap<String, Follower> = BTreeMap::new();
    let start = |service: &str| {
        let (consul, services, tell) = (consul.clone(), services.clone(), tell.clone());
        let replicas = replicas(consul, service.to_owned(), probe.clone(), services, tell);
        Follower(tokio::spawn(replicas).abort_handle())
    };
    if let Some(rest) = &rest {
        followed.insert(rest.clone(), start(rest));
    }
    let mut catalog = consul.catalog().services().watch();
    let mut records = consul.kv().watch_prefix(labels::ROUTES);
    let mut book = Book::default();
    // What was tried last: a label that can't be used is told once.
    let mut tried: BTreeMap<String, Labels> = BTreeMap::new();
    let mut beat = tokio::time::interval(LOOK);
    loop {
        let now = || began.elapsed();
        tokio::select! {
            listed = catalog.next() => {
                let Some(listed) = listed else { return };
                let listed = listed.items.iter().map(|one| (one.name.as_str(), one.tags.as_slice()));
                book.catalog(listed, now());
            }
            noted = records.next() => {
                let Some(noted) = noted else { return };
                book.records(noted.items.iter().filter_map(record).collect());
            }
            Some((service, instances)) = told.recv() => book.instances(&service, instances),
            _ = beat.tick() => {}
        }
        let wanted = book.wanted(now());
        for service in tried.keys().filter(|service| !wanted.contains_key(*service)) {
            services.remove(service);
            if rest.as_ref() != Some(service) {
                followed.remove(service);
            }
        }
        tried.retain(|service, _| wanted.contains_key(service));
        for (service, labels) in wanted {
            if tried.get(&service) == Some(&labels) {
                continue;
            }
            match services.set(&service, &labels) {
                Ok(true) => {
                    followed.entry(service.clone()).or_insert_with(|| start(&service));
                }
                Ok(false) => drop(followed.remove(&service)),
                Err(error) => tracing::warn!(error = format!("{error:#}"), "labels that can't be used"),
            }
            tried.insert(service, labels);
        }
    }
}

/// `None` for a key that no registrar wrote.
fn record(pair: &KvPair) -> Option<(String, Labels)> {
    let service = routes::service_of(&pair.key)?;
    match serde_json::from_slice::<Record>(&pair.value) {
        Ok(record) => Some((service.to_owned(), record.labels)),
        Err(error) => {
            tracing::warn!(key = %pair.key, %error, "is no record of a registrar");
            None
        }
    }
}

/// Feeds the pool of one service, and tells of its labels.
async fn replicas(
    consul: consul_client::Client,
    service: String,
    probe: String,
    services: Services,
    tell: mpsc::Sender<Seen>,
) {
    let mut members = match Members::new(&consul, &service, Some(&probe)) {
        Ok(members) => members,
        Err(error) => return tracing::error!(%service, error = format!("{error:#}"), "can't be followed"),
    };
    loop {
        let change = members.next().await;
        for update in change.updates {
            services.apply(&service, update);
        }
        if let Some(tags) = change.tags {
            let labels = tags.iter().map(|tags| routes::of_tags(tags));
            // Where nobody listens the labels are of no interest.
            let _ = tell.send((service.clone(), labels.collect())).await;
        }
    }
}

/// Ends with its owner.
struct Follower(AbortHandle);

impl Drop for Follower {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// How often it is looked whether a service is gone for good.
const LOOK: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use axum::Router;
    use axum::routing::get;
    use consul_client::ServiceRegistration;
    use consul_client::testing::FakeConsul;
    use tokio::net::TcpListener;

    use super::*;
    use crate::roles::gateway::config;

    /// A replica that answers its service's name.
    async fn replica(name: &'static str) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let app = Router::new().route("/healthz", get(|| async { "" })).fallback(move || async move { name });
        tokio::spawn(async move { axum::serve(listener, app).await });
        address
    }

    struct Stack {
        consul: FakeConsul,
        services: Services,
        address: SocketAddr,
        http: reqwest::Client,
    }

    impl Stack {
        async fn start(rest: Option<&str>) -> Self {
            let consul = FakeConsul::start().await;
            let services = Services::new(config("/healthz", Duration::from_secs(30)), rest, None).unwrap();
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let router = services.router().clone();
            tokio::spawn(async move { router.serve(listener, std::future::pending()).await });
            tokio::spawn(all(consul.client(), rest.map(str::to_owned), "/healthz".into(), services.clone()));
            let http = reqwest::Client::builder().no_proxy().build().unwrap();
            Self { consul, services, address, http }
        }

        async fn register(&self, service: &str, id: &str, at: SocketAddr, tags: &[&str]) {
            let one = ServiceRegistration::new(service, id).address(at.ip().to_string()).port(at.port());
            let one = tags.iter().fold(one, |one, tag| one.tag(*tag));
            self.consul.client().agent().register(&one).await.unwrap();
        }

        async fn note(&self, service: &str, host: &str) {
            let labels = Labels::from([("balancer.host".to_owned(), host.to_owned())]);
            let record = serde_json::to_vec(&Record { swarm: "s1".into(), labels }).unwrap();
            self.consul.client().kv().put(&format!("{}{service}", labels::ROUTES), record).await.unwrap();
        }

        async fn ask(&self, host: &str, path: &str) -> String {
            let asked = self.http.get(format!("http://{}{path}", self.address)).header("host", host);
            let answer = asked.send().await.unwrap();
            let status = answer.status();
            let text = answer.text().await.unwrap();
            if status.is_success() { text } else { format!("{}: {text}", status.as_u16()) }
        }

        async fn becomes(&self, host: &str, path: &str, wanted: &str) {
            let deadline = Instant::now() + Duration::from_secs(30);
            loop {
                let said = self.ask(host, path).await;
                if said.starts_with(wanted) {
                    return;
                }
                assert!(Instant::now() < deadline, "{host}{path} answers {said:?}, not {wanted:?}");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn services_with_labels_get_theirs_and_the_first_one_the_rest() {
        let stack = Stack::start(Some("web")).await;
        let (web, shop) = (replica("web").await, replica("shop").await);
        stack.register("web", "web.1", web, &[]).await;
        stack.becomes("shop.example", "/", "web").await;
        stack.register("shop", "shop.1", shop, &["traefik.http.routers.a.rule=Host(`shop.example`)"]).await;
        stack.becomes("shop.example", "/", "shop").await;
        assert_eq!(stack.ask("other.example", "/").await, "web");
        // Each has figures of its own.
        let load = |service: &str| stack.services.load(service).unwrap().load;
        let before = load("web").requests_total;
        assert_eq!(stack.ask("shop.example", "/").await, "shop");
        assert_eq!(load("web").requests_total, before);
        assert_eq!((load("shop").endpoints.len(), load("web").endpoints.len()), (1, 1));

        // Another rule, while it serves.
        stack.register("shop", "shop.1", shop, &["balancer.host=b.example", "balancer.path=/shop"]).await;
        stack.becomes("b.example", "/shop/1", "shop").await;
        assert_eq!(stack.ask("shop.example", "/").await, "web");
        assert_eq!(stack.ask("b.example", "/shopping").await, "web");
        // One that can't be used leaves what is.
        stack.register("shop", "shop.1", shop, &["balancer.rule=Host("]).await;
        stack.register("api", "api.1", replica("api").await, &["balancer.host=api.example"]).await;
        stack.becomes("api.example", "/", "api").await;
        assert_eq!(stack.ask("b.example", "/shop").await, "shop");
        // Without labels it is no longer ours.
        stack.register("shop", "shop.1", shop, &["plain"]).await;
        stack.becomes("b.example", "/shop", "web").await;
        assert_eq!(stack.services.names(), ["api", "web"]);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_service_without_a_replica_has_requests_wait_until_it_is_taken_back() {
        let stack = Stack::start(None).await;
        assert!(
            stack.ask("api.example", "/").await.starts_with("404: no service is here by this host and path")
        );
        stack.note("api", "api.example").await;
        // Scaled to zero: the request waits, and counts as the service's load.
        let wait_for = async |what: &str, is_so: &dyn Fn() -> bool| {
            let deadline = Instant::now() + Duration::from_secs(30);
            while !is_so() {
                assert!(Instant::now() < deadline, "not in time: {what}");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        wait_for("the record becomes a route", &|| stack.services.gateway("api").is_some()).await;
        let waiting = || stack.services.load("api").is_some_and(|load| load.load.waiting == 1);
        let starts = async {
            wait_for("the request waits", &waiting).await;
            stack.register("api", "api.1", replica("api").await, &[]).await;
        };
        let (said, ()) = tokio::join!(stack.ask("api.example", "/"), starts);
        assert_eq!(said, "api");
        // Its end is another matter than its replica's.
        let client = stack.consul.client();
        client.kv().delete(&format!("{}api", labels::ROUTES)).await.unwrap();
        client.agent().deregister("api.1").await.unwrap();
        stack.becomes("api.example", "/", "404: no service is here").await;
        assert!(stack.services.whole_load().unrouted_total > 0);
        assert!(stack.services.names().is_empty());
    }
}
