//! The ports that this host's containers publish, from the engine itself, for tasks that say of themselves that they
//! publish none.
//!
//! After an election of the Swarm's leader some tasks that run have an empty port status, and keep it for as long as they
//! run, while the engine publishes their ports as before (seen with Docker 20.10; their exit code is -1 then). A port that
//! is not told is no port that is not there.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use anyhow::{Context, Result};
use swarm_client::bollard::Docker;
use swarm_client::bollard::models::{ContainerSummary, PortSummaryTypeEnum};
use swarm_client::bollard::query_parameters::ListContainersOptionsBuilder;
use swarm_client::model::PublishMode;
use swarm_client::{Service, Task};

/// By the container's id: the container's own port, and the one of the host, as [`swarm_client::reachable_ports`] has them.
pub(super) type Published = BTreeMap<String, Vec<(u16, u16)>>;

/// Whether a running task of one of these services tells no port, although its service publishes one on the host.
pub(super) fn is_silent(services: &[Service], tasks: &[Task], address: IpAddr) -> bool {
    let publishes = |service: &Service| {
        let ports = service.spec.endpoint_spec.iter().flat_map(|endpoint| &endpoint.ports);
        ports.into_iter().any(|port| port.publish_mode == Some(PublishMode::Host))
    };
    tasks.iter().filter(|task| task.is_running()).any(|task| {
        let service = services.iter().find(|service| *service.id() == task.service_id);
        service.is_some_and(publishes) && swarm_client::reachable_ports(task, address).is_empty()
    })
}

/// What the engine of this host publishes at an address of this family.
///
/// # Errors
/// When the engine does not tell.
pub(super) async fn published(engine: &Docker, address: IpAddr) -> Result<Published> {
    let filters = HashMap::from([("label".to_owned(), vec![TASK_LABEL.to_owned()])]);
    let options = ListContainersOptionsBuilder::new().filters(&filters).build();
    let listed = engine.list_containers(Some(options)).await;
    Ok(read(&listed.context("the containers of this host can't be listed")?, address))
}

fn read(containers: &[ContainerSummary], address: IpAddr) -> Published {
    let of = |container: &ContainerSummary| Some((container.id.clone()?, reaching(container, address)));
    containers.iter().filter_map(of).collect()
}

/// The TCP ports of a container, inside and published, at which an address of this family reaches it. The engine draws an ephemeral
/// port for each family by itself: the same number at the other family may be nobody's, or another container's.
pub(super) fn reaching(container: &ContainerSummary, address: IpAddr) -> Vec<(u16, u16)> {
    let ports = container.ports.iter().flatten();
    let ports = ports.filter(|port| port.typ == Some(PortSummaryTypeEnum::TCP)).filter(|port| {
        let ip = port.ip.as_deref().and_then(|ip| ip.parse::<IpAddr>().ok());
        ip.is_none_or(|ip| ip.is_ipv4() == address.is_ipv4())
    });
    let mut ports: Vec<(u16, u16)> =
        ports.filter_map(|port| Some((port.private_port, port.public_port?))).collect();
    ports.sort_unstable();
    ports.dedup();
    ports
}

/// Swarm's own label of a task's container.
const TASK_LABEL: &str = "com.docker.swarm.task.id";

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_engine_is_asked_only_where_a_published_port_is_not_told() {
        let service = |mode: &str| -> Service {
            let ports = json!([{"TargetPort": 8080, "PublishMode": mode}]);
            let spec = json!({"Name": "web", "EndpointSpec": {"Ports": ports}});
            serde_json::from_value(json!({"ID": "s1", "Spec": spec})).unwrap()
        };
        let task = |state: &str, ports: serde_json::Value| -> Task {
            serde_json::from_value(json!({"ID": "t", "ServiceID": "s1", "DesiredState": "running",
                "Status": {"State": state, "PortStatus": ports}}))
            .unwrap()
        };
        let here: IpAddr = "198.18.0.12".parse().unwrap();
        let told = json!({"Ports": [{"Protocol": "tcp", "TargetPort": 8080, "PublishedPort": 1, "PublishMode": "host"}]});
        let host = [service("host")];
        assert!(is_silent(&host, &[task("running", json!({}))], here));
        assert!(!is_silent(&host, &[task("running", told)], here));
        assert!(!is_silent(&host, &[task("starting", json!({}))], here));
        assert!(!is_silent(&[service("ingress")], &[task("running", json!({}))], here));
    }

    #[test]
    fn a_containers_ports_are_those_of_the_family() {
        let container = json!({"Id": "c1", "Ports": [
            {"IP": "0.0.0.0", "PrivatePort": 8080, "PublicPort": 32768, "Type": "tcp"},
            {"IP": "::", "PrivatePort": 8080, "PublicPort": 32999, "Type": "tcp"},
            {"PrivatePort": 9090, "Type": "tcp"},
            {"IP": "0.0.0.0", "PrivatePort": 53, "PublicPort": 53, "Type": "udp"},
        ]});
        let containers: Vec<ContainerSummary> = vec![serde_json::from_value(container).unwrap()];
        assert_eq!(read(&containers, "198.18.0.12".parse().unwrap())["c1"], [(8080, 32768)]);
        assert_eq!(read(&containers, "::1".parse().unwrap())["c1"], [(8080, 32999)]);
    }
}
