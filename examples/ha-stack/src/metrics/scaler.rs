//! A scaler's figures, taken from the journal that it writes anyway: no other part of it knows of them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use autoscaler::State;
use autoscaler::controller::{Event, Journal, JournalEntry, JournalError, Outcome};

use super::text::{Kind, Page};

/// A journal that counts what is written through it.
pub struct Counted<J> {
    journal: J,
    figures: Arc<Figures>,
}

/// What was counted.
#[derive(Debug, Default)]
pub struct Figures {
    counts: Mutex<Counts>,
}

#[derive(Clone, Debug, Default)]
struct Counts {
    service: String,
    leading: bool,
    leaderships: u64,
    term: Option<u64>,
    wanted: Option<u32>,
    up: u64,
    down: u64,
    failed: u64,
    unread: u64,
    last: Option<f64>,
}

impl<J> Counted<J> {
    /// Counts what `journal` is given; read it from the figures.
    pub fn new(journal: J, service: &str) -> (Self, Arc<Figures>) {
        let counts = Counts { service: service.into(), ..Counts::default() };
        let figures = Arc::new(Figures { counts: Mutex::new(counts) });
        (Self { journal, figures: Arc::clone(&figures) }, figures)
    }
}

#[async_trait]
impl<J: Journal> Journal for Counted<J> {
    async fn record(&self, entry: JournalEntry) -> Result<(), JournalError> {
        self.figures.observe(&entry);
        self.journal.record(entry).await
    }

    async fn load_state(&self, service: &str) -> Result<Option<State>, JournalError> {
        self.journal.load_state(service).await
    }

    async fn save_state(&self, service: &str, state: &State) -> Result<(), JournalError> {
        self.journal.save_state(service, state).await
    }
}

impl Figures {
    fn observe(&self, entry: &JournalEntry) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        match &entry.event {
            Event::Leading => {
                counts.leading = true;
                counts.leaderships += 1;
                counts.term = entry.term.map(|term| term.0);
            }
            Event::LeaseLost | Event::LeaseFailed { .. } | Event::Fenced { .. } => counts.leading = false,
            Event::TargetFailed { .. } => counts.unread += 1,
            Event::Decided { decision, outcome } => {
                counts.last = Some(entry.at.as_secs_f64());
                match outcome {
                    Outcome::Written { .. } => {
                        let to = decision.replicas();
                        counts.wanted = Some(to);
                        if to > decision.current { counts.up += 1 } else { counts.down += 1 }
                    }
                    Outcome::Failed { .. } => counts.failed += 1,
                    _ => counts.wanted = Some(decision.current),
                }
            }
            _ => {}
        }
    }

    /// The page of a scaler of one service.
    pub fn page(&self) -> String {
        page(&[self.counts()])
    }

    fn counts(&self) -> Counts {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The figures of all services of a scaler.
#[derive(Debug, Default)]
pub struct AllFigures(Mutex<BTreeMap<String, Arc<Figures>>>);

impl AllFigures {
    /// Adds a service, or counts it anew.
    pub fn add(&self, service: &str, figures: Arc<Figures>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(service.to_owned(), figures);
    }

    /// Leaves a service out from now on.
    pub fn remove(&self, service: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(service);
    }

    /// The page of the scaler.
    pub fn page(&self) -> String {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        page(&all.values().map(|figures| figures.counts()).collect::<Vec<_>>())
    }
}

fn page(all: &[Counts]) -> String {
    let each = |page: Page, value: &dyn Fn(&Counts) -> Option<f64>| {
        page.samples(all, |page, counts| page.known(&[("service", counts.service.as_str())], value(counts)))
    };
    let page =
        Page::default().family("ha_scaler_leading", Kind::Gauge, "1 while this scaler is the one that acts.");
    let page = each(page, &|counts| Some(f64::from(u8::from(counts.leading))));
    let page =
        page.family("ha_scaler_leaderships_total", Kind::Counter, "How often this scaler began to lead.");
    let page = each(page, &|counts| Some(counts.leaderships as f64));
    let page = page.family("ha_scaler_term", Kind::Gauge, "The term under which this scaler led last.");
    let page = each(page, &|counts| counts.term.map(|term| term as f64));
    let page =
        page.family("ha_scaler_replicas_wanted", Kind::Gauge, "Replicas wanted at the newest decision.");
    let page = each(page, &|counts| counts.wanted.map(f64::from));
    let page = page
        .family("ha_scaler_changes_total", Kind::Counter, "Decisions that were written, by direction.")
        .samples(all, |page, counts| {
            let with = |direction| [("service", counts.service.as_str()), ("direction", direction)];
            page.sample(&with("up"), counts.up as f64).sample(&with("down"), counts.down as f64)
        });
    let page =
        page.family("ha_scaler_failed_writes_total", Kind::Counter, "Decisions that could not be written.");
    let page = each(page, &|counts| Some(counts.failed as f64));
    let page = page.family(
        "ha_scaler_unread_targets_total",
        Kind::Counter,
        "Times that the service could not be read.",
    );
    let page = each(page, &|counts| Some(counts.unread as f64));
    let page = page.family(
        "ha_scaler_last_decision_timestamp_seconds",
        Kind::Gauge,
        "When something new was decided last.",
    );
    each(page, &|counts| counts.last).finish()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Duration;

    use autoscaler::controller::{
        AlwaysLeader, Controller, MemoryJournal, ScaleError, ScaleTarget, SignalSource, TargetStatus, Term,
        Written, now,
    };
    use autoscaler::{Decision, Policy, Reading};

    use super::*;

    struct Busy;

    #[async_trait]
    impl SignalSource for Busy {
        async fn read(&self, _service: &str) -> Vec<(String, Reading)> {
            vec![("in_flight".into(), Reading::value(40.0, now()))]
        }
    }

    struct Service(AtomicU32);

    #[async_trait]
    impl ScaleTarget for Service {
        async fn read(&self) -> Result<TargetStatus, ScaleError> {
            let wanted = self.0.load(Ordering::SeqCst);
            Ok(TargetStatus { wanted, ready: wanted, ..TargetStatus::default() })
        }

        async fn write(
            &self,
            replicas: u32,
            _term: Term,
            _because: &Decision,
        ) -> Result<Written, ScaleError> {
            self.0.store(replicas, Ordering::SeqCst);
            Ok(Written::default())
        }
    }

    #[test]
    fn two_services_share_each_family() {
        let all = AllFigures::default();
        for (service, leaderships) in [("web", 2), ("jobs", 1)] {
            let counts = Counts { service: service.into(), leaderships, ..Counts::default() };
            all.add(service, Arc::new(Figures { counts: Mutex::new(counts) }));
        }
        let page = all.page();
        assert_eq!(page.matches("# TYPE ha_scaler_leaderships_total counter").count(), 1, "{page}");
        let both = "ha_scaler_leaderships_total{service=\"jobs\"} 1\nha_scaler_leaderships_total{service=\"web\"} 2\n";
        assert!(page.contains(both), "{page}");
        all.remove("jobs");
        assert!(!all.page().contains("jobs"));
    }

    #[tokio::test]
    async fn a_real_controller_is_counted() {
        let (journal, figures) = Counted::new(Arc::new(MemoryJournal::default()), "web");
        let policy = Policy::balanced("in_flight", 10.0).bounds(2, 10);
        let target = Service(AtomicU32::new(2));
        let controller = Controller::new("web", policy, Busy, target, AlwaysLeader::new(), journal).unwrap();
        let stop = tokio_util::sync::CancellationToken::new();
        let running = tokio::spawn(controller.tick(Duration::from_millis(20)).run(stop.clone()));
        let there = |line: &str| figures.page().lines().any(|there| there == line);
        let deadline = std::time::Instant::now() + Duration::from_secs(10);
        while !there("ha_scaler_changes_total{service=\"web\",direction=\"up\"} 1") {
            assert!(std::time::Instant::now() < deadline, "{}", figures.page());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(there("ha_scaler_leading{service=\"web\"} 1"), "{}", figures.page());
        assert!(there("ha_scaler_replicas_wanted{service=\"web\"} 4"), "{}", figures.page());
        stop.cancel();
        running.await.unwrap();
    }
}
