//! The roster in a simulated world: hosts lose power and cables, and watchdogs end in the middle of what they do.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::{any, prop, prop_oneof, proptest};
use proptest::strategy::{Just, Strategy as Generator};

use super::super::spec::ContainerSpec;
use super::super::testing::engine;
use super::super::{Container, ContainerState, Engine, labels};
use super::{Action, Roster, WatchdogPolicy};

struct Host {
    engine: Engine,
    power: bool,
    cable: bool,
}

struct World {
    hosts: Vec<Host>,
    now: u64,
    made: u64,
    roster: Roster,
    saved: Roster,
    /// Looks in a row that each host was not reached, as the world itself counts.
    missed: Vec<u32>,
    moves: BTreeMap<String, u32>,
    /// How often a host stopped answering.
    losses: u32,
}

impl World {
    fn new(hosts: usize, containers: usize) -> Self {
        let named = |at: usize| Host { engine: engine(&format!("h{at}")), power: true, cable: true };
        let mut world = Self {
            hosts: (0..hosts).map(named).collect(),
            now: 0,
            made: 0,
            roster: Roster::default(),
            saved: Roster::default(),
            missed: vec![0; hosts],
            moves: BTreeMap::new(),
            losses: 0,
        };
        for n in 0..containers {
            let made = world.make(&format!("c{n}"), ContainerState::Running);
            world.hosts[n % hosts].engine.containers.push(made);
        }
        world
    }

    fn make(&mut self, swarm_id: &str, state: ContainerState) -> Container {
        self.made += 1;
        let labels = [
            (labels::SWARM_ID.to_owned(), swarm_id.to_owned()),
            (labels::RESCHEDULE.to_owned(), "[\"on-node-failure\"]".to_owned()),
        ];
        Container {
            id: format!("id{}", self.made),
            name: swarm_id.to_owned(),
            created: i64::try_from(self.made).unwrap(),
            labels: labels.into(),
            state,
            ..Container::default()
        }
    }

    fn look(&mut self) -> Vec<Engine> {
        for (host, missed) in self.hosts.iter().zip(&mut self.missed) {
            *missed = if host.power && host.cable { 0 } else { *missed + 1 };
        }
        let seen = self.hosts.iter().map(|host| {
            let mut engine = host.engine.clone();
            engine.reached = host.power && host.cable;
            engine
        });
        seen.collect()
    }

    /// A round that ends after `steps` actions, as if the watchdog were killed; half-way through the last one if `torn`.
    fn round(&mut self, steps: usize, torn: bool) {
        let seen = self.look();
        let policy = WatchdogPolicy::default();
        self.now += 1;
        let decision = self.roster.decide(&policy, &seen, Duration::from_secs(self.now));
        for (at, action) in decision.actions.iter().enumerate() {
            if at == steps {
                return self.restart();
            }
            self.act(action, &seen, torn && at + 1 == steps);
            if torn && at + 1 == steps {
                return self.restart();
            }
        }
        self.saved = self.roster.clone();
    }

    fn restart(&mut self) {
        self.roster = self.saved.clone();
        self.roster.taken_over();
    }

    fn act(&mut self, action: &Action, seen: &[Engine], torn: bool) {
        match action {
            Action::Learn { swarm_id, .. } => {
                let spec =
                    ContainerSpec::new(swarm_id.clone(), "i").label(labels::SWARM_ID, swarm_id.clone());
                self.roster.learned(swarm_id, spec);
            }
            Action::Move { swarm_id, from, .. } => {
                self.check_move(swarm_id, from, seen);
                *self.moves.entry(swarm_id.clone()).or_default() += 1;
                let state = if torn { ContainerState::Created } else { ContainerState::Running };
                let made = self.make(swarm_id, state);
                let live = self.hosts.iter_mut().filter(|host| host.power && host.cable);
                match live.min_by_key(|host| host.engine.containers.len()) {
                    Some(host) => {
                        host.engine.containers.push(made);
                        let id = host.engine.id.clone();
                        if !torn {
                            self.roster.moved(swarm_id, &id);
                        }
                    }
                    None => self.roster.failed(
                        swarm_id,
                        &WatchdogPolicy::default(),
                        Duration::from_secs(self.now),
                    ),
                }
            }
            Action::Start { engine, container, .. } => {
                let there =
                    self.at(engine).containers.iter_mut().find(|there| there.id == *container).unwrap();
                there.state = ContainerState::Running;
            }
            Action::Remove { engine, container, stays_on, name } => {
                assert_ne!(engine, stays_on, "{name}");
                let stays = self.at(stays_on).containers.iter().any(|there| there.name == *name);
                assert!(stays, "{name} is removed although no copy stays");
                self.at(engine).containers.retain(|there| there.id != *container);
            }
        }
    }

    /// What must hold whenever a container is started elsewhere.
    fn check_move(&self, swarm_id: &str, from: &super::super::EngineId, seen: &[Engine]) {
        let copy = |engine: &&Engine| engine.reached && engine.containers.iter().any(|c| c.name == swarm_id);
        assert!(!seen.iter().any(|engine| copy(&engine)), "{swarm_id} is moved although it is there");
        let reached = seen.iter().filter(|engine| engine.reached).count();
        assert!(reached * 2 >= seen.len(), "{swarm_id} is moved although {reached} engines answer");
        for (host, missed) in self.hosts.iter().zip(&self.missed) {
            assert!(
                *missed == 0 || *missed >= 3,
                "{swarm_id} is moved while {} is in doubt",
                host.engine.name
            );
            assert!(
                host.engine.id != *from || *missed >= 3,
                "{swarm_id} is moved off an engine that answers"
            );
        }
    }

    fn at(&mut self, id: &super::super::EngineId) -> &mut Engine {
        &mut self.hosts.iter_mut().find(|host| host.engine.id == *id).unwrap().engine
    }

    fn set(&mut self, at: usize, power: Option<bool>, cable: Option<bool>) {
        let count = self.hosts.len();
        let host = &mut self.hosts[at % count];
        let was = host.power && host.cable;
        if let Some(power) = power {
            if host.power && !power {
                host.engine.containers.iter_mut().for_each(|there| there.state = ContainerState::Stopped);
            }
            if !host.power && power {
                // Restart policies bring back what ran.
                host.engine.containers.iter_mut().for_each(|there| there.state = ContainerState::Running);
            }
            host.power = power;
        }
        host.cable = cable.unwrap_or(host.cable);
        if was && !(host.power && host.cable) {
            self.losses += 1;
        }
    }

    fn copies(&self, name: &str) -> Vec<ContainerState> {
        let all = self.hosts.iter().flat_map(|host| &host.engine.containers);
        all.filter(|there| there.name == name).map(|there| there.state).collect()
    }
}

#[derive(Clone, Debug)]
enum Step {
    Round,
    Killed(usize, bool),
    Restart,
    Forgetful,
    Power(usize, bool),
    Cable(usize, bool),
}

fn step() -> impl Generator<Value = Step> {
    prop_oneof![
        8 => Just(Step::Round),
        2 => (0_usize..4, any::<bool>()).prop_map(|(at, torn)| Step::Killed(at, torn)),
        1 => Just(Step::Restart),
        1 => Just(Step::Forgetful),
        2 => (0_usize..4, any::<bool>()).prop_map(|(at, on)| Step::Power(at, on)),
        2 => (0_usize..4, any::<bool>()).prop_map(|(at, on)| Step::Cable(at, on)),
    ]
}

proptest! {
    #[test]
    fn in_the_end_each_container_runs_once_whatever_happened(
        hosts in 2_usize..5, containers in 1_usize..6, steps in prop::collection::vec(step(), 0..80),
    ) {
        let mut world = World::new(hosts, containers);
        world.round(usize::MAX, false);
        for step in steps {
            match step {
                Step::Round => world.round(usize::MAX, false),
                Step::Killed(after, torn) => world.round(after, torn),
                Step::Restart => world.restart(),
                Step::Forgetful => world.roster = Roster::default(),
                Step::Power(at, on) => world.set(at, Some(on), None),
                Step::Cable(at, on) => world.set(at, None, Some(on)),
            }
        }
        for at in 0..hosts {
            world.set(at, Some(true), Some(true));
        }
        for _ in 0..6 {
            world.round(usize::MAX, false);
        }
        for n in 0..containers {
            let copies = world.copies(&format!("c{n}"));
            assert_eq!(copies, [ContainerState::Running], "c{n}");
        }
        for (name, moves) in &world.moves {
            assert!(*moves <= world.losses, "{name} was started {moves} times after {} losses", world.losses);
        }
    }
}

#[test]
fn a_lost_engine_is_replaced_after_three_looks_and_its_copies_go_when_it_is_back() {
    let mut world = World::new(3, 3);
    world.round(usize::MAX, false);
    world.set(1, Some(false), None);
    for _ in 0..2 {
        world.round(usize::MAX, false);
        assert!(world.moves.is_empty());
    }
    world.round(usize::MAX, false);
    assert_eq!(world.moves["c1"], 1);
    let elsewhere = world.copies("c1");
    assert!(elsewhere.len() == 2 && elsewhere.contains(&ContainerState::Running), "{elsewhere:?}");
    // A watchdog that starts anew, with or without what was saved, starts nothing.
    for forget in [false, true] {
        world.restart();
        if forget {
            world.roster = Roster::default();
        }
        (0..8).for_each(|_| world.round(usize::MAX, false));
        assert_eq!(world.moves["c1"], 1);
    }
    world.set(1, Some(true), None);
    world.round(usize::MAX, false);
    assert_eq!(world.copies("c1"), [ContainerState::Running]);
    assert!(
        !world.hosts[1].engine.containers.iter().any(|there| there.name == "c1"),
        "the copy on the returned host goes"
    );
}

#[test]
fn one_that_sees_too_few_engines_keeps_still_and_says_why() {
    let mut world = World::new(3, 3);
    world.round(usize::MAX, false);
    world.set(0, None, Some(false));
    world.set(1, None, Some(false));
    (0..5).for_each(|_| world.round(usize::MAX, false));
    assert!(world.moves.is_empty());
    let seen = world.look();
    let decision = world.roster.decide(&WatchdogPolicy::default(), &seen, Duration::ZERO);
    assert_eq!(decision.held, ["2 containers are not moved: 1 of 3 engines answer, fewer than 50 %"]);
}

#[test]
fn what_a_person_removed_stays_removed() {
    let mut world = World::new(2, 2);
    world.round(usize::MAX, false);
    world.hosts[1].engine.containers.clear();
    world.round(usize::MAX, false);
    world.set(1, Some(false), None);
    (0..5).for_each(|_| world.round(usize::MAX, false));
    assert!(world.moves.is_empty());
}

#[test]
fn a_roster_survives_being_saved() {
    let mut world = World::new(2, 2);
    world.round(usize::MAX, false);
    let saved = serde_json::to_string(&world.roster).unwrap();
    assert_eq!(serde_json::from_str::<Roster>(&saved).unwrap(), world.roster);
}
