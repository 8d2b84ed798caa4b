//! What the registrar registers on a plain engine: the containers of this host that ask for it by a label. A container's host
//! name is the service that it belongs to, as it was for the original's gateway.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result};
use swarm_client::bollard;
use swarm_client::bollard::models::{ContainerInspectResponse, ContainerSummary};
use swarm_client::bollard::query_parameters::{ListContainersOptionsBuilder, RestartContainerOptionsBuilder};
use swarm_client::engines::labels::INSTANCE;

use super::registrar::Serving;
use super::{engine_ports, routes};

/// The containers of this host's engine.
pub(super) struct PlainEngine {
    pub(super) docker: bollard::Docker,
}

impl PlainEngine {
    /// The running containers with this label, by their id; their check is the label's value.
    pub(super) async fn wanted(&self, address: IpAddr, label: &str) -> Result<Vec<(String, Serving)>> {
        let filters = HashMap::from([
            ("label".to_owned(), vec![label.to_owned()]),
            ("status".to_owned(), vec!["running".to_owned()]),
        ]);
        let options = ListContainersOptionsBuilder::new().filters(&filters).build();
        let listed =
            self.docker.list_containers(Some(options)).await.context("the containers can't be listed")?;
        let mut wanted = Vec::new();
        for container in listed {
            let Some(id) = container.id.as_deref() else { continue };
            // One that has just ended is not wanted.
            let Ok(inspected) = self.docker.inspect_container(id, None).await else { continue };
            if let Some(serving) = serving(&container, &inspected, address, label) {
                wanted.push((id.to_owned(), serving));
            }
        }
        Ok(wanted)
    }

    /// Kills a container and starts it again.
    pub(super) async fn restart(&self, id: &str) -> Result<()> {
        let at_once = RestartContainerOptionsBuilder::new().t(0).build();
        Ok(self.docker.restart_container(id, Some(at_once)).await?)
    }
}

/// `None` for a container that publishes no port, or has no host name of its own.
fn serving(
    container: &ContainerSummary,
    inspected: &ContainerInspectResponse,
    address: IpAddr,
    label: &str,
) -> Option<Serving> {
    let found = container.labels.as_ref()?;
    let id = container.id.as_deref()?;
    let config = inspected.config.as_ref()?;
    let service = service(config.hostname.as_deref()?, config.domainname.as_deref().unwrap_or_default(), id)?;
    let ports = engine_ports::reaching(container, address);
    let routing = routes::routing(found.iter().map(|(name, value)| (name.as_str(), value.as_str())));
    let named = routes::port(&service, &routing);
    let named = ports.iter().find(|(inside, _)| Some(*inside) == named);
    let (_, port) = *named.or_else(|| ports.iter().min_by_key(|(_, published)| *published))?;
    let name = container.names.as_ref()?.first()?.trim_start_matches('/');
    let short: String = id.chars().take(12).collect();
    Some(Serving {
        id: found.get(INSTANCE).cloned().unwrap_or_else(|| format!("{name}.{short}")),
        service,
        address: SocketAddr::new(address, port),
        check: found.get(label)?.clone(),
        tags: routes::tags(&routing).collect(),
    })
}

/// The service's name: the host name, with the domain behind it. An engine that was given none makes one up from the id.
fn service(host: &str, domain: &str, id: &str) -> Option<String> {
    match (host, domain) {
        ("", _) => None,
        (host, _) if id.starts_with(host) => None,
        (host, "") => Some(host.to_owned()),
        (host, domain) => Some(format!("{host}.{domain}")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::roles::labels;

    fn container(labels: serde_json::Value, ports: serde_json::Value) -> ContainerSummary {
        let all = json!({"Id": "0123456789abcdef", "Names": ["/web.1"], "Labels": labels, "Ports": ports});
        serde_json::from_value(all).unwrap()
    }

    fn inspected(host: &str, domain: &str) -> ContainerInspectResponse {
        serde_json::from_value(json!({"Config": {"Hostname": host, "Domainname": domain}})).unwrap()
    }

    #[test]
    fn a_containers_host_name_is_its_service() {
        let here: IpAddr = "198.18.0.12".parse().unwrap();
        let ports = json!([{"PrivatePort": 8080, "PublicPort": 32768, "Type": "tcp"}]);
        let web = container(json!({"ha-stack.check": "/healthz", INSTANCE: "web.1.ab"}), ports.clone());
        let found = serving(&web, &inspected("web", ""), here, labels::CHECK).unwrap();
        assert_eq!((found.id.as_str(), found.service.as_str()), ("web.1.ab", "web"));
        assert_eq!(found.address, SocketAddr::new(here, 32768));
        let shop = serving(&web, &inspected("shop", "example.org"), here, labels::CHECK).unwrap();
        assert_eq!(shop.service, "shop.example.org");
        let by_hand = container(json!({"ha-stack.check": "/"}), ports);
        assert_eq!(
            serving(&by_hand, &inspected("web", ""), here, labels::CHECK).unwrap().id,
            "web.1.0123456789ab"
        );
        assert_eq!(
            serving(&web, &inspected("0123456789ab", ""), here, labels::CHECK),
            None,
            "nobody gave it a name"
        );
        let families = json!([
            {"IP": "::", "PrivatePort": 8080, "PublicPort": 32782, "Type": "tcp"},
            {"IP": "0.0.0.0", "PrivatePort": 8080, "PublicPort": 32783, "Type": "tcp"},
        ]);
        let web = container(json!({"ha-stack.check": "/healthz"}), families);
        let of_the_family = |at: &str| {
            serving(&web, &inspected("web", ""), at.parse().unwrap(), labels::CHECK).unwrap().address.port()
        };
        assert_eq!((of_the_family("198.18.0.12"), of_the_family("fd00::12")), (32783, 32782));
        let hidden = container(json!({"ha-stack.check": "/"}), json!([{"PrivatePort": 80, "Type": "tcp"}]));
        assert_eq!(serving(&hidden, &inspected("web", ""), here, labels::CHECK), None);
    }
}
