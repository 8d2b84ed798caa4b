//! The swarm's secrets, and how many managers it can lose.

use std::convert::Infallible;

use serde::Deserialize;
use serde_json::json;

use crate::error::{Error, Result};
use crate::model::{JoinToken, Node, Role, Swarm, SwarmSpec, UnlockKey};
use crate::modify::{self, How, Modified};
use crate::request::{Request, Target};
use crate::swarm::SwarmApi;

impl SwarmApi {
    /// Replaces the token with which engines join in this role, and returns the new one. The old one is worthless from then on;
    /// nodes that have joined stay.
    ///
    /// # Errors
    /// If the swarm cannot be written; [`Error::is_outcome_unknown`] if no answer came: then read the token.
    pub async fn rotate_join_token(&self, role: Role) -> Result<JoinToken> {
        match role {
            Role::Worker => self.rotate("rotateWorkerToken").await?,
            Role::Manager => self.rotate("rotateManagerToken").await?,
            Role::Unknown(_) => {
                let problem = "only workers and managers have a token".to_owned();
                return Err(Error::Invalid { what: format!("rotate the token of role {role}"), problem });
            }
        }
        self.join_token(role).await
    }

    /// Sets whether a manager that restarts waits for the [unlock key](Self::unlock_key). Turning it on makes a new key.
    ///
    /// # Errors
    /// As for [`modify`](Self::modify).
    pub async fn set_autolock(&self, on: bool) -> Result<Modified<SwarmSpec>> {
        self.change(true, |spec| {
            if spec.is_autolocked() != on {
                spec.set_autolock(on);
            }
        })
        .await
    }

    /// The key that unlocks a manager after a restart, or `None` unless the swarm is autolocked. Keep it outside of the swarm.
    ///
    /// # Errors
    /// If it cannot be read.
    pub async fn unlock_key(&self) -> Result<Option<UnlockKey>> {
        #[derive(Deserialize)]
        struct Answer {
            #[serde(rename = "UnlockKey", default)]
            key: Option<UnlockKey>,
        }
        let request = Request::get("read the unlock key", &["swarm", "unlockkey"]);
        let answer: Answer = self.client.call(request).await?;
        Ok(answer.key.filter(|key| !key.expose().is_empty()))
    }

    /// Replaces the unlock key and returns the new one. A manager that is away just now needs the old one still.
    ///
    /// # Errors
    /// [`Error::is_not_found`] unless the swarm is autolocked; else as for [`rotate_join_token`](Self::rotate_join_token).
    pub async fn rotate_unlock_key(&self) -> Result<UnlockKey> {
        let missing =
            || Error::NotFound { kind: "unlock key", name: "of a swarm without autolock".to_owned() };
        if self.unlock_key().await?.is_none() {
            return Err(missing());
        }
        self.rotate("rotateManagerUnlockKey").await?;
        self.unlock_key().await?.ok_or_else(missing)
    }

    /// Unlocks this engine, which restarted and waits for the key. Acts on one machine, so it refuses a client with several
    /// endpoints.
    ///
    /// # Errors
    /// If the key is wrong or the engine is not locked.
    pub async fn unlock(&self, key: &UnlockKey) -> Result<()> {
        let body = json!({ "UnlockKey": key.expose() });
        let request = Request::post("unlock the engine", &["swarm", "unlock"]).json(&body)?;
        self.client.call_unit(request.target(Target::OneEngine).repeatable(true)).await
    }

    /// How many managers there are, and how many more may be lost.
    ///
    /// # Errors
    /// If the nodes cannot be read, as when the majority is lost already.
    pub async fn quorum(&self) -> Result<Quorum> {
        Ok(Quorum::of(&self.client.nodes().list().await?))
    }

    async fn rotate(&self, which: &'static str) -> Result<()> {
        let how = How::repeatable(false).query(which, "true");
        let result = modify::modify(&self.client, "", how, |_: &Swarm, _| Ok::<(), Infallible>(()));
        modify::never_refused(result.await).map(|_| ())
    }
}

/// The managers' majority.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Quorum {
    /// Managers in all.
    pub managers: usize,
    /// Those that the leader reaches.
    pub reachable: usize,
}

impl Quorum {
    /// Counts them.
    #[must_use]
    pub fn of(nodes: &[Node]) -> Self {
        let managers = nodes.iter().filter_map(|node| node.manager_status.as_ref());
        let reachable = managers.clone().filter(|m| m.reachability.as_deref() == Some("reachable"));
        Self { managers: managers.count(), reachable: reachable.count() }
    }

    /// How many of the reachable managers may still be lost without losing the majority.
    #[must_use]
    pub fn tolerance(&self) -> usize {
        self.reachable.saturating_sub(self.managers / 2 + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tolerance_counts_what_is_left() {
        for (managers, reachable, tolerance) in
            [(1, 1, 0), (2, 2, 0), (3, 3, 1), (3, 2, 0), (5, 5, 2), (5, 4, 1), (5, 2, 0), (0, 0, 0)]
        {
            assert_eq!(Quorum { managers, reachable }.tolerance(), tolerance, "{managers} {reachable}");
        }
    }
}
