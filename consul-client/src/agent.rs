//! This agent: what is registered at it, and what it sees.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    AgentService, Client, Error, HealthCheck, Result, ServiceRegistration, Status, escape, request::Request,
    types::null_is_default,
};

/// See [`Client::agent`].
#[derive(Debug, Clone)]
pub struct Agent {
    client: Client,
}

impl Agent {
    pub(crate) fn new(client: Client) -> Self {
        Self { client }
    }

    /// Who this agent is.
    ///
    /// # Errors
    /// As any read; denied without the right to read the agent.
    pub async fn self_info(&self) -> Result<AgentInfo> {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Wire {
            config: AgentInfo,
        }
        Ok(self.client.read::<Wire>(Request::get("/v1/agent/self")).await?.value.config)
    }

    /// Registers a service, or replaces it and its checks. Safe to repeat; an identical registration keeps its checks' results.
    ///
    /// ```no_run
    /// # async fn run(consul: consul_client::Client) -> consul_client::Result<()> {
    /// use consul_client::{Check, ServiceRegistration};
    ///
    /// let check = Check::http("http://10.0.0.7:8080/healthz").interval(std::time::Duration::from_secs(2));
    /// let web = ServiceRegistration::new("web", "web-1").address("10.0.0.7").port(8080).check(check);
    /// consul.agent().register(&web).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Invalid`] for an empty name or id; otherwise as any write.
    pub async fn register(&self, service: &ServiceRegistration) -> Result<()> {
        let request = register_request(service)?;
        self.client.call(&request).await.map(drop)
    }

    /// Removes a service and its checks. An unknown id is no error: it is gone either way.
    ///
    /// # Errors
    /// As any write.
    pub async fn deregister(&self, id: &str) -> Result<()> {
        let path = format!("/v1/agent/service/deregister/{}", escape::path("service id", id)?);
        match self.client.call(&Request::put(path).repeatable()).await {
            // Newer servers answer 404 here. The empty text is a server's or a proxy's "no such path", which is no success.
            Err(Error::NotFound(answer)) if answer.text.contains("nknown service") => Ok(()),
            other => other.map(drop),
        }
    }

    /// The services registered at this agent, by id.
    ///
    /// # Errors
    /// As any read.
    pub async fn services(&self) -> Result<BTreeMap<String, AgentService>> {
        Ok(self.client.read(Request::get("/v1/agent/services")).await?.value)
    }

    /// The checks registered at this agent, by id.
    ///
    /// # Errors
    /// As any read.
    pub async fn checks(&self) -> Result<BTreeMap<String, HealthCheck>> {
        Ok(self.client.read(Request::get("/v1/agent/checks")).await?.value)
    }

    /// Reports the result of a TTL check and starts its time anew. `note` becomes the check's output.
    ///
    /// # Errors
    /// [`Error::Rejected`] when the agent has no such TTL check (it restarted without its data: register again);
    /// [`Error::Invalid`] for a status other than passing, warning or critical.
    pub async fn update_ttl(&self, check_id: &str, status: Status, note: &str) -> Result<()> {
        #[derive(Serialize)]
        #[serde(rename_all = "PascalCase")]
        struct Update<'a> {
            status: Status,
            output: &'a str,
        }
        if !matches!(status, Status::Passing | Status::Warning | Status::Critical) {
            return Err(Error::invalid(
                "status",
                &format!("{status:?}"),
                "must be passing, warning or critical",
            ));
        }
        let path = format!("/v1/agent/check/update/{}", escape::path("check id", check_id)?);
        let request = Request::put(path).repeatable().json(&Update { status, output: note })?;
        self.client.call(&request).await.map(drop)
    }

    /// The members of the gossip pool that this agent sees, dead ones too.
    ///
    /// # Errors
    /// As any read.
    pub async fn members(&self) -> Result<Vec<Member>> {
        Ok(self.client.read(Request::get("/v1/agent/members")).await?.value)
    }
}

/// An agent's own settings.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
#[non_exhaustive]
pub struct AgentInfo {
    /// Its data centre.
    pub datacenter: String,
    /// Its node's name.
    pub node_name: String,
    /// Its node's id.
    #[serde(default, rename = "NodeID")]
    pub node_id: String,
    /// Whether it is a server.
    pub server: bool,
    /// Its version.
    #[serde(default)]
    pub version: String,
}

/// A member of the gossip pool.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
#[non_exhaustive]
pub struct Member {
    /// The node's name.
    pub name: String,
    /// Its address.
    pub addr: String,
    /// Its gossip port.
    pub port: u16,
    /// How it is.
    pub status: MemberStatus,
    /// What it says of itself: `role`, `dc`, `build` and more.
    #[serde(default, deserialize_with = "null_is_default")]
    pub tags: BTreeMap<String, String>,
}

/// How a member is (Serf's numbers on the wire).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(from = "u8")]
#[non_exhaustive]
pub enum MemberStatus {
    /// Answers.
    Alive,
    /// Is saying goodbye.
    Leaving,
    /// Said goodbye.
    Left,
    /// Stopped answering.
    Failed,
    /// A number that this crate does not know.
    Unknown,
}

impl From<u8> for MemberStatus {
    fn from(number: u8) -> Self {
        match number {
            1 => Self::Alive,
            2 => Self::Leaving,
            3 => Self::Left,
            4 => Self::Failed,
            _ => Self::Unknown,
        }
    }
}

fn register_request(service: &ServiceRegistration) -> Result<Request> {
    for (what, value) in [("service name", service.name()), ("service id", service.id())] {
        // What cannot stand in a path could be registered but never removed or looked up.
        escape::path(what, value)?;
    }
    Request::put("/v1/agent/service/register").repeatable().flag("replace-existing-checks").json(service)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_not_be_removed_is_not_registered() {
        assert!(register_request(&ServiceRegistration::new("web", "")).is_err());
        assert!(register_request(&ServiceRegistration::new("web", "a//b")).is_err());
        let request = register_request(&ServiceRegistration::new("web", "web-1")).unwrap();
        assert_eq!(request.target(), "/v1/agent/service/register?replace-existing-checks");
        assert!(request.repeatable);
    }
}
