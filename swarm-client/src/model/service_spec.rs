//! What a service is wanted to be.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::builder::ServiceSpecBuilder;
use super::network::{EndpointSpec, NetworkAttachment};
use super::scalar::{Nanos, Rest, null_default, open_enum};

/// What a service is wanted to be. Make one with [`ServiceSpec::builder`], change one with
/// [`Services::modify`](crate::Services::modify).
///
/// An absent field means the engine's default. The engine's defaults for a block hold only if the whole block is absent: a
/// block without `parallelism`, say, updates all replicas at once.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ServiceSpec {
    /// The name, which cannot be changed later.
    #[serde(default)]
    pub name: String,
    /// Labels of the service: changing them restarts nothing.
    #[serde(default, deserialize_with = "null_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// What each task runs.
    #[serde(default)]
    pub task_template: TaskSpec,
    /// How many tasks.
    #[serde(default)]
    pub mode: ServiceMode,
    /// How a new spec is rolled out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub update_config: Option<UpdateConfig>,
    /// How an old spec is rolled back to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollback_config: Option<UpdateConfig>,
    /// How it is reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint_spec: Option<EndpointSpec>,
    /// Everything else.
    #[serde(flatten)]
    pub rest: Rest,
}

impl ServiceSpec {
    /// Starts a spec of one replica.
    pub fn builder(name: impl Into<String>, image: impl Into<String>) -> ServiceSpecBuilder {
        ServiceSpecBuilder::new(name.into(), image.into())
    }

    /// The wanted replicas (the engine's default is 1); `None` unless the service is replicated.
    #[must_use]
    pub fn replicas(&self) -> Option<u64> {
        match self.mode.kind() {
            Mode::Replicated { replicas } => Some(replicas),
            _ => None,
        }
    }

    /// Sets the replicas; false, and nothing changed, unless the service is replicated.
    #[must_use = "a service that is not replicated has no replicas to set"]
    pub fn set_replicas(&mut self, replicas: u64) -> bool {
        match (self.mode.kind(), self.mode.replicated.as_mut()) {
            (Mode::Replicated { .. }, Some(mode)) => {
                mode.replicas = Some(replicas);
                true
            }
            _ => false,
        }
    }
}

/// How many tasks a service has. On the wire it is an object with one of these fields; [`kind`](Self::kind) tells which.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ServiceMode {
    /// So many tasks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicated: Option<Replicated>,
    /// One task on each node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub global: Option<Rest>,
    /// Tasks that end, so many in all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicated_job: Option<Rest>,
    /// A task that ends, on each node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub global_job: Option<Rest>,
    /// Everything else.
    #[serde(flatten)]
    pub rest: Rest,
}

impl ServiceMode {
    /// So many tasks.
    #[must_use]
    pub fn replicated(replicas: u64) -> Self {
        Self {
            replicated: Some(Replicated { replicas: Some(replicas), ..Replicated::default() }),
            ..Self::default()
        }
    }

    /// One task on each node.
    #[must_use]
    pub fn global() -> Self {
        Self { global: Some(Rest::default()), ..Self::default() }
    }

    /// Which mode it is.
    #[must_use]
    pub fn kind(&self) -> Mode {
        if let Some(mode) = &self.replicated {
            Mode::Replicated { replicas: mode.replicas.unwrap_or(1) }
        } else if self.global.is_some() {
            Mode::Global
        } else if let Some(job) = &self.replicated_job {
            let total = job.get("TotalCompletions").or_else(|| job.get("MaxConcurrent"));
            Mode::ReplicatedJob { completions: total.and_then(serde_json::Value::as_u64).unwrap_or(1) }
        } else if self.global_job.is_some() {
            Mode::GlobalJob
        } else {
            Mode::Unknown
        }
    }
}

/// A service's mode, to match on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mode {
    /// So many tasks that go on.
    Replicated {
        /// How many.
        replicas: u64,
    },
    /// A task on each node.
    Global,
    /// Tasks that end.
    ReplicatedJob {
        /// How many in all.
        completions: u64,
    },
    /// A task that ends, on each node.
    GlobalJob,
    /// One that this crate does not know.
    Unknown,
}

/// The replicas of a replicated service.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Replicated {
    /// How many; absent means 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<u64>,
    /// Everything else.
    #[serde(flatten)]
    pub rest: Rest,
}

/// What each task of a service runs. Any change here replaces the tasks.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct TaskSpec {
    /// The container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container_spec: Option<ContainerSpec>,
    /// What it reserves and may use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
    /// When a task is replaced after it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restart_policy: Option<RestartPolicy>,
    /// Where tasks may run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub placement: Option<Placement>,
    /// The networks that tasks attach to.
    #[serde(default, deserialize_with = "null_default", skip_serializing_if = "Vec::is_empty")]
    pub networks: Vec<NetworkAttachment>,
    /// Counting this up replaces all tasks although nothing changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub force_update: Option<u64>,
    /// Everything else.
    #[serde(flatten)]
    pub rest: Rest,
}

/// A task's container.
#[derive(Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ContainerSpec {
    /// The image. The engine does not resolve a tag: without a digest, nodes may run different builds of it.
    #[serde(default)]
    pub image: String,
    /// Labels of the container.
    #[serde(default, deserialize_with = "null_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Replaces the image's entry point.
    #[serde(default, deserialize_with = "null_default", skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    /// Replaces the image's arguments.
    #[serde(default, deserialize_with = "null_default", skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// The container's host name; templates such as `{{.Node.Hostname}}` work.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// `KEY=value` each; templates work.
    #[serde(default, deserialize_with = "null_default", skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    /// The user, `uid[:gid]` or by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The signal that asks it to stop.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_signal: Option<String>,
    /// How long it may take to stop before it is killed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_grace_period: Option<Nanos>,
    /// How its health is checked. The daemon spells it like this, whatever its description says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<Healthcheck>,
    /// What is mounted into it.
    #[serde(default, deserialize_with = "null_default", skip_serializing_if = "Vec::is_empty")]
    pub mounts: Vec<Mount>,
    /// True if its root file system cannot be written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_only: Option<bool>,
    /// Everything else.
    #[serde(flatten)]
    pub rest: Rest,
}

impl fmt::Debug for ContainerSpec {
    /// Shows what is no secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys: Vec<&str> =
            self.env.iter().map(|e| e.split_once('=').map_or(e.as_str(), |(key, _)| key)).collect();
        f.debug_struct("ContainerSpec")
            .field("image", &self.image)
            .field("env_keys", &keys)
            .field("args", &self.args.len())
            .field("command", &self.command.len())
            .field("user", &self.user)
            .field("stop_grace_period", &self.stop_grace_period)
            .field("mounts", &self.mounts)
            .field("rest", &self.rest)
            .finish_non_exhaustive()
    }
}

/// How a container's health is checked. Absent values are the image's.
#[derive(Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Healthcheck {
    /// `["NONE"]`, `["CMD", args…]` or `["CMD-SHELL", command]`.
    #[serde(default, deserialize_with = "null_default", skip_serializing_if = "Vec::is_empty")]
    pub test: Vec<String>,
    /// Between two checks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<Nanos>,
    /// For one check.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Nanos>,
    /// Failures in a row that make it unhealthy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retries: Option<i64>,
    /// In which failures do not count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_period: Option<Nanos>,
    /// Everything else.
    #[serde(flatten)]
    pub rest: Rest,
}

impl fmt::Debug for Healthcheck {
    /// Shows all but the command, which may hold a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Healthcheck")
            .field("kind", &self.test.first())
            .field("interval", &self.interval)
            .field("timeout", &self.timeout)
            .field("retries", &self.retries)
            .field("start_period", &self.start_period)
            .finish_non_exhaustive()
    }
}

/// Something mounted into a container.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Mount {
    /// `bind`, `volume`, `tmpfs`, …
    #[serde(rename = "Type", default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// The host's path or the volume's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// The path in the container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// True if it cannot be written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_only: Option<bool>,
    /// Everything else.
    #[serde(flatten)]
    pub rest: Rest,
}

/// What a task reserves and may use.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Resources {
    /// More than this it never gets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<ResourceLimits>,
    /// A node must have this to spare.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reservations: Option<ResourceLimits>,
    /// Everything else.
    #[serde(flatten)]
    pub rest: Rest,
}

/// Amounts of processor and memory.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ResourceLimits {
    /// Billionths of a processor.
    #[serde(rename = "NanoCPUs", default, skip_serializing_if = "Option::is_none")]
    pub nano_cpus: Option<i64>,
    /// Bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<i64>,
    /// Everything else.
    #[serde(flatten)]
    pub rest: Rest,
}

/// When a task is replaced after it ended.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct RestartPolicy {
    /// After which kind of end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub condition: Option<RestartCondition>,
    /// How long the replacement waits, after a node's death too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay: Option<Nanos>,
    /// How many replacements within the window; 0 is no bound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_attempts: Option<u64>,
    /// The window.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<Nanos>,
    /// Everything else.
    #[serde(flatten)]
    pub rest: Rest,
}

/// Where tasks may run.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Placement {
    /// Such as `node.labels.zone==a`; all must hold.
    #[serde(default, deserialize_with = "null_default", skip_serializing_if = "Vec::is_empty")]
    pub constraints: Vec<String>,
    /// Spread rules, as the engine writes them.
    #[serde(default, deserialize_with = "null_default", skip_serializing_if = "Vec::is_empty")]
    pub preferences: Vec<serde_json::Value>,
    /// Tasks of this service on one node; 0 is no bound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_replicas: Option<u64>,
    /// Everything else.
    #[serde(flatten)]
    pub rest: Rest,
}

/// How tasks are replaced, by a rollout or a rollback.
///
/// [`Default`] is one at a time, new before old, and back to the spec before when one fails within five seconds; each value
/// is written out, since the engine takes an absent parallelism for "all at once".
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct UpdateConfig {
    /// Tasks replaced at the same time; 0 is all.
    #[serde(default)]
    pub parallelism: u64,
    /// Between two of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay: Option<Nanos>,
    /// What to do when too many fail; the engine's default is to pause.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure_action: Option<FailureAction>,
    /// A new task that ends within this time counts as failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub monitor: Option<Nanos>,
    /// The share of failures that is accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_failure_ratio: Option<f64>,
    /// Whether the new task starts before the old one stops; the engine's default is stop first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order: Option<UpdateOrder>,
    /// Everything else.
    #[serde(flatten)]
    pub rest: Rest,
}

impl UpdateConfig {
    /// The default, but old before new: for what cannot run twice, such as a holder of a fixed host port.
    #[must_use]
    pub fn stop_first() -> Self {
        Self { order: Some(UpdateOrder::StopFirst), ..Self::default() }
    }

    /// The default with a pause instead of a way back, for the way back itself: a rollback cannot be rolled back.
    #[must_use]
    pub fn pausing(self) -> Self {
        Self { failure_action: Some(FailureAction::Pause), ..self }
    }
}

impl Default for UpdateConfig {
    fn default() -> Self {
        Self {
            parallelism: 1,
            delay: Some(Nanos(0)),
            failure_action: Some(FailureAction::Rollback),
            // The engine's own default, written out.
            monitor: Some(Nanos(5_000_000_000)),
            max_failure_ratio: Some(0.0),
            order: Some(UpdateOrder::StartFirst),
            rest: Rest::default(),
        }
    }
}

open_enum!(
    /// After which kind of end a task is replaced.
    RestartCondition {
        /// Never.
        None = "none",
        /// After an error.
        OnFailure = "on-failure",
        /// Always.
        Any = "any",
    }
);

open_enum!(
    /// What a rollout does when too many tasks fail.
    FailureAction {
        /// Stop until the next update.
        Pause = "pause",
        /// Go on.
        Continue = "continue",
        /// Go back to the spec before.
        Rollback = "rollback",
    }
);

open_enum!(
    /// Which comes first when a task is replaced.
    UpdateOrder {
        /// The old one stops first.
        StopFirst = "stop-first",
        /// The new one runs first.
        StartFirst = "start-first",
    }
);
