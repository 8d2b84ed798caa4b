//! A registration that stays.
//!
//! An agent that restarts without its data has forgotten everything, and says so only when asked: a TTL check that is reported is
//! refused, a service that is read is not found. So the guard asks, and registers again.

use std::{fmt, sync::Arc, time::Duration};

use tokio::{sync::watch, task::JoinHandle};

use super::{Agent, ServiceRegistration};
use crate::{Error, Result, Status, backoff::Backoff};

/// A service that is registered for as long as this lives: see [`Agent::keep_registered`].
///
/// TTL checks are reported every third of the shortest TTL, as passing unless [`report`](Self::report) says otherwise; without one, the
/// agent is asked every 10 s whether it still knows the service. Dropping it deregisters in the background, if a runtime is there to do
/// it; [`deregister`](Self::deregister) is surer. Use a client with a single address: a registration belongs to the agent that took it.
///
/// ```no_run
/// # async fn run(consul: consul_client::Client) -> consul_client::Result<()> {
/// # async fn serve() {}
/// use consul_client::{Check, ServiceRegistration};
///
/// let web = ServiceRegistration::new("web", "web-1").port(8080).check(Check::ttl(std::time::Duration::from_secs(10)));
/// let registration = consul.agent().keep_registered(web).await?;
/// serve().await;
/// registration.deregister().await?;      // before the port closes
/// # Ok(())
/// # }
/// ```
#[must_use = "the service is deregistered when this is dropped"]
pub struct Registration {
    agent: Agent,
    id: String,
    said: watch::Sender<Said>,
    state: watch::Receiver<RegistrationState>,
    keeper: Option<JoinHandle<()>>,
}

/// How a [`Registration`] is doing.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum RegistrationState {
    /// The agent knows the service, and took the last report.
    Registered,
    /// The agent did not answer, or refused.
    Failing {
        /// Why.
        error: Arc<Error>,
        /// Since when.
        since: std::time::Instant,
    },
}

#[derive(Clone)]
struct Said {
    status: Status,
    note: String,
}

impl Registration {
    pub(super) async fn begin(agent: Agent, service: ServiceRegistration) -> Result<Self> {
        let said = watch::Sender::new(Said { status: Status::Passing, note: String::new() });
        let keeper = Keeper::new(agent.clone(), service, said.subscribe());
        keeper.register().await?;
        let (id, state) = (keeper.service.id().to_owned(), watch::Sender::new(RegistrationState::Registered));
        let receiver = state.subscribe();
        let keeper = Some(tokio::spawn(keeper.run(state)));
        Ok(Self { agent, id, said, state: receiver, keeper })
    }

    /// What the TTL checks say from now on: passing, warning or critical, and a note. Sent at once and then kept up.
    pub fn report(&self, status: Status, note: impl Into<String>) {
        self.said.send_replace(Said { status, note: note.into() });
    }

    /// How it is doing now.
    pub fn state(&self) -> RegistrationState {
        self.state.borrow().clone()
    }

    /// To be told when the state changes.
    pub fn subscribe_state(&self) -> watch::Receiver<RegistrationState> {
        self.state.clone()
    }

    /// The service's id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Removes the service.
    ///
    /// # Errors
    /// As any write; the background tries once more then.
    pub async fn deregister(mut self) -> Result<()> {
        self.stop().await;
        self.agent.deregister(&self.id).await?;
        self.id.clear();
        Ok(())
    }

    /// A keeper that is still registering must not do so after the removal.
    async fn stop(&mut self) {
        if let Some(keeper) = self.keeper.take() {
            keeper.abort();
            let _ = keeper.await;
        }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let keeper = self.keeper.take();
        if let Some(keeper) = &keeper {
            keeper.abort();
        }
        if self.id.is_empty() {
            return;
        }
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let (agent, id) = (self.agent.clone(), std::mem::take(&mut self.id));
            runtime.spawn(async move {
                if let Some(keeper) = keeper {
                    let _ = keeper.await;
                }
                if let Err(error) = agent.deregister(&id).await {
                    tracing::debug!(%error, id, "consul registration: best-effort removal failed");
                }
            });
        }
    }
}

impl fmt::Debug for Registration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registration")
            .field("id", &self.id)
            .field("state", &*self.state.borrow())
            .finish_non_exhaustive()
    }
}

struct Keeper {
    agent: Agent,
    service: ServiceRegistration,
    /// The ids of the TTL checks.
    checks: Vec<String>,
    every: Duration,
    said: watch::Receiver<Said>,
}

impl Keeper {
    fn new(agent: Agent, service: ServiceRegistration, said: watch::Receiver<Said>) -> Self {
        let checks = ttl_checks(&service);
        let shortest = service.checks().iter().filter_map(super::Check::ttl_of).min();
        let every = shortest.map_or(LOOK_EVERY, |ttl| (ttl / 3).clamp(MIN_EVERY, LOOK_EVERY));
        Self { agent, service, checks, every, said }
    }

    async fn register(&self) -> Result<()> {
        self.agent.register(&self.service).await?;
        self.report().await
    }

    async fn report(&self) -> Result<()> {
        let Said { status, note } = self.said.borrow().clone();
        for check in &self.checks {
            self.agent.update_ttl(check, status, &note).await?;
        }
        Ok(())
    }

    /// Reports, or asks whether the service is still known; registers when it is not.
    async fn keep(&self) -> Result<()> {
        let known = if self.checks.is_empty() {
            self.agent.service(self.service.id()).await?.is_some()
        } else {
            match self.report().await {
                Ok(()) => true,
                // How an agent says that it does not know the check, before and after 1.10.
                Err(Error::Rejected(_) | Error::NotFound(_)) => false,
                Err(error) => return Err(error),
            }
        };
        if known {
            return Ok(());
        }
        tracing::info!(id = self.service.id(), "consul registration: the agent forgot it, registering again");
        self.register().await
    }

    async fn run(mut self, state: watch::Sender<RegistrationState>) {
        let mut backoff = Backoff::new(Duration::from_millis(100), self.every);
        loop {
            let failing = matches!(*state.borrow(), RegistrationState::Failing { .. });
            let pause = if failing { backoff.next(rand::random()) } else { self.every };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                changed = self.said.changed() => if changed.is_err() { return },
            }
            match self.keep().await {
                Ok(()) => {
                    backoff.reset();
                    if failing {
                        tracing::info!(id = self.service.id(), "consul registration recovered");
                        state.send_replace(RegistrationState::Registered);
                    }
                }
                Err(error) => state.send_modify(|state| {
                    let since = match state {
                        RegistrationState::Failing { since, .. } => *since,
                        RegistrationState::Registered => {
                            tracing::warn!(%error, id = self.service.id(), "consul registration failed");
                            std::time::Instant::now()
                        }
                    };
                    *state = RegistrationState::Failing { error: Arc::new(error), since };
                }),
            }
        }
    }
}

/// The ids that the agent gives to TTL checks without one: `service:<id>`, and with a number from 1 when there are several checks.
fn ttl_checks(service: &ServiceRegistration) -> Vec<String> {
    let several = service.checks().len() > 1;
    let id = |(i, check): (usize, &super::Check)| match check.own_id() {
        Some(id) => id.to_owned(),
        None if several => format!("service:{}:{}", service.id(), i + 1),
        None => format!("service:{}", service.id()),
    };
    service.checks().iter().enumerate().filter(|(_, check)| check.ttl_of().is_some()).map(id).collect()
}

/// How often an agent is asked whether it still knows a service without a TTL check.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// However short the TTL.
const MIN_EVERY: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Check;

    #[test]
    fn checks_are_called_as_the_agent_calls_them() {
        let ttl = || Check::ttl(Duration::from_secs(9));
        let web = || ServiceRegistration::new("web", "web-1");
        assert_eq!(ttl_checks(&web().check(ttl())), ["service:web-1"]);
        assert_eq!(ttl_checks(&web().check(ttl().id("alive"))), ["alive"]);
        assert_eq!(ttl_checks(&web().check(Check::tcp("h:1")).check(ttl())), ["service:web-1:2"]);
        assert!(ttl_checks(&web().check(Check::tcp("h:1"))).is_empty());
    }
}
