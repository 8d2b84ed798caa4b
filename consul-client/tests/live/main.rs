//! Against real agents on loopback, a set of their own per test. `CONSUL_BIN` or `PATH` says where Consul is.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod agent;
mod checks;
mod contenders;
mod datacenters;
mod environment;
mod faults;
mod keys;
mod locks;
mod login;
mod outage;
mod recipes;
#[path = "../scenarios/mod.rs"]
mod scenarios;
mod services;
mod surface;
mod transport;

use agent::FREE_WAIT;
use consul_client::{ServiceEntry, ServiceRegistration, Watch};

/// The next item of what never ends.
pub(crate) async fn soon<T>(future: impl Future<Output = Option<T>>) -> T {
    tokio::time::timeout(FREE_WAIT, future).await.expect("in time").expect("endless")
}

/// The next snapshot's instance ids.
pub(crate) async fn ids(watch: &mut Watch<ServiceEntry>) -> Vec<String> {
    let snapshot = tokio::time::timeout(FREE_WAIT, watch.next()).await.expect("a snapshot in time").unwrap();
    snapshot.items.into_iter().map(|entry| entry.service.id).collect()
}

/// Waits until the watch shows these instances. The same ones may come several times before: their checks' output changes too.
pub(crate) async fn shows(watch: &mut Watch<ServiceEntry>, wanted: &[&str]) {
    let mut seen: Vec<Vec<String>> = Vec::new();
    while seen.last().is_none_or(|last| last != wanted) {
        let Ok(snapshot) = tokio::time::timeout(FREE_WAIT, watch.next()).await else {
            panic!("the watch does not come to show {wanted:?}; it showed {seen:?}");
        };
        seen.push(snapshot.unwrap().items.into_iter().map(|entry| entry.service.id).collect());
    }
}

pub(crate) fn web(id: &str, port: u16) -> ServiceRegistration {
    ServiceRegistration::new("web", id).address("127.0.0.1").port(port).tag("a").meta("host", "h1")
}

/// A lock's key.
pub(crate) const LOCK: &str = "ha-stack/scaler/leader";

#[tokio::test]
#[ignore = "needs consul: ./test.sh runs it"]
async fn a_real_server_does_what_the_fake_does() {
    scenarios::run_all(agent::Consul::start, agent::Consul::client).await;
}
