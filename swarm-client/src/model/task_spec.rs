//! What each task of a service runs, and where.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::blob::{ConfigReference, SecretReference};
use super::network::NetworkAttachment;
use super::scalar::{Nanos, Rest, null_default, open_enum};

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
    /// Secrets that it sees as files.
    #[serde(default, deserialize_with = "null_default", skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<SecretReference>,
    /// Configs that it sees as files.
    #[serde(default, deserialize_with = "null_default", skip_serializing_if = "Vec::is_empty")]
    pub configs: Vec<ConfigReference>,
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
            .field("secrets", &self.secrets)
            .field("configs", &self.configs)
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
