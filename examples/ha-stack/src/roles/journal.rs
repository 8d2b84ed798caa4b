//! The scaler's decisions and state, kept in Consul so that they survive a restart and a change of leader.

use std::time::Duration;

use async_trait::async_trait;
use autoscaler::State;
use autoscaler::controller::{Event, Journal, JournalEntry, JournalError, Outcome};

use super::leader::Leading;
use crate::platform::Decided;

/// A journal in Consul's key-value store: the newest decisions, and the state of the engine. Anybody reads it; only the
/// leader writes.
pub struct ConsulJournal {
    consul: consul_client::Client,
    service: String,
    leading: Leading,
}

impl ConsulJournal {
    /// The journal of a service, for reading.
    pub fn new(consul: consul_client::Client, service: &str) -> Self {
        Self::written_by(Leading::default(), consul, service)
    }

    /// The journal of a service, written while this one leads.
    pub fn written_by(leading: Leading, consul: consul_client::Client, service: &str) -> Self {
        Self { consul, service: service.into(), leading }
    }

    /// The newest decisions, oldest first.
    ///
    /// # Errors
    /// When Consul can't be read.
    pub async fn decisions(&self) -> Result<Vec<Decided>, JournalError> {
        Ok(self.read().await?.0)
    }

    /// Forgets decisions and state.
    ///
    /// # Errors
    /// When Consul refuses.
    pub async fn clear(&self) -> Result<(), JournalError> {
        for key in [self.key("decisions"), self.key("state")] {
            self.consul.kv().delete(&key).await.map_err(|e| self.unavailable("deleting the journal", e))?;
        }
        Ok(())
    }

    async fn read(&self) -> Result<(Vec<Decided>, u64), JournalError> {
        let key = self.key("decisions");
        let found =
            self.consul.kv().get(&key).await.map_err(|e| self.unavailable("reading the journal", e))?;
        let Some(pair) = found.value else { return Ok((Vec::new(), 0)) };
        let decisions = serde_json::from_slice(&pair.value).map_err(|e| self.corrupt(e))?;
        Ok((decisions, pair.modify_index))
    }

    fn key(&self, what: &str) -> String {
        format!("ha-stack/scaler/{}/{what}", self.service)
    }

    fn unavailable(&self, tried: &str, source: consul_client::Error) -> JournalError {
        JournalError::unavailable(&self.service, tried, source)
    }

    fn not_written(&self, tried: &str, error: anyhow::Error) -> JournalError {
        JournalError::unavailable(&self.service, tried, error.into_boxed_dyn_error())
    }

    fn corrupt(&self, source: serde_json::Error) -> JournalError {
        JournalError::Corrupt { service: self.service.clone(), source: source.into() }
    }
}

#[async_trait]
impl Journal for ConsulJournal {
    async fn record(&self, entry: JournalEntry) -> Result<(), JournalError> {
        tracing::info!("{entry}");
        let Some(decided) = decided(&entry) else { return Ok(()) };
        for _ in 0..RECORD_TRIES {
            let (mut decisions, index) = self.read().await?;
            if decisions.last() == Some(&decided) {
                // The answer to an earlier try was lost, not the try.
                return Ok(());
            }
            decisions.push(decided.clone());
            let surplus = decisions.len().saturating_sub(DECISIONS_KEPT);
            decisions.drain(..surplus);
            let bytes = serde_json::to_vec(&decisions).map_err(|e| self.corrupt(e))?;
            match self.leading.write(|txn| txn.cas(self.key("decisions"), bytes, index)).await {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                // Reading tells what became of it.
                Err(error) if may_be_written(&error) => {}
                Err(error) => return Err(self.not_written("writing the journal", error)),
            }
            tokio::time::sleep(Duration::from_millis(rand::random_range(10..100))).await;
        }
        tracing::warn!(service = %self.service, "the journal is written by others all the time; this entry is left out");
        Ok(())
    }

    async fn load_state(&self, _service: &str) -> Result<Option<State>, JournalError> {
        let found = self.consul.kv().get(&self.key("state")).await;
        let found = found.map_err(|e| self.unavailable("reading the state", e))?;
        found.value.map(|pair| serde_json::from_slice(&pair.value).map_err(|e| self.corrupt(e))).transpose()
    }

    async fn save_state(&self, _service: &str, state: &State) -> Result<(), JournalError> {
        let bytes = serde_json::to_vec(state).map_err(|e| self.corrupt(e))?;
        let written = self.leading.write(|txn| txn.set(self.key("state"), bytes)).await;
        // Without a condition of its own it is written or refused for want of the lead, which is an error.
        written.map(drop).map_err(|e| self.not_written("writing the state", e))
    }
}

/// The answer was lost, perhaps not the write.
fn may_be_written(error: &anyhow::Error) -> bool {
    error.downcast_ref::<consul_client::Error>().is_some_and(consul_client::Error::maybe_applied)
}

/// The decision of an entry that changed something or held for a reason; `None` for entries about the lease.
pub fn decided(entry: &JournalEntry) -> Option<Decided> {
    let Event::Decided { decision, outcome } = &entry.event else { return None };
    let to = if matches!(outcome, Outcome::Written { .. }) { decision.replicas() } else { decision.current };
    let sentence = match outcome {
        Outcome::Failed { why } => format!("{decision} (not written: {why})"),
        _ => decision.to_string(),
    };
    Some(Decided { at: entry.at.as_secs_f64(), from: decision.current, to, sentence })
}

/// A story's worth; a KV value may have 512 KiB.
const DECISIONS_KEPT: usize = 200;
const RECORD_TRIES: usize = 5;
