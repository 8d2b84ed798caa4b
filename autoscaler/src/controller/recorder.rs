//! The journal as the loop sees it: with deadlines, without repetition, never in the way.

use std::collections::VecDeque;
use std::mem::{Discriminant, discriminant};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::error::Elapsed;
use tokio::time::{Instant, timeout, timeout_at};
use tracing::{debug, warn};

use super::clock::Clock;
use super::error::{JournalError, chain};
use super::handle::Mode;
use super::journal::{Event, Journal, JournalEntry, Outcome};
use super::lease::Term;
use crate::decision::{Action, Reason};
use crate::state::State;

pub(super) struct Recorder {
    service: String,
    journal: Arc<dyn Journal>,
    clock: Arc<dyn Clock>,
    limit: Duration,
    /// Changes that are not known to be kept, oldest first.
    unkept: VecDeque<JournalEntry>,
    last: Option<(Kind, Duration)>,
    left_out: u32,
    /// The last event could not be recorded.
    missed: bool,
    saved_at: Option<Duration>,
    /// The journal's last answer was an error.
    failing: bool,
}

/// What two events have in common when the second one tells nothing new.
#[derive(PartialEq)]
struct Kind {
    term: Option<Term>,
    mode: Mode,
    event: Discriminant<Event>,
    decision: Option<(u32, Action, Discriminant<Reason>, Discriminant<Outcome>)>,
}

impl Recorder {
    pub(super) fn new(
        service: &str,
        journal: Arc<dyn Journal>,
        clock: Arc<dyn Clock>,
        limit: Duration,
    ) -> Self {
        Self {
            service: service.to_owned(),
            journal,
            clock,
            limit,
            unkept: VecDeque::new(),
            last: None,
            left_out: 0,
            missed: false,
            saved_at: None,
            failing: false,
        }
    }

    /// Records an event, unless it repeats the last one within a minute. What is dropped while it waits loses no change.
    pub(super) async fn record(&mut self, term: Option<Term>, mode: Mode, event: Event) {
        let at = self.clock.now();
        let kind = Kind::of(term, mode, &event);
        let repeats = self.last.as_ref().is_some_and(|(last, since)| {
            *last == kind && at.saturating_sub(*since) < QUIET && !is_change(&event)
        });
        if repeats && !self.missed {
            self.left_out = self.left_out.saturating_add(1);
            self.flush().await;
            return;
        }
        if !repeats {
            self.last = Some((kind, at));
            if let Event::Decided { decision, .. } = &event
                && decision.reason == Reason::Unknown
            {
                warn!(target: "autoscaler", service = %self.service, %decision, "signals unknown");
            }
        }
        let left_out = std::mem::take(&mut self.left_out);
        let entry = JournalEntry { at, service: self.service.clone(), term, mode, event, left_out };
        if is_change(&entry.event) {
            // Before the first await, so that a lease that goes meanwhile does not take the entry with it.
            self.missed = false;
            self.keep(entry);
            self.flush().await;
            return;
        }
        // Until it is recorded nobody was told, and the next one like it repeats nothing.
        self.missed = true;
        self.left_out = left_out.saturating_add(1);
        // A journal that has just failed is not waited for twice in a pass.
        if self.flush().await {
            let recorded = timeout(self.limit, self.journal.record(entry)).await;
            if self.tell("recording", recorded).is_some() {
                self.missed = false;
                self.left_out = 0;
            }
        }
    }

    /// Records the changes that are not known to be kept, within one deadline. Returns whether all are kept now.
    pub(super) async fn flush(&mut self) -> bool {
        let until = Instant::now() + self.limit;
        while let Some(entry) = self.unkept.front() {
            let recorded = timeout_at(until, self.journal.record(entry.clone())).await;
            // What will never be kept is not to keep all others out.
            let refused = matches!(&recorded, Ok(Err(error)) if !error.is_retryable());
            if self.tell("recording", recorded).is_none() && !refused {
                return false;
            }
            self.unkept.pop_front();
        }
        true
    }

    fn keep(&mut self, entry: JournalEntry) {
        if self.unkept.len() >= MAX_UNKEPT
            && let Some(lost) = self.unkept.pop_front()
        {
            warn!(target: "autoscaler", service = %self.service, entry = %lost, "journal entry given up");
        }
        self.unkept.push_back(entry);
    }

    /// The saved state. One that can't be read is none, which is the careful choice: nothing is removed until a whole
    /// window was seen.
    pub(super) async fn load_state(&mut self) -> Option<State> {
        let loaded = timeout(self.limit, self.journal.load_state(&self.service)).await;
        self.tell("loading the state", loaded).flatten()
    }

    /// Saves the state after a change, and else every quarter of a minute.
    pub(super) async fn save_state(&mut self, state: &State, changed: bool) {
        let at = self.clock.now();
        let due = self.saved_at.is_none_or(|saved| at.saturating_sub(saved) >= SAVE_EVERY);
        if changed || due {
            // None until it is known to be kept: the limits of the next leader rest on it.
            self.saved_at = None;
            let saved = timeout(self.limit, self.journal.save_state(&self.service, state)).await;
            self.saved_at = self.tell("saving the state", saved).map(|()| at);
        }
    }

    /// Says once that the journal fails, not at every tick.
    fn tell<T>(&mut self, tried: &str, result: Result<Result<T, JournalError>, Elapsed>) -> Option<T> {
        let error = match result {
            Ok(Ok(value)) => {
                self.failing = false;
                return Some(value);
            }
            Ok(Err(error)) => chain(&error),
            Err(_) => format!("{tried} had no answer within {:?}", self.limit),
        };
        if std::mem::replace(&mut self.failing, true) {
            debug!(target: "autoscaler", service = %self.service, error, "journal failed");
        } else {
            warn!(target: "autoscaler", service = %self.service, error, "journal failed");
        }
        None
    }
}

impl Kind {
    fn of(term: Option<Term>, mode: Mode, event: &Event) -> Self {
        let decision = match event {
            Event::Decided { decision, outcome } => Some((
                decision.current,
                decision.action,
                discriminant(&decision.reason),
                discriminant(outcome),
            )),
            _ => None,
        };
        Self { term, mode, event: discriminant(event), decision }
    }
}

/// What is always recorded.
fn is_change(event: &Event) -> bool {
    match event {
        Event::Decided { outcome, .. } => matches!(outcome, Outcome::Written { .. }),
        Event::Leading | Event::LeaseLost | Event::Fenced { .. } | Event::Left { .. } => true,
        _ => false,
    }
}

/// Changes kept for a journal that fails; hours of a calm service.
const MAX_UNKEPT: usize = 64;
/// How long a repeated event stays quiet.
const QUIET: Duration = Duration::from_secs(60);
/// A quarter of the default window of the way down is what a new leader may have to see again.
const SAVE_EVERY: Duration = Duration::from_secs(15);
