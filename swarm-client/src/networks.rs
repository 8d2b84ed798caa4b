//! The networks of the swarm.

use std::time::Duration;

use serde::Deserialize;
use serde::de::IgnoredAny;
use tokio::time::{Instant, sleep};

use crate::client::Client;
use crate::error::{Error, Result};
use crate::model::{Network, NetworkId, NetworkSpec};
use crate::request::Request;

/// The networks of the swarm: those that reach over several hosts. A `name` is an exact name or a full id. The networks of one
/// machine alone are bollard's.
#[derive(Debug, Clone)]
pub struct Networks {
    client: Client,
}

impl Networks {
    pub(crate) fn new(client: Client) -> Self {
        Self { client }
    }

    /// Creates a network. Hosts get it when the first of its tasks comes to them.
    ///
    /// # Errors
    /// [`Error::is_already_exists`] if the name is taken.
    pub async fn create(&self, spec: &NetworkSpec) -> Result<NetworkId> {
        #[derive(Deserialize)]
        struct Created {
            #[serde(rename = "Id")]
            id: NetworkId,
        }
        let mut spec = spec.clone();
        // Before API 1.44 an engine makes a second one of the same name without this.
        spec.rest.insert("CheckDuplicate".to_owned(), true.into());
        let request =
            Request::post(format!("create network {:?}", spec.name), &["networks", "create"]).json(&spec)?;
        Ok(self.client.call::<Created>(request).await?.id)
    }

    /// All networks of the swarm.
    ///
    /// # Errors
    /// If they cannot be read.
    pub async fn list(&self) -> Result<Vec<Network>> {
        self.listed(&[]).await
    }

    /// Those with this label: `"key"` for any value of it, `"key=value"` for this one.
    ///
    /// # Errors
    /// If they cannot be read.
    pub async fn list_labelled(&self, label: impl AsRef<str>) -> Result<Vec<Network>> {
        let label = label.as_ref();
        let mut networks = self.listed(&[("label", label)]).await?;
        networks.retain(|network| match label.split_once('=') {
            Some((key, value)) => network.label(key) == Some(value),
            None => network.label(label).is_some(),
        });
        Ok(networks)
    }

    /// Reads a network.
    ///
    /// # Errors
    /// [`Error::is_not_found`] if the swarm has none of this name.
    pub async fn get(&self, name: impl AsRef<str>) -> Result<Network> {
        let name = name.as_ref();
        let missing = || Error::NotFound { kind: "network", name: name.to_owned() };
        self.get_opt(name).await?.ok_or_else(missing)
    }

    /// Reads a network, or `None` if the swarm has none of this name.
    ///
    /// # Errors
    /// If it cannot be told whether it exists.
    pub async fn get_opt(&self, name: impl AsRef<str>) -> Result<Option<Network>> {
        let name = name.as_ref();
        // From the list, since the engine would answer with a network of its own machine too.
        let all = self.list().await?;
        Ok(all.into_iter().find(|network| network.name == name || network.id.as_str() == name))
    }

    /// Removes a network, and waits until it is gone: the managers only mark it at first, and its name and addresses are free a
    /// moment later.
    ///
    /// # Errors
    /// [`Error::is_not_found`] if it does not exist; [`Error::is_in_use`] while a service or task is attached to it;
    /// [`Error::Deadline`] if it was marked and is still there after 20 seconds.
    pub async fn remove(&self, name: impl AsRef<str>) -> Result<()> {
        let network = self.get(name.as_ref()).await?;
        let what = format!("remove network {:?}", name.as_ref());
        let request = Request::delete(what.clone(), &["networks", network.id.as_str()]);
        self.client.call_unit(request).await?;
        let start = Instant::now();
        while self.get_opt(network.id.as_str()).await?.is_some() {
            if start.elapsed() >= GONE_WITHIN {
                let last = "the managers still list it".to_owned();
                return Err(Error::Deadline { what, after: GONE_WITHIN, last });
            }
            sleep(POLL_EVERY).await;
        }
        Ok(())
    }

    /// Reads a network by its id, also one of those that every host has by itself: the managers know these under an id of
    /// their own, and list them nowhere.
    pub(crate) async fn by_id(&self, id: &str) -> Result<Option<Network>> {
        let request = Request::get(format!("inspect network {id:?}"), &["networks", id]);
        match self.client.call(request).await {
            Ok(network) => Ok(Some(network)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn listed(&self, filters: &[(&str, &str)]) -> Result<Vec<Network>> {
        // A worker answers this list too, with the few networks that it knows. So the client first finds a manager.
        let _: IgnoredAny = self.client.call(Request::get("find a manager", &["swarm"])).await?;
        let mut filters = filters.to_vec();
        filters.push(("scope", "swarm"));
        let request = Request::get("list networks", &["networks"]).filters(&filters);
        let mut networks: Vec<Network> = self.client.call(request).await?;
        networks.retain(|network| network.scope == "swarm");
        Ok(networks)
    }
}

/// As long as the managers work on one request.
const GONE_WITHIN: Duration = Duration::from_secs(20);
const POLL_EVERY: Duration = Duration::from_millis(100);
