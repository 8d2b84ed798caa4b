//! A spec in the form in which two can be compared: what means the same is the same. Pure.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::{AUTOSCALED_LABEL, IMAGE_LABEL};
use crate::model::{Mode, ServiceSpec};
use crate::rollback::OWN_LABELS;

/// The wanted spec as it will be written over the present one: with what is not the stack's own kept from there.
pub(crate) fn merged(wanted: &ServiceSpec, present: &ServiceSpec, keep_labels: &[String]) -> ServiceSpec {
    let mut next = wanted.clone();
    for (key, value) in &present.labels {
        if (key.starts_with(OWN_LABELS) && key != AUTOSCALED_LABEL) || keep_labels.contains(key) {
            next.labels.entry(key.clone()).or_insert_with(|| value.clone());
        }
    }
    if is_autoscaled(wanted)
        && let Some(replicas) = present.replicas()
    {
        let _ = next.set_replicas(replicas);
    }
    // Another count would roll all tasks.
    next.task_template.force_update = present.task_template.force_update;
    if same_image(wanted, present)
        && let (Some(next_container), Some(container)) =
            (next.task_template.container_spec.as_mut(), present.task_template.container_spec.as_ref())
    {
        // Perhaps pinned since, with the platforms that it runs on.
        next_container.image.clone_from(&container.image);
        let platforms = present.task_template.placement.as_ref().and_then(|p| p.rest.get("Platforms"));
        if let Some(platforms) = platforms {
            let placement = next.task_template.placement.get_or_insert_default();
            placement.rest.entry("Platforms").or_insert_with(|| platforms.clone());
        }
    }
    next
}

pub(crate) fn is_autoscaled(spec: &ServiceSpec) -> bool {
    spec.labels.get(AUTOSCALED_LABEL).is_some_and(|value| value == "true")
}

/// True if the present image is what was made of the wanted one.
fn same_image(wanted: &ServiceSpec, present: &ServiceSpec) -> bool {
    let asked = |spec: &ServiceSpec| spec.labels.get(IMAGE_LABEL).cloned();
    asked(wanted).is_some() && asked(wanted) == asked(present)
}

/// The form for comparing. `networks` are the names of the networks by their ids.
pub(crate) fn normal(spec: &ServiceSpec, networks: &BTreeMap<String, String>) -> Value {
    let mut spec = spec.clone();
    spec.task_template.force_update = None;
    spec.labels.retain(|key, _| !key.starts_with(OWN_LABELS) || key == AUTOSCALED_LABEL);
    let mode = match spec.mode.kind() {
        // As text, since nothing and zero differ here.
        Mode::Replicated { replicas } => json!({"Kind": "replicated", "Replicas": replicas.to_string()}),
        Mode::Global => json!({"Kind": "global"}),
        _ => serde_json::to_value(&spec.mode).unwrap_or_default(),
    };
    for attachment in &mut spec.task_template.networks {
        if let Some(name) = networks.get(&attachment.target) {
            attachment.target.clone_from(name);
        }
        attachment.aliases.sort();
    }
    spec.task_template.networks.sort_by(|a, b| a.target.cmp(&b.target));
    if let Some(container) = spec.task_template.container_spec.as_mut() {
        // An id follows from the name.
        container.secrets.iter_mut().for_each(|secret| secret.id = "".into());
        container.configs.iter_mut().for_each(|config| config.id = "".into());
        container.secrets.sort_by(|a, b| a.name.cmp(&b.name));
        container.configs.sort_by(|a, b| a.name.cmp(&b.name));
    }
    let mut value = serde_json::to_value(&spec).unwrap_or_default();
    value["Mode"] = mode;
    if let Some(env) = value.pointer_mut("/TaskTemplate/ContainerSpec/Env") {
        *env = by_key(env);
    }
    pruned(value)
}

/// `["A=1"]` → `{"A": "1"}`, so that each variable is compared by itself.
fn by_key(env: &Value) -> Value {
    let mut all = Map::new();
    for line in env.as_array().into_iter().flatten().filter_map(Value::as_str) {
        let (key, value) = line.split_once('=').unwrap_or((line, ""));
        all.insert(key.to_owned(), json!(format!("={value}")));
    }
    Value::Object(all)
}

/// Drops what means nothing: the engine writes some of it out and leaves some of it away.
fn pruned(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let kept = fields.into_iter().map(|(key, value)| (key, pruned(value)));
            Value::Object(kept.filter(|(key, value)| !means_nothing(key, value)).collect())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(pruned).collect()),
        other => other,
    }
}

fn means_nothing(key: &str, value: &Value) -> bool {
    let default = DEFAULTS.iter().any(|(name, default)| *name == key && value.as_str() == Some(default));
    default
        || match value {
            Value::Null | Value::Bool(false) => true,
            Value::Number(number) => number.as_f64() == Some(0.0),
            Value::String(text) => text.is_empty(),
            Value::Array(items) => items.is_empty(),
            Value::Object(fields) => fields.is_empty(),
            Value::Bool(true) => false,
        }
}

/// What the engine writes out where nothing was asked for.
const DEFAULTS: &[(&str, &str)] = &[
    ("Runtime", "container"),
    ("Isolation", "default"),
    ("Mode", "vip"),
    ("Protocol", "tcp"),
    ("PublishMode", "ingress"),
    ("Order", "stop-first"),
    ("FailureAction", "pause"),
    ("Condition", "any"),
];
