//! What may be changed while a controller runs.

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::policy::Policy;
use crate::policy::PolicyErrors;

/// How much a controller does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Mode {
    /// Decides and writes.
    #[default]
    Active,
    /// Decides and tells, writes nothing: to try a policy on a live service.
    Shadow,
    /// Does nothing at all, but keeps the lease.
    Paused,
}

/// Changes a running controller; clones act on the same one. A change is acted on at once, not at the next tick.
#[derive(Clone, Debug)]
pub struct PolicyHandle {
    pub(super) policy: watch::Sender<Policy>,
    pub(super) mode: watch::Sender<Mode>,
}

impl PolicyHandle {
    pub(super) fn new(policy: Policy) -> Self {
        Self { policy: watch::Sender::new(policy), mode: watch::Sender::new(Mode::Active) }
    }

    /// The policy in use.
    pub fn get(&self) -> Policy {
        self.policy.borrow().clone()
    }

    /// Replaces the policy. The memory of the windows and limits stays.
    ///
    /// # Errors
    /// When the policy is invalid; the old one stays in use.
    pub fn set(&self, policy: Policy) -> Result<(), PolicyErrors> {
        policy.validate()?;
        self.policy.send_if_modified(|current| {
            let changed = *current != policy;
            *current = policy;
            changed
        });
        Ok(())
    }

    /// The mode in use.
    pub fn mode(&self) -> Mode {
        *self.mode.borrow()
    }

    /// Changes the mode.
    pub fn set_mode(&self, mode: Mode) {
        self.mode.send_if_modified(|current| std::mem::replace(current, mode) != mode);
    }
}
