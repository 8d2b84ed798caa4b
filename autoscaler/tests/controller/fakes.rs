//! Fakes of everything outside: each is told what to answer, and remembers what it was asked.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use autoscaler::controller::{
    Controller, Event, Held, Journal, JournalEntry, JournalError, Lease, LeaseError, MemoryJournal, Outcome,
    PolicyHandle, ScaleError, ScaleTarget, SignalSource, TargetStatus, Term, Written, now,
};
use autoscaler::{Decision, Policy, Reading, State};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

pub(crate) const TICK: Duration = Duration::from_secs(5);

/// What happens to a call before its answer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Fault {
    Slow(Duration),
    Fail,
    Conflict,
    /// A failure that trying again won't mend; of the journal alone.
    Refuse,
    /// The lease is lost while the call runs, and the call goes on.
    LoseLease,
}

#[derive(Debug, Default)]
pub(crate) struct Inner {
    pub(crate) load: Option<f64>,
    pub(crate) status: TargetStatus,
    pub(crate) read_faults: VecDeque<Fault>,
    pub(crate) target_faults: VecDeque<Fault>,
    pub(crate) write_faults: VecDeque<Fault>,
    pub(crate) journal_fails: bool,
    /// What happens when a written decision is recorded.
    pub(crate) record_faults: VecDeque<Fault>,
    pub(crate) reads: u32,
    pub(crate) tries: u32,
    /// Every write that happened: when, what, under which term.
    pub(crate) writes: Vec<(Instant, u32, Term)>,
    pub(crate) lease: Option<CancellationToken>,
}

/// Load, target and failures of one service, shared by all fakes.
#[derive(Clone, Debug, Default)]
pub(crate) struct World(Arc<Mutex<Inner>>);

impl World {
    pub(crate) fn new(count: u32, load: f64) -> Self {
        let world = Self::default();
        {
            let mut inner = world.lock();
            inner.load = Some(load);
            inner.status = TargetStatus { wanted: count, ready: count, ..TargetStatus::default() };
        }
        world
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap()
    }

    pub(crate) fn counts(&self) -> Vec<u32> {
        self.lock().writes.iter().map(|&(_, count, _)| count).collect()
    }

    async fn suffer(&self, fault: Option<Fault>) -> Result<(), ScaleError> {
        match fault {
            None => Ok(()),
            Some(Fault::Slow(delay)) => {
                sleep(delay).await;
                Ok(())
            }
            Some(Fault::Fail | Fault::Refuse) => {
                Err(ScaleError::unavailable("web", "the call", "connection refused"))
            }
            Some(Fault::Conflict) => {
                Err(ScaleError::Conflict { service: "web".into(), why: "somebody else wrote".into() })
            }
            Some(Fault::LoseLease) => {
                if let Some(lost) = self.lock().lease.clone() {
                    lost.cancel();
                }
                Ok(())
            }
        }
    }
}

#[async_trait]
impl SignalSource for World {
    async fn read(&self, _service: &str) -> Vec<(String, Reading)> {
        let fault = self.lock().read_faults.pop_front();
        let failed = self.suffer(fault).await.err();
        let mut inner = self.lock();
        inner.reads += 1;
        let reading = match (failed, inner.load) {
            (Some(error), _) => Reading::error(error.to_string()),
            (None, Some(load)) => Reading::value(load, now()),
            (None, None) => Reading::NoData,
        };
        vec![("in_flight".to_owned(), reading)]
    }
}

#[async_trait]
impl ScaleTarget for World {
    async fn read(&self) -> Result<TargetStatus, ScaleError> {
        let fault = self.lock().target_faults.pop_front();
        self.suffer(fault).await?;
        Ok(self.lock().status.clone())
    }

    async fn write(&self, replicas: u32, term: Term, because: &Decision) -> Result<Written, ScaleError> {
        let fault = {
            let mut inner = self.lock();
            inner.tries += 1;
            inner.write_faults.pop_front()
        };
        self.suffer(fault).await?;
        let mut inner = self.lock();
        if let Some(by) = inner.status.last_term.filter(|&by| by > term) {
            return Err(ScaleError::Fenced { service: "web".into(), term, by });
        }
        if inner.status.wanted != because.current {
            return Err(ScaleError::Conflict { service: "web".into(), why: "the count changed".into() });
        }
        inner.status.wanted = replicas;
        inner.status.ready = replicas;
        inner.status.last_term = Some(term);
        inner.writes.push((Instant::now(), replicas, term));
        Ok(Written { version: Some(inner.writes.len() as u64) })
    }
}

/// A lease that the test grants and takes away.
#[derive(Clone, Debug)]
pub(crate) struct FakeLease {
    pub(crate) world: World,
    pub(crate) state: Arc<Mutex<LeaseState>>,
}

#[derive(Debug, Default)]
pub(crate) struct LeaseState {
    pub(crate) term: u64,
    pub(crate) failures: u32,
    pub(crate) blocked: bool,
    pub(crate) asked: u32,
    pub(crate) released: Vec<Term>,
}

impl FakeLease {
    pub(crate) fn new(world: &World) -> Self {
        Self { world: world.clone(), state: Arc::default() }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, LeaseState> {
        self.state.lock().unwrap()
    }

    pub(crate) fn lose(&self) {
        self.world.lock().lease.as_ref().unwrap().cancel();
    }
}

#[async_trait]
impl Lease for FakeLease {
    async fn acquire(&self) -> Result<Held, LeaseError> {
        self.lock().asked += 1;
        while self.lock().blocked {
            sleep(Duration::from_millis(100)).await;
        }
        let mut state = self.lock();
        if state.failures > 0 {
            state.failures -= 1;
            return Err(LeaseError::unavailable("creating a session", "connection refused"));
        }
        state.term += 1;
        let lost = CancellationToken::new();
        self.world.lock().lease = Some(lost.clone());
        Ok(Held { term: Term(state.term), lost })
    }

    async fn release(&self, held: &Held) {
        self.lock().released.push(held.term);
    }
}

/// A journal in memory that can be made to fail.
#[derive(Clone, Debug)]
pub(crate) struct FakeJournal {
    pub(crate) world: World,
    pub(crate) memory: Arc<MemoryJournal>,
}

impl FakeJournal {
    fn check(&self) -> Result<(), JournalError> {
        if self.world.lock().journal_fails {
            return Err(JournalError::unavailable("web", "writing", "connection refused"));
        }
        Ok(())
    }
}

#[async_trait]
impl Journal for FakeJournal {
    async fn record(&self, entry: JournalEntry) -> Result<(), JournalError> {
        self.check()?;
        if matches!(&entry.event, Event::Decided { outcome: Outcome::Written { .. }, .. }) {
            let fault = self.world.lock().record_faults.pop_front();
            if fault == Some(Fault::Refuse) {
                return Err(JournalError::Corrupt { service: "web".into(), source: "no JSON".into() });
            }
            let suffered = self.world.suffer(fault).await;
            suffered.map_err(|error| JournalError::unavailable("web", "writing", error))?;
        }
        self.memory.record(entry).await
    }

    async fn load_state(&self, service: &str) -> Result<Option<State>, JournalError> {
        self.check()?;
        self.memory.load_state(service).await
    }

    async fn save_state(&self, service: &str, state: &State) -> Result<(), JournalError> {
        self.check()?;
        self.memory.save_state(service, state).await
    }
}

pub(crate) fn policy() -> Policy {
    Policy::balanced("in_flight", 70.0).bounds(2, 20)
}

/// A controller that runs, and everything around it.
pub(crate) struct Running {
    pub(crate) world: World,
    pub(crate) lease: FakeLease,
    pub(crate) journal: Arc<MemoryJournal>,
    pub(crate) handle: PolicyHandle,
    pub(crate) shutdown: CancellationToken,
    pub(crate) task: JoinHandle<()>,
}

impl Running {
    pub(crate) fn start(world: World, change: impl FnOnce(Controller) -> Controller) -> Self {
        let lease = FakeLease::new(&world);
        Self::start_with(world, lease, Arc::default(), change)
    }

    pub(crate) fn start_with(
        world: World,
        lease: FakeLease,
        journal: Arc<MemoryJournal>,
        change: impl FnOnce(Controller) -> Controller,
    ) -> Self {
        let kept = FakeJournal { world: world.clone(), memory: journal.clone() };
        let controller =
            Controller::new("web", policy(), world.clone(), world.clone(), lease.clone(), kept).unwrap();
        let controller = change(controller.tick(TICK));
        let (handle, shutdown) = (controller.policy_handle(), CancellationToken::new());
        let task = tokio::spawn(controller.run(shutdown.clone()));
        Self { world, lease, journal, handle, shutdown, task }
    }

    pub(crate) fn events(&self) -> Vec<Event> {
        self.journal.entries().into_iter().map(|entry| entry.event).collect()
    }

    pub(crate) fn outcomes(&self) -> Vec<Outcome> {
        let decided = self.events().into_iter().filter_map(|event| match event {
            Event::Decided { outcome, .. } => Some(outcome),
            _ => None,
        });
        decided.collect()
    }

    pub(crate) fn sentences(&self) -> Vec<String> {
        self.journal.entries().iter().map(ToString::to_string).collect()
    }

    pub(crate) async fn stop(self) {
        self.shutdown.cancel();
        tokio::time::timeout(TICK * 3, self.task).await.expect("it stops in time").unwrap();
    }
}
