//! The gateway's services and replicas, from the Swarm itself: what `--discovery swarm` follows in Consul's place.
//!
//! Swarm calls a task running when its container runs, not when it serves, and says nothing when one hangs: the
//! gateway's own probes find both out, a new replica gets no request before it has passed one. What Swarm says before
//! anybody else is that a task is *meant* to go: it leaves here at once, while it still serves. Routing labels are read
//! from the services themselves, which are there without a single task too.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use balancer::Endpoint;
use futures_util::{Stream, StreamExt, pin_mut};
use swarm_client::watch::{Store, WatchConfig, WatchEvent, Watched, reflector, store, watcher};
use swarm_client::{Node, Service, ServiceId, Task, TaskEndpoint};
use tokio::sync::Notify;

use super::discovery::Feed;
use super::routes::{self, Labels};
use super::services::Services;

/// Which services are followed.
pub(super) enum Which {
    /// This one, whatever labels it has.
    One(String),
    /// Every one with routing labels, and this one in any case.
    Labelled(Option<String>),
}

/// Feeds the gateway from the Swarm's services and tasks; never ends by itself. Where no manager answers, what is known stays.
pub(super) async fn follow(swarm: swarm_client::Client, which: Which, services: Services) {
    let changed = Arc::new(Notify::new());
    let (known, known_writer) = store::<Service>();
    let (tasks, task_writer) = store::<Task>();
    let (nodes, node_writer) = store::<Node>();
    let of_tasks = match &which {
        Which::One(service) => WatchConfig::default().service(service),
        Which::Labelled(_) => WatchConfig::default(),
    };
    let service_events = reflector(known_writer, watcher::<Service>(&swarm, WatchConfig::default()));
    let task_events = reflector(task_writer, watcher::<Task>(&swarm, of_tasks));
    let node_events = reflector(node_writer, watcher::<Node>(&swarm, WatchConfig::default()));
    tokio::join!(
        read(service_events, "services", &changed),
        read(task_events, "tasks", &changed),
        read(node_events, "nodes", &changed),
        feed(&which, &known, &tasks, &nodes, &services, &changed)
    );
}

/// Reads a watch, and tells of every change.
async fn read<K: Watched>(
    events: impl Stream<Item = swarm_client::Result<WatchEvent<K>>>,
    what: &str,
    changed: &Notify,
) {
    pin_mut!(events);
    let mut failing = false;
    while let Some(event) = events.next().await {
        match event {
            Ok(_) => {
                failing = false;
                changed.notify_one();
            }
            Err(error) if !std::mem::replace(&mut failing, true) => {
                tracing::warn!(what, %error, "the managers can't be asked; the replicas stay as they are known");
            }
            Err(error) => tracing::debug!(what, %error, "still not"),
        }
    }
}

async fn feed(
    which: &Which,
    known: &Store<Service>,
    tasks: &Store<Task>,
    nodes: &Store<Node>,
    services: &Services,
    changed: &Notify,
) {
    let mut followed = Followed::default();
    let mut last = Vec::new();
    loop {
        changed.notified().await;
        // One without the others is half an answer: every task would be without a host.
        if !known.is_ready() || !tasks.is_ready() || !nodes.is_ready() {
            continue;
        }
        let there: Vec<Task> = tasks.state().iter().map(|task| Task::clone(task)).collect();
        let on: Vec<Node> = nodes.state().iter().map(|node| Node::clone(node)).collect();
        last = endpoints(&there, &on, last);
        followed.take(which, &known.state(), last.clone(), &there, services);
        // A rollout changes many tasks at once; a new list of them all is not worth one update each.
        tokio::time::sleep(AT_MOST_EVERY).await;
    }
}

/// Where the tasks are reached. One that tells no port any more, as some do after an election, is where it was at `last`.
fn endpoints(tasks: &[Task], nodes: &[Node], last: Vec<TaskEndpoint>) -> Vec<TaskEndpoint> {
    let mut found = swarm_client::endpoints(tasks, nodes);
    let silent = |task: &&Task| task.is_running() && task.host_ports().next().is_none();
    let silent: BTreeMap<&str, &Task> =
        tasks.iter().filter(silent).map(|task| (task.id.as_ref(), task)).collect();
    let up = |at: &TaskEndpoint| nodes.iter().any(|node| node.id == at.node_id && !node.is_down());
    found.extend(last.into_iter().filter(|at| silent.contains_key(at.task_id.as_ref()) && up(at)));
    found
}

/// The services that are followed, by name.
#[derive(Default)]
struct Followed(BTreeMap<String, One>);

#[derive(Default)]
struct One {
    feed: Feed,
    /// What was tried last: labels that can't be used are told once.
    tried: Option<Labels>,
    /// Of the last labels that could be used.
    port: Option<u16>,
    /// Whether there is a route, or it gets the rest.
    served: bool,
}

impl Followed {
    fn take(
        &mut self,
        which: &Which,
        known: &[Arc<Service>],
        endpoints: Vec<TaskEndpoint>,
        tasks: &[Task],
        services: &Services,
    ) {
        let owner: BTreeMap<&str, &ServiceId> =
            tasks.iter().map(|task| (task.id.as_ref(), &task.service_id)).collect();
        let mut reached: BTreeMap<&ServiceId, Vec<&TaskEndpoint>> = BTreeMap::new();
        for at in &endpoints {
            if let Some(service) = owner.get(at.task_id.as_ref()) {
                reached.entry(service).or_default().push(at);
            }
        }
        let wanted: BTreeMap<&str, (&Service, Labels)> = known
            .iter()
            .filter_map(|service| Some((service.name(), (&**service, wanted(which, service)?))))
            .collect();
        self.0.retain(|service, _| {
            let stays = wanted.contains_key(service.as_str());
            if !stays {
                services.remove(service);
            }
            stays
        });
        for (name, (service, labels)) in wanted {
            let one = self.0.entry(name.to_owned()).or_default();
            if one.tried.as_ref() != Some(&labels) {
                match services.set(name, &labels) {
                    Ok(served) => (one.served, one.port) = (served, routes::port(name, &labels)),
                    Err(error) => {
                        tracing::warn!(error = format!("{error:#}"), "labels that can't be used");
                    }
                }
                one.tried = Some(labels);
            }
            if !one.served {
                continue;
            }
            let reached = reached.get(service.id()).map_or(&[][..], Vec::as_slice);
            let replicas = replicas(name, reached, one.port);
            let instances = replicas.len();
            let updates = one.feed.updates_to(replicas);
            if !updates.is_empty() {
                tracing::info!(service = name, instances, updates = updates.len(), "the Swarm's tasks");
            }
            for update in updates {
                services.apply(name, update);
            }
        }
    }
}

/// The labels to route a service by; `None` where it is none of ours.
fn wanted(which: &Which, service: &Service) -> Option<Labels> {
    match which {
        Which::One(one) => (service.name() == one).then(Labels::new),
        Which::Labelled(rest) => {
            let labels = routes::of_service(service);
            (!labels.is_empty() || rest.as_deref() == Some(service.name())).then_some(labels)
        }
    }
}

/// The replicas of a service, each at this port of its container, or else its first one, under the name that the registrar
/// would give it.
fn replicas(service: &str, reached: &[&TaskEndpoint], port: Option<u16>) -> BTreeMap<String, Endpoint> {
    let mut found: BTreeMap<String, (bool, Endpoint)> = BTreeMap::new();
    for at in reached {
        let place = at.slot.map_or_else(|| at.node_id.to_string(), |slot| slot.to_string());
        let id = format!("{service}.{place}.{}", at.task_id);
        let endpoint = Endpoint::new(id.as_str(), at.addr).host(at.node_name.as_str());
        let named = Some(at.target_port) == port;
        match found.get(&id) {
            Some((before, _)) if *before || !named => {}
            _ => drop(found.insert(id, (named, endpoint))),
        }
    }
    found.into_iter().map(|(id, (_, endpoint))| (id, endpoint)).collect()
}

const AT_MOST_EVERY: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use balancer::{EndpointId, Update};
    use serde_json::json;

    use super::*;
    use crate::roles::gateway::config;

    fn node(id: &str, state: &str) -> Node {
        let node = json!({"ID": id, "Description": {"Hostname": format!("host-{id}")},
            "Status": {"State": state, "Addr": format!("198.18.0.1{id}")}});
        serde_json::from_value(node).unwrap()
    }

    fn task(id: &str, slot: u64, node: &str, desired: &str) -> Task {
        let port = |target: u16, published: u16| json!({"Protocol": "tcp", "TargetPort": target, "PublishedPort": published, "PublishMode": "host"});
        let ports = json!({"Ports": [port(8080, 32768), port(9090, 32769)]});
        let task = json!({"ID": id, "ServiceID": "s", "Slot": slot, "NodeID": node, "DesiredState": desired,
            "Status": {"State": "running", "PortStatus": ports}});
        serde_json::from_value(task).unwrap()
    }

    fn service(id: &str, name: &str, labels: serde_json::Value) -> Arc<Service> {
        let service = json!({"ID": id, "Version": {"Index": 1}, "Spec": {"Name": name, "Labels": labels}});
        Arc::new(serde_json::from_value(service).unwrap())
    }

    fn found(tasks: &[Task], nodes: &[Node], port: Option<u16>) -> BTreeMap<String, Endpoint> {
        let all = swarm_client::endpoints(tasks, nodes);
        replicas("web", &all.iter().collect::<Vec<_>>(), port)
    }

    #[test]
    fn a_task_that_is_meant_to_go_leaves_while_it_still_serves() {
        let nodes = [node("1", "ready"), node("2", "ready")];
        let mut feed = Feed::default();
        let both = [task("a", 1, "1", "running"), task("b", 2, "2", "running")];
        let first = feed.updates_to(found(&both, &nodes, None));
        let at = |id: &str, host: &str| {
            Endpoint::new(id, format!("198.18.0.1{host}:32768").parse().unwrap()).host(format!("host-{host}"))
        };
        assert_eq!(first, [Update::Add(at("web.1.a", "1")), Update::Add(at("web.2.b", "2"))]);
        let going = [task("a", 1, "1", "shutdown"), task("b", 2, "2", "running")];
        let next = feed.updates_to(found(&going, &nodes, None));
        assert_eq!(next, [Update::Remove(EndpointId::new("web.1.a"))]);
        // Nothing at all is no reason to give up what may still answer.
        assert!(feed.updates_to(found(&[], &nodes, None)).is_empty());
    }

    #[test]
    fn a_task_that_tells_no_port_any_more_stays_where_it_was() {
        let nodes = [node("1", "ready"), node("2", "down")];
        let silent = |id: &str, slot: u64, node: &str, desired: &str| {
            let mut task = task(id, slot, node, desired);
            task.status.port_status = Some(serde_json::from_value(json!({})).unwrap());
            task
        };
        let told = [task("a", 1, "1", "running"), task("b", 2, "2", "running")];
        let last = endpoints(&told, &[node("1", "ready"), node("2", "ready")], Vec::new());
        let of_a: Vec<TaskEndpoint> = last.iter().filter(|at| at.task_id.as_ref() == "a").cloned().collect();
        assert_eq!((last.len(), of_a.len()), (4, 2), "two ports each");
        // The other one's host is gone, and what is meant to go goes.
        let after = [silent("a", 1, "1", "running"), silent("b", 2, "2", "running")];
        assert_eq!(endpoints(&after, &nodes, last.clone()), of_a);
        assert_eq!(endpoints(&told[..1], &nodes, of_a.clone()), of_a, "it is there once");
        assert!(endpoints(&[silent("a", 1, "1", "shutdown")], &nodes, last.clone()).is_empty());
        assert!(endpoints(&[silent("c", 3, "1", "running")], &nodes, last).is_empty());
    }

    #[test]
    fn a_task_on_a_lost_host_is_gone_though_it_says_that_it_runs() {
        let tasks = [task("a", 1, "1", "running"), task("b", 2, "2", "running")];
        let found = found(&tasks, &[node("1", "ready"), node("2", "down")], None);
        assert_eq!(found.keys().collect::<Vec<_>>(), ["web.1.a"]);
    }

    #[test]
    fn the_port_that_labels_name_is_taken_where_the_task_publishes_it() {
        let (tasks, nodes) = ([task("a", 1, "1", "running")], [node("1", "ready")]);
        let port = |named: Option<u16>| found(&tasks, &nodes, named)["web.1.a"].addr.port();
        assert_eq!(
            [port(None), port(Some(9090)), port(Some(8080)), port(Some(1))],
            [32768, 32769, 32768, 32768]
        );
    }

    /// The rules of what is served, and the port at which each service is reached.
    struct World {
        followed: Followed,
        services: Services,
        which: Which,
    }

    impl World {
        fn new(which: Which) -> Self {
            let rest = match &which {
                Which::One(rest) => Some(rest.as_str()),
                Which::Labelled(rest) => rest.as_deref(),
            };
            let services = Services::new(config("/healthz", Duration::from_secs(5)), rest, None).unwrap();
            Self { followed: Followed::default(), services, which }
        }

        fn see(&mut self, known: &[Arc<Service>]) -> Vec<(String, Vec<String>, Vec<u16>)> {
            let tasks: Vec<Task> = known
                .iter()
                .map(|service| {
                    let mut task = task(&format!("t-{}", service.name()), 1, "1", "running");
                    task.service_id = service.id().clone();
                    task
                })
                .collect();
            let endpoints = swarm_client::endpoints(&tasks, &[node("1", "ready")]);
            self.followed.take(&self.which, known, endpoints, &tasks, &self.services);
            let port = |address: &str| address.parse::<SocketAddr>().unwrap().port();
            self.services
                .loads()
                .into_iter()
                .map(|one| {
                    let ports = one.load.endpoints.iter().map(|endpoint| port(&endpoint.addr)).collect();
                    (one.service, one.rules, ports)
                })
                .collect()
        }
    }

    #[tokio::test]
    async fn services_are_routed_by_their_own_labels_and_one_gets_the_rest() {
        let mut world = World::new(Which::Labelled(Some("web".into())));
        let web = service("s1", "web", json!({}));
        let other = service("s3", "db", json!({"ha-stack.check": "/"}));
        let shop = |labels| service("s2", "shop", labels);
        let rule = |host: &str| vec![format!("Host(`{host}`)")];
        let rest = ("web".to_owned(), vec![], vec![32768]);
        let first = world.see(&[
            web.clone(),
            other.clone(),
            shop(json!({"balancer.host": "a", "balancer.port": "9090"})),
        ]);
        assert_eq!(first, [("shop".into(), rule("a"), vec![32769]), rest.clone()]);
        // One that can't be used leaves what is, the port too.
        let wrong = world.see(&[web.clone(), shop(json!({"balancer.rule": "Host("}))]);
        assert_eq!(wrong, first);
        let moved = world.see(&[web.clone(), shop(json!({"traefik.http.routers.r.rule": "Host(`b`)"}))]);
        assert_eq!(moved, [("shop".into(), rule("b"), vec![32768]), rest.clone()]);
        assert_eq!(world.see(&[web.clone(), shop(json!({}))]), std::slice::from_ref(&rest));
        assert_eq!(world.see(std::slice::from_ref(&web)), [rest]);
    }

    #[tokio::test]
    async fn one_service_alone_is_followed_whatever_labels_there_are() {
        let mut world = World::new(Which::One("web".into()));
        let labels = json!({"balancer.host": "a"});
        let seen = world.see(&[service("s1", "web", labels.clone()), service("s2", "shop", labels)]);
        assert_eq!(seen, [("web".into(), vec![], vec![32768])]);
    }
}
