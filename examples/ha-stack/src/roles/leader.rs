//! Who leads, by an election in Consul, and what only the leader writes there: in transactions that Consul itself refuses once
//! the term is over, so that a leader that was paused can't write over its successor.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, ensure};
use consul_client::{Election, ElectionState, Leadership, Txn};
use tokio_util::sync::CancellationToken;

/// This process's term as the leader, while it has one. Clones are about the same.
#[derive(Clone, Debug, Default)]
pub struct Leading(Arc<Mutex<Option<Leadership>>>);

impl Leading {
    /// The term, if this leads now as far as this side can know.
    pub fn now(&self) -> Option<Leadership> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.clone().filter(Leadership::is_held)
    }

    /// From now on this leads, or no longer.
    pub fn set(&self, leadership: Option<Leadership>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = leadership;
    }

    /// Stands for election until `stop`, then gives way.
    pub async fn follow(self, mut election: Election, stop: CancellationToken) {
        loop {
            let state = tokio::select! {
                state = election.next() => state,
                () = stop.cancelled() => break,
            };
            match state {
                Some(ElectionState::Leader(leadership)) => {
                    tracing::info!(term = leadership.fence().0, "leading");
                    self.set(Some(leadership));
                }
                Some(state) => {
                    if let ElectionState::Failing { error } = &state {
                        tracing::warn!(%error, "can't stand for election");
                    }
                    self.set(None);
                }
                None => break,
            }
        }
        self.set(None);
        if let Err(error) = election.resign().await {
            tracing::warn!(%error, "the leader's lock was not released; it ends with its session");
        }
    }

    /// Writes as the leader; false when a condition of the transaction's own was not met.
    ///
    /// # Errors
    /// When this does not lead, by its own knowledge or by Consul's; otherwise as any write.
    pub async fn write(&self, what: impl FnOnce(Txn) -> Txn) -> Result<bool> {
        let leadership = self.now().context(NOT_LEADING)?;
        let outcome = what(leadership.txn()).commit().await?;
        let Some(refusals) = outcome.refusals() else { return Ok(true) };
        // The first operation asks whether the lock is still held.
        ensure!(refusals.iter().all(|refusal| refusal.operation != 0), NOT_LEADING);
        Ok(false)
    }
}

const NOT_LEADING: &str = "this one no longer leads";

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use consul_client::testing::FakeConsul;

    use super::*;

    #[tokio::test]
    async fn a_leader_that_was_replaced_writes_nothing() {
        let consul = FakeConsul::start().await;
        let client = consul.client();
        let (leading, stop) = (Leading::default(), CancellationToken::new());
        assert!(leading.write(|txn| txn.set("state", "early")).await.is_err(), "nobody has been elected yet");
        let candidate = client.election("leader").lock_delay(Duration::ZERO).campaign().unwrap();
        let following = tokio::spawn(leading.clone().follow(candidate, stop.clone()));
        let term = until_leading(&leading).await;
        assert!(leading.write(|txn| txn.set("state", "first")).await.unwrap());
        assert!(
            !leading.write(|txn| txn.cas("state", "first", 1)).await.unwrap(),
            "another index: not written"
        );

        // Another one leads, and the first has not heard of it: it was asleep.
        let asleep = Leading::default();
        asleep.set(Some(term.clone()));
        consul.end_sessions();
        let later = loop {
            let now = until_leading(&leading).await;
            if now.fence() != term.fence() {
                break now;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        assert!(later.fence() > term.fence());
        let refused = is_refused(term.txn().set("state", "late").commit().await.unwrap());
        assert!(refused, "Consul refuses the old term");
        assert!(asleep.write(|txn| txn.set("state", "late")).await.is_err());
        stop.cancel();
        following.await.unwrap();
        assert!(leading.now().is_none(), "who stops leads no longer");
        assert_eq!(client.kv().get("state").await.unwrap().value.unwrap().value, "first");
    }

    fn is_refused(outcome: consul_client::TxnOutcome) -> bool {
        outcome.refusals().is_some_and(|refusals| refusals.iter().any(|refusal| refusal.operation == 0))
    }

    async fn until_leading(leading: &Leading) -> Leadership {
        let found = async {
            loop {
                if let Some(leadership) = leading.now() {
                    return leadership;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), found).await.expect("it comes to lead")
    }
}
