//! Leadership by a lock in Consul.

use std::time::Duration;

use async_trait::async_trait;
use autoscaler::controller::{Held, Lease, LeaseError, Term};
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Leadership by a lock in Consul; the term is the lock's fence.
pub(super) struct ConsulLease {
    consul: consul_client::Client,
    key: String,
    held: Mutex<Option<(CancellationToken, JoinHandle<()>)>>,
}

impl ConsulLease {
    pub(super) fn new(consul: consul_client::Client, key: String) -> Self {
        Self { consul, key, held: Mutex::default() }
    }
}

#[async_trait]
impl Lease for ConsulLease {
    async fn acquire(&self) -> Result<Held, LeaseError> {
        let lock = self.consul.lock(&self.key).ttl(LOCK_TTL).lock_delay(LOCK_DELAY).acquire().await;
        let lock =
            lock.map_err(|e| LeaseError::unavailable(format!("acquiring the Consul lock {}", self.key), e))?;
        let held = Held { term: Term(lock.fence().0), lost: CancellationToken::new() };
        let release = CancellationToken::new();
        let (lost, told) = (held.lost.clone(), release.clone());
        let keeper = tokio::spawn(async move {
            tokio::select! {
                why = lock.lost() => {
                    tracing::warn!(%why, "no longer the leader");
                    lost.cancel();
                }
                () = told.cancelled() => {
                    lost.cancel();
                    if let Err(error) = lock.release().await {
                        tracing::warn!(%error, "the leader's lock was not released; it ends with its session");
                    }
                }
            }
        });
        *self.held.lock().await = Some((release, keeper));
        Ok(held)
    }

    async fn release(&self, _held: &Held) {
        if let Some((release, keeper)) = self.held.lock().await.take() {
            release.cancel();
            // Returns when the lock is free: this process may end right after.
            let _ = keeper.await;
        }
    }
}

/// The shortest that Consul offers. A leader whose host is lost is gone sooner, by Consul's own failure detection.
const LOCK_TTL: Duration = Duration::from_secs(10);
/// Two leaders at once are harmless, for the older one's term is refused: no need for the default of 15 s.
const LOCK_DELAY: Duration = Duration::from_secs(1);
