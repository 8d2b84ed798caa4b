//! Where tasks can be reached: a pure function of tasks and nodes.

use std::collections::HashMap;
use std::net::SocketAddr;

use crate::model::{Node, NodeId, Task, TaskId};

/// A port at which a task can be reached.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TaskEndpoint {
    /// The task.
    pub task_id: TaskId,
    /// Its place among the replicas; `None` for a global service.
    pub slot: Option<u64>,
    /// Its node.
    pub node_id: NodeId,
    /// The node's host name.
    pub node_name: String,
    /// The node's address and the port published there.
    pub addr: SocketAddr,
    /// The container's own port.
    pub target_port: u16,
}

/// The ports published in host mode by tasks that live: they run, are meant to, and are on a node that is not down. A dead
/// node's tasks go on saying `running` for a day, so the node must be asked too.
///
/// A node that is neither ready nor down counts as alive: right after an election all of them are `unknown`.
#[must_use]
pub fn endpoints(tasks: &[Task], nodes: &[Node]) -> Vec<TaskEndpoint> {
    let nodes: HashMap<&NodeId, &Node> = nodes.iter().map(|node| (&node.id, node)).collect();
    let mut found: Vec<TaskEndpoint> = tasks
        .iter()
        .filter(|task| task.is_running())
        .filter_map(|task| Some((task, *nodes.get(task.node_id.as_ref()?)?)))
        .filter(|(_, node)| !node.is_down())
        .filter_map(|(task, node)| Some((task, node, node.addr()?)))
        .flat_map(|(task, node, ip)| {
            task.host_ports().filter(|port| port.is_tcp()).filter_map(move |port| {
                Some(TaskEndpoint {
                    task_id: task.id.clone(),
                    slot: task.slot,
                    node_id: node.id.clone(),
                    node_name: node.hostname().to_owned(),
                    addr: SocketAddr::new(ip, port.published_port?),
                    target_port: port.target_port?,
                })
            })
        })
        .collect();
    found.sort_by(|a, b| {
        (a.slot, &a.task_id, a.target_port, a.addr).cmp(&(b.slot, &b.task_id, b.target_port, b.addr))
    });
    // An engine with IPv6 lists each port twice, once for each family.
    found.dedup();
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn task(id: &str, slot: u64, node: &str, state: &str, desired: &str) -> Task {
        serde_json::from_value(json!({
            "ID": id, "ServiceID": "s", "Slot": slot, "NodeID": node, "DesiredState": desired,
            "Status": {"State": state, "PortStatus": {"Ports": [
                {"Protocol": "tcp", "TargetPort": 80, "PublishedPort": 30000 + slot, "PublishMode": "host"},
                {"Protocol": "tcp", "TargetPort": 80, "PublishedPort": 30000 + slot, "PublishMode": "host"},
                {"Protocol": "udp", "TargetPort": 81, "PublishedPort": 31000, "PublishMode": "host"},
            ]}}
        }))
        .unwrap()
    }

    fn node(id: &str, state: &str, status: Value) -> Node {
        let mut value =
            json!({"ID": id, "Description": {"Hostname": format!("host-{id}")}, "Status": {"State": state}});
        value["Status"]["Addr"] = status;
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn only_what_lives_is_offered() {
        let nodes = [
            node("n1", "ready", json!("198.18.0.11")),
            node("n2", "down", json!("198.18.0.12")),
            node("n3", "unknown", json!("fd00::3")),
            node("n4", "ready", json!("0.0.0.0")),
        ];
        let tasks = [
            task("t9", 9, "n3", "running", "running"),
            task("t1", 1, "n1", "running", "running"),
            task("t2", 2, "n2", "running", "running"), // its node is down
            task("t3", 3, "n1", "running", "shutdown"), // going down
            task("t4", 4, "n1", "starting", "running"), // not healthy yet
            task("t5", 5, "n1", "failed", "running"),
            task("t6", 6, "nx", "running", "running"), // its node is not known
            task("t7", 7, "n4", "running", "running"), // its node has no address
            task("t8", 8, "n1", "running", "remove"),
        ];
        let found = endpoints(&tasks, &nodes);
        let seen: Vec<(&str, String, u16)> =
            found.iter().map(|e| (e.node_name.as_str(), e.addr.to_string(), e.target_port)).collect();
        assert_eq!(
            seen,
            [("host-n1", "198.18.0.11:30001".into(), 80), ("host-n3", "[fd00::3]:30009".into(), 80)]
        );
    }

    #[test]
    fn a_task_without_ports_has_no_endpoint() {
        let task: Task = serde_json::from_value(
            json!({"ID": "t", "NodeID": "n1", "DesiredState": "running", "Status": {"State": "running", "PortStatus": {"Ports": null}}}),
        )
        .unwrap();
        assert_eq!(endpoints(&[task], &[node("n1", "ready", json!("10.0.0.1"))]), []);
    }
}
