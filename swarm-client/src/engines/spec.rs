//! A container's configuration: what `run` takes, and what starts the same container elsewhere. Every field of the engine's JSON is
//! kept, those that this crate does not know included.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::error::PoolError;
use super::{labels, wire};

/// A container as the engine's API creates one, and its name.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct ContainerSpec {
    name: String,
    body: Value,
}

impl ContainerSpec {
    /// A container of this image.
    #[must_use]
    pub fn new(name: impl Into<String>, image: impl Into<String>) -> Self {
        let body = json!({"Image": image.into(), "Labels": {}, "HostConfig": {}});
        Self { name: name.into(), body }
    }

    /// From the body of `POST /containers/create`. Conditions that stand in its environment, as the classic manager took them
    /// (`constraint:`, `affinity:`, `whitelist:`, `reschedule:`), move to its labels.
    ///
    /// # Errors
    /// When it is no object with an image, or its labels are no texts.
    pub fn from_body(name: impl Into<String>, body: Value) -> Result<Self, PoolError> {
        let name = name.into();
        let bad = |problem: &str| PoolError::Spec { name: name.clone(), problem: problem.to_owned() };
        if body["Image"].as_str().is_none_or(str::is_empty) {
            return Err(bad("its configuration names no image"));
        }
        for key in ["Labels", "HostConfig"] {
            if !(body[key].is_null() || body[key].is_object()) {
                return Err(bad(&format!("its {key} are no object")));
            }
        }
        // One that is no text would be passed over when conditions are read, and the container placed against them.
        let mut labels = body["Labels"].as_object().into_iter().flatten();
        if let Some((label, _)) = labels.find(|(_, value)| !value.is_string()) {
            return Err(bad(&format!("its label {label} is no text")));
        }
        let mut spec = Self { name: name.clone(), body };
        spec.take_conditions_from_env().map_err(|problem| bad(&problem))?;
        Ok(spec)
    }

    /// What creates the same container elsewhere, from `GET /containers/ID/json`: its configuration without what belongs to the
    /// engine it is on (its host name where the engine made it up, addresses inside its networks).
    ///
    /// # Errors
    /// When it is no inspection of a container.
    pub fn from_inspect(inspected: &Value) -> Result<Self, PoolError> {
        let id = inspected["Id"].as_str().unwrap_or_default();
        let name = inspected["Name"].as_str().unwrap_or_default().trim_start_matches('/');
        let mut body = inspected["Config"].clone();
        let Some(fields) = body.as_object_mut() else {
            let problem = "the engine's answer has no configuration".to_owned();
            return Err(PoolError::Spec { name: name.to_owned(), problem });
        };
        let made_up = fields
            .get("Hostname")
            .and_then(Value::as_str)
            .is_some_and(|host| !host.is_empty() && id.starts_with(host));
        // In the host's own network the name is the host's.
        if made_up || inspected["HostConfig"]["NetworkMode"] == "host" {
            fields.remove("Hostname");
            fields.remove("Domainname");
        }
        fields.insert("HostConfig".to_owned(), inspected["HostConfig"].clone());
        let networks = networks(
            &inspected["NetworkSettings"]["Networks"],
            inspected["HostConfig"]["NetworkMode"].as_str(),
        );
        if !networks.is_empty() {
            fields.insert("NetworkingConfig".to_owned(), json!({"EndpointsConfig": networks}));
        }
        Self::from_body(name, body)
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The body of `POST /containers/create`.
    #[must_use]
    pub fn body(&self) -> &Value {
        &self.body
    }

    /// The value of a label.
    #[must_use]
    pub fn label_value(&self, label: &str) -> Option<&str> {
        self.body["Labels"][label].as_str()
    }

    /// The id that is the same wherever the container runs.
    #[must_use]
    pub fn swarm_id(&self) -> Option<&str> {
        self.label_value(labels::SWARM_ID)
    }

    /// The same under another name.
    #[must_use]
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Sets the arguments of the image's program.
    #[must_use]
    pub fn args<I: IntoIterator<Item = S>, S: Into<String>>(self, args: I) -> Self {
        let args: Vec<String> = args.into_iter().map(Into::into).collect();
        self.set("Cmd", json!(args))
    }

    /// Adds a variable. `{{.Name}}`, `{{.Instance}}` and `{{.Host}}` in its value become the container's name, the name of this very
    /// start of it, and the host that was chosen.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl AsRef<str>) -> Self {
        push(&mut self.body, "Env", json!(format!("{name}={}", value.as_ref())));
        self
    }

    /// Sets a label.
    #[must_use]
    pub fn label(mut self, name: &str, value: impl Into<String>) -> Self {
        let value = Value::String(value.into());
        edit(&mut self.body, "Labels", |labels| labels.insert(name.to_owned(), value));
        self
    }

    /// Sets the host name: what the gateways route by.
    #[must_use]
    pub fn hostname(self, name: impl Into<String>) -> Self {
        let name: String = name.into();
        self.set("Hostname", json!(name))
    }

    /// Publishes a TCP port of the container at this port of the host; at one that the engine chooses where it is `None`.
    #[must_use]
    pub fn publish(mut self, inside: u16, outside: Option<u16>) -> Self {
        let outside = outside.map(|port| port.to_string()).unwrap_or_default();
        edit(&mut self.body, "HostConfig", |host| {
            let bindings = host.entry("PortBindings").or_insert_with(|| json!({}));
            if let Some(bindings) = bindings.as_object_mut() {
                bindings.insert(format!("{inside}/tcp"), json!([{"HostPort": outside}]));
            }
        });
        self.expose(inside)
    }

    /// Exposes a TCP port, without publishing it.
    #[must_use]
    pub fn expose(mut self, port: u16) -> Self {
        edit(&mut self.body, "ExposedPorts", |ports| ports.insert(format!("{port}/tcp"), json!({})));
        self
    }

    /// Lets it live in the host's own network.
    #[must_use]
    pub fn network_host(self) -> Self {
        self.set_host("NetworkMode", json!("host"))
    }

    /// Mounts a path of the host.
    #[must_use]
    pub fn bind(mut self, from: &str, to: &str) -> Self {
        edit(&mut self.body, "HostConfig", |host| {
            let binds = host.entry("Binds").or_insert_with(|| json!([]));
            if let Some(binds) = binds.as_array_mut() {
                binds.push(json!(format!("{from}:{to}")));
            }
        });
        self
    }

    /// Has the engine start it again: `no`, `on-failure`, `unless-stopped` or `always`.
    #[must_use]
    pub fn restart(self, policy: &str) -> Self {
        self.set_host("RestartPolicy", json!({"Name": policy}))
    }

    /// Limits its memory, in bytes; the scheduler reserves as much.
    #[must_use]
    pub fn memory(self, bytes: u64) -> Self {
        self.set_host("Memory", json!(bytes))
    }

    /// Limits its processors, in billionths; the scheduler reserves as many.
    #[must_use]
    pub fn nano_cpus(self, nanos: u64) -> Self {
        self.set_host("NanoCpus", json!(nanos))
    }

    /// How long it may take to stop before it is killed.
    #[must_use]
    pub fn stop_grace(self, grace: Duration) -> Self {
        self.set("StopTimeout", json!(grace.as_secs()))
    }

    /// Adds a condition on the engine: `node==h1`, `storage!=hdd`.
    #[must_use]
    pub fn constraint(self, expr: &str) -> Self {
        self.append(labels::CONSTRAINTS, expr)
    }

    /// Adds a condition on what runs there: `container==front`, `image==~redis`.
    #[must_use]
    pub fn affinity(self, expr: &str) -> Self {
        self.append(labels::AFFINITIES, expr)
    }

    /// Has a watchdog start it elsewhere when its engine is lost.
    #[must_use]
    pub fn reschedule(self) -> Self {
        self.label(labels::RESCHEDULE, "[\"on-node-failure\"]")
    }

    /// Makes it a replica of a service: what `scale` counts.
    #[must_use]
    pub fn service(self, name: &str) -> Self {
        self.label(labels::SERVICE, name)
    }

    /// For this very start: placeholders in the environment filled in, and the name of the start in a label.
    #[must_use]
    pub(super) fn start_as(mut self, host: &str, instance: &str) -> Self {
        let templates = self.templates();
        let filled = templates.iter().map(|entry| {
            let named = entry.replace("{{.Name}}", &self.name).replace("{{.Instance}}", instance);
            named.replace("{{.Host}}", host)
        });
        let filled: Vec<String> = filled.collect();
        if filled != templates {
            self = self.label(labels::TEMPLATES, json!(templates).to_string());
        }
        if !filled.is_empty() {
            self = self.set("Env", json!(filled));
        }
        self.label(labels::INSTANCE, instance)
    }

    /// The environment as it was asked for.
    fn templates(&self) -> Vec<String> {
        let kept = self.label_value(labels::TEMPLATES).and_then(|text| serde_json::from_str(text).ok());
        kept.unwrap_or_else(|| {
            let entries = self.body["Env"].as_array().into_iter().flatten();
            entries.filter_map(Value::as_str).map(str::to_owned).collect()
        })
    }

    fn take_conditions_from_env(&mut self) -> Result<(), String> {
        let kinds = [
            ("constraint:", labels::CONSTRAINTS),
            ("affinity:", labels::AFFINITIES),
            ("whitelist:", labels::WHITELISTS),
            ("reschedule:", labels::RESCHEDULE),
        ];
        let Some(env) = self.body.get_mut("Env").and_then(Value::as_array_mut) else { return Ok(()) };
        let mut taken = Vec::new();
        env.retain(|entry| {
            let entry = entry.as_str().unwrap_or_default();
            let found = kinds.iter().find_map(|(prefix, label)| Some((*label, entry.strip_prefix(prefix)?)));
            taken.extend(found.map(|(label, rest)| (label, rest.to_owned())));
            found.is_none()
        });
        for (label, expr) in taken {
            self.try_append(label, &expr)?;
        }
        Ok(())
    }

    fn append(mut self, label: &str, expr: &str) -> Self {
        // A label that is no list is named when the container is run.
        let _ = self.try_append(label, expr);
        self
    }

    fn try_append(&mut self, label: &str, expr: &str) -> Result<(), String> {
        let text = self.label_value(label).filter(|text| !text.is_empty()).unwrap_or("[]");
        let list: Result<Vec<String>, _> = serde_json::from_str(text);
        let mut list = list.map_err(|_| format!("its label {label} is no JSON array of texts"))?;
        list.push(expr.to_owned());
        let list = Value::String(json!(list).to_string());
        edit(&mut self.body, "Labels", |labels| labels.insert(label.to_owned(), list));
        Ok(())
    }

    fn set(mut self, key: &str, value: Value) -> Self {
        if let Some(body) = self.body.as_object_mut() {
            body.insert(key.to_owned(), value);
        }
        self
    }

    fn set_host(mut self, key: &str, value: Value) -> Self {
        edit(&mut self.body, "HostConfig", |host| host.insert(key.to_owned(), value));
        self
    }

    /// What it holds of a host, as a container that is about to be created there.
    pub(super) fn as_pending(&self, wants: &super::Requirements) -> super::Container {
        super::Container {
            id: String::new(),
            name: self.name.clone(),
            image: wants.image.clone(),
            state: super::ContainerState::Pending,
            created: 0,
            labels: wire::texts(&self.body["Labels"]),
            nano_cpus: wants.nano_cpus,
            memory: wants.memory,
            ports: wants.ports.clone(),
            host_network: wants.host_network,
        }
    }
}

/// Name and image: environment and arguments are the user's.
impl std::fmt::Debug for ContainerSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ContainerSpec")
            .field("name", &self.name)
            .field("image", &self.body["Image"])
            .finish_non_exhaustive()
    }
}

/// Of each network what the user asked for: addresses and hardware addresses belong to the engine.
fn networks(networks: &Value, mode: Option<&str>) -> Map<String, Value> {
    let built_in = |name: &str| ["bridge", "host", "none", "default"].contains(&name);
    let shared = mode.is_some_and(|mode| mode.starts_with("container:"));
    let kept = networks.as_object().into_iter().flatten().filter(|(name, _)| !shared && !built_in(name));
    let kept = kept.map(|(name, settings)| {
        let fields = ["IPAMConfig", "Links", "Aliases", "DriverOpts"].into_iter();
        let fields = fields
            .filter_map(|key| Some((key.to_owned(), settings.get(key).filter(|v| !v.is_null())?.clone())));
        (name.clone(), Value::Object(fields.collect()))
    });
    kept.collect()
}

/// Edits the object under a key, made where it is absent.
fn edit<T>(body: &mut Value, key: &str, change: impl FnOnce(&mut Map<String, Value>) -> T) -> Option<T> {
    if !body[key].is_object() {
        body[key] = Value::Object(Map::new());
    }
    body[key].as_object_mut().map(change)
}

fn push(body: &mut Value, key: &str, item: Value) {
    if !body[key].is_array() {
        body[key] = json!([]);
    }
    if let Some(list) = body[key].as_array_mut() {
        list.push(item);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_in_the_environment_move_to_labels() {
        let body = json!({"Image": "i", "Env": ["A=b", "constraint:node==h1", "affinity:image==~redis", "reschedule:on-node-failure"]});
        let spec = ContainerSpec::from_body("c", body).unwrap();
        assert_eq!(spec.body()["Env"], json!(["A=b"]));
        assert_eq!(spec.label_value(labels::CONSTRAINTS), Some("[\"node==h1\"]"));
        assert_eq!(spec.label_value(labels::RESCHEDULE), Some("[\"on-node-failure\"]"));
    }

    #[test]
    fn a_label_that_is_no_text_is_named() {
        for value in [json!(5), json!(null), json!(["node==h1"]), json!({})] {
            let body = json!({"Image": "i", "Labels": {"a": "b", labels::CONSTRAINTS: value}});
            let error = ContainerSpec::from_body("c", body.clone()).unwrap_err().to_string();
            assert!(error.contains(labels::CONSTRAINTS) && error.contains("\"c\""), "{error}");
            let inspected = json!({"Id": "0123", "Name": "/c", "Config": body, "HostConfig": {}});
            assert!(ContainerSpec::from_inspect(&inspected).is_err());
        }
    }

    #[test]
    fn what_an_inspection_says_creates_the_same_container_elsewhere() {
        let inspected = json!({
            "Id": "0123456789abcdef", "Name": "/web.1",
            "Config": {"Image": "web:1", "Hostname": "0123456789ab", "Env": ["A=b"], "Labels": {"k": "v"}, "Novel": {"x": 1},
                       "Healthcheck": {"Test": ["CMD", "x"]}},
            "HostConfig": {"Memory": 5, "NetworkMode": "net", "Unknown": [1]},
            "NetworkSettings": {"Networks": {"net": {"IPAddress": "10.0.0.5", "MacAddress": "02:42", "Aliases": ["w"], "Links": null}}},
        });
        let spec = ContainerSpec::from_inspect(&inspected).unwrap();
        assert_eq!(spec.name(), "web.1");
        let body = spec.body();
        assert!(body.get("Hostname").is_none(), "the engine had made it up");
        assert_eq!((&body["Novel"], &body["HostConfig"]["Unknown"]), (&json!({"x": 1}), &json!([1])));
        assert_eq!(body["Healthcheck"]["Test"], json!(["CMD", "x"]));
        assert_eq!(body["NetworkingConfig"], json!({"EndpointsConfig": {"net": {"Aliases": ["w"]}}}));
        assert!(ContainerSpec::from_inspect(&json!({"Id": "1"})).is_err());
    }

    #[test]
    fn placeholders_are_filled_in_anew_at_each_start() {
        let spec = ContainerSpec::new("web.1", "i").env("INSTANCE", "{{.Instance}}").env("HOST", "{{.Host}}");
        let first = spec.start_as("h1", "web.1.aa");
        assert_eq!(first.body()["Env"], json!(["INSTANCE=web.1.aa", "HOST=h1"]));
        let second = first.start_as("h2", "web.1.bb");
        assert_eq!(second.body()["Env"], json!(["INSTANCE=web.1.bb", "HOST=h2"]));
        assert_eq!(second.label_value(labels::INSTANCE), Some("web.1.bb"));
    }

    #[test]
    fn a_builder_writes_what_the_engine_reads() {
        let spec =
            ContainerSpec::new("c", "i").publish(80, Some(8080)).publish(81, None).bind("/a", "/b").memory(7);
        assert_eq!(
            spec.body()["HostConfig"],
            json!({"PortBindings": {"80/tcp": [{"HostPort": "8080"}], "81/tcp": [{"HostPort": ""}]}, "Binds": ["/a:/b"], "Memory": 7})
        );
        let secret = ContainerSpec::new("c", "i").env("REDIS_URL", "redis://:hunter2@h");
        assert!(!format!("{secret:?}").contains("hunter2"));
    }
}
