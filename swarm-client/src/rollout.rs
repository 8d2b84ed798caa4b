//! Waiting for a service to become what it is wanted to be.

use std::time::Duration;

use futures_util::future::try_join;
use tokio::time::{Instant, sleep, timeout};
use tracing::debug;

use crate::client::Client;
use crate::convergence::{Convergence, Seen};
use crate::error::{Error, Result};
use crate::model::Service;
use crate::modify;
use crate::outcome::Outcome;

/// A service's rollout, made by [`Services::rollout`](crate::Services::rollout).
#[derive(Debug, Clone)]
#[must_use = "a rollout does nothing until it is waited for"]
pub struct Rollout {
    client: Client,
    name: String,
    stable_for: Option<Duration>,
    poll_every: Duration,
}

impl Rollout {
    pub(crate) fn new(client: Client, name: String) -> Self {
        Self { client, name, stable_for: None, poll_every: POLL_EVERY }
    }

    /// How long the tasks must have run, the very same ones. The default is the monitor time of the service's update block,
    /// and 5 seconds without one: the time within which Swarm itself takes the end of a new task for a failure of the update.
    pub fn stable_for(mut self, time: Duration) -> Self {
        self.stable_for = Some(time);
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
        let start = Instant::now();
        let mut state = Convergence::new(self.stable_for);
        let mut found: Option<Service> = None;
        let mut failure: Option<Error> = None;
        loop {
            let left = deadline.saturating_sub(start.elapsed());
            match timeout(left, self.look(&mut state, &mut found, start)).await {
                Ok(Ok(Some(outcome))) => return Ok(outcome),
                Ok(Ok(None)) => failure = None,
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

/// Docker's command line looks each 200 ms; this is near, and gentler.
const POLL_EVERY: Duration = Duration::from_millis(250);
