//! From a stack's keys to the swarm's names. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::{Content, IMAGE_LABEL, NAMESPACE_LABEL, Stack, Wanted};
use crate::error::{Error, Result};
use crate::model::{NetworkAttachment, NetworkSpec, ServiceSpec};
use crate::rotate::name_by_content;

/// A stack with the swarm's names instead of keys.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Resolved {
    pub(crate) stack: String,
    /// By name. Networks are targeted by name, secrets and configs have no id yet.
    pub(crate) services: BTreeMap<String, ServiceSpec>,
    pub(crate) networks: BTreeMap<String, NetworkSpec>,
    pub(crate) secrets: BTreeMap<String, Content>,
    pub(crate) configs: BTreeMap<String, Content>,
    /// What others must have made.
    pub(crate) external_networks: BTreeSet<String>,
    pub(crate) external_secrets: BTreeSet<String>,
    pub(crate) external_configs: BTreeSet<String>,
}

impl Resolved {
    pub(crate) fn of(stack: &Stack) -> Result<Self> {
        let what = || format!("plan stack {:?}", stack.name);
        if stack.name.is_empty() || !stack.name.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c))
        {
            let problem = "its name must be letters, digits, - and _; choose another".to_owned();
            return Err(Error::Invalid { what: what(), problem });
        }
        let mut resolved = Self { stack: stack.name.clone(), ..Self::default() };
        let namespace = |labels: &mut BTreeMap<String, String>| {
            labels.insert(NAMESPACE_LABEL.to_owned(), stack.name.clone());
        };
        let mut networks = stack.networks.clone();
        let lonely = |spec: &ServiceSpec| spec.task_template.networks.is_empty();
        if !networks.contains_key(DEFAULT) && stack.services.values().any(lonely) {
            let spec = NetworkSpec::overlay(format!("{}_{DEFAULT}", stack.name));
            networks.insert(DEFAULT.to_owned(), Wanted::Own(spec));
        }
        let mut network_names = BTreeMap::new();
        for (key, wanted) in networks {
            match wanted {
                Wanted::Own(mut spec) => {
                    namespace(&mut spec.labels);
                    network_names.insert(key, spec.name.clone());
                    resolved.networks.insert(spec.name.clone(), spec);
                }
                Wanted::External(name) => {
                    network_names.insert(key, name.clone());
                    if !is_of_each_host(&name) {
                        resolved.external_networks.insert(name);
                    }
                }
            }
        }
        let contents = |all: &BTreeMap<String, Wanted<Content>>, external: &mut BTreeSet<String>| {
            let (mut names, mut own) = (BTreeMap::new(), BTreeMap::new());
            for (key, wanted) in all {
                let name = match wanted {
                    Wanted::Own(content) => {
                        let name = name_by_content(&format!("{}_{key}", stack.name), &content.bytes);
                        let mut content = content.clone();
                        namespace(&mut content.labels);
                        own.insert(name.clone(), content);
                        name
                    }
                    Wanted::External(name) => {
                        external.insert(name.clone());
                        name.clone()
                    }
                };
                names.insert(key.clone(), name);
            }
            (names, own)
        };
        let (secret_names, secrets) = contents(&stack.secrets, &mut resolved.external_secrets);
        let (config_names, configs) = contents(&stack.configs, &mut resolved.external_configs);
        (resolved.secrets, resolved.configs) = (secrets, configs);

        for (key, spec) in &stack.services {
            let missing = |kind: &str, name: &str| Error::Invalid {
                what: what(),
                problem: format!(
                    "service {key:?} uses {kind} {name:?}, which the stack does not have; add it"
                ),
            };
            let mut spec = spec.clone();
            spec.name = format!("{}_{key}", stack.name);
            namespace(&mut spec.labels);
            let container = spec.task_template.container_spec.get_or_insert_default();
            namespace(&mut container.labels);
            spec.labels.insert(IMAGE_LABEL.to_owned(), container.image.clone());
            for secret in &mut container.secrets {
                let name = secret_names.get(&secret.name).ok_or_else(|| missing("secret", &secret.name))?;
                secret.name.clone_from(name);
            }
            for config in &mut container.configs {
                let name = config_names.get(&config.name).ok_or_else(|| missing("config", &config.name))?;
                config.name.clone_from(name);
            }
            let attachments = &mut spec.task_template.networks;
            if attachments.is_empty() {
                attachments
                    .push(NetworkAttachment { target: DEFAULT.to_owned(), ..NetworkAttachment::default() });
            }
            for attachment in attachments {
                let known = network_names.get(&attachment.target);
                if known.is_none() && is_of_each_host(&attachment.target) {
                    continue;
                }
                let name = known.ok_or_else(|| missing("network", &attachment.target))?;
                attachment.target.clone_from(name);
                if is_of_each_host(name) {
                    continue;
                }
                if !attachment.aliases.contains(key) {
                    attachment.aliases.push(key.clone());
                }
            }
            resolved.services.insert(spec.name.clone(), spec);
        }
        Ok(resolved)
    }
}

/// True for the networks that every host has by itself: the swarm does not list them, and knows no alias there.
fn is_of_each_host(network: &str) -> bool {
    network == "host" || network == "none"
}

const DEFAULT: &str = "default";
