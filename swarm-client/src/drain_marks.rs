//! What a drain writes into a service, and how it takes it back. Pure.
//!
//! A constraint that excludes the node makes Swarm replace exactly the tasks that are on it, and start-first makes it start each
//! replacement before it stops the old task (swarmkit, `orchestrator.IsTaskDirty`: a task whose node satisfies the changed
//! constraints stays). A label remembers what was there, so that a drain whose process died can be taken back by the next one.

use std::time::Duration;

use crate::hold::Hold;
use crate::model::{Node, NodeId, ServiceSpec, UpdateConfig, UpdateOrder};
use crate::placement::excluding;

/// The label that remembers what a drain changed: the node's id, and the order of updates before.
pub(crate) const DRAIN_LABEL: &str = "swarm-client.drain";

/// Has the tasks on the node replaced elsewhere.
pub(crate) fn mark(spec: &mut ServiceSpec, node: &Node, now: Duration, length: Duration) {
    // One that excludes the node by itself has no task there that a drain could move.
    let constraint = excluding(node);
    let placement = spec.task_template.placement.get_or_insert_default();
    if !placement.constraints.contains(&constraint) {
        placement.constraints.push(constraint);
    }
    let absent = spec.update_config.is_none();
    let config = spec.update_config.get_or_insert_with(engine_default);
    let before = match (&config.order, absent) {
        (_, true) => "absent",
        (Some(order), false) => order.as_str(),
        (None, false) => "unset",
    };
    spec.labels.insert(DRAIN_LABEL.to_owned(), format!("{} {before}", node.id));
    config.order = Some(UpdateOrder::StartFirst);
    spec.set_hold(&Hold::new(format!("drain of {}", node.hostname()), now, length));
}

/// Takes it back; false, and nothing changed, if a drain of this node changed nothing here.
pub(crate) fn unmark(spec: &mut ServiceSpec, node: &Node) -> bool {
    if marked(spec) != Some(node.id.clone()) {
        return false;
    }
    let label = spec.labels.remove(DRAIN_LABEL).unwrap_or_default();
    let before = label.split(' ').nth(1).unwrap_or("unset");
    // What is left of it may be empty, but is never taken away: see `placement_guard`.
    if let Some(placement) = spec.task_template.placement.as_mut() {
        let constraint = excluding(node);
        placement.constraints.retain(|other| *other != constraint);
    }
    match (before, spec.update_config.as_mut()) {
        ("absent", _) => spec.update_config = None,
        ("unset", Some(config)) => config.order = None,
        (order, Some(config)) => config.order = Some(order.to_owned().into()),
        (_, None) => {}
    }
    spec.release_hold();
    true
}

/// The node that a drain moves this service off.
pub(crate) fn marked(spec: &ServiceSpec) -> Option<NodeId> {
    spec.labels.get(DRAIN_LABEL)?.split_once(' ').map(|(node, _)| node.into())
}

/// What the engine does without an update block.
fn engine_default() -> UpdateConfig {
    UpdateConfig { failure_action: None, order: None, ..UpdateConfig::default() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_marked_is_taken_back_whole() {
        let node: Node =
            serde_json::from_value(json!({"ID": "n1", "Description": {"Hostname": "h1"}})).unwrap();
        let other: Node =
            serde_json::from_value(json!({"ID": "n2", "Description": {"Hostname": "h2"}})).unwrap();
        let second = Duration::from_secs(1);
        let with = |config: Option<UpdateConfig>| {
            let mut spec = ServiceSpec::builder("web", "web:1").constraint("node.role==worker").build();
            spec.update_config = config;
            spec
        };
        for before in [
            with(None),
            with(Some(UpdateConfig::default())),
            with(Some(UpdateConfig::stop_first())),
            with(Some(UpdateConfig { order: None, ..UpdateConfig::default() })),
        ] {
            let mut spec = before.clone();
            mark(&mut spec, &node, 100 * second, 60 * second);
            let placement = spec.task_template.placement.as_ref().unwrap();
            assert_eq!(placement.constraints, ["node.role==worker", "node.id!=n1"]);
            assert_eq!(spec.update_config.as_ref().unwrap().order, Some(UpdateOrder::StartFirst));
            assert_eq!(spec.hold(100 * second).unwrap().by, "drain of h1");
            assert!(!unmark(&mut spec, &other), "another node's drain");
            assert!(unmark(&mut spec, &node));
            assert_eq!(spec, before);
            assert!(!unmark(&mut spec, &node));
        }
        // Without any placement there is an empty block afterwards: to take it away would end the leader's engine.
        let mut before = ServiceSpec::builder("web", "web:1").build();
        before.task_template.placement = None;
        let mut spec = before.clone();
        mark(&mut spec, &node, 100 * second, 60 * second);
        assert!(unmark(&mut spec, &node));
        before.task_template.placement = Some(crate::model::Placement::default());
        assert_eq!(spec, before);
    }
}
