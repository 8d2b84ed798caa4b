//! What is there of a stack.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::future::try_join4;

use super::NAMESPACE_LABEL;
use crate::client::Client;
use crate::error::Result;
use crate::model::{Network, Service};

/// What is there.
#[derive(Debug, Default)]
pub(crate) struct Present {
    /// The stack's, by name.
    pub(crate) services: BTreeMap<String, Service>,
    /// Everybody's, by name.
    pub(crate) all_networks: BTreeMap<String, Network>,
    /// Everybody's ids, by name.
    pub(crate) all_secrets: BTreeMap<String, String>,
    pub(crate) all_configs: BTreeMap<String, String>,
    /// The stack's names.
    pub(crate) own_secrets: BTreeSet<String>,
    pub(crate) own_configs: BTreeSet<String>,
}

impl Present {
    pub(crate) async fn read(client: &Client, stack: &str) -> Result<Self> {
        let label = format!("{NAMESPACE_LABEL}={stack}");
        let (services, networks, secrets, configs) =
            (client.services(), client.networks(), client.secrets(), client.configs());
        let (services, networks, secrets, configs) =
            try_join4(services.list_labelled(&label), networks.list(), secrets.list(), configs.list())
                .await?;
        let mut present = Self::default();
        present.services.extend(services.into_iter().map(|service| (service.name().to_owned(), service)));
        present.all_networks.extend(networks.into_iter().map(|network| (network.name.clone(), network)));
        let known: BTreeSet<&str> =
            present.all_networks.values().map(|network| network.id.as_str()).collect();
        let attached = present.services.values().flat_map(|service| &service.spec.task_template.networks);
        let unlisted: BTreeSet<String> = attached
            .filter(|attachment| !known.contains(attachment.target.as_str()))
            .map(|attachment| attachment.target.clone())
            .collect();
        for id in unlisted {
            // The host's own, which needs to be known by its name alone.
            if let Some(network) = client.networks().by_id(&id).await? {
                present.all_networks.entry(network.name.clone()).or_insert(network);
            }
        }
        for secret in secrets {
            if secret.label(NAMESPACE_LABEL) == Some(stack) {
                present.own_secrets.insert(secret.name().to_owned());
            }
            present.all_secrets.insert(secret.name().to_owned(), secret.id.to_string());
        }
        for config in configs {
            if config.label(NAMESPACE_LABEL) == Some(stack) {
                present.own_configs.insert(config.name().to_owned());
            }
            present.all_configs.insert(config.name().to_owned(), config.id.to_string());
        }
        Ok(present)
    }
}
