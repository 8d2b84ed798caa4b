//! Sessions in this process: for tests and single instances. Gone when the process ends.

use crate::{
    connect::StoreOptions,
    error::StoreError,
    id::StoreKey,
    lifetime::unix_now,
    op::{Applied, Op, Outcome},
    record::Record,
    rule::apply_op,
    seal::Seal,
    store::{Durability, SessionStore},
};
use async_trait::async_trait;
use std::{
    collections::HashMap,
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// Keeps encoded records in a map, so that limits and damage behave as in the other stores.
#[derive(Default)]
pub struct MemoryStore {
    map: Mutex<Map>,
    seal: Seal,
}

#[derive(Default)]
struct Map {
    records: HashMap<StoreKey, Vec<u8>>,
    writes: u64,
}

impl MemoryStore {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    pub(crate) fn with(options: StoreOptions) -> Self {
        Self { map: Mutex::default(), seal: options.seal }
    }

    fn map(&self) -> MutexGuard<'_, Map> {
        self.map.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl SessionStore for MemoryStore {
    async fn load(&self, key: &StoreKey) -> Result<Option<Record>, StoreError> {
        self.map().get(key, &self.seal)
    }

    async fn apply(&self, key: &StoreKey, op: Op, _: Durability) -> Result<Applied, StoreError> {
        let mut map = self.map();
        let step = apply_op(map.get(key, &self.seal)?, &op, unix_now());
        let write = step.write.as_ref().map(|record| self.seal.encode(key, record, 0)).transpose()?;
        if let Some((new, record)) = &step.create {
            if map.records.contains_key(new) {
                return Ok(Applied { outcome: Outcome::Collision, record: None, moved_to: None });
            }
            let bytes = self.seal.encode(new, record, 0)?;
            map.records.insert(*new, bytes);
        }
        if let Some(bytes) = write {
            map.records.insert(*key, bytes);
            map.writes = map.writes.wrapping_add(1);
            if map.writes.is_multiple_of(SWEEP_EVERY) {
                map.sweep(usize::MAX, &self.seal);
            }
        }
        Ok(step.applied)
    }

    async fn sessions_of(&self, principal: &str) -> Result<Vec<StoreKey>, StoreError> {
        let (map, now) = (self.map(), unix_now());
        let mut keys = Vec::new();
        for (key, bytes) in &map.records {
            let record = self.seal.decode(key, bytes)?;
            if record.live_principal() == Some(principal) && record.gone(now).is_none() {
                keys.push(*key);
            }
        }
        Ok(keys)
    }

    async fn revoke_all(&self, principal: &str, except: Option<&StoreKey>) -> Result<usize, StoreError> {
        let (mut map, now) = (self.map(), unix_now());
        let tombstone = Record::revoked(now);
        let mut ended = 0;
        for (key, bytes) in &mut map.records {
            if Some(key) != except && self.seal.decode(key, bytes)?.live_principal() == Some(principal) {
                *bytes = self.seal.encode(key, &tombstone, 0)?;
                ended += 1;
            }
        }
        Ok(ended)
    }

    async fn sweep(&self, limit: usize) -> Result<usize, StoreError> {
        Ok(self.map().sweep(limit, &self.seal))
    }

    async fn health(&self) -> Result<(), StoreError> {
        Ok(())
    }

    async fn about_how_many(&self) -> Result<Option<u64>, StoreError> {
        Ok(Some(self.map().records.len().try_into().unwrap_or(u64::MAX)))
    }
}

impl Map {
    fn get(&self, key: &StoreKey, seal: &Seal) -> Result<Option<Record>, StoreError> {
        self.records.get(key).map(|bytes| seal.decode(key, bytes)).transpose()
    }

    /// Forgets what is over.
    fn sweep(&mut self, limit: usize, seal: &Seal) -> usize {
        let (now, mut forgotten) = (unix_now(), 0);
        self.records.retain(|key, bytes| {
            let over =
                forgotten < limit && seal.decode(key, bytes).is_ok_and(|record| now >= record.deadline());
            forgotten += usize::from(over);
            !over
        });
        forgotten
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore").field("records", &self.map().records.len()).finish()
    }
}

/// A sweep reads every record, so it is rare.
const SWEEP_EVERY: u64 = 4096;
