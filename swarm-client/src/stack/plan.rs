//! The difference between what is wanted and what is there. Pure, but for [`Stack::plan`], which reads what is there.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::diff::{FieldChange, diff};
use super::gather::Present;
use super::normal::{merged, normal};
use super::resolve::Resolved;
use super::{NAMESPACE_LABEL, Stack};
use crate::client::Client;
use crate::error::{Error, Result};

/// What a plan takes as it is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct PlanOptions {
    /// Labels of services that others write, such as a leader's term: they are kept and compared with nothing. Those of this crate
    /// are kept anyway.
    pub keep_labels: Vec<String>,
}

impl PlanOptions {
    /// Keeps this label of services as it is.
    #[must_use]
    pub fn keep_label(mut self, key: impl Into<String>) -> Self {
        self.keep_labels.push(key.into());
        self
    }
}

/// What has to be done to make a stack what is wanted. It is as old as its reading: what others change between plan and apply is
/// read anew where it is written.
#[derive(Debug, Clone, PartialEq)]
#[must_use = "a plan does nothing until it is applied"]
pub struct Plan {
    pub(crate) wanted: Resolved,
    pub(crate) keep_labels: Vec<String>,
    steps: Vec<Step>,
}

/// What has to be done to one object.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Step {
    /// What kind of object.
    pub kind: ObjectKind,
    /// Its name on the swarm.
    pub name: String,
    /// What to do.
    pub action: Action,
}

/// A kind of object of a stack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum ObjectKind {
    /// A network.
    Network,
    /// A secret.
    Secret,
    /// A config.
    Config,
    /// A service.
    Service,
}

/// What to do with an object.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Action {
    /// It is missing.
    Create,
    /// It differs.
    Update(Vec<FieldChange>),
    /// It is there and not wanted: only [`Plan::prune`] removes it.
    Remove,
    /// It is as it should be.
    Unchanged,
}

impl Stack {
    /// Reads what is there and works out what has to be done.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the stack uses what it does not have, an external object is missing, or a network of the stack would
    /// have to change, which no network can.
    pub async fn plan(&self, client: &Client, options: &PlanOptions) -> Result<Plan> {
        let wanted = Resolved::of(self)?;
        let present = Present::read(client, &self.name).await?;
        Plan::of(wanted, &present, options)
    }
}

impl Plan {
    pub(crate) fn of(wanted: Resolved, present: &Present, options: &PlanOptions) -> Result<Self> {
        let invalid =
            |problem: String| Error::Invalid { what: format!("plan stack {:?}", wanted.stack), problem };
        let missing = |names: &BTreeSet<String>, there: &dyn Fn(&str) -> bool| {
            names.iter().find(|name| !there(name)).cloned()
        };
        for (kind, name) in [
            ("network", missing(&wanted.external_networks, &|name| present.all_networks.contains_key(name))),
            ("secret", missing(&wanted.external_secrets, &|name| present.all_secrets.contains_key(name))),
            ("config", missing(&wanted.external_configs, &|name| present.all_configs.contains_key(name))),
        ] {
            if let Some(name) = name {
                return Err(invalid(format!("the external {kind} {name:?} does not exist; create it first")));
            }
        }
        let mut steps = Vec::new();
        let mut step = |kind, name: &str, action| steps.push(Step { kind, name: name.to_owned(), action });
        let belongs = |labels: &BTreeMap<String, String>| labels.get(NAMESPACE_LABEL) == Some(&wanted.stack);

        for (name, spec) in &wanted.networks {
            match present.all_networks.get(name) {
                None => step(ObjectKind::Network, name, Action::Create),
                Some(network) => {
                    let same = network.driver == spec.driver
                        && network.internal == spec.internal
                        && network.attachable == spec.attachable;
                    if !belongs(&network.labels) {
                        return Err(invalid(format!(
                            "network {name:?} exists and is not the stack's; mark it external"
                        )));
                    }
                    if !same {
                        return Err(invalid(format!(
                            "network {name:?} would change, and no network can; remove it or give the new one another name"
                        )));
                    }
                    step(ObjectKind::Network, name, Action::Unchanged);
                }
            }
        }
        for (kind, names, there) in [
            (ObjectKind::Secret, wanted.secrets.keys(), &present.all_secrets),
            (ObjectKind::Config, wanted.configs.keys(), &present.all_configs),
        ] {
            for name in names {
                // The name tells the content.
                let action = if there.contains_key(name) { Action::Unchanged } else { Action::Create };
                step(kind, name, action);
            }
        }
        let network_names: BTreeMap<String, String> = present
            .all_networks
            .iter()
            .map(|(name, network)| (network.id.to_string(), name.clone()))
            .collect();
        for (name, spec) in &wanted.services {
            let action = match present.services.get(name) {
                None => Action::Create,
                Some(service) => {
                    let next = merged(spec, &service.spec, &options.keep_labels);
                    let changes =
                        diff(&normal(&service.spec, &network_names), &normal(&next, &network_names));
                    if changes.is_empty() { Action::Unchanged } else { Action::Update(changes) }
                }
            };
            step(ObjectKind::Service, name, action);
        }
        for name in present.services.keys().filter(|name| !wanted.services.contains_key(*name)) {
            step(ObjectKind::Service, name, Action::Remove);
        }
        for name in present.own_secrets.iter().filter(|name| !wanted.secrets.contains_key(*name)) {
            step(ObjectKind::Secret, name, Action::Remove);
        }
        for name in present.own_configs.iter().filter(|name| !wanted.configs.contains_key(*name)) {
            step(ObjectKind::Config, name, Action::Remove);
        }
        for (name, network) in &present.all_networks {
            if belongs(&network.labels) && !wanted.networks.contains_key(name) {
                step(ObjectKind::Network, name, Action::Remove);
            }
        }
        Ok(Self { wanted, keep_labels: options.keep_labels.clone(), steps })
    }

    /// What has to be done, in order; what is unchanged included.
    #[must_use]
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// True if there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.steps.iter().all(|step| step.action == Action::Unchanged)
    }
}

impl fmt::Display for ObjectKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Network => "network",
            Self::Secret => "secret",
            Self::Config => "config",
            Self::Service => "service",
        })
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, name, action } = self;
        match action {
            Action::Create => write!(f, "create {kind} {name}"),
            Action::Remove => write!(f, "remove {kind} {name}"),
            Action::Unchanged => write!(f, "keep {kind} {name}"),
            Action::Update(changes) => {
                write!(f, "update {kind} {name}")?;
                changes.iter().try_for_each(|change| write!(f, "\n  {change}"))
            }
        }
    }
}

impl fmt::Display for Plan {
    /// A line for each step that does something.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut first = true;
        for step in self.steps.iter().filter(|step| step.action != Action::Unchanged) {
            let separator = if std::mem::take(&mut first) { "" } else { "\n" };
            write!(f, "{separator}{step}")?;
        }
        if first { f.write_str("nothing to do") } else { Ok(()) }
    }
}
