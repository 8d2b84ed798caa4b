//! What somebody would write by hand: one multiplexed connection, `GET`, and a script that writes if the version is still the one that was read.

use crate::load::{PAD, Peer, SESSIONS};
use anyhow::{Context, Result};
use redis::{AsyncCommands, Script, aio::MultiplexedConnection};
use std::sync::Arc;

#[derive(Clone)]
pub struct Raw {
    connection: MultiplexedConnection,
    script: Arc<Script>,
}

impl Raw {
    pub async fn new(url: &str) -> Result<Self> {
        let mut connection = redis::Client::open(url)?.get_multiplexed_async_connection().await?;
        let value = [&[0; 8][..], &PAD, &[0; 88]].concat();
        for session in 0..SESSIONS {
            let () = connection.pset_ex(key(session), &value, LIFE).await?;
        }
        Ok(Self { connection, script: Arc::new(Script::new(COMPARE_AND_SET)) })
    }
}

impl Peer for Raw {
    async fn request(&self, session: usize) -> Result<()> {
        let (mut connection, key) = (self.connection.clone(), key(session));
        loop {
            let mut value: Vec<u8> = connection.get(&key).await?;
            let before: [u8; 8] = value.first_chunk().copied().context("a session is missing")?;
            let version = u64::from_be_bytes(before) + 1;
            value[..8].copy_from_slice(&version.to_be_bytes());
            let mut call = self.script.key(&key);
            call.arg(&before[..]).arg(&value).arg(LIFE);
            if call.invoke_async::<u8>(&mut connection).await? == 1 {
                return Ok(());
            }
        }
    }
}

fn key(session: usize) -> String {
    format!("raw:{session}")
}

const LIFE: u64 = 3_000_000;
const COMPARE_AND_SET: &str = r"
local current = redis.call('GET', KEYS[1])
if not current or current:sub(1, 8) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return 1
";
