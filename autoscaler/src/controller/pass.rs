//! One tick of a leader.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, info, warn};

use super::clock::now;
use super::error::{ScaleError, chain};
use super::handle::Mode;
use super::journal::{Event, Outcome};
use super::lease::{Held, Term};
use super::recorder::Recorder;
use super::target::{ScaleTarget, SignalSource, TargetStatus};
use crate::decide::decide;
use crate::decision::{Action, Decision};
use crate::observation::{Observation, Reading};
use crate::policy::Policy;
use crate::state::State;

/// Why a leadership ended.
#[derive(Debug)]
pub(super) enum Ended {
    /// The lease says so.
    Lost,
    /// The target says so.
    Fenced { by: Term },
}

pub(super) struct Pass<'a> {
    pub(super) service: &'a str,
    pub(super) source: &'a dyn SignalSource,
    pub(super) target: &'a dyn ScaleTarget,
    pub(super) held: &'a Held,
    pub(super) tick: Duration,
    /// How long one read or write may take.
    pub(super) limit: Duration,
    /// `None` until the first observation.
    pub(super) state: Option<State>,
}

impl Pass<'_> {
    /// Reads, decides and writes. Returns whether the target was well.
    pub(super) async fn run(
        &mut self,
        policy: &Policy,
        mode: Mode,
        recorder: &mut Recorder,
    ) -> Result<bool, Ended> {
        let (began, term) = (Instant::now(), self.held.term);
        if mode == Mode::Paused {
            recorder.record(Some(term), mode, Event::Paused).await;
            return Ok(true);
        }
        let mut tries = 1;
        loop {
            let (readings, status) = tokio::join!(self.read_signals(policy), self.read_target());
            let status = match status {
                Ok(status) => status,
                Err(error) => {
                    let why = chain(&error);
                    warn!(target: "autoscaler", service = self.service, %term, error = %why, "target failed");
                    recorder.record(Some(term), mode, Event::TargetFailed { why }).await;
                    return Ok(false);
                }
            };
            if let Some(by) = status.last_term.filter(|last| *last > term) {
                return Err(Ended::Fenced { by });
            }
            let decision = self.decide(policy, &status, readings);
            let written = self.carry_out(&decision, mode).await?;
            let outcome = match written {
                Ok(outcome) => outcome,
                Err(error) if error.is_conflict() && tries < TRIES && began.elapsed() < self.tick / 2 => {
                    debug!(target: "autoscaler", service = self.service, %term, error = %error, "deciding anew");
                    tries += 1;
                    sleep(CONFLICT_PAUSE.mul_f64(rand::random_range(0.5..1.5)).min(self.tick / 8)).await;
                    continue;
                }
                Err(error) => {
                    let why = chain(&error);
                    warn!(target: "autoscaler", service = self.service, %term, error = %why, "write failed");
                    Outcome::Failed { why }
                }
            };
            let well = !matches!(outcome, Outcome::Failed { .. });
            let scaled = matches!(outcome, Outcome::Written { .. });
            recorder.record(Some(term), mode, Event::Decided { decision, outcome }).await;
            if let Some(state) = &self.state {
                recorder.save_state(state, scaled).await;
            }
            return Ok(well);
        }
    }

    fn decide(
        &mut self,
        policy: &Policy,
        status: &TargetStatus,
        readings: Vec<(String, Reading)>,
    ) -> Decision {
        let observation = Observation::new(now(), status.wanted)
            .ready(status.ready)
            .readings(readings)
            .updating(status.update_in_progress)
            .held(status.hold.clone());
        let (decision, state) =
            decide(policy, self.state.as_ref().unwrap_or(&State::default()), &observation);
        self.state = Some(state);
        decision
    }

    /// Writes a decision if it is one to write, and only while the lease is held and the decision valid.
    async fn carry_out(&self, decision: &Decision, mode: Mode) -> Result<Result<Outcome, ScaleError>, Ended> {
        let (service, term) = (self.service, self.held.term);
        let Action::ScaleTo(replicas) = decision.action else {
            debug!(target: "autoscaler", service, %term, %decision, "decided");
            return Ok(Ok(Outcome::Held));
        };
        if mode != Mode::Active {
            info!(target: "autoscaler", service, %term, %decision, "decided");
            return Ok(Ok(Outcome::Shadow));
        }
        if now() >= decision.valid_until {
            return Ok(Ok(Outcome::Expired));
        }
        if self.held.lost.is_cancelled() {
            return Err(Ended::Lost);
        }
        match self.deadline("the write", self.target.write(replicas, term, decision)).await {
            Ok(written) => {
                info!(target: "autoscaler", service, %term, %decision, "scaled");
                Ok(Ok(Outcome::Written { version: written.version }))
            }
            Err(ScaleError::Fenced { by, .. }) => Err(Ended::Fenced { by }),
            Err(error) => Ok(Err(error)),
        }
    }

    async fn read_target(&self) -> Result<TargetStatus, ScaleError> {
        self.deadline("the read", self.target.read()).await
    }

    /// The source's readings; a source that does not answer in time makes every signal unknown.
    async fn read_signals(&self, policy: &Policy) -> Vec<(String, Reading)> {
        let limit = self.limit;
        if let Ok(readings) = timeout(limit, self.source.read(self.service)).await {
            return readings;
        }
        let names = policy.signals.iter().map(|signal| signal.name.clone());
        names
            .map(|name| (name, Reading::error(format!("the source had no answer within {limit:?}"))))
            .collect()
    }

    async fn deadline<T>(
        &self,
        tried: &str,
        call: impl Future<Output = Result<T, ScaleError>>,
    ) -> Result<T, ScaleError> {
        let limit = self.limit;
        timeout(limit, call).await.unwrap_or_else(|_| {
            Err(ScaleError::TimedOut { service: self.service.to_owned(), tried: tried.to_owned(), limit })
        })
    }
}

/// How often a conflict is decided anew within one tick.
const TRIES: u32 = 3;
/// Long enough for the other writer to be done.
const CONFLICT_PAUSE: Duration = Duration::from_millis(100);
