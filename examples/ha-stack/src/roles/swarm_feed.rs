//! The gateway's replicas, from the Swarm's own tasks: what `--discovery swarm` follows in Consul's place.
//!
//! Swarm calls a task running when its container runs, not when it serves, and says nothing when one hangs: the
//! gateway's own probes find both out, a new replica gets no request before it has passed one. What Swarm says before
//! anybody else is that a task is *meant* to go: it leaves here at once, while it still serves.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use balancer::Endpoint;
use balancer::proxy::Gateway;
use futures_util::{Stream, StreamExt, pin_mut};
use swarm_client::watch::{Store, WatchConfig, WatchEvent, Watched, reflector, store, watcher};
use swarm_client::{Node, Task};
use tokio::sync::Notify;

use super::discovery::Feed;

/// Feeds the gateway from the tasks of a service; never ends by itself. Where no manager answers, what is known stays.
pub(super) async fn follow(swarm: swarm_client::Client, service: String, gateway: Gateway) {
    let changed = Arc::new(Notify::new());
    let (tasks, task_writer) = store::<Task>();
    let (nodes, node_writer) = store::<Node>();
    let task_events =
        reflector(task_writer, watcher::<Task>(&swarm, WatchConfig::default().service(&service)));
    let node_events = reflector(node_writer, watcher::<Node>(&swarm, WatchConfig::default()));
    tokio::join!(
        read(task_events, "tasks", &changed),
        read(node_events, "nodes", &changed),
        feed(&service, &tasks, &nodes, &gateway, &changed)
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

async fn feed(service: &str, tasks: &Store<Task>, nodes: &Store<Node>, gateway: &Gateway, changed: &Notify) {
    let mut feed = Feed::default();
    loop {
        changed.notified().await;
        // One without the other is half an answer: every task would be without a host.
        if !tasks.is_ready() || !nodes.is_ready() {
            continue;
        }
        let there: Vec<Task> = tasks.state().iter().map(|task| Task::clone(task)).collect();
        let on: Vec<Node> = nodes.state().iter().map(|node| Node::clone(node)).collect();
        let endpoints = endpoints(service, &there, &on);
        let instances = endpoints.len();
        let updates = feed.updates_to(endpoints);
        if !updates.is_empty() {
            tracing::info!(%service, instances, updates = updates.len(), "the Swarm's tasks");
        }
        for update in updates {
            gateway.apply(update);
        }
        // A rollout changes many tasks at once; a new list of them all is not worth one update each.
        tokio::time::sleep(AT_MOST_EVERY).await;
    }
}

/// The replicas that run, are meant to, and are on a host that is there; each at its first port, under the name that the
/// registrar would give it.
fn endpoints(service: &str, tasks: &[Task], nodes: &[Node]) -> BTreeMap<String, Endpoint> {
    let mut found = BTreeMap::new();
    for at in swarm_client::endpoints(tasks, nodes) {
        let place = at.slot.map_or_else(|| at.node_id.to_string(), |slot| slot.to_string());
        let id = format!("{service}.{place}.{}", at.task_id);
        let endpoint = Endpoint::new(id.as_str(), at.addr).host(at.node_name.as_str());
        found.entry(id).or_insert(endpoint);
    }
    found
}

const AT_MOST_EVERY: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use balancer::{EndpointId, Update};
    use serde_json::json;

    use super::*;

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

    #[test]
    fn a_task_that_is_meant_to_go_leaves_while_it_still_serves() {
        let nodes = [node("1", "ready"), node("2", "ready")];
        let mut feed = Feed::default();
        let both = [task("a", 1, "1", "running"), task("b", 2, "2", "running")];
        let first = feed.updates_to(endpoints("web", &both, &nodes));
        let at = |id: &str, host: &str| {
            Endpoint::new(id, format!("198.18.0.1{host}:32768").parse().unwrap()).host(format!("host-{host}"))
        };
        assert_eq!(first, [Update::Add(at("web.1.a", "1")), Update::Add(at("web.2.b", "2"))]);
        let going = [task("a", 1, "1", "shutdown"), task("b", 2, "2", "running")];
        let next = feed.updates_to(endpoints("web", &going, &nodes));
        assert_eq!(next, [Update::Remove(EndpointId::new("web.1.a"))]);
        // Nothing at all is no reason to give up what may still answer.
        assert!(feed.updates_to(endpoints("web", &[], &nodes)).is_empty());
    }

    #[test]
    fn a_task_on_a_lost_host_is_gone_though_it_says_that_it_runs() {
        let tasks = [task("a", 1, "1", "running"), task("b", 2, "2", "running")];
        let found = endpoints("web", &tasks, &[node("1", "ready"), node("2", "down")]);
        assert_eq!(found.keys().collect::<Vec<_>>(), ["web.1.a"]);
    }
}
