//! The nodes of the swarm.

use std::convert::Infallible;

use crate::client::Client;
use crate::error::Result;
use crate::model::{Availability, Node, NodeSpec, Role};
use crate::modify::{self, How, Modified};
use crate::request::Request;

/// The nodes of the swarm. A `name` is an exact host name or a full id, never a part of one. Two nodes with the same host name
/// (a host that joined anew, and its old entry) can be told apart by id only: asking by name is then
/// [ambiguous](crate::Error::is_ambiguous).
#[derive(Debug, Clone)]
pub struct Nodes {
    pub(crate) client: Client,
}

impl Nodes {
    pub(crate) fn new(client: Client) -> Self {
        Self { client }
    }

    /// All nodes, those that are down included.
    ///
    /// # Errors
    /// If they cannot be read.
    pub async fn list(&self) -> Result<Vec<Node>> {
        self.client.call(Request::get("list nodes", &["nodes"])).await
    }

    /// Reads a node.
    ///
    /// # Errors
    /// [`Error::is_not_found`](crate::Error::is_not_found) if it does not exist.
    pub async fn get(&self, name: impl AsRef<str>) -> Result<Node> {
        modify::get(&self.client, name.as_ref()).await
    }

    /// Reads a node, or `None` if it does not exist.
    ///
    /// # Errors
    /// If it cannot be told whether it exists.
    pub async fn get_opt(&self, name: impl AsRef<str>) -> Result<Option<Node>> {
        modify::get_opt(&self.client, name.as_ref()).await
    }

    /// Changes a node's spec as [`Services::modify`](crate::Services::modify) does a service's.
    ///
    /// # Errors
    /// As there; [`Error::is_quorum_at_risk`](crate::Error::is_quorum_at_risk) when the last manager would be demoted.
    pub async fn modify(
        &self,
        name: impl AsRef<str>,
        mut change: impl FnMut(&mut NodeSpec),
    ) -> Result<Modified<NodeSpec>> {
        self.change(name.as_ref(), false, |spec| change(spec)).await
    }

    /// Sets whether a node takes new tasks. With [`Availability::Drain`] its tasks are stopped and replaced elsewhere; this
    /// does not wait for it.
    ///
    /// # Errors
    /// As for [`modify`](Self::modify).
    pub async fn set_availability(
        &self,
        name: impl AsRef<str>,
        availability: Availability,
    ) -> Result<Modified<NodeSpec>> {
        self.change(name.as_ref(), true, |spec| spec.availability = Some(availability.clone())).await
    }

    /// Lets a node take new tasks. What moved away while it could not does not come back by itself: see
    /// [`Client::plan_rebalance`].
    ///
    /// # Errors
    /// As for [`modify`](Self::modify).
    pub async fn activate(&self, name: impl AsRef<str>) -> Result<Modified<NodeSpec>> {
        self.set_availability(name, Availability::Active).await
    }

    /// Lets a node keep its tasks and take no new ones.
    ///
    /// # Errors
    /// As for [`modify`](Self::modify).
    pub async fn pause(&self, name: impl AsRef<str>) -> Result<Modified<NodeSpec>> {
        self.set_availability(name, Availability::Pause).await
    }

    /// Makes a node a manager. It takes part once it has its new certificate, some seconds later.
    ///
    /// # Errors
    /// As for [`modify`](Self::modify).
    pub async fn promote(&self, name: impl AsRef<str>) -> Result<Modified<NodeSpec>> {
        self.change(name.as_ref(), true, |spec| spec.role = Some(Role::Manager)).await
    }

    /// Makes a manager a worker. Before it is removed, wait until it is one:
    /// [`conditions::is_worker`](crate::conditions::is_worker).
    ///
    /// # Errors
    /// [`Error::is_quorum_at_risk`](crate::Error::is_quorum_at_risk); else as for [`modify`](Self::modify).
    pub async fn demote(&self, name: impl AsRef<str>) -> Result<Modified<NodeSpec>> {
        self.change(name.as_ref(), true, |spec| spec.role = Some(Role::Worker)).await
    }

    /// Sets a label, which placement constraints can use as `node.labels.KEY`.
    ///
    /// # Errors
    /// As for [`modify`](Self::modify).
    pub async fn set_label(
        &self,
        name: impl AsRef<str>,
        key: impl Into<String>,
        value: impl Into<String>,
    ) -> Result<Modified<NodeSpec>> {
        let (key, value) = (key.into(), value.into());
        self.change(name.as_ref(), true, |spec| {
            spec.labels.insert(key.clone(), value.clone());
        })
        .await
    }

    /// Removes a label; one that is not there is no error.
    ///
    /// # Errors
    /// As for [`modify`](Self::modify).
    pub async fn remove_label(&self, name: impl AsRef<str>, key: &str) -> Result<Modified<NodeSpec>> {
        self.change(name.as_ref(), true, |spec| {
            spec.labels.remove(key);
        })
        .await
    }

    /// Removes a node's entry. Without `force` only a node that is down can be removed; with it, a node at work is cut off
    /// from the swarm.
    ///
    /// # Errors
    /// [`Error::is_not_found`](crate::Error::is_not_found) if it does not exist.
    pub async fn remove(&self, name: impl AsRef<str>, force: bool) -> Result<()> {
        let name = name.as_ref();
        let node = self.get(name).await?;
        let force = if force { "true" } else { "false" };
        let request = Request::delete(format!("remove node {name:?}"), &["nodes", node.id.as_str()])
            .query("force", force);
        self.client.call_unit(request).await
    }

    async fn change(
        &self,
        name: &str,
        repeatable: bool,
        mut change: impl FnMut(&mut NodeSpec),
    ) -> Result<Modified<NodeSpec>> {
        let result = modify::modify(&self.client, name, How::repeatable(repeatable), |_: &Node, spec| {
            change(spec);
            Ok::<(), Infallible>(())
        });
        modify::never_refused(result.await)
    }
}
