//! tower-sessions with its Redis store, called at the level of its store: load, change one value, save. It has no versions, so the last writer wins.

use crate::load::{PAD, Peer, SESSIONS};
use anyhow::{Context, Result};
use std::sync::Arc;
use tower_sessions::{
    SessionStore,
    cookie::time::{Duration, OffsetDateTime},
    session::{Id, Record},
};
use tower_sessions_redis_store::{
    RedisStore,
    fred::prelude::{ClientLike, Config, Pool},
};

#[derive(Clone)]
pub struct Tower {
    store: RedisStore<Pool>,
    ids: Arc<[Id]>,
}

impl Tower {
    pub async fn new(url: &str) -> Result<Self> {
        // One connection: it was no slower with six, which its documentation shows.
        let pool = Pool::new(Config::from_url(url)?, None, None, None, 1)?;
        pool.connect();
        pool.wait_for_connect().await?;
        let store = RedisStore::new(pool);
        let mut ids = Vec::new();
        for _ in 0..SESSIONS {
            let expiry_date = OffsetDateTime::now_utc() + Duration::seconds(3000);
            let mut record = Record { id: Id::default(), data: Default::default(), expiry_date };
            record.data.insert("pad".into(), String::from_utf8_lossy(&PAD).into());
            record.data.insert("user".into(), "ada".into());
            record.data.insert("views".into(), 0.into());
            store.create(&mut record).await?;
            ids.push(record.id);
        }
        Ok(Self { store, ids: ids.into() })
    }
}

impl Peer for Tower {
    async fn request(&self, session: usize) -> Result<()> {
        let mut record = self.store.load(&self.ids[session]).await?.context("a session is missing")?;
        let views = record.data.get("views").and_then(serde_json::Value::as_i64).unwrap_or_default();
        record.data.insert("views".into(), (views + 1).into());
        record.expiry_date = OffsetDateTime::now_utc() + Duration::seconds(3000);
        self.store.save(&record).await?;
        Ok(())
    }
}
