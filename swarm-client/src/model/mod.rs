//! The engine's objects, as its JSON has them, and nothing lost.
//!
//! What is read and written back must come back whole: a field that this crate does not know stays in the `rest` map beside
//! those that it knows, and an enum's unknown value stays as its text. Names are the daemon's own, which differ from the
//! published description in places (it says `HealthCheck`, the daemon says `Healthcheck`; a client that believes the
//! description deletes the health check of every service it scales).
//!
//! Debug output shows no environment variable's value, no argument and nothing of `rest` but its keys: they hold passwords.

mod attachment;
mod blob;
mod builder;
mod info;
mod network;
mod node;
mod overlay;
mod scalar;
mod service;
mod service_spec;
mod swarm;
mod task;
pub(crate) mod task_read;
mod task_spec;

pub use attachment::TaskNetwork;
pub use blob::{Config, ConfigReference, ConfigSpec, FileTarget, Secret, SecretReference, SecretSpec};
pub use builder::ServiceSpecBuilder;
pub use info::{EngineInfo, LocalNodeState, SwarmInfo};
pub use network::{EndpointMode, EndpointSpec, NetworkAttachment, PortConfig, Protocol, PublishMode};
pub use node::{Availability, ManagerStatus, Node, NodeDescription, NodeSpec, NodeState, NodeStatus, Role};
pub use overlay::{AttachedNetwork, AttachedNetworkSpec, Network, NetworkSpec};
pub use scalar::{ConfigId, Nanos, NetworkId, NodeId, Rest, SecretId, ServiceId, TaskId, Version};
pub use service::{Service, ServiceEndpoint, ServiceStatus, UpdateState, UpdateStatus, VirtualIp};
pub use service_spec::{
    FailureAction, Mode, Replicated, ServiceMode, ServiceSpec, UpdateConfig, UpdateOrder,
};
pub use swarm::{JoinToken, Swarm, SwarmSpec, UnlockKey};
pub use task::{ContainerStatus, PortStatus, Task, TaskState, TaskStatus};
pub use task_spec::{
    ContainerSpec, Healthcheck, Mount, Placement, ResourceLimits, Resources, RestartCondition, RestartPolicy,
    TaskSpec,
};

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde::Serialize;
    use serde::de::DeserializeOwned;
    use serde_json::{Value, json};

    fn again<T: DeserializeOwned + Serialize>(value: &Value) -> Value {
        serde_json::to_value(serde_json::from_value::<T>(value.clone()).unwrap()).unwrap()
    }

    fn spec() -> Value {
        json!({
            "Name": "web", "Labels": {"a": "b"},
            "TaskTemplate": {
                "ContainerSpec": {"Image": "i", "Healthcheck": {"Test": ["CMD"], "Interval": 1, "Timeout": -1, "Retries": 0, "StartPeriod": 0},
                    "Mounts": [{"Type": "bind"}], "StopGracePeriod": 0, "ReadOnly": false, "User": "", "Hostname": ""},
                "Resources": {"Limits": {"NanoCPUs": 1, "MemoryBytes": 2}, "Reservations": {}},
                "RestartPolicy": {"Condition": "any", "Delay": 0, "MaxAttempts": 0, "Window": 0},
                "Placement": {"Constraints": ["a==b"], "MaxReplicas": 0, "Preferences": [{"Spread": {}}]},
                "Networks": [{"Target": "n"}], "ForceUpdate": 0,
            },
            "Mode": {"Replicated": {"Replicas": 0}},
            "UpdateConfig": {"Parallelism": 0, "Delay": 0, "Monitor": 0, "MaxFailureRatio": 0.125, "FailureAction": "pause", "Order": "stop-first"},
            "RollbackConfig": {"Parallelism": 3},
            "EndpointSpec": {"Mode": "vip", "Ports": [{"Protocol": "tcp", "TargetPort": 1, "PublishedPort": 0, "PublishMode": "ingress"}]},
        })
    }

    /// Calls `f` on each object but the maps of labels and what `f` itself added.
    fn each_object(value: &mut Value, f: &mut impl FnMut(&mut serde_json::Map<String, Value>)) {
        match value {
            Value::Object(fields) => {
                f(fields);
                for (key, value) in fields.iter_mut() {
                    if key != "Labels" && !key.starts_with('X') {
                        each_object(value, f);
                    }
                }
            }
            Value::Array(items) => items.iter_mut().for_each(|item| each_object(item, f)),
            _ => {}
        }
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            (-1e6_f64..1e6).prop_map(Value::from),
            ".{0,8}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 12, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::btree_map("[A-Za-z]{1,5}", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(96))]

        #[test]
        fn a_spec_comes_back_whole(unknown in proptest::collection::vec(("X[a-z]{1,5}", any_json()), 1..30)) {
            let mut value = spec();
            let mut unknown = unknown.into_iter().cycle();
            each_object(&mut value, &mut |fields| {
                let (key, value) = unknown.next().unwrap();
                fields.insert(key, value);
            });
            prop_assert_eq!(again::<ServiceSpec>(&value), value);
        }

        #[test]
        fn an_unknown_word_comes_back(word in "[a-z_-]{1,12}") {
            for (pointer, base) in [
                ("/UpdateConfig/Order", spec()), ("/UpdateConfig/FailureAction", spec()), ("/EndpointSpec/Mode", spec()),
                ("/TaskTemplate/RestartPolicy/Condition", spec()), ("/EndpointSpec/Ports/0/Protocol", spec()),
                ("/EndpointSpec/Ports/0/PublishMode", spec()),
            ] {
                let mut value = base;
                *value.pointer_mut(pointer).unwrap() = word.clone().into();
                prop_assert_eq!(again::<ServiceSpec>(&value), value);
            }
            let task = json!({"ID": "t", "Status": {"State": word}, "DesiredState": word});
            let read: Task = serde_json::from_value(task).unwrap();
            prop_assert_eq!(read.state().as_str(), word);
        }

        #[test]
        fn any_json_is_read_or_refused_without_panic(value in any_json()) {
            let _ = serde_json::from_value::<Service>(value.clone());
            let _ = serde_json::from_value::<Task>(value.clone());
            let _ = serde_json::from_value::<Node>(value.clone());
            let _ = serde_json::from_value::<Swarm>(value.clone());
            let _ = serde_json::from_value::<Secret>(value.clone());
            let _ = serde_json::from_value::<Network>(value.clone());
            let text = serde_json::json!([value.clone(), {"ID": "t", "Spec": value.clone(), "NetworksAttachments": value.clone()}]).to_string();
            let _ = task_read::tasks(text.as_bytes());
            let _ = serde_json::from_value::<EngineInfo>(value);
        }
    }

    #[test]
    fn absent_and_null_stay_without_effect() {
        let value = json!({"Name": "w", "Labels": null, "TaskTemplate": {"ContainerSpec": {"Image": "i", "Args": null, "Env": null,
            "Healthcheck": null, "Mounts": null}, "Placement": null, "Networks": null}, "Mode": {"Global": {}}, "EndpointSpec": {"Ports": null}});
        assert_eq!(
            again::<ServiceSpec>(&value),
            json!({"Name": "w", "TaskTemplate": {"ContainerSpec": {"Image": "i"}}, "Mode": {"Global": {}}, "EndpointSpec": {}})
        );
    }
}
