//! Away from the requests, then away: the side effects of a drain.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use super::error::{ScaleError, chain};
use super::journal::Event;
use super::target::TargetStatus;
use crate::decision::{Action, Decision};
use crate::observation::{Instance, Phase};

/// Keeps new requests from instances that will be removed: a load balancer, or what tells it.
#[async_trait]
pub trait Drainer: Send + Sync {
    /// From now on no new request goes to these instances of the service, and requests go to all others again. Called
    /// in each tick of a drain, so it must be cheap to repeat, and with an empty list when the drain is over or given up.
    /// Called with a deadline.
    ///
    /// Returns how many requests are in flight on each, as far as is known: the sum over all who send any.
    ///
    /// # Errors
    /// When it is not certain that every sender knows. The instances stay until the drain's deadline.
    async fn drain(&self, service: &str, instances: &[String]) -> Result<Vec<(String, u64)>, ScaleError>;
}

#[async_trait]
impl<T: Drainer + ?Sized> Drainer for Arc<T> {
    async fn drain(&self, service: &str, instances: &[String]) -> Result<Vec<(String, u64)>, ScaleError> {
        (**self).drain(service, instances).await
    }
}

/// A drain as one leader sees it.
#[derive(Debug, Default)]
pub(super) struct Drains {
    /// Those that get no new requests, by our own word.
    told: Vec<String>,
    /// Requests in flight on them.
    in_flight: Vec<(String, u64)>,
    /// Those whose removal was written, and since when.
    leaving: Option<(Vec<String>, Instant)>,
    /// Whether a drain of a leader before may still stand.
    begun: bool,
    /// The drainer's last answer was an error.
    failing: bool,
}

impl Drains {
    /// What was counted goes with the instances into the observation; of the others nothing is said.
    pub(super) fn fill(&mut self, instances: &mut [Instance]) {
        for instance in instances {
            let counted = self.in_flight.iter().find(|(id, _)| *id == instance.id);
            instance.in_flight = counted.map(|&(_, count)| count);
        }
    }

    /// Those that should get no new requests after this decision; `None` if nothing is to be told.
    pub(super) fn wanted(&mut self, decision: &Decision) -> Option<Vec<String>> {
        let mut wanted = match decision.action {
            Action::DrainThen(_) => decision.victims.clone(),
            // Its victims are those of the drain that is over; they stay away from requests until they are gone.
            Action::ScaleTo(to) if to < decision.current => self.told.clone(),
            _ => Vec::new(),
        };
        if let Some((leaving, _)) = &self.leaving {
            wanted.extend(leaving.iter().filter(|id| !wanted.contains(id)).cloned().collect::<Vec<_>>());
        }
        let repeat = !wanted.is_empty() || !self.told.is_empty() || !std::mem::replace(&mut self.begun, true);
        repeat.then_some(wanted)
    }

    /// Takes in the drainer's answer. Returns what is to be told about it.
    pub(super) fn answered(
        &mut self,
        wanted: Vec<String>,
        answer: Result<Vec<(String, u64)>, ScaleError>,
    ) -> Option<Event> {
        self.told = wanted;
        match answer {
            Ok(in_flight) => {
                (self.in_flight, self.failing) = (in_flight, false);
                None
            }
            Err(error) => {
                // Nothing counted is nothing done: the deadline decides.
                self.in_flight.clear();
                let told = std::mem::replace(&mut self.failing, true);
                (!told).then(|| Event::DrainFailed { why: chain(&error) })
            }
        }
    }

    /// Notes that the removal of those that were drained is written.
    pub(super) fn written(&mut self) {
        if !self.told.is_empty() {
            self.leaving = Some((self.told.clone(), Instant::now()));
        }
    }

    /// Whether those that were to leave have left, once that can be said.
    pub(super) fn left(&mut self, status: &TargetStatus) -> Option<Event> {
        let (leaving, since) = self.leaving.as_ref()?;
        let there = |instance: &&Instance| matches!(instance.phase, Phase::Pending | Phase::Running);
        let staying: Vec<&Instance> = status.instances.iter().filter(there).collect();
        let wanted = usize::try_from(status.wanted).unwrap_or(usize::MAX);
        if staying.len() > wanted && since.elapsed() < LEAVE_WITHIN {
            return None;
        }
        let is_there = |id: &&String| staying.iter().any(|instance| instance.id == **id);
        let (stayed, left): (Vec<&String>, Vec<&String>) = leaving.iter().partition(is_there);
        let event = Event::Left {
            left: left.into_iter().cloned().collect(),
            stayed: stayed.into_iter().cloned().collect(),
        };
        self.leaving = None;
        Some(event)
    }
}

/// Longer than any stop grace period that makes sense; the orchestrator has chosen others by then.
const LEAVE_WITHIN: Duration = Duration::from_secs(120);
