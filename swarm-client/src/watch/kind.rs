//! What can be watched.

use std::time::Duration;

use super::WatchConfig;
use crate::model::task_read::{self, Shelf};
use crate::model::{Config, Node, Secret, Service, Task};
use crate::request::Request;

/// What can be watched: services, nodes, tasks, secrets and configs.
pub trait Watched: Kind {}

impl<K: Kind> Watched for K {}

/// What a watch has to know of a kind of object. Outside of the crate nobody can name it, so nobody else can implement it.
#[expect(private_interfaces, reason = "the trait cannot be named outside")]
#[allow(unreachable_pub, reason = "it is part of a public trait's bounds")]
pub trait Kind: Sized + Clone + PartialEq + Send + Sync + 'static {
    /// For messages.
    const WHAT: &'static str;
    /// How often to look without any hint.
    const POLL_EVERY: Duration;
    /// The events that say that something changed.
    const EVENTS: &'static [&'static str];

    /// True if an object can change without its version: then its text tells.
    const BY_TEXT: bool = false;

    fn list(config: &WatchConfig) -> Request;
    fn id(&self) -> &str;
    fn name(&self) -> &str;
    fn read<'de>(json: &'de str, shelf: &Shelf<'de>) -> serde_json::Result<Self>;

    /// Shares with another object of its kind what is the same.
    fn share(&mut self, _other: &Self) {}
    /// Objects with the same group share most of what they are.
    fn group(&self) -> Option<&str> {
        None
    }
}

macro_rules! kind {
    ($type:ty, $what:literal, $path:literal, $events:expr, $by_text:expr, |$object:ident| $name:expr) => {
        #[expect(private_interfaces, reason = "the trait cannot be named outside")]
        impl Kind for $type {
            const WHAT: &'static str = $what;
            const POLL_EVERY: Duration = Duration::from_secs(10);
            const EVENTS: &'static [&'static str] = $events;
            const BY_TEXT: bool = $by_text;

            fn list(_: &WatchConfig) -> Request {
                Request::get(concat!("list ", $path), &[$path])
            }

            fn id(&self) -> &str {
                self.id.as_str()
            }

            fn name(&self) -> &str {
                let $object = self;
                $name
            }

            fn read<'de>(json: &'de str, _: &Shelf<'de>) -> serde_json::Result<Self> {
                serde_json::from_str(json)
            }
        }
    };
}

kind!(Service, "service", "services", &["service"], false, |service| &service.spec.name);
// Whether a manager leads and is reachable is worked out at each read (swarmkit, `controlapi.ListNodes`).
kind!(Node, "node", "nodes", &["node"], true, |node| node.hostname());
kind!(Secret, "secret", "secrets", &["secret"], false, |secret| &secret.spec.name);
kind!(Config, "config", "configs", &["config"], false, |config| &config.spec.name);

#[expect(private_interfaces, reason = "the trait cannot be named outside")]
impl Kind for Task {
    const WHAT: &'static str = "task";
    // Half of the second within which a change is to be seen.
    const POLL_EVERY: Duration = Duration::from_millis(500);
    // Containers of the manager's own machine tell of some tasks at once.
    const EVENTS: &'static [&'static str] = &["service", "node", "container"];

    fn list(config: &WatchConfig) -> Request {
        let filters = [("service", &config.service), ("node", &config.node)];
        let filters: Vec<(&str, &str)> =
            filters.into_iter().filter_map(|(key, value)| Some((key, value.as_deref()?))).collect();
        Request::get("list tasks", &["tasks"]).filters(&filters)
    }

    fn id(&self) -> &str {
        self.id.as_str()
    }

    fn name(&self) -> &str {
        self.id.as_str()
    }

    fn read<'de>(json: &'de str, shelf: &Shelf<'de>) -> serde_json::Result<Self> {
        task_read::task(json, shelf)
    }

    fn share(&mut self, other: &Self) {
        if self.spec == other.spec {
            self.spec = other.spec.clone();
        }
        for (mine, theirs) in self.networks.iter_mut().zip(&other.networks) {
            if mine.network == theirs.network {
                mine.network = theirs.network.clone();
            }
        }
    }

    fn group(&self) -> Option<&str> {
        Some(self.service_id.as_str())
    }
}
