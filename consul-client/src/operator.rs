//! The cluster's inner workings.

use serde::Deserialize;

use crate::{Client, Consistency, Result, request::Request};

/// See [`Client::operator`].
#[derive(Debug, Clone)]
pub struct Operator {
    client: Client,
}

impl Operator {
    pub(crate) fn new(client: Client) -> Self {
        Self { client }
    }

    /// The servers in the Raft configuration. Any server answers, also without a leader.
    ///
    /// # Errors
    /// As any read.
    pub async fn raft_peers(&self) -> Result<Vec<RaftPeer>> {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Configuration {
            servers: Vec<RaftPeer>,
        }
        let request = Request::get("/v1/operator/raft/configuration").consistency(Consistency::Stale);
        Ok(self.client.read::<Configuration>(request).await?.value.servers)
    }
}

/// A server in the Raft configuration.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
#[non_exhaustive]
pub struct RaftPeer {
    /// The server's id.
    #[serde(rename = "ID")]
    pub id: String,
    /// Its node name.
    pub node: String,
    /// Its Raft address.
    pub address: String,
    /// Whether it leads.
    pub leader: bool,
    /// Whether it votes; a server that has just come back does not, for some ten seconds.
    pub voter: bool,
}
