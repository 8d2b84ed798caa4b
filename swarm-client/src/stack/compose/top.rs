//! The top of a compose file.

use std::collections::BTreeMap;

use serde_json::json;

use super::walk::At;
use super::{Context, service};
use crate::model::NetworkSpec;
use crate::stack::{Content, Stack, Wanted};

pub(super) fn read(name: &str, file: &At<'_>, context: &Context<'_>) -> Stack {
    let mut stack = Stack::new(name);
    for (key, at) in file.known_fields() {
        match key {
            "services" | "volumes" => {}
            "version" => {
                let three = at.text().is_some_and(|version| version.starts_with('3'));
                if !three {
                    at.note("only version 3 is read; leave it away or write 3.9");
                }
            }
            "networks" => {
                for (key, at) in at.known_fields() {
                    stack.networks.insert(key.to_owned(), network(name, key, &at));
                }
            }
            "secrets" => {
                for (key, at) in at.known_fields() {
                    stack.secrets.insert(key.to_owned(), content(key, &at, context));
                }
            }
            "configs" => {
                for (key, at) in at.known_fields() {
                    stack.configs.insert(key.to_owned(), content(key, &at, context));
                }
            }
            "name" => at.note("the stack's name is given when it is read; leave this away"),
            _ => at.note("this key is not known; correct it, or begin it with x- if it is your own"),
        }
    }
    let volumes: BTreeMap<&str, At<'_>> =
        file.get("volumes").map(|at| at.known_fields().into_iter().collect()).unwrap_or_default();
    match file.get("services") {
        None => file.note("it has no services; add at least one"),
        Some(services) => {
            for (key, at) in services.known_fields() {
                let spec = service::read(name, key, &at, &volumes, context);
                stack.services.insert(key.to_owned(), spec);
            }
        }
    }
    check_references(&stack, file);
    stack
}

fn network(stack: &str, key: &str, at: &At<'_>) -> Wanted<NetworkSpec> {
    let explicit = at.get("name").and_then(|name| name.text());
    if is_external(at) {
        return Wanted::External(external_name(at).or(explicit).unwrap_or_else(|| key.to_owned()));
    }
    let mut spec = NetworkSpec::overlay(explicit.unwrap_or_else(|| format!("{stack}_{key}")));
    for (key, at) in at.known_fields() {
        match key {
            "name" | "external" => {}
            "driver" => spec.driver = at.text().unwrap_or_default(),
            "driver_opts" => spec.options = at.labels(),
            "attachable" => spec.attachable = at.truth().unwrap_or(false),
            "internal" => spec.internal = at.truth().unwrap_or(false),
            "labels" => spec.labels = at.labels(),
            "ipam" => {
                let configs = at.get("config").map(|list| list.items()).unwrap_or_default();
                let subnets = configs.iter().filter_map(|config| {
                    let text = |key: &str| config.get(key).and_then(|at| at.text());
                    let (subnet, gateway) = (text("subnet")?, text("gateway"));
                    Some(match gateway {
                        Some(gateway) => json!({"Subnet": subnet, "Gateway": gateway}),
                        None => json!({"Subnet": subnet}),
                    })
                });
                let subnets: Vec<serde_json::Value> = subnets.collect();
                spec.rest.insert("IPAM".to_owned(), json!({ "Config": subnets }));
            }
            "enable_ipv6" => {
                let on = at.truth().unwrap_or(false);
                spec.rest.insert("EnableIPv6".to_owned(), on.into());
            }
            _ => at.note("Swarm's networks have no such setting; remove it"),
        }
    }
    Wanted::Own(spec)
}

fn content(key: &str, at: &At<'_>, context: &Context<'_>) -> Wanted<Content> {
    let mut content = Content::default();
    if is_external(at) {
        let name = external_name(at).or_else(|| at.get("name").and_then(|name| name.text()));
        return Wanted::External(name.unwrap_or_else(|| key.to_owned()));
    }
    let mut sources = 0;
    for (key, at) in at.known_fields() {
        match key {
            "file" => {
                sources += 1;
                let Some(path) = at.text() else { continue };
                match (context.file)(&path) {
                    Ok(bytes) => content.bytes = bytes,
                    Err(error) => at.note(format!("the file {path:?} cannot be read: {error}")),
                }
            }
            "environment" => {
                sources += 1;
                let Some(name) = at.text() else { continue };
                match (context.variable)(&name) {
                    Some(value) => content.bytes = value.into_bytes(),
                    None => at.note(format!("the variable {name} is not set")),
                }
            }
            "content" => {
                sources += 1;
                content.bytes = at.text().unwrap_or_default().into_bytes();
            }
            "labels" => content.labels = at.labels(),
            "external" => {}
            "name" => at.note("its name is made of its content; remove this"),
            _ => at.note("this key is not honoured; remove it"),
        }
    }
    if sources != 1 {
        at.note("it needs exactly one of file, environment, content and external");
    }
    Wanted::Own(content)
}

fn is_external(at: &At<'_>) -> bool {
    at.get("external").is_some_and(|external| external.value.is_object() || external.truth() == Some(true))
}

fn external_name(at: &At<'_>) -> Option<String> {
    at.get("external").filter(|external| external.value.is_object())?.get("name")?.text()
}

/// What a service names must be in the file.
fn check_references(stack: &Stack, file: &At<'_>) {
    for (key, spec) in &stack.services {
        let missing = |kind: &str, name: &str| {
            file.note(format!(
                "services.{key} uses {kind} {name:?}, which the file does not have; add it below {kind}s"
            ));
        };
        for network in &spec.task_template.networks {
            let name = network.target.as_str();
            if !["host", "none", "default"].contains(&name) && !stack.networks.contains_key(name) {
                missing("network", name);
            }
        }
        let Some(container) = &spec.task_template.container_spec else { continue };
        for secret in container.secrets.iter().filter(|secret| !stack.secrets.contains_key(&secret.name)) {
            missing("secret", &secret.name);
        }
        for config in container.configs.iter().filter(|config| !stack.configs.contains_key(&config.name)) {
            missing("config", &config.name);
        }
    }
}
