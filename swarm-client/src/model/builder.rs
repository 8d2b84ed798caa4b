//! Building a service's spec with safe defaults.

use std::time::Duration;

use serde_json::json;

use super::blob::{Config, ConfigReference, Secret, SecretReference};
use super::network::{EndpointMode, EndpointSpec, NetworkAttachment, PortConfig, Protocol, PublishMode};
use super::scalar::Nanos;
use super::service_spec::{ServiceMode, ServiceSpec, UpdateConfig, UpdateOrder};
use super::task_spec::{
    ContainerSpec, Healthcheck, Mount, Placement, ResourceLimits, Resources, RestartCondition, RestartPolicy,
    TaskSpec,
};

/// Builds a [`ServiceSpec`]. What it does not ask about can be set on the fields of the result.
///
/// It always writes the update, rollback and restart blocks in full, since the engine's defaults for a block hold only if the
/// whole block is absent. The image is taken as it is: its tag is not resolved to a digest.
#[derive(Debug, Clone)]
#[must_use]
pub struct ServiceSpecBuilder {
    spec: ServiceSpec,
    container: ContainerSpec,
    placement: Placement,
    restart: RestartPolicy,
    resources: Resources,
    endpoint: EndpointSpec,
    update: Option<UpdateConfig>,
    rollback: Option<UpdateConfig>,
}

impl ServiceSpecBuilder {
    pub(crate) fn new(name: String, image: String) -> Self {
        Self {
            spec: ServiceSpec { name, mode: ServiceMode::replicated(1), ..ServiceSpec::default() },
            container: ContainerSpec { image, ..ContainerSpec::default() },
            placement: Placement::default(),
            restart: RestartPolicy {
                condition: Some(RestartCondition::Any),
                // The engine's own default, written out.
                delay: Some(Nanos(5_000_000_000)),
                max_attempts: Some(0),
                ..RestartPolicy::default()
            },
            resources: Resources::default(),
            endpoint: EndpointSpec::default(),
            update: None,
            rollback: None,
        }
    }

    /// So many tasks. The default is 1.
    pub fn replicas(mut self, replicas: u64) -> Self {
        self.spec.mode = ServiceMode::replicated(replicas);
        self
    }

    /// One task on each node instead.
    pub fn global(mut self) -> Self {
        self.spec.mode = ServiceMode::global();
        self
    }

    /// A job instead: so many tasks that end, so many of them at a time. A failed one is tried again.
    pub fn replicated_job(mut self, completions: u64, at_a_time: u64) -> Self {
        self.spec.mode = ServiceMode::replicated_job(completions, at_a_time);
        self.restart.condition = Some(RestartCondition::OnFailure);
        self
    }

    /// A job instead: one task that ends, on each node. A failed one is tried again.
    pub fn global_job(mut self) -> Self {
        self.spec.mode = ServiceMode::global_job();
        self.restart.condition = Some(RestartCondition::OnFailure);
        self
    }

    /// Shows a secret to the tasks as the file `/run/secrets/target`.
    pub fn secret(mut self, secret: &Secret, target: impl Into<String>) -> Self {
        self.container.secrets.push(SecretReference::new(secret.id.clone(), secret.name(), target));
        self
    }

    /// Shows a config to the tasks as the file `target`.
    pub fn config(mut self, config: &Config, target: impl Into<String>) -> Self {
        self.container.configs.push(ConfigReference::new(config.id.clone(), config.name(), target));
        self
    }

    /// Replaces the image's entry point.
    pub fn command(mut self, command: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.container.command = command.into_iter().map(Into::into).collect();
        self
    }

    /// Replaces the image's arguments.
    pub fn args(mut self, args: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.container.args = args.into_iter().map(Into::into).collect();
        self
    }

    /// Adds an environment variable. The value may be a template: `{{.Node.Hostname}}`, `{{.Task.ID}}`, `{{.Task.Slot}}`.
    pub fn env(mut self, key: &str, value: impl AsRef<str>) -> Self {
        self.container.env.push(format!("{key}={}", value.as_ref()));
        self
    }

    /// The containers' host name; templates work as in [`env`](Self::env).
    pub fn hostname(mut self, hostname: impl Into<String>) -> Self {
        self.container.hostname = Some(hostname.into());
        self
    }

    /// Adds a label to the service. Changing it later restarts nothing.
    pub fn label(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.spec.labels.insert(key.into(), value.into());
        self
    }

    /// Adds a label to each container. Changing it later replaces all tasks.
    pub fn container_label(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.container.labels.insert(key.into(), value.into());
        self
    }

    /// Publishes a TCP port on the address of each node that runs a task; `None` lets the engine pick the node's port, so
    /// that several tasks fit on one node and new may start before old. With a fixed port the default order of updates
    /// becomes stop first, since two tasks cannot hold it.
    pub fn publish_host(mut self, target: u16, published: Option<u16>) -> Self {
        self.endpoint.ports.push(PortConfig {
            protocol: Some(Protocol::Tcp),
            target_port: Some(target),
            published_port: published,
            publish_mode: Some(PublishMode::Host),
            ..PortConfig::default()
        });
        self
    }

    /// Puts the tasks on their node's own network. No port is published then, so
    /// [`Services::endpoints`](crate::Services::endpoints) knows none.
    pub fn network_host(self) -> Self {
        self.network("host")
    }

    /// Publishes a TCP port on every node, through the routing mesh; `None` lets the managers pick the number.
    pub fn publish_ingress(mut self, target: u16, published: Option<u16>) -> Self {
        self.endpoint.ports.push(PortConfig {
            protocol: Some(Protocol::Tcp),
            target_port: Some(target),
            published_port: published,
            publish_mode: Some(PublishMode::Ingress),
            ..PortConfig::default()
        });
        self
    }

    /// Attaches the tasks to a network, by name or id.
    pub fn network(mut self, target: impl Into<String>) -> Self {
        self.spec
            .task_template
            .networks
            .push(NetworkAttachment { target: target.into(), ..NetworkAttachment::default() });
        self
    }

    /// Lets the service's name resolve to its tasks' addresses rather than to a virtual one.
    pub fn dnsrr(mut self) -> Self {
        self.endpoint.mode = Some(EndpointMode::Dnsrr);
        self
    }

    /// Mounts a path of the node, which must exist there.
    pub fn bind_mount(
        mut self,
        source: impl Into<String>,
        target: impl Into<String>,
        read_only: bool,
    ) -> Self {
        self.container.mounts.push(Mount {
            kind: Some("bind".to_owned()),
            source: Some(source.into()),
            target: Some(target.into()),
            read_only: Some(read_only),
            ..Mount::default()
        });
        self
    }

    /// Adds a placement constraint such as `node.hostname!=h1`; all must hold.
    pub fn constraint(mut self, constraint: impl Into<String>) -> Self {
        self.placement.constraints.push(constraint.into());
        self
    }

    /// At most so many tasks of this service on one node.
    pub fn max_replicas_per_node(mut self, tasks: u64) -> Self {
        self.placement.max_replicas = Some(tasks);
        self
    }

    /// Spreads the tasks evenly over the values of a descriptor such as `node.id` or `node.labels.zone`.
    pub fn spread(mut self, descriptor: impl Into<String>) -> Self {
        self.placement.preferences.push(json!({"Spread": {"SpreadDescriptor": descriptor.into()}}));
        self
    }

    /// How long a replacement waits after its task ended or its node died. The default is 5 seconds.
    pub fn restart_delay(mut self, delay: Duration) -> Self {
        self.restart.delay = Some(delay.into());
        self
    }

    /// After which kind of end a task is replaced, and how often at most (0 is no bound). The default is any, always.
    pub fn restart(mut self, condition: RestartCondition, max_attempts: u64) -> Self {
        self.restart.condition = Some(condition);
        self.restart.max_attempts = Some(max_attempts);
        self
    }

    /// How long a task may take to stop before it is killed. The engine's default is 10 seconds.
    pub fn stop_grace(mut self, grace: Duration) -> Self {
        self.container.stop_grace_period = Some(grace.into());
        self
    }

    /// The signal that asks a task to stop.
    pub fn stop_signal(mut self, signal: impl Into<String>) -> Self {
        self.container.stop_signal = Some(signal.into());
        self
    }

    /// How the tasks' health is checked. A task counts as running only once it is healthy.
    pub fn healthcheck(mut self, check: Healthcheck) -> Self {
        self.container.healthcheck = Some(check);
        self
    }

    /// Turns the image's own health check off.
    pub fn healthcheck_none(self) -> Self {
        self.healthcheck(Healthcheck { test: vec!["NONE".to_owned()], ..Healthcheck::default() })
    }

    /// How a new spec is rolled out.
    pub fn update(mut self, config: UpdateConfig) -> Self {
        self.update = Some(config);
        self
    }

    /// How an old spec is rolled back to. The default is like the update, but pausing.
    pub fn rollback(mut self, config: UpdateConfig) -> Self {
        self.rollback = Some(config);
        self
    }

    /// Processors that a node must have to spare for each task, such as 0.5.
    pub fn reserve_cpu(mut self, cpus: f64) -> Self {
        self.resources.reservations.get_or_insert_with(ResourceLimits::default).nano_cpus = Some(nano(cpus));
        self
    }

    /// Processors that a task gets at most.
    pub fn limit_cpu(mut self, cpus: f64) -> Self {
        self.resources.limits.get_or_insert_with(ResourceLimits::default).nano_cpus = Some(nano(cpus));
        self
    }

    /// Bytes that a node must have to spare for each task.
    pub fn reserve_memory(mut self, bytes: u64) -> Self {
        self.resources.reservations.get_or_insert_with(ResourceLimits::default).memory_bytes =
            Some(signed(bytes));
        self
    }

    /// Bytes that a task gets at most.
    pub fn limit_memory(mut self, bytes: u64) -> Self {
        self.resources.limits.get_or_insert_with(ResourceLimits::default).memory_bytes = Some(signed(bytes));
        self
    }

    /// Makes the root file system read-only.
    pub fn read_only(mut self) -> Self {
        self.container.read_only = Some(true);
        self
    }

    /// The user, `uid[:gid]` or by name.
    pub fn user(mut self, user: impl Into<String>) -> Self {
        self.container.user = Some(user.into());
        self
    }

    /// The spec.
    #[must_use]
    pub fn build(self) -> ServiceSpec {
        let fixed = |p: &PortConfig| {
            p.publish_mode == Some(PublishMode::Host) && p.published_port.is_some_and(|port| port != 0)
        };
        let fixed_port = self.endpoint.ports.iter().any(fixed);
        // The managers refuse a job that has rules for its update.
        let job = self.spec.mode.is_job();
        let order = if fixed_port { UpdateOrder::StopFirst } else { UpdateOrder::StartFirst };
        let update =
            self.update.unwrap_or_else(|| UpdateConfig { order: Some(order), ..UpdateConfig::default() });
        let rollback = self.rollback.unwrap_or_else(|| update.clone().pausing());
        ServiceSpec {
            task_template: TaskSpec {
                container_spec: Some(self.container),
                resources: Some(self.resources).filter(|r| *r != Resources::default()),
                restart_policy: Some(self.restart),
                // An empty one too: see `placement_guard`.
                placement: Some(self.placement),
                ..self.spec.task_template
            },
            update_config: Some(update).filter(|_| !job),
            rollback_config: Some(rollback).filter(|_| !job),
            endpoint_spec: Some(self.endpoint).filter(|e| *e != EndpointSpec::default()),
            ..self.spec
        }
    }
}

/// Billionths of a processor; the cast saturates, and what is not a number is 0.
fn nano(cpus: f64) -> i64 {
    (cpus * 1e9).round() as i64
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_spec_writes_each_safe_default() {
        let update = json!({"Parallelism": 1, "Delay": 0, "FailureAction": "rollback", "Monitor": 5_000_000_000_i64,
                            "MaxFailureRatio": 0.0, "Order": "start-first"});
        let mut rollback = update.clone();
        rollback["FailureAction"] = json!("pause");
        assert_eq!(
            serde_json::to_value(ServiceSpec::builder("web", "web:1").build()).unwrap(),
            json!({
                "Name": "web",
                "TaskTemplate": {
                    "ContainerSpec": {"Image": "web:1"},
                    "Placement": {},
                    "RestartPolicy": {"Condition": "any", "Delay": 5_000_000_000_i64, "MaxAttempts": 0},
                },
                "Mode": {"Replicated": {"Replicas": 1}},
                "UpdateConfig": update,
                "RollbackConfig": rollback,
            })
        );
    }

    #[test]
    fn a_full_spec_is_what_the_engine_reads() {
        let second = Duration::from_secs(1);
        let spec = ServiceSpec::builder("web", "web:1")
            .replicas(2)
            .command(["/web"])
            .args(["--listen", "0.0.0.0:80"])
            .env("HOST", "{{.Node.Hostname}}")
            .hostname("web-{{.Task.Slot}}")
            .label("team", "a")
            .container_label("tier", "front")
            .publish_host(80, Some(8080))
            .network("back")
            .dnsrr()
            .bind_mount("/etc/web", "/etc/web", true)
            .constraint("node.hostname!=h1")
            .max_replicas_per_node(1)
            .spread("node.id")
            .restart_delay(second)
            .stop_grace(20 * second)
            .stop_signal("SIGTERM")
            .healthcheck(Healthcheck {
                test: vec!["CMD".into(), "/web".into(), "check".into()],
                interval: Some(second.into()),
                ..Healthcheck::default()
            })
            .reserve_cpu(0.25)
            .limit_memory(64 << 20)
            .read_only()
            .user("65534")
            .build();
        let block = json!({"Parallelism": 1, "Delay": 0, "FailureAction": "rollback", "Monitor": 5_000_000_000_i64,
                           "MaxFailureRatio": 0.0, "Order": "stop-first"});
        let mut rollback = block.clone();
        rollback["FailureAction"] = json!("pause");
        assert_eq!(
            serde_json::to_value(spec).unwrap(),
            json!({
                "Name": "web",
                "Labels": {"team": "a"},
                "TaskTemplate": {
                    "ContainerSpec": {
                        "Image": "web:1",
                        "Labels": {"tier": "front"},
                        "Command": ["/web"],
                        "Args": ["--listen", "0.0.0.0:80"],
                        "Hostname": "web-{{.Task.Slot}}",
                        "Env": ["HOST={{.Node.Hostname}}"],
                        "User": "65534",
                        "StopSignal": "SIGTERM",
                        "StopGracePeriod": 20_000_000_000_i64,
                        "Healthcheck": {"Test": ["CMD", "/web", "check"], "Interval": 1_000_000_000},
                        "Mounts": [{"Type": "bind", "Source": "/etc/web", "Target": "/etc/web", "ReadOnly": true}],
                        "ReadOnly": true,
                    },
                    "Resources": {"Limits": {"MemoryBytes": 67_108_864}, "Reservations": {"NanoCPUs": 250_000_000}},
                    "RestartPolicy": {"Condition": "any", "Delay": 1_000_000_000, "MaxAttempts": 0},
                    "Placement": {
                        "Constraints": ["node.hostname!=h1"],
                        "Preferences": [{"Spread": {"SpreadDescriptor": "node.id"}}],
                        "MaxReplicas": 1,
                    },
                    "Networks": [{"Target": "back"}],
                },
                "Mode": {"Replicated": {"Replicas": 2}},
                "UpdateConfig": block,
                "RollbackConfig": rollback,
                "EndpointSpec": {
                    "Mode": "dnsrr",
                    "Ports": [{"Protocol": "tcp", "TargetPort": 80, "PublishedPort": 8080, "PublishMode": "host"}],
                },
            })
        );
    }

    #[test]
    fn global_mode_and_no_health_check() {
        let spec =
            ServiceSpec::builder("agent", "agent:1").global().healthcheck_none().network_host().build();
        let value = serde_json::to_value(&spec).unwrap();
        assert_eq!(value["Mode"], json!({"Global": {}}));
        assert_eq!(value["TaskTemplate"]["ContainerSpec"]["Healthcheck"], json!({"Test": ["NONE"]}));
        assert_eq!(value["TaskTemplate"]["Networks"], json!([{"Target": "host"}]));
        assert_eq!(spec.replicas(), None);
        assert!(!spec.clone().set_replicas(3));
    }
}
