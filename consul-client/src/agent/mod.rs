//! This agent: what is registered at it, and what it sees.

mod check;
mod guard;
mod health;
mod monitor;
mod node;
mod registration;

use std::collections::BTreeMap;

use serde::Serialize;

pub use self::{
    check::Check,
    guard::{Registration, RegistrationState},
    health::LocalHealth,
    monitor::LogStream,
    node::{AgentInfo, AgentToken, Gauge, Member, MemberStatus, Metrics, Sample},
    registration::ServiceRegistration,
};
use crate::{
    AgentService, Client, Error, HealthCheck, Response, Result, Status, Watch, escape,
    request::{Raw, Request},
    watch::HashSource,
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

    /// The services registered at this agent that match an expression of Consul's filter language, by id.
    ///
    /// # Errors
    /// As any read; [`Error::Rejected`] for an expression that Consul does not read.
    pub async fn services_where(&self, filter: &str) -> Result<BTreeMap<String, AgentService>> {
        Ok(self.client.read(Request::get("/v1/agent/services").param("filter", filter)).await?.value)
    }

    /// One service registered at this agent, or `None`.
    ///
    /// # Errors
    /// As any read.
    pub async fn service(&self, id: &str) -> Result<Option<AgentService>> {
        match self.client.read(service_request(id)?).await {
            Ok(found) => Ok(Some(found.value)),
            // The empty text is a server's or a proxy's "no such path".
            Err(Error::NotFound(answer)) if answer.text.contains("nknown service") => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// One service registered at this agent now and after each change, for ever; none while there is none. It is told apart by content,
    /// as the agent itself has it: no server is asked.
    pub fn watch_service(&self, id: &str) -> Watch<AgentService> {
        Watch::by_hash(self.client.clone(), HashSource { base: service_request(id), decode: decode_service })
    }

    /// Takes a service out, or puts it back: with `Some(reason)` it does not pass.
    ///
    /// # Errors
    /// As any write; [`Error::NotFound`] for an unknown id.
    pub async fn service_maintenance(&self, id: &str, reason: Option<&str>) -> Result<()> {
        let path = format!("/v1/agent/service/maintenance/{}", escape::path("service id", id)?);
        let request =
            Request::put(path).repeatable().param("enable", reason.is_some()).maybe("reason", reason);
        self.client.call(&request).await.map(drop)
    }

    /// Registers a check of its own: of a service with this id, or of the node. `name` is also its id unless it has one.
    ///
    /// # Errors
    /// As any write.
    pub async fn register_check(&self, name: &str, check: Check, service_id: Option<&str>) -> Result<()> {
        #[derive(Serialize)]
        #[serde(rename_all = "PascalCase")]
        struct Wire<'a> {
            #[serde(rename = "ID")]
            id: &'a str,
            name: &'a str,
            #[serde(rename = "ServiceID", skip_serializing_if = "Option::is_none")]
            service_id: Option<&'a str>,
            #[serde(flatten)]
            check: Check,
        }
        let (id, check) = check.without_id();
        let id = id.as_deref().unwrap_or(name);
        escape::path("check id", id)?;
        let wire = Wire { id, name, service_id, check };
        let request = Request::put("/v1/agent/check/register").repeatable().json(&wire)?;
        self.client.call(&request).await.map(drop)
    }

    /// Removes a check. An unknown id is no error: it is gone either way.
    ///
    /// # Errors
    /// As any write.
    pub async fn deregister_check(&self, id: &str) -> Result<()> {
        let path = format!("/v1/agent/check/deregister/{}", escape::path("check id", id)?);
        match self.client.call(&Request::put(path).repeatable()).await {
            Err(Error::NotFound(answer)) if answer.text.contains("nknown check") => Ok(()),
            other => other.map(drop),
        }
    }

    /// Registers a service and keeps it registered: reports its TTL checks in time, registers it again when the agent forgot it, and
    /// removes it in the end. See [`Registration`].
    ///
    /// # Errors
    /// As [`register`](Self::register); once it is registered, failures show in [`Registration::state`].
    pub async fn keep_registered(&self, service: ServiceRegistration) -> Result<Registration> {
        Registration::begin(self.clone(), service).await
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
}

fn service_request(id: &str) -> Result<Request> {
    Ok(Request::get(format!("/v1/agent/service/{}", escape::path("service id", id)?)))
}

fn decode_service(request: &Request, raw: &Raw) -> Result<Response<Vec<AgentService>>> {
    Ok(request.decode::<AgentService>(raw)?.map(|service| vec![service]))
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
