//! One tick of a leader.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, info, warn};

use super::clock::Clock;
use super::drain::{Drainer, Drains};
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
    pub(super) drainer: Option<&'a dyn Drainer>,
    pub(super) clock: &'a dyn Clock,
    pub(super) held: &'a Held,
    pub(super) tick: Duration,
    /// How long one read or write may take.
    pub(super) limit: Duration,
    /// `None` until the first observation.
    pub(super) state: Option<State>,
    pub(super) drains: Drains,
    /// Since when instances are wanted and none serves.
    pub(super) none_since: Option<Duration>,
    /// When that was last told.
    pub(super) none_told: Option<Duration>,
    /// How long that may last before it is told.
    pub(super) alive_within: Duration,
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
            self.watch(&status, mode, recorder).await;
            let decision = self.decide(policy, status, readings);
            self.drain(&decision, mode, recorder).await;
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
        mut status: TargetStatus,
        readings: Vec<(String, Reading)>,
    ) -> Decision {
        self.drains.fill(&mut status.instances);
        let observation = Observation::new(self.clock.now(), status.wanted)
            .ready(status.ready)
            .readings(readings)
            .instances(status.instances)
            .buffer(status.buffer)
            .updating(status.update_in_progress)
            .held(status.hold);
        let (decision, state) =
            decide(policy, self.state.as_ref().unwrap_or(&State::default()), &observation);
        self.state = Some(state);
        decision
    }

    /// Tells when nothing serves although it should, and who left after a drain.
    async fn watch(&mut self, status: &TargetStatus, mode: Mode, recorder: &mut Recorder) {
        let term = Some(self.held.term);
        if status.wanted > 0 && status.ready == 0 {
            let at = self.clock.now();
            let elapsed = at.saturating_sub(*self.none_since.get_or_insert(at));
            let told = self.none_told.is_some_and(|told| at.saturating_sub(told) < TELL_AGAIN);
            if elapsed >= self.alive_within && !told {
                self.none_told = Some(at);
                let wanted = status.wanted;
                recorder.record(term, mode, Event::NoneServing { wanted, elapsed }).await;
            }
        } else {
            (self.none_since, self.none_told) = (None, None);
        }
        if let Some(event) = self.drains.left(status) {
            recorder.record(term, mode, event).await;
        }
    }

    /// Tells the drainer who should get no new requests, if that is to be told.
    async fn drain(&mut self, decision: &Decision, mode: Mode, recorder: &mut Recorder) {
        let Some(drainer) = self.drainer.filter(|_| mode == Mode::Active) else { return };
        let Some(wanted) = self.drains.wanted(decision) else { return };
        let answer = self.deadline("the drain", drainer.drain(self.service, &wanted)).await;
        if let Some(event) = self.drains.answered(wanted, answer) {
            if let Event::DrainFailed { why } = &event {
                let term = self.held.term;
                warn!(target: "autoscaler", service = self.service, %term, error = %why, "drain failed");
            }
            recorder.record(Some(self.held.term), mode, event).await;
        }
    }

    /// Writes a decision if it is one to write, and only while the lease is held and the decision valid.
    async fn carry_out(
        &mut self,
        decision: &Decision,
        mode: Mode,
    ) -> Result<Result<Outcome, ScaleError>, Ended> {
        let (service, term) = (self.service, self.held.term);
        let replicas = match decision.action {
            Action::ScaleTo(replicas) => replicas,
            action => {
                debug!(target: "autoscaler", service, %term, %decision, "decided");
                let draining = matches!(action, Action::DrainThen(_)) && mode == Mode::Active;
                return Ok(Ok(if draining { Outcome::Draining } else { Outcome::Held }));
            }
        };
        if mode != Mode::Active {
            info!(target: "autoscaler", service, %term, %decision, "decided");
            return Ok(Ok(Outcome::Shadow));
        }
        if self.clock.now() >= decision.valid_until {
            return Ok(Ok(Outcome::Expired));
        }
        if self.held.lost.is_cancelled() {
            return Err(Ended::Lost);
        }
        match self.deadline("the write", self.target.write(replicas, term, decision)).await {
            Ok(written) => {
                info!(target: "autoscaler", service, %term, %decision, "scaled");
                if replicas < decision.current {
                    self.drains.written();
                }
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
/// What lasts is told once a minute.
const TELL_AGAIN: Duration = Duration::from_secs(60);
