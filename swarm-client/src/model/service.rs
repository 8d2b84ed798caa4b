//! A service as the managers keep it.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::network::{EndpointMode, EndpointSpec, PortConfig};
use super::scalar::{NetworkId, Rest, ServiceId, Version, null_default, open_enum};
use super::service_spec::ServiceSpec;

/// A service as the managers keep it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
#[non_exhaustive]
pub struct Service {
    /// The service's id.
    #[serde(rename = "ID")]
    pub id: ServiceId,
    /// The version that an update must carry. It also moves while a rollout goes on.
    #[serde(default)]
    pub version: Version,
    /// What is wanted.
    pub spec: ServiceSpec,
    /// What was wanted before the last update.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous_spec: Option<ServiceSpec>,
    /// How it is reached at the moment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<ServiceEndpoint>,
    /// How the last update goes; absent if none was needed, as after a mere scale.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub update_status: Option<UpdateStatus>,
    /// Counts of tasks, which the engine gives in lists only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_status: Option<ServiceStatus>,
    /// Everything else.
    #[serde(flatten)]
    pub rest: Rest,
}

impl Service {
    /// The service's id.
    #[must_use]
    pub fn id(&self) -> &ServiceId {
        &self.id
    }

    /// The service's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.spec.name
    }

    /// The wanted replicas; `None` unless the service is replicated.
    #[must_use]
    pub fn replicas(&self) -> Option<u64> {
        self.spec.replicas()
    }

    /// The iteration that a job is in; `None` unless the service is a job.
    #[must_use]
    pub fn job_iteration(&self) -> Option<u64> {
        self.rest.get("JobStatus")?.get("JobIteration")?.get("Index")?.as_u64()
    }

    /// The value of one of the service's labels.
    #[must_use]
    pub fn label(&self, key: &str) -> Option<&str> {
        self.spec.labels.get(key).map(String::as_str)
    }
}

/// How a service is reached at the moment, as the managers worked it out.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
#[non_exhaustive]
pub struct ServiceEndpoint {
    /// The wish that it was made from.
    #[serde(default)]
    pub spec: EndpointSpec,
    /// The published ports, with the numbers that were really taken.
    #[serde(default, deserialize_with = "null_default", skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<PortConfig>,
    /// One address for each network.
    #[serde(
        rename = "VirtualIPs",
        default,
        deserialize_with = "null_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub virtual_ips: Vec<VirtualIp>,
    /// Everything else.
    #[serde(flatten)]
    pub rest: Rest,
}

impl ServiceEndpoint {
    /// How the service's name resolves; absent means a virtual address.
    #[must_use]
    pub fn mode(&self) -> EndpointMode {
        self.spec.mode.clone().unwrap_or(EndpointMode::Vip)
    }
}

/// A service's address on one network.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
#[non_exhaustive]
pub struct VirtualIp {
    /// The network.
    #[serde(rename = "NetworkID", default)]
    pub network_id: NetworkId,
    /// Address and prefix length, such as `10.0.1.5/24`; absent while none is allocated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub addr: Option<String>,
    /// Everything else.
    #[serde(flatten)]
    pub rest: Rest,
}

impl VirtualIp {
    /// The address alone.
    #[must_use]
    pub fn ip(&self) -> Option<IpAddr> {
        super::attachment::ip_of(self.addr.as_deref()?)
    }
}

/// How a service's last update goes.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
#[non_exhaustive]
pub struct UpdateStatus {
    /// Where it stands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<UpdateState>,
    /// Why, in the managers' words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Everything else.
    #[serde(flatten)]
    pub rest: Rest,
}

/// Counts of a service's tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
#[non_exhaustive]
pub struct ServiceStatus {
    /// Tasks that run.
    #[serde(default)]
    pub running_tasks: u64,
    /// Tasks that are wanted.
    #[serde(default)]
    pub desired_tasks: u64,
    /// Tasks of a job that have ended well.
    #[serde(default)]
    pub completed_tasks: u64,
}

open_enum!(
    /// Where an update stands.
    UpdateState {
        /// Goes on.
        Updating = "updating",
        /// Stopped by too many failures, until the next update.
        Paused = "paused",
        /// Each task was replaced.
        Completed = "completed",
        /// Failed, and goes back to the spec before.
        RollbackStarted = "rollback_started",
        /// Stopped on its way back.
        RollbackPaused = "rollback_paused",
        /// Went back to the spec before.
        RollbackCompleted = "rollback_completed",
    }
);
