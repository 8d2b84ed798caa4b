//! Health in this agent's own view: no server is asked, so it answers also without a leader.

use serde::{Deserialize, de::DeserializeOwned};

use super::Agent;
use crate::{AgentService, HealthCheck, Result, Status, escape, request::Request, types::null_is_default};

impl Agent {
    /// How an instance at this agent is, or `None` when there is none with this id.
    ///
    /// # Errors
    /// As any read.
    pub async fn health_by_id(&self, id: &str) -> Result<Option<LocalHealth>> {
        self.local(format!("/v1/agent/health/service/id/{}", escape::path("service id", id)?)).await
    }

    /// How the instances of a service at this agent are; empty when there are none.
    ///
    /// # Errors
    /// As any read.
    pub async fn health_by_name(&self, name: &str) -> Result<Vec<LocalHealth>> {
        let path = format!("/v1/agent/health/service/name/{}", escape::path("service", name)?);
        Ok(self.local(path).await?.unwrap_or_default())
    }

    async fn local<T: DeserializeOwned>(&self, path: String) -> Result<Option<T>> {
        // The status says how it is: 200 passing, 429 warning, 503 critical. Here 429 is no limit, and 503 no broken server.
        let request = Request::get(path).also_ok(&[429, 503]);
        match self.client.read(request).await {
            Ok(answer) => Ok(Some(answer.value)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// How an instance at an agent is.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
#[non_exhaustive]
pub struct LocalHealth {
    /// The worst of its checks and the node's.
    pub aggregated_status: Status,
    /// The instance.
    pub service: AgentService,
    /// Its checks.
    #[serde(default, deserialize_with = "null_is_default")]
    pub checks: Vec<HealthCheck>,
}
