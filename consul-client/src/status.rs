//! Who leads, who votes.

use crate::{Client, Result, request::Request};

/// See [`Client::status`].
#[derive(Debug, Clone)]
pub struct StatusApi {
    client: Client,
}

impl StatusApi {
    pub(crate) fn new(client: Client) -> Self {
        Self { client }
    }

    /// The leader's Raft address, or `None` while there is none.
    ///
    /// # Errors
    /// As any read.
    pub async fn leader(&self) -> Result<Option<String>> {
        let leader: String = self.client.read(Request::get("/v1/status/leader")).await?.value;
        Ok(Some(leader).filter(|address| !address.is_empty()))
    }

    /// The Raft addresses of all servers of this data centre.
    ///
    /// # Errors
    /// As any read.
    pub async fn peers(&self) -> Result<Vec<String>> {
        Ok(self.client.read(Request::get("/v1/status/peers")).await?.value)
    }
}
