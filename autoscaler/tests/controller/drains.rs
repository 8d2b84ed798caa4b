//! Away from the requests, then away; and what is told when nothing serves.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use autoscaler::controller::{
    AlwaysLeader, Controller, Drainer, Event, MemoryJournal, Outcome, ScaleError, ScaleTarget, TargetStatus,
    Term, Written,
};
use autoscaler::{Decision, Drain, Instance, Policy};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::fakes::{TICK, World};

/// Instances by name with the requests in flight on each; the load is the world's.
#[derive(Clone, Default)]
struct Balancer(Arc<Mutex<Inside>>);

#[derive(Default)]
struct Inside {
    in_flight: HashMap<String, u64>,
    told: Vec<(Instant, Vec<String>)>,
    removed: Vec<(Instant, Vec<(String, u64)>)>,
    fails: bool,
    /// Removes the instance of this name whatever was drained.
    removes: Option<String>,
}

impl Balancer {
    fn new(count: u64) -> Self {
        let balancer = Self::default();
        let names = (1..=count).map(|slot| (format!("web.{slot}"), 5));
        balancer.lock().in_flight = names.collect();
        balancer
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inside> {
        self.0.lock().unwrap()
    }

    fn told(&self) -> Vec<Vec<String>> {
        let mut told: Vec<Vec<String>> = self.lock().told.iter().map(|(_, names)| names.clone()).collect();
        told.dedup();
        told
    }
}

#[async_trait]
impl Drainer for Balancer {
    async fn drain(&self, service: &str, instances: &[String]) -> Result<Vec<(String, u64)>, ScaleError> {
        let mut inside = self.lock();
        if inside.fails {
            return Err(ScaleError::unavailable(service, "draining at gateway h2", "connection refused"));
        }
        inside.told.push((Instant::now(), instances.to_vec()));
        Ok(instances.iter().map(|id| (id.clone(), inside.in_flight[id])).collect())
    }
}

#[async_trait]
impl ScaleTarget for Balancer {
    async fn read(&self) -> Result<TargetStatus, ScaleError> {
        let inside = self.lock();
        let slot = |id: &str| id.trim_start_matches("web.").parse().unwrap();
        let count = u32::try_from(inside.in_flight.len()).unwrap();
        let instances = inside.in_flight.keys().map(|id| Instance::new(id).at(format!("h{id}"), slot(id)));
        let instances = instances.collect();
        Ok(TargetStatus { wanted: count, ready: count, instances, ..TargetStatus::default() })
    }

    async fn write(&self, replicas: u32, _term: Term, _because: &Decision) -> Result<Written, ScaleError> {
        let mut inside = self.lock();
        let mut removed = Vec::new();
        while inside.in_flight.len() > replicas as usize {
            let highest = inside.in_flight.keys().max().cloned().unwrap();
            let goes = inside.removes.take().unwrap_or(highest);
            let in_flight = inside.in_flight.remove(&goes).unwrap();
            removed.push((goes, in_flight));
        }
        if !removed.is_empty() {
            inside.removed.push((Instant::now(), removed));
        }
        Ok(Written::default())
    }
}

struct Running {
    world: World,
    balancer: Balancer,
    journal: Arc<MemoryJournal>,
    shutdown: CancellationToken,
}

impl Running {
    fn start(load: f64, change: impl FnOnce(&Balancer)) -> Self {
        let (world, balancer) = (World::new(4, load), Balancer::new(4));
        change(&balancer);
        let journal = Arc::new(MemoryJournal::default());
        let policy = Policy::balanced("in_flight", 10.0)
            .bounds(1, 20)
            .drain(Some(Drain { deadline: Duration::from_secs(30) }));
        let lease = AlwaysLeader::starting_at(Term(1));
        let target = balancer.clone();
        let controller =
            Controller::new("web", policy, world.clone(), target, lease, journal.clone()).unwrap();
        let shutdown = CancellationToken::new();
        tokio::spawn(controller.tick(TICK).drainer(balancer.clone()).run(shutdown.clone()));
        Self { world, balancer, journal, shutdown }
    }

    fn events(&self) -> Vec<Event> {
        self.journal.entries().into_iter().map(|entry| entry.event).collect()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_removed_before_nothing_is_in_flight_on_it() {
    let running = Running::start(20.0, |_| {});
    sleep(Duration::from_secs(75)).await;
    assert!(running.balancer.lock().removed.is_empty(), "five requests are in flight on each");
    assert!(running.balancer.told().contains(&vec!["web.4".to_owned(), "web.3".to_owned()]));
    assert!(
        running
            .events()
            .iter()
            .any(|event| matches!(event, Event::Decided { outcome: Outcome::Draining, .. }))
    );
    running.balancer.lock().in_flight.insert("web.3".into(), 0);
    running.balancer.lock().in_flight.insert("web.4".into(), 0);
    sleep(TICK * 3).await;
    let removed = running.balancer.lock().removed.clone();
    assert_eq!(removed.len(), 1);
    assert!(removed[0].1.iter().all(|(_, in_flight)| *in_flight == 0), "{removed:?}");
    sleep(TICK * 2).await;
    assert_eq!(running.balancer.told().last().unwrap(), &Vec::<String>::new(), "the drain is over");
    let left = Event::Left { left: vec!["web.4".into(), "web.3".into()], stayed: Vec::new() };
    assert!(running.events().contains(&left), "{:#?}", running.events());
}

#[tokio::test(start_paused = true)]
async fn a_load_that_rises_in_the_drain_keeps_them() {
    let running = Running::start(20.0, |_| {});
    sleep(Duration::from_secs(70)).await;
    running.world.lock().load = Some(40.0);
    sleep(TICK * 10).await;
    assert!(running.balancer.lock().removed.is_empty());
    assert_eq!(running.balancer.told().last().unwrap(), &Vec::<String>::new(), "they get requests again");
}

#[tokio::test(start_paused = true)]
async fn a_drainer_that_fails_is_told_and_waited_out() {
    let running = Running::start(20.0, |balancer| balancer.lock().fails = true);
    let began = Instant::now();
    sleep(Duration::from_secs(150)).await;
    let removed = running.balancer.lock().removed.clone();
    let (at, _) = &removed[0];
    assert!(*at - began >= Duration::from_secs(60 + 30), "the deadline decides");
    let failed = running.events().into_iter().filter(|event| matches!(event, Event::DrainFailed { .. }));
    assert_eq!(failed.count(), 1, "once, not at every tick");
}

#[tokio::test(start_paused = true)]
async fn it_is_told_when_others_leave_than_were_drained() {
    let running = Running::start(30.0, |balancer| {
        let mut inside = balancer.lock();
        inside.removes = Some("web.1".into());
        inside.in_flight.insert("web.4".into(), 0);
    });
    sleep(Duration::from_secs(120)).await;
    let left = Event::Left { left: Vec::new(), stayed: vec!["web.4".into()] };
    assert!(running.events().contains(&left), "{:#?}", running.events());
    let told = running.journal.entries().into_iter().find(|entry| entry.event == left).unwrap();
    assert!(told.to_string().contains("drained but still there, so others were removed: web.4"), "{told}");
}

#[tokio::test(start_paused = true)]
async fn none_serving_for_long_is_an_event() {
    let world = World::new(3, 210.0);
    world.lock().status.ready = 0;
    let running =
        crate::fakes::Running::start(world, |controller| controller.alive_within(Duration::from_secs(20)));
    sleep(Duration::from_secs(15)).await;
    let told = |running: &crate::fakes::Running| {
        let events = running.events().into_iter().filter(|event| matches!(event, Event::NoneServing { .. }));
        events.count()
    };
    assert_eq!(told(&running), 0);
    sleep(Duration::from_secs(30)).await;
    assert_eq!(told(&running), 1);
    let sentence = running.sentences().into_iter().find(|sentence| sentence.contains("none of 3")).unwrap();
    assert!(sentence.starts_with("web: none of 3 has served for 2"), "{sentence}");
    sleep(Duration::from_secs(60)).await;
    assert_eq!(told(&running), 2, "and again once a minute");
    running.stop().await;
}
