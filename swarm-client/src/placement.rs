//! Whether a node satisfies placement constraints: swarmkit's rule (`manager/constraint`), for planning only; the managers decide.

use crate::model::{Availability, Node, ServiceSpec};

/// True if the managers may put tasks of this spec on the node, as far as constraints, availability and state tell. Resources,
/// platforms and ports are not looked at.
pub(crate) fn may_run(spec: &ServiceSpec, node: &Node) -> bool {
    let constraints = spec.task_template.placement.iter().flat_map(|placement| &placement.constraints);
    node.is_ready()
        && node.availability() == Availability::Active
        && constraints.into_iter().all(|constraint| holds(constraint, node))
}

/// True for a constraint that keeps tasks off one node.
pub(crate) fn excludes_a_node(constraint: &str) -> bool {
    parts(constraint).is_some_and(|(key, equal, _)| key == "node.id" && !equal)
}

/// The constraint that keeps tasks off this node.
pub(crate) fn excluding(node: &Node) -> String {
    format!("node.id!={}", node.id)
}

fn holds(constraint: &str, node: &Node) -> bool {
    // What cannot be read is left to the managers.
    let Some((key, equal, value)) = parts(constraint) else { return true };
    let described = |path: &[&str]| {
        let (first, rest) = path.split_first()?;
        let start = node.description.rest.get(*first)?;
        rest.iter().try_fold(start, |value, key| value.get(key))?.as_str()
    };
    let actual = match key {
        "node.id" => node.id.as_str(),
        "node.hostname" => node.hostname(),
        "node.role" => node.spec.role.as_ref().map_or("", |role| role.as_str()),
        "node.platform.os" => described(&["Platform", "OS"]).unwrap_or(""),
        // Engines and images name architectures differently; the managers know all the names.
        "node.platform.arch" => return true,
        _ => {
            if let Some(label) = key.strip_prefix("node.labels.") {
                node.spec.labels.get(label).map_or("", String::as_str)
            } else if let Some(label) = key.strip_prefix("engine.labels.") {
                described(&["Engine", "Labels", label]).unwrap_or("")
            } else {
                return true;
            }
        }
    };
    actual.eq_ignore_ascii_case(value) == equal
}

/// Key, whether it must be equal, value.
fn parts(constraint: &str) -> Option<(&str, bool, &str)> {
    let (at, equal) = match (constraint.find("=="), constraint.find("!=")) {
        (Some(at), None) => (at, true),
        (None, Some(at)) => (at, false),
        (Some(a), Some(b)) => (a.min(b), a < b),
        (None, None) => return None,
    };
    Some((constraint[..at].trim(), equal, constraint[at + 2..].trim()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn constraints_are_read_as_the_managers_read_them() {
        let node: Node = serde_json::from_value(json!({"ID": "n1", "Status": {"State": "ready"},
            "Spec": {"Role": "manager", "Labels": {"zone": "a"}},
            "Description": {"Hostname": "h1", "Platform": {"OS": "linux", "Architecture": "x86_64"}, "Engine": {"Labels": {"disk": "ssd"}}}}))
        .unwrap();
        for (constraint, expected) in [
            ("node.labels.zone==a", true),
            ("node.labels.zone == A", true),
            ("node.labels.zone!=a", false),
            ("node.labels.missing!=x", true),
            ("node.labels.missing==x", false),
            ("node.hostname==h1", true),
            ("node.id!=n1", false),
            ("node.role==worker", false),
            ("node.platform.os==linux", true),
            ("engine.labels.disk==ssd", true),
            ("node.ip==10.0.0.0/8", true),
            ("nonsense", true),
        ] {
            assert_eq!(holds(constraint, &node), expected, "{constraint}");
        }
        let spec = ServiceSpec::builder("web", "web:1").constraint("node.labels.zone==a").build();
        assert!(may_run(&spec, &node));
        let mut paused = node;
        paused.spec.availability = Some(Availability::Pause);
        assert!(!may_run(&spec, &paused));
        assert!(excludes_a_node(&excluding(&paused)) && !excludes_a_node("node.id==n1"));
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]
        #[test]
        fn no_text_makes_it_panic(text in "[=!a-zé. ]{0,20}") {
            let _ = parts(&text);
        }
    }
}
