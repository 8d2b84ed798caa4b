//! The nodes of the swarm.

use std::convert::Infallible;

use crate::client::Client;
use crate::error::Result;
use crate::model::{Availability, Node, NodeSpec};
use crate::modify::{self, Modified};
use crate::request::Request;

/// The nodes of the swarm. A `name` is an exact host name or a full id, never a part of one. Two nodes with the same host name
/// (a host that joined anew, and its old entry) can be told apart by id only: asking by name is then
/// [ambiguous](crate::Error::is_ambiguous).
#[derive(Debug, Clone)]
pub struct Nodes {
    client: Client,
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
        let result = modify::modify(&self.client, name, repeatable, |_: &Node, spec| {
            change(spec);
            Ok::<(), Infallible>(())
        });
        modify::never_refused(result.await)
    }
}
