//! A service as the managers keep it.

use serde::{Deserialize, Serialize};

use super::scalar::{Rest, ServiceId, Version, open_enum};
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

    /// The value of one of the service's labels.
    #[must_use]
    pub fn label(&self, key: &str) -> Option<&str> {
        self.spec.labels.get(key).map(String::as_str)
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
