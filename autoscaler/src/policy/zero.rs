//! Nothing to do, nothing running: how a service goes to zero and comes back.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::seconds;

/// Scaling an idle service below its minimum, in stages, and back at once.
///
/// A service is *active* while any of its signals is above its activation value, and idle when every one was seen not
/// to be, which an unknown signal never is. After `idle_for` without activity the service goes to `idle_replicas`. To
/// zero it goes only while whatever holds the requests meanwhile says that it stands ready
/// ([`Observation::buffer`](crate::Observation::buffer)), and only after `grace` of that, so that the last request finds
/// either an instance or a place to wait. The first activity brings back `activation_replicas`, or more if the load says
/// so, and at least the policy's minimum.
///
/// The stages are those of the Knative pod autoscaler; the activation value, the idle count and the cool-down are
/// KEDA's. A policy with a minimum of zero and without this rule scales to zero like any other count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Zero {
    /// How long every signal must have been at or below its activation value. In serialised form: seconds.
    #[serde(with = "seconds")]
    pub idle_for: Duration,
    /// How long the buffer must have stood ready before the last instance goes. In serialised form: seconds.
    #[serde(with = "seconds")]
    pub grace: Duration,
    /// How many instances an idle service keeps; below the policy's minimum.
    pub idle_replicas: u32,
    /// How many instances the first activity brings back at least.
    pub activation_replicas: u32,
    /// Whether something must hold requests while there is no instance. Without it the first requests fail.
    pub needs_buffer: bool,
    /// Treat the service as active, whatever is read.
    pub force_active: bool,
}

impl Default for Zero {
    fn default() -> Self {
        // The stable window and the scale-to-zero grace period of the Knative pod autoscaler.
        Self {
            idle_for: Duration::from_secs(60),
            grace: Duration::from_secs(30),
            idle_replicas: 0,
            activation_replicas: 1,
            needs_buffer: true,
            force_active: false,
        }
    }
}

impl Zero {
    /// To zero after `idle_for` without activity.
    pub fn after(idle_for: Duration) -> Self {
        Self { idle_for, ..Self::default() }
    }

    /// Sets how long the buffer must have stood ready.
    #[must_use]
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// Sets how many instances an idle service keeps.
    #[must_use]
    pub fn idle_replicas(mut self, replicas: u32) -> Self {
        self.idle_replicas = replicas;
        self
    }

    /// Sets how many instances the first activity brings back.
    #[must_use]
    pub fn activation_replicas(mut self, replicas: u32) -> Self {
        self.activation_replicas = replicas;
        self
    }

    /// Sets whether something must hold requests while there is no instance.
    #[must_use]
    pub fn needs_buffer(mut self, needs: bool) -> Self {
        self.needs_buffer = needs;
        self
    }

    /// Sets whether the service counts as active whatever is read.
    #[must_use]
    pub fn force_active(mut self, active: bool) -> Self {
        self.force_active = active;
        self
    }
}
