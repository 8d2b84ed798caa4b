//! One service of a compose file.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::deploy::DURATION;
use super::short::{bytes, duration, ports, volume};
use super::walk::At;
use super::{Context, deploy};
use crate::model::{
    ConfigReference, ContainerSpec, EndpointSpec, FileTarget, Healthcheck, Mount, Nanos, NetworkAttachment,
    PortConfig, Protocol, PublishMode, SecretReference, ServiceMode, ServiceSpec,
};

pub(super) fn read(
    stack: &str,
    name: &str,
    service: &At<'_>,
    volumes: &BTreeMap<&str, At<'_>>,
    context: &Context<'_>,
) -> ServiceSpec {
    let mut spec =
        ServiceSpec { name: name.to_owned(), mode: ServiceMode::replicated(1), ..ServiceSpec::default() };
    let mut container = ContainerSpec::default();
    if let Some(at) = service.get("deploy") {
        deploy::read(&mut spec, &at);
    }
    let mut published = Vec::new();
    let mut env = BTreeMap::new();
    // Before `environment`, which wins.
    if let Some(at) = service.get("env_file") {
        env_files(&at, context, &mut env);
    }
    for (key, at) in service.known_fields() {
        if at.value.is_null() {
            continue;
        }
        match key {
            "deploy" | "env_file" => {}
            "image" => container.image = at.text().unwrap_or_default(),
            "command" => container.args = words(&at),
            "entrypoint" => container.command = words(&at),
            "environment" => {
                for (key, value) in at.pairs() {
                    // Without a value it is that of whoever reads the file.
                    if let Some(value) = value.or_else(|| (context.variable)(&key)) {
                        env.insert(key, value);
                    }
                }
            }
            "hostname" => container.hostname = at.text(),
            "user" => container.user = at.text(),
            "working_dir" => set(&mut container, "Dir", json!(at.text())),
            "labels" => container.labels = at.labels(),
            "stop_signal" => container.stop_signal = at.text(),
            "stop_grace_period" => container.stop_grace_period = at.parsed(DURATION, duration).map(Nanos),
            "healthcheck" => container.healthcheck = Some(healthcheck(&at)),
            "read_only" => container.read_only = at.truth(),
            "init" => set(&mut container, "Init", json!(at.truth())),
            "tty" => set(&mut container, "TTY", json!(at.truth())),
            "stdin_open" => set(&mut container, "OpenStdin", json!(at.truth())),
            "cap_add" => set(&mut container, "CapabilityAdd", json!(capabilities(&at))),
            "cap_drop" => set(&mut container, "CapabilityDrop", json!(capabilities(&at))),
            "sysctls" => set(&mut container, "Sysctls", json!(at.labels())),
            "ulimits" => set(&mut container, "Ulimits", ulimits(&at)),
            "isolation" => set(&mut container, "Isolation", json!(at.text())),
            "extra_hosts" => set(&mut container, "Hosts", json!(extra_hosts(&at))),
            "dns" => set_dns(&mut container, "Nameservers", &at),
            "dns_search" => set_dns(&mut container, "Search", &at),
            "dns_opt" => set_dns(&mut container, "Options", &at),
            "tmpfs" => {
                for target in at.text_or_texts() {
                    let kind = Some("tmpfs".to_owned());
                    container.mounts.push(Mount { kind, target: Some(target), ..Mount::default() });
                }
            }
            "volumes" => {
                container.mounts.extend(at.items().iter().filter_map(|at| mount(stack, at, volumes)));
            }
            "secrets" => container.secrets.extend(at.items().iter().filter_map(secret)),
            "configs" => container.configs.extend(at.items().iter().filter_map(config)),
            "networks" => spec.task_template.networks.extend(networks(&at)),
            "network_mode" => match at.text().as_deref() {
                Some("host") => spec
                    .task_template
                    .networks
                    .push(NetworkAttachment { target: "host".into(), ..NetworkAttachment::default() }),
                _ => at.note("Swarm honours host alone; use networks"),
            },
            "ports" => published.extend(at.items().iter().flat_map(port)),
            "logging" => {
                let driver = at.get("driver").and_then(|at| at.text());
                let options = at.get("options").map(|at| at.labels()).unwrap_or_default();
                let log =
                    json!({"Name": driver.unwrap_or_else(|| "json-file".to_owned()), "Options": options});
                spec.task_template.rest.insert("LogDriver".to_owned(), log);
            }
            _ => match REFUSED.iter().find(|(refused, _)| *refused == key) {
                Some((_, advice)) => at.note(format!("Swarm cannot honour this; {advice}")),
                None => at.note("this key is not known; correct it, or begin it with x- if it is your own"),
            },
        }
    }
    if container.image.is_empty() {
        service.note("it has no image; Swarm builds none, so name one");
    }
    container.env = env.into_iter().map(|(key, value)| format!("{key}={value}")).collect();
    if !published.is_empty() {
        spec.endpoint_spec.get_or_insert_with(EndpointSpec::default).ports = published;
    }
    spec.task_template.container_spec = Some(container);
    spec
}

fn set(container: &mut ContainerSpec, key: &str, value: Value) {
    if !value.is_null() {
        container.rest.insert(key.to_owned(), value);
    }
}

fn set_dns(container: &mut ContainerSpec, key: &str, at: &At<'_>) {
    let dns = container.rest.entry("DNSConfig").or_insert_with(|| json!({}));
    if let Some(fields) = dns.as_object_mut() {
        fields.insert(key.to_owned(), json!(at.text_or_texts()));
    }
}

/// A list as it is; a text as a shell would split it.
fn words(at: &At<'_>) -> Vec<String> {
    if at.value.is_array() {
        return at.texts();
    }
    let Some(text) = at.text() else { return Vec::new() };
    let (mut words, mut word, mut quote, mut inside) = (Vec::new(), String::new(), None, false);
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (c, quote) {
            ('\\', None | Some('"')) => {
                word.extend(chars.next());
                inside = true;
            }
            (c, Some(open)) if c == open => quote = None,
            (c, Some(_)) => word.push(c),
            ('"' | '\'', None) => {
                quote = Some(c);
                inside = true;
            }
            (c, None) if c.is_whitespace() => {
                if std::mem::take(&mut inside) {
                    words.push(std::mem::take(&mut word));
                }
            }
            (c, None) => {
                word.push(c);
                inside = true;
            }
        }
    }
    if quote.is_some() {
        at.note("a quote is not closed");
    }
    if inside {
        words.push(word);
    }
    words
}

fn env_files(at: &At<'_>, context: &Context<'_>, env: &mut BTreeMap<String, String>) {
    for path in at.text_or_texts() {
        match (context.file)(&path).map(String::from_utf8) {
            Ok(Ok(text)) => {
                for line in
                    text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'))
                {
                    match line.split_once('=') {
                        Some((key, value)) => env.insert(key.to_owned(), value.to_owned()),
                        None => (context.variable)(line).and_then(|value| env.insert(line.to_owned(), value)),
                    };
                }
            }
            Ok(Err(_)) => at.note(format!("the file {path:?} is not UTF-8")),
            Err(error) => at.note(format!("the file {path:?} cannot be read: {error}")),
        }
    }
}

fn healthcheck(at: &At<'_>) -> Healthcheck {
    let mut check = Healthcheck::default();
    for (key, at) in at.known_fields() {
        match key {
            "test" if at.value.is_array() => check.test = at.texts(),
            "test" => check.test = vec!["CMD-SHELL".to_owned(), at.text().unwrap_or_default()],
            "interval" => check.interval = at.parsed(DURATION, duration).map(Nanos),
            "timeout" => check.timeout = at.parsed(DURATION, duration).map(Nanos),
            "start_period" => check.start_period = at.parsed(DURATION, duration).map(Nanos),
            "retries" => check.retries = at.number().and_then(|n| i64::try_from(n).ok()),
            "disable" => {
                if at.truth() == Some(true) {
                    check.test = vec!["NONE".to_owned()];
                }
            }
            _ => at.note("Swarm's health check has no such setting; remove it"),
        }
    }
    check
}

/// The engine wants the prefix.
fn capabilities(at: &At<'_>) -> Vec<String> {
    let full = |name: String| {
        let upper = name.to_ascii_uppercase();
        if upper == "ALL" || upper.starts_with("CAP_") { upper } else { format!("CAP_{upper}") }
    };
    at.texts().into_iter().map(full).collect()
}

fn ulimits(at: &At<'_>) -> Value {
    let mut all = Vec::new();
    for (name, at) in at.known_fields() {
        let number = |at: &At<'_>| at.parsed("a whole number", |text| text.parse::<i64>().ok());
        let (soft, hard) = if at.value.is_object() {
            (at.get("soft").and_then(|at| number(&at)), at.get("hard").and_then(|at| number(&at)))
        } else {
            let both = number(&at);
            (both, both)
        };
        match (soft, hard) {
            (Some(soft), Some(hard)) => all.push(json!({"Name": name, "Soft": soft, "Hard": hard})),
            _ => at.note("it needs soft and hard, or one number"),
        }
    }
    all.into()
}

/// `host:address` → `address host`, as Swarm has it.
fn extra_hosts(at: &At<'_>) -> Vec<String> {
    if at.value.is_object() {
        return at.labels().into_iter().map(|(host, address)| format!("{address} {host}")).collect();
    }
    let swap = |at: At<'_>| {
        let text = at.text()?;
        match text.split_once(['=', ':']) {
            Some((host, address)) => Some(format!("{address} {host}")),
            None => {
                at.note("it must be HOST:ADDRESS");
                None
            }
        }
    };
    at.items().into_iter().filter_map(swap).collect()
}

fn networks(at: &At<'_>) -> Vec<NetworkAttachment> {
    if at.value.is_array() {
        return at
            .texts()
            .into_iter()
            .map(|target| NetworkAttachment { target, ..NetworkAttachment::default() })
            .collect();
    }
    let mut all = Vec::new();
    for (target, at) in at.known_fields() {
        let mut attachment = NetworkAttachment { target: target.to_owned(), ..NetworkAttachment::default() };
        for (key, at) in at.known_fields() {
            match key {
                "aliases" => attachment.aliases = at.texts(),
                "driver_opts" => {
                    attachment.rest.insert("DriverOpts".to_owned(), json!(at.labels()));
                }
                "ipv4_address" | "ipv6_address" => {
                    at.note("Swarm gives each task an address of its own; remove it");
                }
                _ => at.note("Swarm has no such setting; remove it"),
            }
        }
        all.push(attachment);
    }
    all
}

fn port(at: &At<'_>) -> Vec<PortConfig> {
    if !at.value.is_object() {
        let Some(text) = at.text() else { return Vec::new() };
        return ports(&text).unwrap_or_else(|problem| {
            at.note(problem);
            Vec::new()
        });
    }
    let mut port = PortConfig {
        publish_mode: Some(PublishMode::Ingress),
        protocol: Some(Protocol::Tcp),
        ..PortConfig::default()
    };
    for (key, at) in at.known_fields() {
        let number = || at.parsed("a port", |text| text.parse::<u16>().ok().filter(|port| *port != 0));
        match key {
            "target" => port.target_port = number(),
            "published" => port.published_port = number(),
            "protocol" => {
                port.protocol = at.parsed("tcp, udp or sctp", |text| match Protocol::from(text.to_owned()) {
                    Protocol::Unknown(_) => None,
                    known => Some(known),
                });
            }
            "mode" => {
                port.publish_mode =
                    at.parsed("ingress or host", |text| match PublishMode::from(text.to_owned()) {
                        PublishMode::Unknown(_) => None,
                        known => Some(known),
                    });
            }
            _ => at.note("Swarm's ports have no such setting; remove it"),
        }
    }
    if port.target_port.is_none() {
        at.note("it needs target, the container's port");
    }
    vec![port]
}

fn mount(stack: &str, at: &At<'_>, volumes: &BTreeMap<&str, At<'_>>) -> Option<Mount> {
    let mut mount = if at.value.is_object() {
        long_mount(at)
    } else {
        volume(&at.text()?).map_err(|problem| at.note(problem)).ok()?
    };
    if mount.kind.as_deref() == Some("volume")
        && let Some(key) = mount.source.clone()
    {
        let Some(volume) = volumes.get(key.as_str()) else {
            at.note(format!("the file has no volume {key:?}; add it below volumes"));
            return None;
        };
        let text = |key: &str| volume.get(key).and_then(|at| at.text());
        let external =
            volume.get("external").is_some_and(|at| at.value.is_object() || at.truth() == Some(true));
        let own = if external { key.clone() } else { format!("{stack}_{key}") };
        mount.source = Some(text("name").unwrap_or(own));
        let driver = text("driver");
        let options = volume.get("driver_opts").map(|at| at.labels());
        let mut labels = volume.get("labels").map(|at| at.labels()).unwrap_or_default();
        if !external {
            labels.insert(crate::stack::NAMESPACE_LABEL.to_owned(), stack.to_owned());
            let volume_options = mount.rest.entry("VolumeOptions").or_insert_with(|| json!({}));
            volume_options["Labels"] = json!(labels);
            if driver.is_some() || options.is_some() {
                volume_options["DriverConfig"] = json!({"Name": driver.unwrap_or_else(|| "local".into()), "Options": options.unwrap_or_default()});
            }
        }
    }
    Some(mount)
}

fn long_mount(at: &At<'_>) -> Mount {
    let mut mount = Mount::default();
    for (key, at) in at.known_fields() {
        match key {
            "type" => {
                mount.kind = at.parsed("bind, volume, tmpfs or npipe", |text| {
                    ["bind", "volume", "tmpfs", "npipe"].contains(&text).then(|| text.to_owned())
                });
            }
            "source" => mount.source = at.text(),
            "target" => mount.target = at.text(),
            "read_only" => mount.read_only = at.truth(),
            "bind" => {
                if let Some(propagation) = at.get("propagation").and_then(|at| at.text()) {
                    mount.rest.insert("BindOptions".to_owned(), json!({ "Propagation": propagation }));
                }
            }
            "volume" => {
                if let Some(no_copy) = at.get("nocopy").and_then(|at| at.truth()) {
                    mount.rest.insert("VolumeOptions".to_owned(), json!({ "NoCopy": no_copy }));
                }
            }
            "tmpfs" => {
                if let Some(size) = at.get("size").and_then(|at| at.parsed("a size such as 64M", bytes)) {
                    mount.rest.insert("TmpfsOptions".to_owned(), json!({ "SizeBytes": size }));
                }
            }
            _ => at.note("Swarm's mounts have no such setting; remove it"),
        }
    }
    if mount.kind.is_none() || mount.target.is_none() {
        at.note("it needs type and target");
    }
    if mount.kind.as_deref() == Some("bind")
        && mount.source.as_deref().is_some_and(|source| !source.starts_with('/'))
    {
        at.note("the source would be another path on each node; write it in full");
    }
    mount
}

fn secret(at: &At<'_>) -> Option<SecretReference> {
    let (source, file) = file_reference(at, "")?;
    Some(SecretReference { file: Some(file), name: source, ..SecretReference::default() })
}

fn config(at: &At<'_>) -> Option<ConfigReference> {
    let (source, file) = file_reference(at, "/")?;
    Some(ConfigReference { file: Some(file), name: source, ..ConfigReference::default() })
}

fn file_reference(at: &At<'_>, below: &str) -> Option<(String, FileTarget)> {
    if !at.value.is_object() {
        let source = at.text()?;
        let target = format!("{below}{source}");
        return Some((source, FileTarget::new(target)));
    }
    let source = at.get("source").and_then(|at| at.text());
    if source.is_none() {
        at.note("it needs source, a key below secrets or configs");
    }
    let source = source?;
    let mut file = FileTarget::new(format!("{below}{source}"));
    for (key, at) in at.known_fields() {
        match key {
            "source" => {}
            "target" => file.name = at.text().unwrap_or_default(),
            "uid" => file.uid = at.text().unwrap_or_default(),
            "gid" => file.gid = at.text().unwrap_or_default(),
            "mode" => {
                // A number has been read as such already; a text is octal, for nobody means anything else by it.
                let radix = if at.value.is_number() { 10 } else { 8 };
                let mode = at.parsed("an octal number such as 0440", |text| {
                    u32::from_str_radix(text.trim_start_matches("0o"), radix)
                        .ok()
                        .filter(|mode| *mode <= 0o7777)
                });
                file.mode = mode.unwrap_or(0o444);
            }
            _ => at.note("Swarm has no such setting here; remove it"),
        }
    }
    Some((source, file))
}

/// Keys of compose that Swarm cannot honour, and what to do instead.
const REFUSED: &[(&str, &str)] = &[
    ("build", "build the image, push it, and name it in `image`"),
    ("cgroup_parent", "set it in the engine's configuration"),
    ("container_name", "tasks have names of their own; use a network alias"),
    ("credential_spec", "set it with the engine's own tools"),
    ("depends_on", "let the service wait for what it needs, or apply two stacks"),
    ("devices", "bind-mount what the device needs, or use generic resources"),
    ("domainname", "use `hostname` or a network alias"),
    ("expose", "containers of a network reach each other's ports anyway; remove it"),
    ("external_links", "use an external network and its aliases"),
    ("extends", "repeat the keys, or use YAML anchors"),
    ("gpus", "use generic resources in `deploy.resources.reservations`"),
    ("ipc", "remove it"),
    ("links", "use a network and its aliases"),
    ("mac_address", "remove it"),
    ("mem_limit", "use `deploy.resources.limits.memory`"),
    ("memswap_limit", "remove it"),
    ("cpus", "use `deploy.resources.limits.cpus`"),
    ("cpu_shares", "use `deploy.resources.reservations.cpus`"),
    ("pid", "remove it"),
    ("pids_limit", "use `deploy.resources.limits.pids`"),
    ("platform", "use a placement constraint on `node.platform.os` and `node.platform.arch`"),
    ("privileged", "use `cap_add` for what is needed"),
    ("profiles", "remove it"),
    ("pull_policy", "name the image with its digest"),
    ("restart", "use `deploy.restart_policy`"),
    ("runtime", "set the engine's default runtime"),
    ("scale", "use `deploy.replicas`"),
    ("security_opt", "remove it, or set it in the engine's configuration"),
    ("shm_size", "mount a tmpfs on /dev/shm"),
    ("userns_mode", "set it in the engine's configuration"),
    ("volumes_from", "use a named volume"),
];
