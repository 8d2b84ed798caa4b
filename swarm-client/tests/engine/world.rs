//! A small Swarm on loopback: nodes, one replicated service, and the managers' rules for where its tasks run.
//!
//! Each look at the tasks is one step of the world: what is missing is placed on the node with the fewest tasks, what was
//! placed runs, and a task on a node that its service's constraints exclude is replaced before it is stopped.

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use super::support::{Asked, CONFLICT, Engine, Reply, version};

struct Task {
    id: usize,
    slot: u64,
    node: Option<usize>,
    state: &'static str,
    wanted: bool,
}

struct Object {
    version: u64,
    spec: Value,
}

struct State {
    nodes: Vec<Object>,
    service: Object,
    tasks: Vec<Task>,
    made: usize,
    /// The fewest wanted tasks that ran at any step.
    least: usize,
}

/// The world behind an [`Engine`].
pub(crate) struct World(Mutex<State>);

impl World {
    /// Nodes `h1`, `h2`, … with the ids `n1`, `n2`, …, and the service `web` whose replicas run on them.
    pub(crate) async fn start(nodes: usize, replicas: usize) -> (Arc<Self>, Engine) {
        let node = |_| Object { version: 1, spec: json!({"Role": "manager", "Availability": "active"}) };
        let spec = json!({
            "Name": "web", "Labels": {"team": "a"}, "TaskTemplate": {"ContainerSpec": {"Image": "web:1"}},
            "Mode": {"Replicated": {"Replicas": replicas}},
            "UpdateConfig": {"Parallelism": 1, "Monitor": 50_000_000, "Order": "stop-first"},
        });
        let mut state = State {
            nodes: (0..nodes).map(node).collect(),
            service: Object { version: 1, spec },
            tasks: Vec::new(),
            made: 0,
            least: replicas,
        };
        state.place();
        state.run();
        let world = Arc::new(Self(Mutex::new(state)));
        let seen = Arc::clone(&world);
        let engine = Engine::start(move |asked| seen.answer(asked)).await;
        (world, engine)
    }

    pub(crate) fn spec(&self) -> Value {
        self.0.lock().unwrap().service.spec.clone()
    }

    pub(crate) fn availability(&self, node: usize) -> String {
        self.0.lock().unwrap().nodes[node - 1].spec["Availability"].as_str().unwrap().to_owned()
    }

    /// The fewest wanted tasks that ran at any step.
    pub(crate) fn least(&self) -> usize {
        self.0.lock().unwrap().least
    }

    /// How many wanted tasks run on each node.
    pub(crate) fn spread(&self) -> Vec<usize> {
        let state = self.0.lock().unwrap();
        (0..state.nodes.len())
            .map(|node| state.running().filter(|task| task.node == Some(node)).count())
            .collect()
    }

    /// The tasks that run and are wanted, by id.
    pub(crate) fn running(&self) -> Vec<usize> {
        self.0.lock().unwrap().running().map(|task| task.id).collect()
    }

    fn answer(&self, asked: &Asked) -> Reply {
        let mut state = self.0.lock().unwrap();
        let line = asked.line();
        let (method, path) = line.split_once(" /").unwrap();
        let parts: Vec<&str> = path.split('/').collect();
        match (method, parts.as_slice()) {
            ("GET", ["services"]) => Reply::ok(json!([state.service()])),
            ("GET", ["services", "web" | "sid"]) => Reply::ok(state.service()),
            ("POST", ["services", "sid", "update"]) => state.service.update(asked),
            ("GET", ["nodes"]) => Reply::ok((0..state.nodes.len()).map(|node| state.node(node)).collect()),
            ("GET", ["nodes", name]) => match state.find(name) {
                Some(node) => Reply::ok(state.node(node)),
                None => Reply::refuse(404, &format!("node {name} not found")),
            },
            ("POST", ["nodes", name, "update"]) => match state.find(name) {
                Some(node) => state.nodes[node].update(asked),
                None => Reply::refuse(404, &format!("node {name} not found")),
            },
            ("GET", ["tasks"]) => {
                state.step();
                Reply::ok(state.tasks(&asked.query))
            }
            _ => Reply::refuse(404, "page not found"),
        }
    }
}

impl Object {
    fn update(&mut self, asked: &Asked) -> Reply {
        if version(asked) != self.version {
            return Reply::refuse(500, CONFLICT);
        }
        *self = Self { version: self.version + 1, spec: asked.body.clone() };
        Reply::ok(json!({ "Warnings": null }))
    }
}

impl State {
    fn service(&self) -> Value {
        json!({"ID": "sid", "Version": {"Index": self.service.version}, "Spec": self.service.spec})
    }

    fn node(&self, node: usize) -> Value {
        let Object { version, spec } = &self.nodes[node];
        let n = node + 1;
        json!({"ID": format!("n{n}"), "Version": {"Index": version}, "Spec": spec,
            "Description": {"Hostname": format!("h{n}")}, "Status": {"State": "ready", "Addr": format!("198.18.0.{n}")}})
    }

    fn find(&self, name: &str) -> Option<usize> {
        (0..self.nodes.len())
            .find(|node| name == format!("h{}", node + 1) || name == format!("n{}", node + 1))
    }

    fn running(&self) -> impl Iterator<Item = &Task> {
        self.tasks.iter().filter(|task| task.wanted && task.state == "running")
    }

    fn tasks(&self, query: &str) -> Value {
        let asked = |task: &&Task| {
            let node = task.node.map(|node| format!("n{}", node + 1)).unwrap_or_default();
            (!query.contains("%22node%22") || query.contains(&format!("%22{node}%22")))
                && (!query.contains("_up-to-date") || !task.node.is_some_and(|node| self.excluded(node)))
        };
        self.tasks.iter().filter(asked).map(|task| self.task(task)).collect()
    }

    fn task(&self, task: &Task) -> Value {
        let desired = if task.wanted { "running" } else { "shutdown" };
        let mut value = json!({"ID": format!("t{}", task.id), "ServiceID": "sid", "Slot": task.slot, "DesiredState": desired,
            "Version": {"Index": task.id * 10 + task.state.len()}, "Status": {"State": task.state}});
        match task.node {
            Some(node) => value["NodeID"] = json!(format!("n{}", node + 1)),
            None => {
                let nodes = self.nodes.len();
                value["Status"]["Err"] = json!(format!(
                    "no suitable node (scheduling constraints not satisfied on {nodes} nodes)"
                ));
            }
        }
        value
    }

    fn excluded(&self, node: usize) -> bool {
        let constraints = self.service.spec["TaskTemplate"]["Placement"]["Constraints"].as_array();
        let this = format!("node.id!=n{}", node + 1);
        constraints.is_some_and(|all| all.iter().any(|constraint| *constraint == this))
    }

    fn step(&mut self) {
        self.run();
        self.stop();
        self.place();
        self.least = self.least.min(self.running().count());
    }

    /// What was placed runs.
    fn run(&mut self) {
        for task in self.tasks.iter_mut().filter(|task| task.wanted && task.node.is_some()) {
            task.state = "running";
        }
    }

    /// Ends what is on a drained node, what has its replacement, and what is too many.
    fn stop(&mut self) {
        let drained = |node: usize| self.nodes[node].spec["Availability"] == "drain";
        let wanted = self.service.spec["Mode"]["Replicated"]["Replicas"].as_u64().unwrap();
        let replaced =
            |task: &Task| self.running().any(|other| other.slot == task.slot && other.id > task.id);
        let mut ends: Vec<usize> = Vec::new();
        for task in self.tasks.iter().filter(|task| task.wanted) {
            let moved =
                task.node.is_some_and(|node| drained(node) || (self.excluded(node) && replaced(task)));
            // A replacement that found no room, for a task that may stay after all.
            let idle = task.node.is_none()
                && self
                    .running()
                    .any(|old| old.slot == task.slot && old.node.is_some_and(|node| !self.excluded(node)));
            if moved || idle {
                ends.push(task.id);
            }
        }
        // From the node with the most.
        let mut kept: Vec<(Option<usize>, u64, usize)> = self
            .tasks
            .iter()
            .filter(|t| t.wanted && !ends.contains(&t.id))
            .map(|t| (t.node, t.slot, t.id))
            .collect();
        let slots = |kept: &[(Option<usize>, u64, usize)]| {
            kept.iter().map(|(_, slot, _)| slot).collect::<std::collections::BTreeSet<_>>().len() as u64
        };
        while slots(&kept) > wanted {
            let on = |node: &Option<usize>| kept.iter().filter(|(other, ..)| other == node).count();
            let most =
                kept.iter().max_by_key(|(node, _, id)| (on(node), *id)).map(|(_, slot, _)| *slot).unwrap();
            ends.extend(kept.iter().filter(|(_, slot, _)| *slot == most).map(|(.., id)| *id));
            kept.retain(|(_, slot, _)| *slot != most);
        }
        for task in self.tasks.iter_mut().filter(|task| ends.contains(&task.id)) {
            (task.wanted, task.state) = (false, "shutdown");
        }
    }

    /// Gives each slot that lacks a task, or whose task has to move, a new one, where there is room.
    fn place(&mut self) {
        let wanted = self.service.spec["Mode"]["Replicated"]["Replicas"].as_u64().unwrap();
        let taken: Vec<u64> = self.tasks.iter().filter(|task| task.wanted).map(|task| task.slot).collect();
        let mut free = (1..).filter(|slot| !taken.contains(slot));
        let distinct = taken.iter().collect::<std::collections::BTreeSet<_>>().len() as u64;
        let mut slots: Vec<u64> = (distinct..wanted).map(|_| free.next().unwrap()).collect();
        for task in self.tasks.iter().filter(|task| task.wanted) {
            let alone =
                self.tasks.iter().filter(|other| other.wanted && other.slot == task.slot).count() == 1;
            if alone && task.node.is_some_and(|node| self.excluded(node)) {
                slots.push(task.slot);
            }
        }
        for slot in slots {
            self.made += 1;
            self.tasks.push(Task { id: self.made, slot, node: None, state: "pending", wanted: true });
        }
        for at in 0..self.tasks.len() {
            if self.tasks[at].wanted && self.tasks[at].node.is_none() {
                let room = |node: &usize| {
                    self.nodes[*node].spec["Availability"] == "active" && !self.excluded(*node)
                };
                let load =
                    |node: &usize| self.tasks.iter().filter(|t| t.wanted && t.node == Some(*node)).count();
                let found = (0..self.nodes.len()).filter(room).min_by_key(load);
                if found.is_some() {
                    (self.tasks[at].node, self.tasks[at].state) = (found, "preparing");
                }
            }
        }
    }
}
