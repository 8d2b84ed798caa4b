//! From the engine's JSON to what the scheduler sees. Pure; what has another shape than expected counts as absent.

use std::collections::BTreeMap;

use serde_json::Value;

use super::labels;
use super::view::{Container, ContainerState, Engine, EngineId, HostPort, Image};

/// `GET /info` as an engine without containers and images.
pub(super) fn engine(info: &Value, addr: &str) -> Engine {
    let text = |key: &str| info[key].as_str().unwrap_or_default();
    let mut labels = BTreeMap::new();
    for label in info["Labels"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        let (key, value) = label.split_once('=').unwrap_or((label, ""));
        labels.insert(key.to_owned(), value.to_owned());
    }
    let built_in = [
        ("storagedriver", "Driver"),
        ("kernelversion", "KernelVersion"),
        ("operatingsystem", "OperatingSystem"),
        ("ostype", "OSType"),
    ];
    for (label, key) in built_in {
        labels.insert(label.to_owned(), text(key).to_owned());
    }
    let name = match text("Name") {
        "" => addr.to_owned(),
        name => name.to_owned(),
    };
    Engine {
        id: EngineId::new(text("ID"), addr),
        name,
        reached: true,
        failures: 0,
        labels,
        nano_cpus: unsigned(&info["NCPU"]).saturating_mul(1_000_000_000),
        memory: unsigned(&info["MemTotal"]),
        containers: Vec::new(),
        images: Vec::new(),
    }
}

/// `GET /containers/json?all=1`, without what only an inspection tells.
pub(super) fn containers(list: &Value) -> Vec<Container> {
    list.as_array().into_iter().flatten().filter_map(container).collect()
}

fn container(item: &Value) -> Option<Container> {
    let id = item["Id"].as_str().filter(|id| !id.is_empty())?.to_owned();
    // A name with a second slash is an alias of a link.
    let names = item["Names"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let mut names = names.map(|name| name.trim_start_matches('/')).filter(|name| !name.contains('/'));
    let name = names.next().unwrap_or(&id).to_owned();
    let ports = item["Ports"].as_array().into_iter().flatten().filter_map(|port| {
        let number = u16::try_from(port["PublicPort"].as_u64()?).ok()?;
        let protocol = port["Type"].as_str().unwrap_or("tcp").to_owned();
        Some(HostPort { ip: ip(&port["IP"]), port: number, protocol })
    });
    Some(Container {
        name,
        image: item["Image"].as_str().unwrap_or_default().to_owned(),
        state: ContainerState::parse(item["State"].as_str().unwrap_or_default()),
        created: item["Created"].as_i64().unwrap_or(0),
        labels: texts(&item["Labels"]),
        ports: ports.collect(),
        host_network: item["HostConfig"]["NetworkMode"] == "host",
        nano_cpus: 0,
        memory: 0,
        id,
    })
}

/// Adds what a container's configuration says: resources, and ports that it asked for and may not hold at the moment.
pub(super) fn complete(container: &mut Container, inspected: &Value) {
    let host = &inspected["HostConfig"];
    container.nano_cpus = unsigned(&host["NanoCpus"]);
    container.memory = unsigned(&host["Memory"]);
    container.host_network = host["NetworkMode"] == "host";
    let asked = if container.host_network {
        exposed(&inspected["Config"]["ExposedPorts"])
    } else {
        bindings(&host["PortBindings"])
    };
    for port in asked {
        if !container.ports.contains(&port) {
            container.ports.push(port);
        }
    }
}

/// `GET /images/json`.
pub(super) fn images(list: &Value) -> Vec<Image> {
    let items = list.as_array().into_iter().flatten();
    let image = |item: &Value| {
        let tags = item["RepoTags"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let tags = tags.filter(|tag| !tag.starts_with("<none>")).map(str::to_owned).collect();
        Some(Image { id: item["Id"].as_str()?.to_owned(), tags })
    };
    items.filter_map(image).collect()
}

/// The host's ports in `PortBindings`. One that the engine is to choose is none.
pub(super) fn bindings(bindings: &Value) -> Vec<HostPort> {
    let mut ports = Vec::new();
    for (inside, outside) in bindings.as_object().into_iter().flatten() {
        let protocol = inside.split_once('/').map_or("tcp", |(_, protocol)| protocol);
        for binding in outside.as_array().into_iter().flatten() {
            let number = binding["HostPort"].as_str().and_then(|port| port.parse::<u16>().ok());
            if let Some(port) = number.filter(|port| *port != 0) {
                ports.push(HostPort { ip: ip(&binding["HostIp"]), port, protocol: protocol.to_owned() });
            }
        }
    }
    ports
}

/// The ports in `ExposedPorts`.
pub(super) fn exposed(exposed: &Value) -> Vec<HostPort> {
    let keys = exposed.as_object().into_iter().flatten().map(|(key, _)| key);
    let port = |key: &String| {
        let (number, protocol) = key.split_once('/').unwrap_or((key, "tcp"));
        Some(HostPort { ip: None, port: number.parse().ok()?, protocol: protocol.to_owned() })
    };
    keys.filter_map(port).collect()
}

/// An object of texts, such as labels.
pub(super) fn texts(value: &Value) -> BTreeMap<String, String> {
    let entries = value.as_object().into_iter().flatten();
    entries.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect()
}

/// A number that is never below zero: -1 stands for "none".
pub(super) fn unsigned(value: &Value) -> u64 {
    value.as_u64().unwrap_or(0)
}

fn ip(value: &Value) -> Option<std::net::IpAddr> {
    value.as_str().and_then(|text| text.parse().ok())
}

/// Whether two looks are at one machine, which two addresses lead to: the same id and name, and the same containers. Cloned machines
/// share their id, not their containers.
pub(super) fn same_machine(one: &Engine, other: &Engine) -> bool {
    let ids = |engine: &Engine| {
        let mut ids: Vec<String> = engine.containers.iter().map(|there| there.id.clone()).collect();
        ids.sort();
        ids
    };
    !one.id.own_id().is_empty()
        && one.id.own_id() == other.id.own_id()
        && one.name == other.name
        && ids(one) == ids(other)
}

/// The label of a service, where a container is a replica of one.
pub(super) fn service(container: &Container) -> Option<&str> {
    container.labels.get(labels::SERVICE).map(String::as_str)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn an_engine_has_its_labels_and_the_built_in_ones() {
        let info = json!({"ID": "A", "Name": "h1", "NCPU": 2, "MemTotal": 7, "Driver": "overlay2", "OSType": "linux",
                          "Labels": ["zone=a", "bare", "x=y=z"]});
        let engine = engine(&info, "h1:1");
        let label = |key: &str| engine.labels.get(key).map(String::as_str);
        assert_eq!((label("zone"), label("bare"), label("x")), (Some("a"), Some(""), Some("y=z")));
        assert_eq!((label("storagedriver"), label("ostype")), (Some("overlay2"), Some("linux")));
        assert_eq!((engine.nano_cpus, engine.memory), (2_000_000_000, 7));
    }

    #[test]
    fn a_container_is_read_from_list_and_inspection() {
        let list = json!([
            {"Id": "1", "Names": ["/a/web", "/web.1"], "Image": "web:1", "State": "running", "Created": 5,
             "Labels": {"k": "v", "n": 1}, "HostConfig": {"NetworkMode": "bridge"},
             "Ports": [{"IP": "0.0.0.0", "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp"}, {"PrivatePort": 9}]},
            {"Names": []}, 7,
        ]);
        let mut found = containers(&list);
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].name.as_str(), found[0].ports.len(), found[0].labels.len()), ("web.1", 1, 1));
        complete(
            &mut found[0],
            &json!({"HostConfig": {"Memory": 64, "NanoCpus": -1,
            "PortBindings": {"80/tcp": [{"HostIp": "", "HostPort": "8080"}]}}}),
        );
        assert_eq!((found[0].memory, found[0].nano_cpus), (64, 0));
    }

    #[test]
    fn clones_are_two_machines_and_two_addresses_of_one_are_one() {
        let info = json!({"ID": "A", "Name": "h1"});
        let (mut one, mut other) = (engine(&info, "a:1"), engine(&info, "b:1"));
        assert!(same_machine(&one, &other));
        one.containers = containers(&json!([{"Id": "1"}]));
        other.containers = containers(&json!([{"Id": "2"}]));
        assert!(!same_machine(&one, &other));
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let key = prop::sample::select(vec![
            "Id",
            "ID",
            "Names",
            "Labels",
            "Ports",
            "PublicPort",
            "IP",
            "HostConfig",
            "PortBindings",
            "80/tcp",
            "HostPort",
            "RepoTags",
            "Config",
            "ExposedPorts",
            "NCPU",
            "State",
        ]);
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            "\\PC{0,8}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 6, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::vec((key.clone(), inner), 0..6).prop_map(|pairs| Value::Object(
                    pairs.into_iter().map(|(k, v)| (k.to_owned(), v)).collect()
                )),
            ]
        })
    }

    proptest! {
        #[test]
        fn an_engine_that_answers_garbage_is_read_without_panic(value in any_json()) {
            let mut engine = engine(&value, "h:1");
            engine.containers = containers(&value);
            engine.images = images(&value);
            for container in &mut engine.containers {
                complete(container, &value);
            }
            let _ = super::super::ContainerSpec::from_inspect(&value).map(|spec| super::super::Requirements::of(&spec));
            prop_assert!(engine.images.iter().flat_map(Image::names).count() < 1000);
        }
    }
}
