//! A set of services, networks, secrets and configs, planned, applied and pruned as one.
//!
//! The labels are those of `docker stack`, so its command line lists and removes what is made here. A [`Plan`] is the difference
//! between what is wanted and what is there, field by field; nothing is written before it is applied. Secrets and configs get names
//! by their content (`stack_key-0123456789ab`), since what they hold cannot be changed in place: new content is a new object, the
//! services that use it are updated, and the old one is pruned.
//!
//! ```no_run
//! # async fn run(swarm: swarm_client::Client) -> Result<(), Box<dyn std::error::Error>> {
//! use std::time::Duration;
//! use swarm_client::stack::{PlanOptions, Stack};
//! use swarm_client::{NetworkSpec, ServiceSpec};
//!
//! let stack = Stack::new("shop")
//!     .network("back", NetworkSpec::overlay("back"))
//!     .secret("pw", "hunter2")
//!     .config("site", "workers = 4")
//!     .service(ServiceSpec::builder("web", "web:1").network("back").build(), ["pw"], ["site"]);
//! let plan = stack.plan(&swarm, &PlanOptions::default()).await?;
//! println!("{plan}"); // "create network shop_back", …
//! plan.apply(&swarm, Duration::from_secs(60)).await?;
//! plan.prune(&swarm, Duration::from_secs(60)).await?;
//! # Ok(()) }
//! ```

mod apply;
#[cfg(feature = "compose")]
pub mod compose;
mod diff;
mod gather;
mod normal;
mod plan;
mod resolve;

use std::collections::BTreeMap;
use std::fmt;

pub use apply::Applied;
pub use diff::FieldChange;
pub use plan::{Action, ObjectKind, Plan, PlanOptions, Step};

use crate::model::{ConfigReference, NetworkSpec, SecretReference, ServiceSpec};

/// The label by which `docker stack` finds what belongs to a stack.
pub const NAMESPACE_LABEL: &str = "com.docker.stack.namespace";
/// The label in which `docker stack` keeps a service's image as it was asked for, before it was pinned.
pub const IMAGE_LABEL: &str = "com.docker.stack.image";
/// With this label on `true` a service's replicas are its scaler's: they are set when it is created and no part of a plan later.
pub const AUTOSCALED_LABEL: &str = "swarm-client.autoscaled";

/// What a stack is wanted to be.
#[derive(Debug, Clone, PartialEq)]
pub struct Stack {
    pub(crate) name: String,
    /// By key; the name of the spec is the key, and networks, secrets and configs are named by their keys in it.
    pub(crate) services: BTreeMap<String, ServiceSpec>,
    pub(crate) networks: BTreeMap<String, Wanted<NetworkSpec>>,
    pub(crate) secrets: BTreeMap<String, Wanted<Content>>,
    pub(crate) configs: BTreeMap<String, Wanted<Content>>,
}

/// Something of the stack's own, or something that others made.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Wanted<T> {
    Own(T),
    /// By its name.
    External(String),
}

/// What a secret or config holds, and its labels. Debug shows none of it.
#[derive(Clone, PartialEq, Default)]
pub(crate) struct Content {
    pub(crate) bytes: Vec<u8>,
    pub(crate) labels: BTreeMap<String, String>,
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Content({} bytes)", self.bytes.len())
    }
}

impl Stack {
    /// An empty stack: applied and pruned, it removes all that has its name.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            services: BTreeMap::new(),
            networks: BTreeMap::new(),
            secrets: BTreeMap::new(),
            configs: BTreeMap::new(),
        }
    }

    /// The stack's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The services' keys and specs.
    pub fn services(&self) -> impl Iterator<Item = (&str, &ServiceSpec)> {
        self.services.iter().map(|(key, spec)| (key.as_str(), spec))
    }

    /// The services' keys and specs, to change what a file says before it is planned.
    pub fn services_mut(&mut self) -> impl Iterator<Item = (&str, &mut ServiceSpec)> {
        self.services.iter_mut().map(|(key, spec)| (key.as_str(), spec))
    }

    /// Adds a service. Its name is its key in the stack, and so are the names of the networks in its spec; on the swarm each gets
    /// the stack's name before it. A service without a network is put on the stack's network `default`, which is made if it is
    /// not there. Secrets and configs are seen as files named like their keys.
    #[must_use]
    pub fn service<S: Into<String>, C: Into<String>>(
        mut self,
        mut spec: ServiceSpec,
        secrets: impl IntoIterator<Item = S>,
        configs: impl IntoIterator<Item = C>,
    ) -> Self {
        let container = spec.task_template.container_spec.get_or_insert_default();
        for key in secrets.into_iter().map(Into::into) {
            container.secrets.push(SecretReference::new("".into(), key.clone(), key));
        }
        for key in configs.into_iter().map(Into::into) {
            container.configs.push(ConfigReference::new("".into(), key.clone(), format!("/{key}")));
        }
        self.services.insert(spec.name.clone(), spec);
        self
    }

    /// Adds a network under this key. The name in its spec is replaced.
    #[must_use]
    pub fn network(mut self, key: impl Into<String>, mut spec: NetworkSpec) -> Self {
        let key = key.into();
        spec.name = format!("{}_{key}", self.name);
        self.networks.insert(key, Wanted::Own(spec));
        self
    }

    /// Adds a network that others made, by its name.
    #[must_use]
    pub fn external_network(mut self, key: impl Into<String>, name: impl Into<String>) -> Self {
        self.networks.insert(key.into(), Wanted::External(name.into()));
        self
    }

    /// Adds a secret with this content.
    #[must_use]
    pub fn secret(mut self, key: impl Into<String>, content: impl Into<Vec<u8>>) -> Self {
        let content = Content { bytes: content.into(), labels: BTreeMap::new() };
        self.secrets.insert(key.into(), Wanted::Own(content));
        self
    }

    /// Adds a config with this content.
    #[must_use]
    pub fn config(mut self, key: impl Into<String>, content: impl Into<Vec<u8>>) -> Self {
        let content = Content { bytes: content.into(), labels: BTreeMap::new() };
        self.configs.insert(key.into(), Wanted::Own(content));
        self
    }
}

#[cfg(test)]
mod tests;
