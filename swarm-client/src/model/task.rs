//! A task: one container that the swarm runs, or tried to.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::attachment::TaskNetwork;
use super::network::{PortConfig, PublishMode};
use super::scalar::{NodeId, Rest, ServiceId, TaskId, Version, null_default, open_enum};
use super::task_spec::TaskSpec;

/// One attempt to run one container. It is never restarted: another task in the same slot replaces it.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
#[non_exhaustive]
pub struct Task {
    /// The task's id.
    #[serde(rename = "ID")]
    pub id: TaskId,
    /// The task's version.
    pub version: Version,
    /// The service that it belongs to.
    #[serde(rename = "ServiceID")]
    pub service_id: ServiceId,
    /// Its place among the replicas, from 1; `None` for a global service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slot: Option<u64>,
    /// The node that it was given to; `None` until it is placed.
    #[serde(rename = "NodeID", skip_serializing_if = "Option::is_none")]
    pub node_id: Option<NodeId>,
    /// What it runs. Tasks that were read together share what is the same.
    #[serde(serialize_with = "super::task_read::shared")]
    pub spec: Arc<TaskSpec>,
    /// How far it got.
    pub status: TaskStatus,
    /// How far the managers want it to get.
    pub desired_state: TaskState,
    /// Its addresses on the networks that it is attached to.
    #[serde(rename = "NetworksAttachments", skip_serializing_if = "Vec::is_empty")]
    pub networks: Vec<TaskNetwork>,
    /// Everything else.
    #[serde(flatten)]
    pub rest: Rest,
}

impl Task {
    /// How far it got, by the last word of its node. On a node that died this stays `running` for a day: use
    /// [`Services::endpoints`](crate::Services::endpoints) to know what can be reached.
    #[must_use]
    pub fn state(&self) -> &TaskState {
        &self.status.state
    }

    /// How far the managers want it to get.
    #[must_use]
    pub fn desired_state(&self) -> &TaskState {
        &self.desired_state
    }

    /// True if it runs and is meant to. With a health check a task is `starting` until it is healthy, so running means
    /// healthy. Says nothing of whether its node is alive.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.status.state == TaskState::Running && self.is_wanted()
    }

    /// True unless the managers want it stopped.
    #[must_use]
    pub fn is_wanted(&self) -> bool {
        self.desired_state.rank().is_some_and(|rank| rank <= RUNNING)
    }

    /// The iteration of the job that it belongs to; `None` unless its service is a job.
    #[must_use]
    pub fn job_iteration(&self) -> Option<u64> {
        self.rest.get("JobIteration")?.get("Index")?.as_u64()
    }

    /// The ports that it holds on its node's own address.
    pub fn host_ports(&self) -> impl Iterator<Item = &PortConfig> {
        self.status.port_status.iter().flat_map(|p| &p.ports).filter(|p| {
            // The engine lists host-mode ports only, and in some releases without their mode.
            !matches!(p.publish_mode, Some(PublishMode::Ingress))
                && p.published_port.is_some_and(|port| port != 0)
        })
    }

    /// What went wrong, or what it waits for, in the engine's words.
    #[must_use]
    pub fn error(&self) -> Option<&str> {
        self.status.err.as_deref().filter(|text| !text.is_empty())
    }
}

/// How far a task got.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
#[non_exhaustive]
pub struct TaskStatus {
    /// The state.
    #[serde(default)]
    pub state: TaskState,
    /// What the node says of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// What went wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub err: Option<String>,
    /// The container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container_status: Option<ContainerStatus>,
    /// The ports that it holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port_status: Option<PortStatus>,
    /// Everything else.
    #[serde(flatten)]
    pub rest: Rest,
}

/// A task's container.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
#[non_exhaustive]
pub struct ContainerStatus {
    /// The container's id on its engine.
    #[serde(rename = "ContainerID", default)]
    pub container_id: String,
    /// Its exit code, once it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i64>,
    /// Everything else.
    #[serde(flatten)]
    pub rest: Rest,
}

/// The ports that a task holds.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
#[non_exhaustive]
pub struct PortStatus {
    /// Host-mode ports with the number that was really taken.
    #[serde(default, deserialize_with = "null_default")]
    pub ports: Vec<PortConfig>,
    /// Everything else.
    #[serde(flatten)]
    pub rest: Rest,
}

open_enum!(
    /// How far a task got, or is to get. A task never goes back.
    TaskState {
        /// Made.
        New = "new",
        /// Given its network addresses.
        Allocated = "allocated",
        /// Waits for a node.
        Pending = "pending",
        /// Given to a node.
        Assigned = "assigned",
        /// The node took it.
        Accepted = "accepted",
        /// The image is fetched.
        Preparing = "preparing",
        /// Ready to start.
        Ready = "ready",
        /// Starts, or runs but is not healthy yet.
        Starting = "starting",
        /// Runs, and is healthy if it has a health check.
        Running = "running",
        /// Ended by itself with exit code 0.
        Complete = "complete",
        /// Was told to stop.
        Shutdown = "shutdown",
        /// Ended with an error.
        Failed = "failed",
        /// The node refused it.
        Rejected = "rejected",
        /// To be removed.
        Remove = "remove",
        /// Its node is gone for too long.
        Orphaned = "orphaned",
    }
);

impl TaskState {
    /// The place in the order of states, from `new` 1 to `rejected` 13; `None` for what stands outside of it.
    #[must_use]
    pub fn rank(&self) -> Option<u8> {
        Some(match self {
            Self::New => 1,
            Self::Allocated => 2,
            Self::Pending => 3,
            Self::Assigned => 4,
            Self::Accepted => 5,
            Self::Preparing => 6,
            Self::Ready => 7,
            Self::Starting => 8,
            Self::Running => RUNNING,
            Self::Complete => 10,
            Self::Shutdown => 11,
            Self::Failed => 12,
            Self::Rejected => 13,
            Self::Remove | Self::Orphaned | Self::Unknown(_) => return None,
        })
    }
}

#[expect(clippy::derivable_impls, reason = "the macro that makes the enum marks no default")]
impl Default for TaskState {
    fn default() -> Self {
        Self::New
    }
}

const RUNNING: u8 = 9;
