//! The swarm as a whole.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::node::Role;
use super::scalar::{Nanos, Rest, Version, null_default};

/// The swarm as a whole, from `GET /swarm`.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
#[non_exhaustive]
pub struct Swarm {
    /// The swarm's id.
    #[serde(rename = "ID")]
    pub id: String,
    /// The version that an update must carry.
    #[serde(default)]
    pub version: Version,
    /// What a user can change.
    pub spec: SwarmSpec,
    #[serde(default)]
    join_tokens: JoinTokens,
    /// Everything else.
    #[serde(flatten)]
    pub rest: Rest,
}

impl Swarm {
    /// The token with which an engine joins in this role; `None` if the engine gave none.
    #[must_use]
    pub fn join_token(&self, role: &Role) -> Option<&JoinToken> {
        match role {
            Role::Manager => self.join_tokens.manager.as_ref(),
            Role::Worker => self.join_tokens.worker.as_ref(),
            Role::Unknown(_) => None,
        }
        .filter(|token| !token.0.is_empty())
    }
}

/// What a user can change of the swarm.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct SwarmSpec {
    /// The only name that the engine takes is `default`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Labels.
    #[serde(default, deserialize_with = "null_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Everything else, `Dispatcher` and `Orchestration` included: see the methods.
    #[serde(flatten)]
    pub rest: Rest,
}

impl SwarmSpec {
    /// How often nodes report; a node is given up after three times this.
    #[must_use]
    pub fn heartbeat_period(&self) -> Option<Duration> {
        self.rest.get("Dispatcher")?.get("HeartbeatPeriod")?.as_i64().map(|n| Nanos(n).to_duration())
    }

    /// Sets how often nodes report. Short periods find a dead node soon and take a short gap for a death.
    pub fn set_heartbeat_period(&mut self, period: Duration) {
        self.set("Dispatcher", "HeartbeatPeriod", json!(Nanos::from(period)));
    }

    /// How many ended tasks are kept for each slot.
    #[must_use]
    pub fn task_history_limit(&self) -> Option<i64> {
        self.rest.get("Orchestration")?.get("TaskHistoryRetentionLimit")?.as_i64()
    }

    /// Sets how many ended tasks are kept for each slot.
    pub fn set_task_history_limit(&mut self, limit: u32) {
        self.set("Orchestration", "TaskHistoryRetentionLimit", json!(limit));
    }

    /// Whether a manager that restarts waits for the unlock key.
    #[must_use]
    pub fn is_autolocked(&self) -> bool {
        let locked = || self.rest.get("EncryptionConfig")?.get("AutoLockManagers")?.as_bool();
        locked().unwrap_or(false)
    }

    /// Sets whether a manager that restarts waits for the unlock key.
    pub fn set_autolock(&mut self, on: bool) {
        self.set("EncryptionConfig", "AutoLockManagers", json!(on));
    }

    fn set(&mut self, section: &str, key: &str, value: Value) {
        let section = self.rest.entry(section).or_insert_with(|| json!({}));
        if !section.is_object() {
            *section = json!({});
        }
        if let Some(fields) = section.as_object_mut() {
            fields.insert(key.to_owned(), value);
        }
    }
}

/// A secret with which an engine joins a swarm. Debug does not show it.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct JoinToken(String);

impl JoinToken {
    /// The token itself, to be shown to nobody.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for JoinToken {
    fn from(token: String) -> Self {
        Self(token)
    }
}

impl From<&str> for JoinToken {
    fn from(token: &str) -> Self {
        Self(token.to_owned())
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JoinToken(redacted)")
    }
}

/// The key that unlocks a manager of an autolocked swarm after a restart. Debug does not show it.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct UnlockKey(String);

impl UnlockKey {
    /// The key itself, to be shown to nobody.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for UnlockKey {
    fn from(key: String) -> Self {
        Self(key)
    }
}

impl From<&str> for UnlockKey {
    fn from(key: &str) -> Self {
        Self(key.to_owned())
    }
}

impl fmt::Debug for UnlockKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UnlockKey(redacted)")
    }
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct JoinTokens {
    worker: Option<JoinToken>,
    manager: Option<JoinToken>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_read_but_not_shown() {
        let swarm: Swarm = serde_json::from_value(json!({
            "ID": "s", "Version": {"Index": 7}, "JoinTokens": {"Worker": "SWMTKN-1-w", "Manager": "SWMTKN-1-m"},
            "Spec": {"Name": "default", "Raft": {"ElectionTick": 10}, "Dispatcher": {"HeartbeatPeriod": 5_000_000_000_i64, "X": 1}}
        }))
        .unwrap();
        assert_eq!(swarm.join_token(&Role::Manager).unwrap().expose(), "SWMTKN-1-m");
        assert!(!format!("{swarm:?}").contains("SWMTKN"));
        let mut spec = swarm.spec;
        assert_eq!(spec.heartbeat_period(), Some(Duration::from_secs(5)));
        spec.set_heartbeat_period(Duration::from_secs(1));
        spec.set_task_history_limit(2);
        assert_eq!(
            serde_json::to_value(&spec).unwrap(),
            json!({"Name": "default", "Raft": {"ElectionTick": 10}, "Dispatcher": {"HeartbeatPeriod": 1_000_000_000, "X": 1},
                   "Orchestration": {"TaskHistoryRetentionLimit": 2}})
        );
    }
}
