//! Waiting for a service to become what it is wanted to be.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_core::Stream;
use futures_util::future::try_join;
use futures_util::stream::unfold;
use tokio::time::{Instant, sleep, timeout};
use tracing::debug;

use crate::client::Client;
use crate::convergence::{Convergence, Seen};
use crate::error::{Error, Result};
use crate::model::Service;
use crate::modify;
use crate::outcome::{Diagnosis, Outcome, RolloutProgress};

/// A service's rollout, made by [`Services::rollout`](crate::Services::rollout).
#[derive(Debug, Clone)]
#[must_use = "a rollout does nothing until it is waited for"]
pub struct Rollout {
    client: Client,
    name: String,
    stable_for: Option<Duration>,
    unschedulable_after: Option<Duration>,
    poll_every: Duration,
}

impl Rollout {
    pub(crate) fn new(client: Client, name: String) -> Self {
        Self {
            client,
            name,
            stable_for: None,
            unschedulable_after: Some(UNSCHEDULABLE_AFTER),
            poll_every: POLL_EVERY,
        }
    }

    /// How long the tasks must have run, the very same ones. The default is the monitor time of the service's update block,
    /// and 5 seconds without one: the time within which Swarm itself takes the end of a new task for a failure of the update.
    pub fn stable_for(mut self, time: Duration) -> Self {
        self.stable_for = Some(time);
        self
    }

    /// Ends the wait with [`Outcome::Unschedulable`] when for this long nothing but tasks that find no node has been missing;
    /// `None` waits on. The default is 5 seconds.
    pub fn unschedulable_after(mut self, time: Option<Duration>) -> Self {
        self.unschedulable_after = time;
        self
    }

    /// How often to look; at least 10 milliseconds. The default is 250.
    pub fn poll_every(mut self, time: Duration) -> Self {
        self.poll_every = time.max(Duration::from_millis(10));
        self
    }

    /// Waits until the rollout ends in one way or another, for at most `deadline`. That it did not end well is an [`Outcome`],
    /// not an error. Looks that fail for a while, as during an election, are repeated.
    ///
    /// # Errors
    /// [`Error::is_not_found`] if the service does not exist from the start; else if no look at the service succeeded until
    /// the deadline, or one failed for good.
    pub async fn wait(&self, deadline: Duration) -> Result<Outcome> {
        self.wait_telling(deadline, |_| {}).await
    }

    /// As [`wait`](Self::wait), and tells what the service lacks whenever that has changed: for progress that a person watches.
    ///
    /// # Errors
    /// As [`wait`](Self::wait).
    pub async fn wait_telling(
        &self,
        deadline: Duration,
        mut tell: impl FnMut(&Diagnosis),
    ) -> Result<Outcome> {
        let start = Instant::now();
        let mut state = self.convergence();
        let mut found: Option<Service> = None;
        let mut failure: Option<Error> = None;
        let mut told: Option<Diagnosis> = None;
        loop {
            let left = deadline.saturating_sub(start.elapsed());
            // Boxed: every future that waits for a rollout would carry it.
            match timeout(left, Box::pin(self.look(&mut state, &mut found, start))).await {
                Ok(Ok(Some(outcome))) => return Ok(outcome),
                Ok(Ok(None)) => {
                    failure = None;
                    if told.as_ref() != Some(state.diagnosis()) {
                        tell(told.insert(state.diagnosis().clone()));
                    }
                }
                Ok(Err(error)) if error.is_not_found() && found.is_some() => return Ok(Outcome::Removed),
                Ok(Err(error)) if error.is_retryable() => {
                    debug!(service = self.name, %error, "could not look at the rollout, trying again");
                    failure = Some(error);
                }
                Ok(Err(error)) => return Err(error),
                Err(_) => break,
            }
            let left = deadline.saturating_sub(start.elapsed());
            if left.is_zero() {
                break;
            }
            sleep(self.poll_every.min(left)).await;
        }
        match (found, failure) {
            (Some(_), failure) => {
                let mut diagnosis = state.diagnosis().clone();
                diagnosis.last_read_error = failure.map(|error| error.to_string());
                Ok(Outcome::TimedOut { diagnosis })
            }
            (None, Some(error)) => Err(error),
            (None, None) => Err(Error::Timeout {
                what: format!("look at service {:?}", self.name),
                endpoint: self.client.endpoint().clone(),
                after: deadline,
            }),
        }
    }

    /// How the rollout goes: an item whenever something changed, the last of them [`RolloutProgress::Ended`]. It has no deadline:
    /// a rollout can take for ever, so wrap it or stop reading it. Looks that fail for a while are part of the diagnosis.
    ///
    /// ```no_run
    /// # async fn run(swarm: swarm_client::Client) -> Result<(), Box<dyn std::error::Error>> {
    /// use futures_util::StreamExt;
    ///
    /// let mut progress = swarm.services().rollout("web").progress();
    /// while let Some(step) = progress.next().await {
    ///     println!("{}", step?); // "1 of 3 running, 2 preparing"
    /// }
    /// # Ok(()) }
    /// ```
    pub fn progress(self) -> Progress {
        let state = self.convergence();
        let walk = Walk { state, rollout: self, found: None, start: Instant::now(), last: None, over: false };
        Progress {
            steps: Box::pin(unfold(walk, |mut walk| async { walk.next().await.map(|step| (step, walk)) })),
        }
    }

    fn convergence(&self) -> Convergence {
        Convergence::new(self.stable_for, self.unschedulable_after)
    }

    async fn look(
        &self,
        state: &mut Convergence,
        found: &mut Option<Service>,
        start: Instant,
    ) -> Result<Option<Outcome>> {
        // By id once it is known: another service may take the name.
        let name = found.as_ref().map_or(self.name.as_str(), |service| service.id.as_str());
        let service: Service = modify::get(&self.client, name).await?;
        let id = service.id.clone();
        let service = found.insert(service);
        let tasks = self.client.tasks();
        let (tasks, nodes) = try_join(tasks.of_service(&id, true), self.client.nodes().list()).await?;
        Ok(state.step(Seen { service, tasks: &tasks, nodes: &nodes }, start.elapsed()))
    }
}

/// How a rollout goes, step by step: see [`Rollout::progress`].
pub struct Progress {
    steps: Pin<Box<dyn Stream<Item = Result<RolloutProgress>> + Send>>,
}

impl Stream for Progress {
    type Item = Result<RolloutProgress>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.steps.as_mut().poll_next(cx)
    }
}

impl fmt::Debug for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Progress").finish_non_exhaustive()
    }
}

/// A rollout that is followed.
struct Walk {
    rollout: Rollout,
    state: Convergence,
    found: Option<Service>,
    start: Instant,
    last: Option<Diagnosis>,
    over: bool,
}

impl Walk {
    async fn next(&mut self) -> Option<Result<RolloutProgress>> {
        while !self.over {
            if self.last.is_some() {
                sleep(self.rollout.poll_every).await;
            }
            let failure = match self.rollout.look(&mut self.state, &mut self.found, self.start).await {
                Ok(Some(outcome)) => return self.end(Ok(RolloutProgress::Ended(outcome))),
                Ok(None) => None,
                Err(error) if error.is_not_found() && self.found.is_some() => {
                    return self.end(Ok(RolloutProgress::Ended(Outcome::Removed)));
                }
                Err(error) if error.is_retryable() => Some(error.to_string()),
                Err(error) => return self.end(Err(error)),
            };
            let mut diagnosis = self.state.diagnosis().clone();
            diagnosis.last_read_error = failure;
            if self.last.as_ref() != Some(&diagnosis) {
                self.last = Some(diagnosis.clone());
                return Some(Ok(RolloutProgress::Waiting(diagnosis)));
            }
        }
        None
    }

    fn end(&mut self, item: Result<RolloutProgress>) -> Option<Result<RolloutProgress>> {
        self.over = true;
        Some(item)
    }
}

/// Long enough for an old task to give up what a new one needs.
const UNSCHEDULABLE_AFTER: Duration = Duration::from_secs(5);
/// Docker's command line looks each 200 ms; this is near, and gentler.
const POLL_EVERY: Duration = Duration::from_millis(250);
