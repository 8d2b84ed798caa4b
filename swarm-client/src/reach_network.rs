//! Where services can be reached other than by host-mode ports: pure functions of what the managers list.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use crate::model::{
    EndpointMode, NetworkId, Node, NodeId, NodeState, Protocol, PublishMode, Service, Task, TaskId,
};

/// An address of a task on an overlay network, which other containers of that network reach.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct TaskAddress {
    /// The task.
    pub task_id: TaskId,
    /// Its place among the replicas; `None` for a global service.
    pub slot: Option<u64>,
    /// Its node.
    pub node_id: NodeId,
    /// The network.
    pub network_id: NetworkId,
    /// The network's name.
    pub network_name: String,
    /// The address.
    pub ip: IpAddr,
}

/// A service's own address on an overlay network: the engine of each container there spreads over the service's tasks.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct VirtualAddress {
    /// The network.
    pub network_id: NetworkId,
    /// The address.
    pub ip: IpAddr,
}

/// A port that the routing mesh listens on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct IngressEndpoint {
    /// The node that takes the connection, which need not run a task.
    pub node_id: NodeId,
    /// The node's host name.
    pub node_name: String,
    /// Where.
    pub addr: SocketAddr,
    /// The container's own port.
    pub target_port: u16,
    /// The protocol.
    pub protocol: Protocol,
}

/// The overlay addresses of tasks that live: they run, are meant to, and are on a node that is not down. `network` is a name or
/// id; without one, each network but the routing mesh's.
#[must_use]
pub fn task_addresses(tasks: &[Task], nodes: &[Node], network: Option<&str>) -> Vec<TaskAddress> {
    let down: HashMap<&NodeId, bool> = nodes.iter().map(|node| (&node.id, node.is_down())).collect();
    let mut found = Vec::new();
    for task in tasks.iter().filter(|task| task.is_running()) {
        let Some(node_id) = task.node_id.as_ref().filter(|id| down.get(id) == Some(&false)) else { continue };
        for attached in &task.networks {
            let spec = &attached.network.spec;
            let wanted = match network {
                Some(network) => spec.name == network || attached.network.id.as_str() == network,
                None => !spec.ingress,
            };
            found.extend(attached.ips().filter(|_| wanted).map(|ip| TaskAddress {
                task_id: task.id.clone(),
                slot: task.slot,
                node_id: node_id.clone(),
                network_id: attached.network.id.clone(),
                network_name: spec.name.clone(),
                ip,
            }));
        }
    }
    found.sort_by(|a, b| {
        (a.slot, &a.task_id, &a.network_name, a.ip).cmp(&(b.slot, &b.task_id, &b.network_name, b.ip))
    });
    found
}

/// A service's virtual addresses; none with `dnsrr`, and never the routing mesh's, which no container can reach.
#[must_use]
pub fn virtual_addresses(service: &Service, ingress: &[NetworkId]) -> Vec<VirtualAddress> {
    let endpoint = service.endpoint.iter().filter(|endpoint| endpoint.mode() == EndpointMode::Vip);
    endpoint
        .flat_map(|endpoint| &endpoint.virtual_ips)
        .filter(|vip| !ingress.contains(&vip.network_id))
        .filter_map(|vip| Some(VirtualAddress { network_id: vip.network_id.clone(), ip: vip.ip()? }))
        .collect()
}

/// The routing mesh's ports of a service, on each node that is ready and has an address.
#[must_use]
pub fn ingress_endpoints(service: &Service, nodes: &[Node]) -> Vec<IngressEndpoint> {
    let ports = service.endpoint.iter().flat_map(|endpoint| &endpoint.ports);
    let ports = ports.filter(|port| !matches!(port.publish_mode, Some(PublishMode::Host)));
    let mut found = Vec::new();
    for port in ports {
        let (Some(target_port), Some(published)) = (port.target_port, port.published_port) else { continue };
        let ready = nodes.iter().filter(|node| node.status.state == Some(NodeState::Ready));
        for (node, ip) in ready.filter_map(|node| Some((node, node.addr()?))).filter(|_| published != 0) {
            found.push(IngressEndpoint {
                node_id: node.id.clone(),
                node_name: node.hostname().to_owned(),
                addr: SocketAddr::new(ip, published),
                target_port,
                protocol: port.protocol.clone().unwrap_or(Protocol::Tcp),
            });
        }
    }
    found.sort_by(|a, b| (a.target_port, &a.node_name, a.addr).cmp(&(b.target_port, &b.node_name, b.addr)));
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn nodes() -> Vec<Node> {
        let node = |id: &str, state: &str| json!({"ID": id, "Description": {"Hostname": id}, "Status": {"State": state, "Addr": format!("198.18.0.1{}", &id[1..])}});
        serde_json::from_value(json!([node("n1", "ready"), node("n2", "down"), node("n3", "unknown")]))
            .unwrap()
    }

    #[test]
    fn only_what_lives_is_offered_on_its_networks() {
        let task = |id: &str, slot: u64, node: &str, state: &str, desired: &str, addresses: Value| {
            json!({
            "ID": id, "Slot": slot, "NodeID": node, "DesiredState": desired, "Status": {"State": state},
            "NetworksAttachments": [
                {"Network": {"ID": "ing", "Spec": {"Name": "ingress", "Ingress": true}}, "Addresses": ["10.0.0.9/24"]},
                {"Network": {"ID": "net1", "Spec": {"Name": "back"}}, "Addresses": addresses},
            ]})
        };
        let tasks: Vec<Task> = serde_json::from_value(json!([
            task("t2", 2, "n3", "running", "running", json!(["10.0.1.6/24", "fd00::6/64", "junk"])),
            task("t1", 1, "n1", "running", "running", json!(["10.0.1.5/24"])),
            task("t3", 3, "n2", "running", "running", json!(["10.0.1.7/24"])),
            task("t4", 4, "n1", "running", "shutdown", json!(["10.0.1.8/24"])),
            task("t5", 5, "n1", "starting", "running", json!(["10.0.1.9/24"])),
            task("t6", 6, "nx", "running", "running", json!(["10.0.1.10/24"])),
        ]))
        .unwrap();
        let ips = |network| -> Vec<String> {
            task_addresses(&tasks, &nodes(), network).iter().map(|a| a.ip.to_string()).collect()
        };
        assert_eq!(ips(None), ["10.0.1.5", "10.0.1.6", "fd00::6"]);
        assert_eq!(ips(Some("net1")), ips(Some("back")));
        assert_eq!(ips(Some("ingress")), ["10.0.0.9", "10.0.0.9"]);
        assert!(ips(Some("none")).is_empty());
    }

    #[test]
    fn virtual_addresses_leave_the_mesh_out() {
        let service = |mode: Value| -> Service {
            serde_json::from_value(json!({"ID": "s", "Spec": {"Name": "web"}, "Endpoint": {"Spec": mode, "VirtualIPs": [
                {"NetworkID": "ing", "Addr": "10.0.0.5/24"}, {"NetworkID": "back", "Addr": "10.0.1.2/24"}, {"NetworkID": "new"}]}}))
            .unwrap()
        };
        let ingress = [NetworkId::from("ing")];
        let found = virtual_addresses(&service(json!({})), &ingress);
        assert_eq!(found, [VirtualAddress { network_id: "back".into(), ip: "10.0.1.2".parse().unwrap() }]);
        assert_eq!(virtual_addresses(&service(json!({"Mode": "vip"})), &ingress).len(), 1);
        assert!(virtual_addresses(&service(json!({"Mode": "dnsrr"})), &ingress).is_empty());
    }

    #[test]
    fn the_mesh_listens_on_each_ready_node() {
        let service: Service = serde_json::from_value(json!({"ID": "s", "Spec": {"Name": "web"}, "Endpoint": {"Ports": [
            {"TargetPort": 80, "PublishedPort": 30000, "PublishMode": "ingress"}, {"TargetPort": 81, "PublishedPort": 0},
            {"TargetPort": 82, "PublishedPort": 82, "PublishMode": "host"}]}}))
        .unwrap();
        let found = ingress_endpoints(&service, &nodes());
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].addr.to_string().as_str(), found[0].target_port), ("198.18.0.11:30000", 80));
    }
}
