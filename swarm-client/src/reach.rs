//! Where tasks can be reached: a pure function of tasks and nodes.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};

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
            reachable_ports(task, ip).into_iter().map(move |(target_port, published)| TaskEndpoint {
                task_id: task.id.clone(),
                slot: task.slot,
                node_id: node.id.clone(),
                node_name: node.hostname().to_owned(),
                addr: SocketAddr::new(ip, published),
                target_port,
            })
        })
        .collect();
    found.sort_by(|a, b| {
        (a.slot, &a.task_id, a.target_port, a.addr).cmp(&(b.slot, &b.task_id, b.target_port, b.addr))
    });
    found
}

/// The TCP ports of a task, target and published, at which an address of this family reaches it.
///
/// An engine with IPv6 lists each port once for each family, IPv4 first, without saying which is which (moby 20.10,
/// `daemon/cluster/executor/container`). A fixed port has the same number in both; an ephemeral one may not, and the
/// number of the other family can be another container's. So of numbers that are listed once each, only the one at the
/// family's end of the list is sure.
#[must_use]
pub fn reachable_ports(task: &Task, ip: IpAddr) -> Vec<(u16, u16)> {
    let mut listed: BTreeMap<u16, Vec<u16>> = BTreeMap::new();
    for port in task.host_ports().filter(|port| port.is_tcp()) {
        if let (Some(target), Some(published)) = (port.target_port, port.published_port) {
            listed.entry(target).or_default().push(published);
        }
    }
    let of_target = |(target, published): (u16, Vec<u16>)| {
        let twice = |port: &u16| published.iter().filter(|other| *other == port).count() > 1;
        let mut sure: Vec<u16> = published.iter().copied().filter(twice).collect();
        sure.sort_unstable();
        sure.dedup();
        if sure.is_empty() {
            let end = if ip.is_ipv4() { published.first() } else { published.last() };
            sure.extend(end);
        }
        sure.into_iter().map(move |port| (target, port)).collect::<Vec<_>>()
    };
    listed.into_iter().flat_map(of_target).collect()
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
    fn of_two_families_with_ports_of_their_own_the_nodes_is_offered() {
        let listing = |ports: &[u16]| -> Task {
            let ports: Vec<Value> = ports
                .iter()
                .map(|port| json!({"Protocol": "tcp", "TargetPort": 80, "PublishedPort": port, "PublishMode": "host"}))
                .collect();
            serde_json::from_value(json!({
                "ID": "t", "ServiceID": "s", "NodeID": "n", "DesiredState": "running",
                "Status": {"State": "running", "PortStatus": {"Ports": ports}}
            }))
            .unwrap()
        };
        let (v4, v6) = ("198.18.0.11".parse().unwrap(), "2001:db8::1".parse().unwrap());
        // Seen on a real engine: 32770 answered on IPv6 alone.
        assert_eq!(reachable_ports(&listing(&[32769, 32770]), v4), [(80, 32769)]);
        assert_eq!(reachable_ports(&listing(&[32769, 32770]), v6), [(80, 32770)]);
        assert_eq!(reachable_ports(&listing(&[32769, 32769]), v4), [(80, 32769)]);
        assert_eq!(reachable_ports(&listing(&[8080, 8080, 8081, 8081]), v4), [(80, 8080), (80, 8081)]);
        assert_eq!(reachable_ports(&listing(&[32769]), v6), [(80, 32769)]);
        assert!(reachable_ports(&listing(&[]), v4).is_empty());
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
