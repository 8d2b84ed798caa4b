//! Which of a Swarm's services is the one that users see: pure.

use anyhow::{Result, bail};
use swarm_client::Service;
use swarm_client::stack::NAMESPACE_LABEL;

use crate::roles::labels;

/// The service that users see: the only one whose tasks a registrar registers, whatever `up` or a stack file calls it.
///
/// # Errors
/// When there is none, or several: which, and the flag that names one.
pub(super) fn site(services: &[Service]) -> Result<String> {
    let mut sites: Vec<&Service> =
        services.iter().filter(|service| service.label(labels::CHECK).is_some()).collect();
    sites.sort_by_key(|service| service.name());
    match sites.as_slice() {
        [only] => Ok(only.name().to_owned()),
        [] => bail!(
            "no service with the label {} is in this Swarm: start a stack with `ha-stack up --platform swarm` or \
             `ha-stack deploy`",
            labels::CHECK
        ),
        several => {
            let names: Vec<String> = several.iter().map(|service| named(service)).collect();
            bail!("several services are in this Swarm ({}): name one with --service", names.join(", "))
        }
    }
}

fn named(service: &Service) -> String {
    match service.label(NAMESPACE_LABEL) {
        Some(stack) => format!("{} of the stack {stack}", service.name()),
        None => service.name().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn service(name: &str, labels: serde_json::Value) -> Service {
        serde_json::from_value(json!({"ID": name, "Spec": {"Name": name, "Labels": labels}})).unwrap()
    }

    #[test]
    fn the_service_that_users_see_is_found_by_its_label() {
        let role = service("ha_scaler", json!({NAMESPACE_LABEL: "ha"}));
        let deployed = service("ha_web", json!({labels::CHECK: "/healthz", NAMESPACE_LABEL: "ha"}));
        let up = service("web", json!({labels::CHECK: "/healthz", labels::STACK: "1f"}));
        assert_eq!(site(&[role.clone(), deployed.clone()]).unwrap(), "ha_web");
        assert_eq!(site(std::slice::from_ref(&up)).unwrap(), "web");
        let none = site(&[role]).unwrap_err().to_string();
        assert!(none.contains("ha-stack.check") && none.contains("ha-stack deploy"), "{none}");
        let several = site(&[up, deployed]).unwrap_err().to_string();
        assert!(several.contains("(ha_web of the stack ha, web): name one with --service"), "{several}");
    }
}
