//! The registrar: one on each host, it tells the Consul agent of its host which Swarm tasks of that host serve.
//!
//! A task is registered when it first answers its readiness check, so that nobody is sent to one that starts up, and
//! removed as soon as Swarm wants it gone, while it still serves. On a plain engine (`--plain`) the same goes for
//! containers. Labels by which gateways route go along as tags. When Swarm or Consul can't be reached, what is registered stays: Consul's own checks and the gateways'
//! probes go on without us.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use bollard::query_parameters::KillContainerOptionsBuilder;
use clap::Args;
use consul_client::{AgentService, Check, ServiceRegistration, Status};
use swarm_client::{NodeId, Service, Task, bollard};
use tokio_util::sync::CancellationToken;

use super::coordination::Discovery;
use super::engine_ports::{self, Published};
use super::plain::PlainEngine;
use super::route_records::Records;
use super::routes::{self, Labels};
use super::{labels, liveness, usage};
use crate::load;
use crate::metrics::{self, registrar::Figures};
use crate::settings::Backends;

/// Flags of `registrar`.
#[derive(Args, Clone, Debug)]
pub struct RegistrarArgs {
    /// How often the tasks of this host are compared with what is registered
    #[arg(long, default_value_t = 500, value_name = "MILLISECONDS")]
    interval: u64,
    /// The host's engine is not in Swarm mode: register its containers instead of tasks
    #[arg(long, requires = "address")]
    plain: bool,
    /// With --plain: the host's address, where published ports are reached
    #[arg(long, value_name = "IP")]
    address: Option<IpAddr>,
    /// Where to answer /metrics for Prometheus, and /usage (CPU of scaled services) for scalers; nowhere by default
    #[arg(long, value_name = "ADDR")]
    metrics: Option<SocketAddr>,
    /// With `swarm` nothing is registered anywhere; replicas that hang are ended all the same
    #[arg(long, value_enum, default_value = "consul", conflicts_with = "plain")]
    discovery: Discovery,
}

/// Registers until told to stop. What is registered stays: the replicas go on serving without us.
///
/// # Errors
/// When the settings are wrong, or the engine can't be reached or is not a Swarm manager.
pub async fn run(args: RegistrarArgs, backends: &Backends) -> Result<ExitCode> {
    let swarm = backends.swarm().await?;
    let info = swarm.info().await?;
    let consul = backends.consul()?;
    let http = load::client(PROBE_TIMEOUT)?;
    let registrar = if let (true, Some(address)) = (args.plain, args.address) {
        let source = Source::Plain(PlainEngine { docker: swarm.bollard()? });
        Registrar { source, consul, http, owner: info.name.clone(), host: info.name, address }
    } else {
        anyhow::ensure!(
            info.swarm.control_available,
            "the engine {} (--docker-host, DOCKER_HOST) is not a Swarm manager: only a manager lists tasks; name one",
            info.name
        );
        let address =
            info.swarm.node_addr.parse().context("the engine does not say its address in the Swarm")?;
        let (node, host) = (info.swarm.node_id, info.name);
        let owner = node.to_string();
        // A manager always says it; records of one that does not are its own alone.
        let cluster = info.swarm.rest.get("Cluster").and_then(|cluster| cluster.get("ID")?.as_str());
        let records = Records::new(consul.clone(), cluster.unwrap_or(&owner).to_owned());
        Registrar { source: Source::Swarm { swarm, node, records }, consul, http, owner, host, address }
    };
    let figures = Arc::new(Figures::default());
    let counted = Arc::clone(&figures);
    let usage = usage::Board::default();
    let page: metrics::server::Make = Arc::new(move || counted.page());
    metrics::server::serve_with(args.metrics, page, usage.routes(), CancellationToken::new());
    let measure = async {
        match &registrar.source {
            Source::Swarm { swarm, node, .. } if args.metrics.is_some() => {
                usage::watch(swarm, node, &usage).await;
            }
            // Where nobody can ask, nothing is measured.
            _ => std::future::pending().await,
        }
    };
    let register = async {
        if args.discovery == Discovery::Swarm {
            std::future::pending::<()>().await;
        }
        loop {
            let round = registrar.round().await;
            figures.round(&round);
            if let Err(error) = round {
                tracing::warn!(error = format!("{error:#}"), "nothing is changed this time");
            }
            tokio::time::sleep(Duration::from_millis(args.interval)).await;
        }
    };
    tokio::select! {
        () = register => {}
        // Beside it: who hangs must not hold up who comes and goes.
        () = liveness::watch(&registrar) => {}
        () = measure => {}
        () = crate::cli::shutdown_signal()? => {}
    }
    Ok(ExitCode::SUCCESS)
}

/// What a registrar works with.
pub(super) struct Registrar {
    source: Source,
    consul: consul_client::Client,
    http: reqwest::Client,
    /// Marks our own registrations.
    owner: String,
    host: String,
    address: IpAddr,
}

/// Who tells what runs on this host.
enum Source {
    Swarm { swarm: swarm_client::Client, node: NodeId, records: Records },
    Plain(PlainEngine),
}

impl Registrar {
    async fn round(&self) -> Result<()> {
        let (serving, routes) = self.look(labels::CHECK).await?;
        let wanted: BTreeMap<String, Serving> =
            serving.into_iter().map(|(_, serving)| (serving.id.clone(), serving)).collect();
        let registered = self.consul.agent().services().await?;
        let plan = plan(&wanted, &registered, &self.owner);
        for id in plan.remove {
            tracing::info!(%id, "deregistered");
            self.consul.agent().deregister(&id).await?;
        }
        for serving in plan.add {
            if self.is_ready(serving).await {
                self.consul.agent().register(&self.registration(serving)).await?;
                tracing::info!(id = %serving.id, address = %serving.address, "registered");
            }
        }
        if let Source::Swarm { records, .. } = &self.source
            && let Err(error) = records.keep(&routes).await
        {
            tracing::warn!(error = format!("{error:#}"), "the routes of services could not be noted");
        }
        Ok(())
    }

    /// The running replicas of this host whose service has this label, by their container's id; their check is the
    /// label's value.
    pub(super) async fn serving(&self, label: &str) -> Result<Vec<(String, Serving)>> {
        Ok(self.look(label).await?.0)
    }

    /// The same, and the routing labels of every service with this label, wherever it runs.
    async fn look(&self, label: &str) -> Result<(Vec<(String, Serving)>, BTreeMap<String, Labels>)> {
        match &self.source {
            Source::Swarm { swarm, node, .. } => {
                let services = swarm.services().list_labelled(label).await?;
                let tasks = swarm.tasks().list_for_node(node).await?;
                let ports = match engine_ports::is_silent(&services, &tasks, self.address) {
                    true => engine_ports::published(&swarm.bollard()?, self.address).await?,
                    false => Published::new(),
                };
                let routes =
                    services.iter().map(|service| (service.name().to_owned(), routes::of_service(service)));
                let routes = routes.filter(|(_, labels)| !labels.is_empty()).collect();
                Ok((wanted(&services, &tasks, &ports, self.address, label), routes))
            }
            Source::Plain(engine) => Ok((engine.wanted(self.address, label).await?, BTreeMap::new())),
        }
    }

    /// Ends a container that hangs, so that there is one in its place that does not.
    pub(super) async fn replace(&self, container: &str) -> Result<()> {
        match &self.source {
            // Swarm starts a new task for one that ended.
            Source::Swarm { swarm, .. } => {
                let kill = KillContainerOptionsBuilder::new().signal("SIGKILL").build();
                let engine = swarm.bollard().context("the engine of this host can't be reached")?;
                Ok(engine.kill_container(container, Some(kill)).await?)
            }
            Source::Plain(engine) => engine.restart(container).await,
        }
    }

    async fn is_ready(&self, serving: &Serving) -> bool {
        let answer = self.http.get(serving.check_url()).send().await;
        answer.is_ok_and(|answer| answer.status().is_success())
    }

    fn registration(&self, serving: &Serving) -> ServiceRegistration {
        let check = Check::http(serving.check_url())
            .interval(CHECK_INTERVAL)
            .timeout(PROBE_TIMEOUT)
            .deregister_critical_after(FORGET_AFTER)
            // It has just passed the same check of ours.
            .initial_status(Status::Passing);
        let registration = ServiceRegistration::new(&serving.service, &serving.id);
        let registration = serving.tags.iter().fold(registration, ServiceRegistration::tag);
        registration
            .address(serving.address.ip().to_string())
            .port(serving.address.port())
            .meta(labels::META_OWNER, &self.owner)
            .meta(labels::META_HOST, &self.host)
            .meta(labels::META_CHECK, &serving.check)
            .check(check)
    }
}

/// A task or container that should be registered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Serving {
    pub(super) id: String,
    pub(super) service: String,
    pub(super) address: SocketAddr,
    /// The path of the readiness check.
    pub(super) check: String,
    /// Its routing labels, in order.
    pub(super) tags: Vec<String>,
}

impl Serving {
    /// The name of the task.
    pub(super) fn id(&self) -> &str {
        &self.id
    }

    pub(super) fn check_url(&self) -> String {
        format!("http://{}{}", self.address, self.check)
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Plan<'a> {
    add: Vec<&'a Serving>,
    remove: Vec<String>,
}

/// The tasks of this node that run, are wanted, and belong to a service with this label, by their container's id. Where a
/// task tells no port, it is as the engine published it.
fn wanted(
    services: &[Service],
    tasks: &[Task],
    published: &Published,
    address: IpAddr,
    label: &str,
) -> Vec<(String, Serving)> {
    let mut wanted = Vec::new();
    for task in tasks.iter().filter(|task| task.is_running()) {
        let Some(service) = services.iter().find(|service| *service.id() == task.service_id) else {
            continue;
        };
        let Some(check) = service.label(label) else { continue };
        let container = task.status.container_status.as_ref().map(|c| c.container_id.clone());
        let container = container.unwrap_or_default();
        let mut ports = swarm_client::reachable_ports(task, address);
        if ports.is_empty() {
            ports = published.get(&container).cloned().unwrap_or_default();
        }
        let routing = routes::of_service(service);
        // The port that its routes name, if the task publishes it.
        let named = routes::port(service.name(), &routing);
        let named = ports.iter().find(|(target, _)| Some(*target) == named);
        let Some((_, port)) = named.or(ports.first()).copied() else { continue };
        let id = instance(service.name(), task);
        let serving = Serving {
            id,
            service: service.name().to_owned(),
            address: SocketAddr::new(address, port),
            check: check.to_owned(),
            tags: routes::tags(&routing).collect(),
        };
        wanted.push((container, serving));
    }
    wanted
}

/// A task's name as Swarm's own templates write it: `web.1.q7ld...`.
pub fn instance(service: &str, task: &Task) -> String {
    let place = match (task.slot, &task.node_id) {
        (Some(slot), _) => slot.to_string(),
        (None, Some(node)) => node.to_string(),
        (None, None) => String::new(),
    };
    format!("{service}.{place}.{}", task.id)
}

/// What to change, touching only registrations of this node's registrar.
fn plan<'a>(
    wanted: &'a BTreeMap<String, Serving>,
    registered: &BTreeMap<String, AgentService>,
    node: &str,
) -> Plan<'a> {
    let ours =
        |service: &&AgentService| service.meta.get(labels::META_OWNER).is_some_and(|owner| owner == node);
    let add = wanted.values().filter(|serving| {
        registered.get(&serving.id).is_none_or(|service| {
            service.port != serving.address.port()
                || service.address != serving.address.ip().to_string()
                || service.tags != serving.tags
        })
    });
    let gone = registered.values().filter(ours).filter(|service| !wanted.contains_key(&service.id));
    Plan { add: add.collect(), remove: gone.map(|service| service.id.clone()).collect() }
}

/// As often as Consul checks a replica; the drain period of a replica must be longer.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);
/// The shortest time that Consul accepts: then a registration without a registrar is gone too.
const FORGET_AFTER: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn service() -> Service {
        labelled(json!({"ha-stack.check": "/healthz"}))
    }

    fn labelled(labels: serde_json::Value) -> Service {
        let spec = json!({"Name": "web", "Labels": labels});
        serde_json::from_value(json!({"ID": "s1", "Version": {"Index": 1}, "Spec": spec})).unwrap()
    }

    fn task(id: &str, state: &str, desired: &str) -> Task {
        let ports = json!({"Ports": [{"Protocol": "tcp", "TargetPort": 8080, "PublishedPort": 32768, "PublishMode": "host"}]});
        serde_json::from_value(json!({
            "ID": id, "ServiceID": "s1", "Slot": 1, "NodeID": "n1", "DesiredState": desired,
            "Status": {"State": state, "PortStatus": ports}, "Spec": {},
        }))
        .unwrap()
    }

    fn agent_service(id: &str, owner: &str, port: u16) -> (String, AgentService) {
        let value = json!({"ID": id, "Service": "web", "Address": "198.18.0.12", "Port": port, "Meta": {"ha-stack-node": owner}});
        (id.to_owned(), serde_json::from_value(value).unwrap())
    }

    fn by_id(tasks: &[Task], address: IpAddr) -> BTreeMap<String, Serving> {
        let wanted = wanted(&[service()], tasks, &Published::new(), address, labels::CHECK).into_iter();
        wanted.map(|(_, serving)| (serving.id.clone(), serving)).collect()
    }

    #[test]
    fn a_task_on_its_way_out_is_not_wanted() {
        let address = "198.18.0.12".parse().unwrap();
        let of = |task: Task| by_id(&[task], address);
        assert_eq!(of(task("t1", "running", "running")).keys().collect::<Vec<_>>(), ["web.1.t1"]);
        assert!(of(task("t1", "running", "shutdown")).is_empty());
        assert!(of(task("t1", "starting", "running")).is_empty());
    }

    /// As after an election of the Swarm's leader.
    #[test]
    fn a_task_that_tells_no_port_any_more_stays_at_the_one_that_the_engine_published() {
        let address = "198.18.0.12".parse().unwrap();
        let told = by_id(&[task("t1", "running", "running")], address);
        let mut silent = task("t1", "running", "running");
        silent.status.port_status = Some(serde_json::from_value(json!({})).unwrap());
        silent.status.container_status = Some(serde_json::from_value(json!({"ContainerID": "c1"})).unwrap());
        let published = Published::from([("c1".to_owned(), vec![(8080, 32768)])]);
        let found = wanted(&[service()], std::slice::from_ref(&silent), &published, address, labels::CHECK);
        assert_eq!(found, [("c1".to_owned(), told["web.1.t1"].clone())]);
    }

    #[test]
    fn only_our_own_registrations_are_removed() {
        let address = "198.18.0.12".parse().unwrap();
        let wanted = by_id(&[task("t1", "running", "running")], address);
        let registered =
            BTreeMap::from([agent_service("web.1.t0", "n1", 32700), agent_service("web.2.t9", "n2", 32701)]);
        let plan = plan(&wanted, &registered, "n1");
        assert_eq!(plan.add.iter().map(|s| s.id.as_str()).collect::<Vec<_>>(), ["web.1.t1"]);
        assert_eq!(plan.remove, ["web.1.t0"]);
    }

    #[test]
    fn routing_labels_become_tags_and_name_the_port() {
        let address = "198.18.0.12".parse().unwrap();
        let service = labelled(json!({
            "ha-stack.check": "/healthz", "balancer.host": "shop.example", "balancer.port": "9090",
        }));
        let mut task = task("t1", "running", "running");
        let more = json!({"Ports": [
            {"Protocol": "tcp", "TargetPort": 8080, "PublishedPort": 32768, "PublishMode": "host"},
            {"Protocol": "tcp", "TargetPort": 9090, "PublishedPort": 32769, "PublishMode": "host"},
        ]});
        task.status.port_status = Some(serde_json::from_value(more).unwrap());
        let (services, tasks) = (std::slice::from_ref(&service), std::slice::from_ref(&task));
        let found = wanted(services, tasks, &Published::new(), address, labels::CHECK);
        let (_, serving) = &found[0];
        assert_eq!(serving.address.port(), 32769);
        assert_eq!(serving.tags, ["balancer.host=shop.example", "balancer.port=9090"]);
        let found = BTreeMap::from([(serving.id.clone(), serving.clone())]);
        // One that is registered without them, or with others, is registered again.
        let (id, mut registered) = agent_service("web.1.t1", "n1", 32769);
        assert_eq!(plan(&found, &BTreeMap::from([(id.clone(), registered.clone())]), "n1").add.len(), 1);
        registered.tags.clone_from(&serving.tags);
        assert!(plan(&found, &BTreeMap::from([(id, registered)]), "n1").add.is_empty());
    }

    #[test]
    fn a_moved_port_is_registered_again_and_an_equal_one_is_left_alone() {
        let address = "198.18.0.12".parse().unwrap();
        let wanted = by_id(&[task("t1", "running", "running")], address);
        let moved = BTreeMap::from([agent_service("web.1.t1", "n1", 1)]);
        assert_eq!(plan(&wanted, &moved, "n1").add.len(), 1);
        let same = BTreeMap::from([agent_service("web.1.t1", "n1", 32768)]);
        assert_eq!(plan(&wanted, &same, "n1"), Plan { add: Vec::new(), remove: Vec::new() });
    }
}
