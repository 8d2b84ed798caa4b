//! What a service is wanted to be.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::builder::ServiceSpecBuilder;
use super::network::EndpointSpec;
use super::scalar::{Nanos, Rest, null_default, open_enum};
use super::task_spec::TaskSpec;

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

    /// Tasks that end: so many in all, so many at a time.
    #[must_use]
    pub fn replicated_job(completions: u64, at_a_time: u64) -> Self {
        let mut job = Rest::default();
        job.insert("MaxConcurrent".to_owned(), at_a_time.into());
        job.insert("TotalCompletions".to_owned(), completions.into());
        Self { replicated_job: Some(job), ..Self::default() }
    }

    /// A task that ends, on each node.
    #[must_use]
    pub fn global_job() -> Self {
        Self { global_job: Some(Rest::default()), ..Self::default() }
    }

    /// True if its tasks are meant to end.
    #[must_use]
    pub fn is_job(&self) -> bool {
        matches!(self.kind(), Mode::ReplicatedJob { .. } | Mode::GlobalJob)
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
