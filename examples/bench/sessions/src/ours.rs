//! This library, on any of its stores: a load, and a commit made from the version that was loaded.

use crate::load::{PAD, Peer, SESSIONS};
use anyhow::{Result, bail};
use session_store::{
    CommitId, Durability, Lifetime, Loaded, Mode, Op, Patch, SessionId, SessionStore, StoreKey, lifetime::unix_now,
};
use std::sync::Arc;

#[derive(Clone)]
pub struct Ours {
    store: Arc<dyn SessionStore>,
    keys: Arc<[StoreKey]>,
    step: Step,
}

#[derive(Clone, Copy)]
pub enum Step {
    Read,
    Commit,
}

impl Ours {
    pub async fn new(store: Arc<dyn SessionStore>, step: Step) -> Result<Self> {
        let mut keys = Vec::new();
        for _ in 0..SESSIONS {
            keys.push(create(&*store).await?);
        }
        Ok(Self { store, keys: keys.into(), step })
    }

    pub fn with(&self, step: Step) -> Self {
        Self { step, ..self.clone() }
    }
}

impl Peer for Ours {
    async fn request(&self, session: usize) -> Result<()> {
        match self.step {
            Step::Read => load(&*self.store, &self.keys[session]).await.map(drop),
            Step::Commit => commit(&*self.store, &self.keys[session]).await,
        }
    }
}

pub async fn create(store: &dyn SessionStore) -> Result<StoreKey> {
    let key = SessionId::random().key();
    let patch = Patch::new().set("pad", PAD);
    let made = store.create(&key, Lifetime::default(), Some("ada".into()), patch, None).await?;
    if !made.outcome.is_done() {
        bail!("a session was not created: {:?}", made.outcome);
    }
    Ok(key)
}

/// As the layer does it for a request that changes something.
pub async fn commit(store: &dyn SessionStore, key: &StoreKey) -> Result<()> {
    let Loaded::Live { key, record } = load(store, key).await? else { bail!("a session is missing") };
    let patch = Patch::new().add("views", 1);
    let op = Op::Commit { base: Some(record.version), patch, mode: Mode::Merge, id: Some(CommitId::random()) };
    let applied = store.apply_from(&key, &record, op, Durability::Primary).await?;
    if !applied.outcome.is_done() {
        bail!("a commit was refused: {:?}", applied.outcome);
    }
    Ok(())
}

async fn load(store: &dyn SessionStore, key: &StoreKey) -> Result<Loaded> {
    match store.find(key, unix_now()).await? {
        Loaded::Live { key, record } => Ok(Loaded::Live { key, record }),
        other => bail!("a session is missing: {other:?}"),
    }
}
