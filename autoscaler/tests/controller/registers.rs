//! A lease and a journal in one text with a compare-and-set.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use autoscaler::State;
use autoscaler::controller::{
    BoxError, Controller, Journal, JournalError, Lease, MemoryRegister, Register, RegisterJournal,
    RegisterLease, Term,
};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::fakes::{TICK, World, policy};

const TTL: Duration = Duration::from_secs(9);

/// A register that can be cut off from one who uses it.
#[derive(Clone)]
struct Line {
    register: Arc<MemoryRegister>,
    cut: Arc<AtomicBool>,
}

impl Line {
    fn to(register: &Arc<MemoryRegister>) -> Self {
        Self { register: register.clone(), cut: Arc::default() }
    }

    fn check(&self) -> Result<(), BoxError> {
        if self.cut.load(Ordering::SeqCst) { Err("connection refused".into()) } else { Ok(()) }
    }
}

#[async_trait]
impl Register for Line {
    async fn get(&self) -> Result<Option<(String, u64)>, BoxError> {
        self.check()?;
        self.register.get().await
    }

    async fn put(&self, text: String, expected: Option<u64>) -> Result<bool, BoxError> {
        self.check()?;
        self.register.put(text, expected).await
    }
}

#[tokio::test(start_paused = true)]
async fn one_holds_it_and_the_next_gets_a_higher_term() {
    let register = Arc::new(MemoryRegister::default());
    let (a, b) =
        (RegisterLease::new(register.clone(), "a", TTL), RegisterLease::new(register.clone(), "b", TTL));
    let held = a.acquire().await.unwrap();
    assert_eq!(held.term, Term(1));
    assert!(timeout(TTL * 5, b.acquire()).await.is_err(), "it is renewed for as long as it is held");
    assert!(!held.lost.is_cancelled());
    a.release(&held).await;
    assert!(held.lost.is_cancelled());
    let next =
        timeout(TTL / 2, b.acquire()).await.expect("what was given back need not be waited for").unwrap();
    assert_eq!(next.term, Term(2));
}

#[tokio::test(start_paused = true)]
async fn a_holder_that_is_cut_off_gives_up_before_another_takes_over() {
    let register = Arc::new(MemoryRegister::default());
    let line = Line::to(&register);
    let (a, b) = (RegisterLease::new(line.clone(), "a", TTL), RegisterLease::new(register, "b", TTL));
    let held = a.acquire().await.unwrap();
    sleep(TTL).await;
    let waiting = tokio::spawn(async move { b.acquire().await.map(|held| (held.term, Instant::now())) });
    sleep(TTL).await;
    line.cut.store(true, Ordering::SeqCst);
    held.lost.cancelled().await;
    let lost_at = Instant::now();
    let (term, taken_at) = waiting.await.unwrap().unwrap();
    assert!(taken_at > lost_at, "two at once for {:?}", lost_at - taken_at);
    assert_eq!(term, Term(2));
    // It was dropped with its task, and so given back.
    line.cut.store(false, Ordering::SeqCst);
    let again = timeout(TTL, a.acquire()).await.expect("it is free").unwrap();
    assert_eq!(again.term, Term(3));
}

#[tokio::test(start_paused = true)]
async fn of_two_at_once_one_wins() {
    for _ in 0..20 {
        let register = Arc::new(MemoryRegister::default());
        let lease = |name: &str| RegisterLease::new(register.clone(), name, TTL);
        let (a, b) = (lease("a"), lease("b"));
        let first = tokio::select! { held = a.acquire() => held, held = b.acquire() => held }.unwrap();
        assert_eq!(first.term, Term(1));
    }
}

#[tokio::test(start_paused = true)]
async fn a_text_that_is_no_lease_is_refused() {
    let register = Arc::new(MemoryRegister::default());
    register.put("hello".into(), None).await.unwrap();
    let error = RegisterLease::new(register, "a", TTL).acquire().await.unwrap_err();
    assert!(error.to_string().contains("delete it to begin anew"), "{error}");
    assert!(!error.is_retryable());
}

#[tokio::test(start_paused = true)]
async fn a_journal_keeps_the_state_and_the_last_entries_over_a_change_of_leader() {
    let (register, pages) = (Arc::new(MemoryRegister::default()), Arc::new(MemoryRegister::default()));
    let world = World::new(2, 412.0);
    let start = |name: &str| {
        let lease = RegisterLease::new(register.clone(), name, TTL);
        let journal = RegisterJournal::new(pages.clone(), 3);
        let controller = Controller::new("web", policy(), world.clone(), world.clone(), lease, journal);
        let stop = CancellationToken::new();
        (tokio::spawn(controller.unwrap().tick(TICK).run(stop.clone())), stop)
    };
    let (first, stop) = start("a");
    sleep(TICK * 3).await;
    let (second, stop_second) = start("b");
    assert_eq!(world.counts(), [6]);
    stop.cancel();
    first.await.unwrap();
    world.lock().load = Some(700.0);
    sleep(TICK * 3).await;
    let writes: Vec<(u32, Term)> = world.lock().writes.iter().map(|&(_, n, term)| (n, term)).collect();
    assert_eq!(writes, [(6, Term(1)), (10, Term(2))]);
    let journal = RegisterJournal::new(pages.clone(), 3);
    let entries = journal.entries("web").await.unwrap();
    assert_eq!(entries.len(), 3);
    assert!(entries.iter().any(|entry| entry.to_string().contains("6 -> 10") && entry.term == Some(Term(2))));
    let state: Option<State> = journal.load_state("web").await.unwrap();
    assert!(state.is_some());
    stop_second.cancel();
    second.await.unwrap();
    let version = pages.get().await.unwrap().map(|(_, version)| version);
    pages.put("no pages".into(), version).await.unwrap();
    assert!(matches!(journal.load_state("web").await, Err(JournalError::Corrupt { .. })));
}
