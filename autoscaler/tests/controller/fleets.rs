//! Many services at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use autoscaler::Decision;
use autoscaler::controller::{
    AlwaysLeader, Controller, Event, Fleet, MemoryJournal, ScaleError, ScaleTarget, TargetStatus, Term,
    Written,
};
use tokio::time::sleep;

use crate::fakes::{TICK, World, policy};

/// A service whose reads take a while and are counted.
struct Slow {
    world: World,
    reading: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
    gone: Arc<AtomicUsize>,
}

#[async_trait]
impl ScaleTarget for Slow {
    async fn read(&self) -> Result<TargetStatus, ScaleError> {
        let now = self.reading.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(now, Ordering::SeqCst);
        sleep(Duration::from_millis(20)).await;
        self.reading.fetch_sub(1, Ordering::SeqCst);
        if self.gone.load(Ordering::SeqCst) > 0 {
            return Err(ScaleError::NotFound { service: "web".into() });
        }
        self.world.read().await
    }

    async fn write(&self, replicas: u32, term: Term, because: &Decision) -> Result<Written, ScaleError> {
        self.world.write(replicas, term, because).await
    }
}

#[tokio::test(start_paused = true)]
async fn a_thousand_services_that_disappear_at_once_are_held_and_few_passes_run_at_once() {
    let (reading, most, gone): (Arc<AtomicUsize>, Arc<AtomicUsize>, Arc<AtomicUsize>) = Default::default();
    let journal = Arc::new(MemoryJournal::new(100_000));
    let mut fleet = Fleet::new(16);
    let mut worlds = Vec::new();
    for number in 0..1000 {
        let world = World::new(4, 280.0);
        let target =
            Slow { world: world.clone(), reading: reading.clone(), most: most.clone(), gone: gone.clone() };
        let name = format!("web{number}");
        let controller =
            Controller::new(name, policy(), world.clone(), target, AlwaysLeader::new(), journal.clone());
        fleet.start(controller.unwrap().tick(TICK)).unwrap();
        worlds.push(world);
    }
    sleep(TICK * 4).await;
    assert!(most.load(Ordering::SeqCst) <= 16, "{most:?} at once");
    assert!(worlds.iter().all(|world| world.lock().reads >= 2), "everybody has its turn");
    gone.store(1, Ordering::SeqCst);
    worlds.iter().for_each(|world| world.lock().load = Some(0.0));
    sleep(TICK * 40).await;
    gone.store(0, Ordering::SeqCst);
    worlds.iter().for_each(|world| world.lock().load = Some(280.0));
    sleep(TICK * 20).await;
    assert!(worlds.iter().all(|world| world.lock().tries == 0), "nothing was written");
    let failed = journal.entries().into_iter().any(|entry| matches!(entry.event, Event::TargetFailed { .. }));
    assert!(failed);
    fleet.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_service_has_one_controller() {
    let world = World::new(4, 412.0);
    let controller = || {
        let journal = MemoryJournal::default();
        let (source, target) = (world.clone(), world.clone());
        Controller::new("web", policy(), source, target, AlwaysLeader::new(), journal).unwrap().tick(TICK)
    };
    let mut fleet = Fleet::new(4);
    fleet.start(controller()).unwrap();
    let refused = fleet.start(controller()).unwrap_err();
    assert_eq!(refused.to_string(), "service web has a controller already; stop that one first");
    assert_eq!(fleet.services().collect::<Vec<_>>(), ["web"]);
    sleep(TICK).await;
    assert_eq!(world.counts(), [6]);
    fleet.get("web").unwrap().set(policy().bounds(7, 20)).unwrap();
    sleep(TICK).await;
    assert_eq!(world.counts(), [6, 7]);
    fleet.stop("web").await;
    fleet.start(controller()).unwrap();
    fleet.shutdown().await;
}
