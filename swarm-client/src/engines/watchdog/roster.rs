//! What a watchdog knows, and what it decides from a look at the engines. Pure: `now` is an argument, and nothing is done here.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::super::labels;
use super::super::spec::ContainerSpec;
use super::super::view::{Container, ContainerState, Engine, EngineId};

/// When an engine counts as lost, and when a watchdog keeps still.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatchdogPolicy {
    /// Looks in a row that an engine did not answer.
    pub failures: u32,
    /// Least share of the engines that must answer, in percent: who sees fewer may be the one that is cut off.
    pub reached_percent: u32,
    /// Until a container that could not be started elsewhere is tried again.
    pub retry: Duration,
}

impl Default for WatchdogPolicy {
    fn default() -> Self {
        // With a look a second: lost after three. One missed answer happens; three agreeing ones on a healthy engine don't.
        Self { failures: 3, reached_percent: 50, retry: Duration::from_secs(5) }
    }
}

/// What is known of engines and containers. Save it: after a restart the same containers are known, and nothing is started twice.
///
/// Each round: [`Roster::decide`], do what it says, and tell it what came of it ([`Roster::learned`], [`Roster::moved`],
/// [`Roster::failed`]) before the next look begins.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Roster {
    engines: BTreeMap<EngineId, Health>,
    containers: BTreeMap<String, Entry>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Health {
    name: String,
    failures: u32,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Entry {
    name: String,
    home: EngineId,
    running: bool,
    spec: Option<ContainerSpec>,
    not_before: Duration,
}

/// Something to do.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Action {
    /// Read the configuration of this container, for the day that its engine is lost.
    Learn {
        /// The id that is the same wherever it runs.
        swarm_id: String,
        /// Where it is.
        engine: EngineId,
        /// Its id there.
        container: String,
    },
    /// Start it on another engine.
    Move {
        /// The id that is the same wherever it runs.
        swarm_id: String,
        /// The engine that is lost.
        from: EngineId,
        /// Its configuration.
        spec: ContainerSpec,
    },
    /// Start it where it is: it was created there and not started.
    Start {
        /// Where it is.
        engine: EngineId,
        /// Its id there.
        container: String,
        /// Its name.
        name: String,
    },
    /// Remove it: it lives elsewhere.
    Remove {
        /// Where it is.
        engine: EngineId,
        /// Its id there.
        container: String,
        /// Its name.
        name: String,
        /// Where the copy is that stays.
        stays_on: EngineId,
    },
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Learn { engine, container, .. } => {
                write!(f, "read the configuration of {container} on {engine}")
            }
            Self::Move { from, spec, .. } => write!(f, "start {} elsewhere: {from} is lost", spec.name()),
            Self::Start { engine, name, .. } => {
                write!(f, "start {name} on {engine}, where it was left created")
            }
            Self::Remove { engine, name, stays_on, .. } => {
                write!(f, "remove {name} from {engine}: it lives on {stays_on}")
            }
        }
    }
}

/// What came of a look.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Decision {
    /// What to do, in this order.
    pub actions: Vec<Action>,
    /// Why something is not done, a sentence each.
    pub held: Vec<String>,
}

impl Roster {
    /// The engines to look at, whether or not they are listed any more.
    pub fn engines(&self) -> impl Iterator<Item = &EngineId> {
        self.engines.keys()
    }

    /// Forgets how often engines failed: whoever takes a roster over has not seen it.
    pub fn taken_over(&mut self) {
        self.engines.values_mut().for_each(|engine| engine.failures = 0);
    }

    /// The engines that are lost, by name.
    pub fn lost(&self, policy: &WatchdogPolicy) -> impl Iterator<Item = &str> {
        let limit = policy.failures.max(1);
        self.engines
            .values()
            .filter(move |engine| engine.failures >= limit)
            .map(|engine| engine.name.as_str())
    }

    /// Decides what a look at the engines asks for. A container is moved only when its engine did not answer
    /// [`WatchdogPolicy::failures`] times in a row, when every other engine either answers, without it, or is lost too, and
    /// when enough engines answer.
    pub fn decide(&mut self, policy: &WatchdogPolicy, seen: &[Engine], now: Duration) -> Decision {
        let reached: BTreeMap<&EngineId, &Engine> =
            seen.iter().filter(|engine| engine.reached).map(|engine| (&engine.id, engine)).collect();
        self.count(seen, &reached);
        let mut decision = Decision::default();
        let copies = copies(&reached);
        self.settle_copies(&copies, &mut decision);
        self.forget(&reached, &copies);
        self.move_lost(policy, &copies, now, &mut decision);
        self.prune(seen);
        decision
    }

    /// The configuration of a container has been read.
    pub fn learned(&mut self, swarm_id: &str, spec: ContainerSpec) {
        if let Some(entry) = self.containers.get_mut(swarm_id) {
            entry.spec = Some(spec);
        }
    }

    /// A container has been started elsewhere.
    pub fn moved(&mut self, swarm_id: &str, to: &EngineId) {
        if let Some(entry) = self.containers.get_mut(swarm_id) {
            entry.home = to.clone();
        }
    }

    /// A container could not be started elsewhere.
    pub fn failed(&mut self, swarm_id: &str, policy: &WatchdogPolicy, now: Duration) {
        if let Some(entry) = self.containers.get_mut(swarm_id) {
            entry.not_before = now.saturating_add(policy.retry);
        }
    }

    fn count(&mut self, seen: &[Engine], reached: &BTreeMap<&EngineId, &Engine>) {
        for engine in reached.values() {
            self.engines.insert(engine.id.clone(), Health { name: engine.name.clone(), failures: 0 });
        }
        for (id, health) in &mut self.engines {
            if !reached.contains_key(id) {
                health.failures = health.failures.saturating_add(1);
            }
        }
        // One that never answered has no id of its own yet; it is known once by its address.
        for engine in seen.iter().filter(|engine| !engine.reached) {
            if !self.engines.keys().any(|id| id.addr() == engine.id.addr()) {
                self.engines.insert(engine.id.clone(), Health { name: engine.name.clone(), failures: 1 });
            }
        }
        // When it answers at last, it goes by its full id.
        self.engines.retain(|id, _| {
            !id.own_id().is_empty() || !reached.keys().any(|other| other.addr() == id.addr())
        });
    }

    /// Takes over what is there, and of several copies keeps one: the one at its home, or one that runs, or the newest.
    fn settle_copies(&mut self, copies: &BTreeMap<&str, Vec<Copy<'_>>>, decision: &mut Decision) {
        for (swarm_id, copies) in copies {
            let home = self.containers.get(*swarm_id).map(|entry| entry.home.clone());
            let stays = copies.iter().max_by_key(|copy| {
                let runs = copy.there.state == ContainerState::Running;
                (runs, Some(&copy.engine.id) == home.as_ref(), copy.there.created, &copy.engine.id)
            });
            let Some(stays) = stays else { continue };
            for copy in copies.iter().filter(|copy| copy.engine.id != stays.engine.id) {
                decision.actions.push(Action::Remove {
                    engine: copy.engine.id.clone(),
                    container: copy.there.id.clone(),
                    name: copy.there.name.clone(),
                    stays_on: stays.engine.id.clone(),
                });
            }
            if wants_moving(stays.there) {
                self.take_over(swarm_id, stays, decision);
            }
        }
    }

    fn take_over(&mut self, swarm_id: &str, copy: &Copy<'_>, decision: &mut Decision) {
        let there = copy.there;
        let (engine, container) = (copy.engine.id.clone(), there.id.clone());
        let known = self.containers.get(swarm_id);
        let spec = known.and_then(|entry| entry.spec.clone());
        // What was running and is merely created was left half-way by a watchdog that ended.
        let unfinished = known.is_some_and(|entry| entry.running) && there.state == ContainerState::Created;
        if unfinished {
            let name = there.name.clone();
            decision.actions.push(Action::Start {
                engine: engine.clone(),
                container: container.clone(),
                name,
            });
        }
        if spec.is_none() {
            decision.actions.push(Action::Learn {
                swarm_id: swarm_id.to_owned(),
                engine: engine.clone(),
                container,
            });
        }
        let running = unfinished || there.state == ContainerState::Running;
        let entry =
            Entry { name: there.name.clone(), home: engine, running, spec, not_before: Duration::ZERO };
        self.containers.insert(swarm_id.to_owned(), entry);
    }

    /// A container that its own engine no longer has was removed by somebody who meant it.
    fn forget(&mut self, reached: &BTreeMap<&EngineId, &Engine>, copies: &BTreeMap<&str, Vec<Copy<'_>>>) {
        self.containers.retain(|swarm_id, entry| {
            copies.contains_key(swarm_id.as_str()) || !reached.contains_key(&entry.home)
        });
    }

    fn move_lost(
        &self,
        policy: &WatchdogPolicy,
        copies: &BTreeMap<&str, Vec<Copy<'_>>>,
        now: Duration,
        decision: &mut Decision,
    ) {
        let limit = policy.failures.max(1);
        let lost = |id: &EngineId| self.engines.get(id).is_none_or(|health| health.failures >= limit);
        let gone = self.containers.iter().filter(|(swarm_id, entry)| {
            !copies.contains_key(swarm_id.as_str()) && entry.running && lost(&entry.home)
        });
        let gone: Vec<(&String, &Entry)> = gone.collect();
        if gone.is_empty() {
            return;
        }
        let answering = self.engines.values().filter(|engine| engine.failures == 0).count();
        let share = answering * 100 / self.engines.len().max(1);
        if answering == 0 || share < usize::try_from(policy.reached_percent).unwrap_or(100) {
            let (all, percent) = (self.engines.len(), policy.reached_percent);
            decision.held.push(format!(
                "{} containers are not moved: {answering} of {all} engines answer, fewer than {percent} %",
                gone.len()
            ));
            return;
        }
        let mut undecided = self.engines.values().filter(|engine| (1..limit).contains(&engine.failures));
        if let Some(engine) = undecided.next() {
            decision.held.push(format!(
                "{} containers are not moved yet: {} did not answer just now, and one of them may be there",
                gone.len(),
                engine.name
            ));
            return;
        }
        for (swarm_id, entry) in gone.into_iter().filter(|(_, entry)| entry.not_before <= now) {
            match &entry.spec {
                Some(spec) => decision.actions.push(Action::Move {
                    swarm_id: swarm_id.clone(),
                    from: entry.home.clone(),
                    spec: spec.clone(),
                }),
                None => decision.held.push(format!(
                    "{} is not moved: {} was lost before its configuration had been read",
                    entry.name, entry.home
                )),
            }
        }
    }

    /// Engines that are neither listed nor the home of anything are no longer looked at.
    fn prune(&mut self, seen: &[Engine]) {
        let homes: BTreeSet<&EngineId> = self.containers.values().map(|entry| &entry.home).collect();
        let listed = |id: &EngineId| seen.iter().any(|engine| engine.id.addr() == id.addr());
        self.engines.retain(|id, _| listed(id) || homes.contains(id));
        // An address that leads to another machine now: the former one is gone, and nothing of it is waited for.
        let current: BTreeSet<EngineId> = seen.iter().filter(|e| e.reached).map(|e| e.id.clone()).collect();
        let replaced =
            |id: &EngineId| !current.contains(id) && current.iter().any(|other| other.addr() == id.addr());
        self.engines.retain(|id, _| homes.contains(id) || !replaced(id));
    }
}

/// One copy of a container.
struct Copy<'a> {
    engine: &'a Engine,
    there: &'a Container,
}

/// Every copy on the engines that answer, by swarm id.
fn copies<'a>(reached: &BTreeMap<&EngineId, &'a Engine>) -> BTreeMap<&'a str, Vec<Copy<'a>>> {
    let mut copies: BTreeMap<&str, Vec<Copy<'_>>> = BTreeMap::new();
    for engine in reached.values() {
        for there in engine.containers.iter().filter(|there| there.state != ContainerState::Pending) {
            if let Some(swarm_id) = there.swarm_id() {
                copies.entry(swarm_id).or_default().push(Copy { engine, there });
            }
        }
    }
    copies
}

fn wants_moving(container: &Container) -> bool {
    let policies = container.labels.get(labels::RESCHEDULE).map_or("", String::as_str);
    serde_json::from_str::<Vec<String>>(policies)
        .is_ok_and(|list| list.iter().any(|p| p == "on-node-failure"))
}
