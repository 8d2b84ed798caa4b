//! A journal in memory.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use tokio::sync::broadcast;

use super::error::JournalError;
use super::journal::{Journal, JournalEntry};
use crate::state::State;

/// A [`Journal`] in memory: the last entries, the state of each service, and a live stream.
#[derive(Debug)]
pub struct MemoryJournal {
    capacity: usize,
    kept: Mutex<Kept>,
    live: broadcast::Sender<JournalEntry>,
}

#[derive(Debug, Default)]
struct Kept {
    entries: VecDeque<JournalEntry>,
    states: HashMap<String, State>,
}

impl MemoryJournal {
    /// A journal that keeps the last `capacity` entries (at least one), of all services together.
    pub fn new(capacity: usize) -> Self {
        let capacity = capacity.max(1);
        Self { capacity, kept: Mutex::default(), live: broadcast::Sender::new(LIVE) }
    }

    /// The entries that are kept, oldest first.
    pub fn entries(&self) -> Vec<JournalEntry> {
        self.lock().entries.iter().cloned().collect()
    }

    /// Every entry from now on. A receiver that falls 256 behind is told how many it missed.
    pub fn subscribe(&self) -> broadcast::Receiver<JournalEntry> {
        self.live.subscribe()
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        // What is kept is whole after every statement, so a panic elsewhere does not spoil it.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for MemoryJournal {
    fn default() -> Self {
        Self::new(1000)
    }
}

#[async_trait]
impl Journal for MemoryJournal {
    async fn record(&self, entry: JournalEntry) -> Result<(), JournalError> {
        let mut kept = self.lock();
        while kept.entries.len() >= self.capacity {
            kept.entries.pop_front();
        }
        kept.entries.push_back(entry.clone());
        // Under the lock, so that the stream has the order of the entries. Nobody listening is no error.
        let _ = self.live.send(entry);
        Ok(())
    }

    async fn load_state(&self, service: &str) -> Result<Option<State>, JournalError> {
        Ok(self.lock().states.get(service).cloned())
    }

    async fn save_state(&self, service: &str, state: &State) -> Result<(), JournalError> {
        self.lock().states.insert(service.to_owned(), state.clone());
        Ok(())
    }
}

/// Entries a live receiver may lag behind.
const LIVE: usize = 256;
