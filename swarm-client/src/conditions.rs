//! Conditions to wait for with [`await_condition`](crate::watch::await_condition).

use crate::model::{Node, Role, Service, Task, UpdateState};

/// Something that holds of an object, or of its absence. Each closure over `Option<&K>` is one.
pub trait Condition<K> {
    /// Whether it holds; `None` means that the object does not exist.
    fn holds(&self, object: Option<&K>) -> bool;

    /// Holds when it does not.
    fn not(self) -> impl Condition<K>
    where
        Self: Sized,
    {
        move |object: Option<&K>| !self.holds(object)
    }

    /// Holds when both do.
    fn and(self, other: impl Condition<K>) -> impl Condition<K>
    where
        Self: Sized,
    {
        move |object: Option<&K>| self.holds(object) && other.holds(object)
    }

    /// Holds when one of them does.
    fn or(self, other: impl Condition<K>) -> impl Condition<K>
    where
        Self: Sized,
    {
        move |object: Option<&K>| self.holds(object) || other.holds(object)
    }
}

impl<K, F: Fn(Option<&K>) -> bool> Condition<K> for F {
    fn holds(&self, object: Option<&K>) -> bool {
        self(object)
    }
}

/// It exists.
#[must_use]
pub fn exists<K>() -> impl Condition<K> {
    |object: Option<&K>| object.is_some()
}

/// It does not exist.
#[must_use]
pub fn deleted<K>() -> impl Condition<K> {
    |object: Option<&K>| object.is_none()
}

/// The node answers the managers.
#[must_use]
pub fn node_ready() -> impl Condition<Node> {
    |node: Option<&Node>| node.is_some_and(Node::is_ready)
}

/// The managers have given the node up.
#[must_use]
pub fn node_down() -> impl Condition<Node> {
    |node: Option<&Node>| node.is_some_and(Node::is_down)
}

/// The node takes part in the managers' decisions and the others reach it.
#[must_use]
pub fn is_manager() -> impl Condition<Node> {
    |node: Option<&Node>| {
        let status = node.and_then(|node| node.manager_status.as_ref());
        status.is_some_and(|status| status.reachability.as_deref() == Some("reachable"))
    }
}

/// The node takes part in the managers' decisions no longer: after a demotion this is when it may be removed.
#[must_use]
pub fn is_worker() -> impl Condition<Node> {
    |node: Option<&Node>| {
        node.is_some_and(|node| node.spec.role == Some(Role::Worker) && node.manager_status.is_none())
    }
}

/// The task runs, and is meant to.
#[must_use]
pub fn task_running() -> impl Condition<Task> {
    |task: Option<&Task>| task.is_some_and(Task::is_running)
}

/// No update of the service goes on. Says nothing of whether it runs: for that, wait for its
/// [rollout](crate::Services::rollout).
#[must_use]
pub fn service_settled() -> impl Condition<Service> {
    |service: Option<&Service>| {
        let state = service.and_then(|s| s.update_status.as_ref()?.state.as_ref());
        service.is_some() && !matches!(state, Some(UpdateState::Updating | UpdateState::RollbackStarted))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn conditions_combine() {
        let node = |state: &str, role: &str| -> Node {
            serde_json::from_value(json!({"ID": "n", "Spec": {"Role": role}, "Status": {"State": state}}))
                .unwrap()
        };
        let (up, down) = (node("ready", "worker"), node("down", "manager"));
        assert!(node_ready().and(is_worker()).holds(Some(&up)));
        assert!(!node_ready().and(is_worker()).holds(Some(&down)));
        assert!(node_down().or(deleted()).holds(None));
        assert!(node_down().or(deleted()).holds(Some(&down)));
        assert!(!node_down().or(deleted()).holds(Some(&up)));
        assert!(exists::<Node>().not().holds(None));
        assert!((|node: Option<&Node>| node.is_some()).and(node_ready().not()).holds(Some(&down)));
    }
}
