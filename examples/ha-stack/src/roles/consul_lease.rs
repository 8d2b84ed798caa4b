//! Leadership by an election in Consul.

use std::time::Duration;

use async_trait::async_trait;
use autoscaler::controller::{Held, Lease, LeaseError, Term};
use consul_client::{Election, ElectionState, Lost};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use super::leader::Leading;

/// Leadership by an election in Consul; the term is the fence of its lock.
pub(super) struct ConsulLease {
    consul: consul_client::Client,
    key: String,
    /// Who this is, for those who follow.
    name: String,
    leading: Leading,
    /// While a lease is held.
    election: Mutex<Option<Election>>,
}

impl ConsulLease {
    /// `leading` tells from now on whether this one leads.
    pub(super) fn new(consul: consul_client::Client, key: String, name: &str, leading: Leading) -> Self {
        Self { consul, key, name: name.to_owned(), leading, election: Mutex::default() }
    }

    fn unavailable(&self, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> LeaseError {
        LeaseError::unavailable(format!("standing for election at {} in Consul", self.key), error)
    }
}

#[async_trait]
impl Lease for ConsulLease {
    async fn acquire(&self) -> Result<Held, LeaseError> {
        let wanted = self.consul.election(&self.key).value(self.name.clone());
        let campaign = wanted.ttl(LOCK_TTL).lock_delay(LOCK_DELAY).campaign();
        let mut election = campaign.map_err(|e| self.unavailable(e))?;
        let leadership = loop {
            match election.next().await {
                Some(ElectionState::Leader(leadership)) if leadership.is_held() => break leadership,
                Some(ElectionState::Failing { error }) => return Err(self.unavailable(error)),
                Some(_) => {}
                None => return Err(self.unavailable("the program is ending")),
            }
        };
        let held = Held { term: Term(leadership.fence().0), lost: CancellationToken::new() };
        let (lost, gone) = (held.lost.clone(), leadership.lost());
        tokio::spawn(async move {
            match gone.await {
                Lost::Released => {}
                why => tracing::warn!(%why, "no longer the leader"),
            }
            lost.cancel();
        });
        self.leading.set(Some(leadership));
        *self.election.lock().await = Some(election);
        Ok(held)
    }

    async fn release(&self, _held: &Held) {
        self.leading.set(None);
        if let Some(election) = self.election.lock().await.take()
            // Returns when the lock is free: this process may end right after.
            && let Err(error) = election.resign().await
        {
            tracing::warn!(%error, "the leader's lock was not released; it ends with its session");
        }
    }
}

/// The shortest that Consul offers. A leader whose host is lost is gone sooner, by Consul's own failure detection.
const LOCK_TTL: Duration = Duration::from_secs(10);
/// Two leaders at once are harmless, for the older one's term is refused: no need for the default of 15 s.
const LOCK_DELAY: Duration = Duration::from_secs(1);
