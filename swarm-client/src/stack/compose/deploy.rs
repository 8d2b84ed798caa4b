//! The `deploy` block of a service.

use serde_json::json;

use super::short::{bytes, cpus, duration};
use super::walk::At;
use crate::model::{
    EndpointMode, EndpointSpec, FailureAction, Nanos, Placement, ResourceLimits, Resources, RestartCondition,
    RestartPolicy, ServiceMode, ServiceSpec, UpdateConfig, UpdateOrder,
};

pub(super) const DURATION: &str = "a duration such as 1m30s";

pub(super) fn read(spec: &mut ServiceSpec, deploy: &At<'_>) {
    let mode = deploy.get("mode").and_then(|at| at.text().map(|text| (at, text)));
    let replicas = deploy.get("replicas").and_then(|at| at.number());
    match mode.as_ref().map(|(at, mode)| (at, mode.as_str())) {
        None | Some((_, "replicated")) => spec.mode = ServiceMode::replicated(replicas.unwrap_or(1)),
        Some((_, "replicated-job")) => {
            let total = replicas.unwrap_or(1);
            spec.mode = ServiceMode::replicated_job(total, total);
        }
        Some((at, mode @ ("global" | "global-job"))) => {
            if replicas.is_some() {
                at.note(format!("a {mode} service has no number of replicas; remove `replicas`"));
            }
            spec.mode = if mode == "global" { ServiceMode::global() } else { ServiceMode::global_job() };
        }
        Some((at, mode)) => {
            at.note(format!("{mode:?} is not replicated, global, replicated-job or global-job"));
        }
    }
    for (key, at) in deploy.known_fields() {
        match key {
            "mode" | "replicas" => {}
            "labels" => spec.labels.extend(at.labels()),
            "endpoint_mode" => {
                let mode = at.parsed("vip or dnsrr", |text| match text {
                    "vip" => Some(EndpointMode::Vip),
                    "dnsrr" => Some(EndpointMode::Dnsrr),
                    _ => None,
                });
                spec.endpoint_spec.get_or_insert_with(EndpointSpec::default).mode = mode;
            }
            "placement" => spec.task_template.placement = Some(placement(&at)),
            "resources" => spec.task_template.resources = Some(resources(&at)),
            "restart_policy" => spec.task_template.restart_policy = Some(restart_policy(&at)),
            "update_config" => spec.update_config = Some(update_config(&at, true)),
            "rollback_config" => spec.rollback_config = Some(update_config(&at, false)),
            _ => at.note("Swarm has no such setting; remove it"),
        }
    }
}

fn placement(at: &At<'_>) -> Placement {
    let mut placement = Placement::default();
    for (key, at) in at.known_fields() {
        match key {
            "constraints" => placement.constraints = at.texts(),
            "preferences" => {
                for at in at.items() {
                    for (key, at) in at.known_fields() {
                        match key {
                            "spread" => {
                                let spread = json!({"Spread": {"SpreadDescriptor": at.text()}});
                                placement.preferences.push(spread);
                            }
                            _ => at.note("Swarm knows spread alone"),
                        }
                    }
                }
            }
            "max_replicas_per_node" => placement.max_replicas = at.number(),
            _ => at.note("Swarm has no such placement; remove it"),
        }
    }
    placement
}

fn resources(at: &At<'_>) -> Resources {
    let mut resources = Resources::default();
    for (key, at) in at.known_fields() {
        match key {
            "limits" => resources.limits = Some(amounts(&at, true)),
            "reservations" => resources.reservations = Some(amounts(&at, false)),
            _ => at.note("it must be limits or reservations"),
        }
    }
    resources
}

fn amounts(at: &At<'_>, limits: bool) -> ResourceLimits {
    let mut amounts = ResourceLimits::default();
    for (key, at) in at.known_fields() {
        match (key, limits) {
            ("cpus", _) => amounts.nano_cpus = at.parsed("a number of processors such as 0.5", cpus),
            ("memory", _) => amounts.memory_bytes = at.parsed("a size such as 64M", bytes),
            ("pids", true) => {
                if let Some(pids) = at.number() {
                    amounts.rest.insert("Pids".to_owned(), pids.into());
                }
            }
            ("generic_resources", false) => {
                let all: Vec<serde_json::Value> = at.items().iter().filter_map(generic).collect();
                amounts.rest.insert("GenericResources".to_owned(), all.into());
            }
            _ => at.note("Swarm has no such resource here; remove it"),
        }
    }
    amounts
}

fn generic(at: &At<'_>) -> Option<serde_json::Value> {
    let discrete = at.get("discrete_resource_spec");
    if discrete.is_none() {
        at.note("it must be a discrete_resource_spec with kind and value");
    }
    let discrete = discrete?;
    let kind = discrete.get("kind").and_then(|at| at.text());
    let value = discrete.get("value").and_then(|at| at.number());
    if kind.is_none() || value.is_none() {
        discrete.note("it needs kind and value");
    }
    Some(json!({"DiscreteResourceSpec": {"Kind": kind?, "Value": value?}}))
}

fn restart_policy(at: &At<'_>) -> RestartPolicy {
    let mut policy = RestartPolicy::default();
    for (key, at) in at.known_fields() {
        match key {
            "condition" => {
                policy.condition = at.parsed("none, on-failure or any", |text| {
                    let condition = RestartCondition::from(text.to_owned());
                    (!matches!(condition, RestartCondition::Unknown(_))).then_some(condition)
                });
            }
            "delay" => policy.delay = at.parsed(DURATION, duration).map(Nanos),
            "max_attempts" => policy.max_attempts = at.number(),
            "window" => policy.window = at.parsed(DURATION, duration).map(Nanos),
            _ => at.note("Swarm has no such rule; remove it"),
        }
    }
    policy
}

fn update_config(at: &At<'_>, update: bool) -> UpdateConfig {
    // What is not written is the engine's default, and not this crate's; but a parallelism that is absent here would be "all".
    let mut config = UpdateConfig {
        failure_action: None,
        monitor: None,
        delay: None,
        max_failure_ratio: None,
        order: None,
        ..UpdateConfig::default()
    };
    for (key, at) in at.known_fields() {
        match key {
            "parallelism" => config.parallelism = at.number().unwrap_or(1),
            "delay" => config.delay = at.parsed(DURATION, duration).map(Nanos),
            "monitor" => config.monitor = at.parsed(DURATION, duration).map(Nanos),
            "max_failure_ratio" => {
                config.max_failure_ratio = at.parsed("a ratio from 0 to 1", |text| {
                    text.parse().ok().filter(|ratio| (0.0..=1.0).contains(ratio))
                });
            }
            "failure_action" => {
                let rule = if update { "pause, continue or rollback" } else { "pause or continue" };
                config.failure_action = at.parsed(rule, |text| match FailureAction::from(text.to_owned()) {
                    FailureAction::Unknown(_) => None,
                    FailureAction::Rollback if !update => None,
                    action => Some(action),
                });
            }
            "order" => {
                config.order = at.parsed("stop-first or start-first", |text| {
                    let order = UpdateOrder::from(text.to_owned());
                    (!matches!(order, UpdateOrder::Unknown(_))).then_some(order)
                });
            }
            _ => at.note("Swarm has no such rule; remove it"),
        }
    }
    config
}
