//! What a container asks of the engine that is to run it.

use std::collections::BTreeMap;
use std::str::FromStr;

use serde_json::Value;

use super::error::{ExprError, PoolError};
use super::expr::{Expr, Operator, Whitelist};
use super::spec::ContainerSpec;
use super::view::HostPort;
use super::{labels, wire};

/// What a container asks for: the scheduler's other input. Plain data.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Requirements {
    /// Its name, for messages.
    pub name: String,
    /// Its image.
    pub image: String,
    /// Processors, in billionths.
    pub nano_cpus: u64,
    /// Memory in bytes.
    pub memory: u64,
    /// Ports of the host.
    pub ports: Vec<HostPort>,
    /// Whether it lives in the host's own network; then `ports` are those that it exposes.
    pub host_network: bool,
    /// Containers that must be on the same engine: targets of `--volumes-from`, `--link` and `--net=container:`.
    pub dependencies: Vec<String>,
    /// Conditions on the engine.
    pub constraints: Vec<Expr>,
    /// Conditions on what runs there.
    pub affinities: Vec<Expr>,
    /// Engines by name.
    pub whitelists: Vec<Whitelist>,
    /// Whether it is started elsewhere when its engine is lost.
    pub reschedule: bool,
}

impl Requirements {
    /// Reads what a container asks for from its configuration: resources, ports, dependencies, and expressions in its labels.
    ///
    /// # Errors
    /// When an expression can't be read, or a label is no JSON array of texts.
    pub fn of(spec: &ContainerSpec) -> Result<Self, PoolError> {
        let body = spec.body();
        let host = &body["HostConfig"];
        let network = host["NetworkMode"].as_str().unwrap_or_default();
        let host_network = network == "host";
        let bad = |problem: String| PoolError::Spec { name: spec.name().to_owned(), problem };
        let labels = wire::texts(&body["Labels"]);
        let policies = array(&labels, labels::RESCHEDULE).map_err(bad)?;
        if let Some(odd) =
            policies.iter().find(|policy| !["on-node-failure", "off"].contains(&policy.as_str()))
        {
            return Err(bad(format!(
                "the reschedule policy {odd:?} is not known; use on-node-failure or off"
            )));
        }
        if policies.len() > 1 {
            return Err(bad("it has more than one reschedule policy".to_owned()));
        }
        Ok(Self {
            name: spec.name().to_owned(),
            image: body["Image"].as_str().unwrap_or_default().to_owned(),
            nano_cpus: wire::unsigned(&host["NanoCpus"]),
            memory: wire::unsigned(&host["Memory"]),
            ports: if host_network {
                wire::exposed(&body["ExposedPorts"])
            } else {
                wire::bindings(&host["PortBindings"])
            },
            host_network,
            dependencies: dependencies(host, network),
            constraints: parsed(&labels, labels::CONSTRAINTS).map_err(|e| e.into_pool(bad))?,
            affinities: parsed(&labels, labels::AFFINITIES).map_err(|e| e.into_pool(bad))?,
            whitelists: parsed(&labels, labels::WHITELISTS).map_err(|e| e.into_pool(bad))?,
            reschedule: policies.first().is_some_and(|policy| policy == "on-node-failure"),
        })
    }

    /// Whether a condition, not a wish, names the engine.
    pub(super) fn names_an_engine(&self) -> bool {
        let names =
            |expr: &Expr| expr.key() == "node" && !expr.is_soft() && expr.operator() == Operator::Equal;
        self.constraints.iter().any(names)
    }
}

fn dependencies(host: &Value, network: &str) -> Vec<String> {
    let list = |key: &str| {
        let items = host[key].as_array().into_iter().flatten().filter_map(Value::as_str);
        // NAME:ALIAS of a link, NAME:ro of a volume.
        items.map(|item| item.split(':').next().unwrap_or(item).trim_start_matches('/').to_owned())
    };
    let shared = network.strip_prefix("container:").map(str::to_owned);
    list("VolumesFrom").chain(list("Links")).chain(shared).filter(|name| !name.is_empty()).collect()
}

enum Unreadable {
    Array(String),
    Expr(ExprError),
}

impl Unreadable {
    fn into_pool(self, bad: impl FnOnce(String) -> PoolError) -> PoolError {
        match self {
            Self::Array(problem) => bad(problem),
            Self::Expr(error) => error.into(),
        }
    }
}

/// The texts of a label that is a JSON array.
fn array(labels: &BTreeMap<String, String>, label: &str) -> Result<Vec<String>, String> {
    let Some(text) = labels.get(label).filter(|text| !text.is_empty()) else { return Ok(Vec::new()) };
    serde_json::from_str(text).map_err(|_| format!("its label {label} is no JSON array of texts"))
}

fn parsed<T: FromStr<Err = ExprError>>(
    labels: &BTreeMap<String, String>,
    label: &str,
) -> Result<Vec<T>, Unreadable> {
    let texts = array(labels, label).map_err(Unreadable::Array)?;
    texts.iter().map(|text| text.parse().map_err(Unreadable::Expr)).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_configuration_says_what_it_asks_for() {
        let spec = ContainerSpec::from_body(
            "web.1",
            json!({
                "Image": "web:1",
                "Labels": {labels::CONSTRAINTS: "[\"node!=h1\"]", labels::RESCHEDULE: "[\"on-node-failure\"]"},
                "HostConfig": {
                    "NanoCpus": 500_000_000, "Memory": 1024, "NetworkMode": "container:db",
                    "Links": ["/cache:c"], "VolumesFrom": ["data:ro"],
                    "PortBindings": {"53/udp": [{"HostIp": "", "HostPort": "5353"}, {"HostPort": ""}]},
                },
            }),
        );
        let wants = Requirements::of(&spec.unwrap()).unwrap();
        assert_eq!((wants.nano_cpus, wants.memory, wants.reschedule), (500_000_000, 1024, true));
        assert_eq!(wants.dependencies, ["data", "cache", "db"]);
        // A port that the engine chooses is none to compare.
        assert_eq!(wants.ports.iter().map(ToString::to_string).collect::<Vec<_>>(), ["5353/udp"]);
        assert_eq!(wants.constraints[0].to_string(), "node!=h1");
    }

    #[test]
    fn a_label_that_is_no_array_is_named() {
        for (label, value) in
            [(labels::AFFINITIES, "node==h1"), (labels::CONSTRAINTS, "[1]"), (labels::RESCHEDULE, "[\"x\"]")]
        {
            let spec =
                ContainerSpec::from_body("c", json!({"Image": "i", "Labels": {label: value}})).unwrap();
            let error = Requirements::of(&spec).unwrap_err().to_string();
            assert!(error.contains("\"c\""), "{error}");
        }
    }
}
