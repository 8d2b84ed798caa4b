//! Which engines there are, as Consul knows: a key for each, `PREFIX/docker/nodes/IP:PORT`, that a session of its host holds. The key
//! names are those of Docker's own discovery; here a key without a session counts as gone.

use std::fmt;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use async_trait::async_trait;
use consul_client::EphemeralState;
use swarm_client::engines::discovery::list;
use swarm_client::engines::{Discovery, DiscoveryError};
use tokio_util::sync::CancellationToken;

/// The engines whose hosts hold their key.
pub struct ConsulNodes {
    consul: consul_client::Client,
    prefix: String,
}

impl ConsulNodes {
    /// Those below this prefix.
    pub fn new(consul: consul_client::Client, prefix: &str) -> Self {
        Self { consul, prefix: folder(prefix) }
    }
}

impl fmt::Debug for ConsulNodes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConsulNodes").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

#[async_trait]
impl Discovery for ConsulNodes {
    async fn engines(&self) -> Result<Vec<String>, DiscoveryError> {
        let unavailable =
            |source| DiscoveryError::Unavailable { from: format!("Consul, {}", self.prefix), source };
        let listed = tokio::time::timeout(LIMIT, self.consul.kv().list(&self.prefix)).await;
        let pairs = listed.map_err(|e| unavailable(e.into()))?.map_err(|e| unavailable(e.into()))?.value;
        let held = pairs.iter().filter(|pair| pair.session.is_some());
        let texts = held.map(|pair| String::from_utf8_lossy(&pair.value).into_owned());
        // An entry that is no engine is one host's fault, not every host's.
        let good = texts.filter_map(|text| match list::entry(&text) {
            Ok(engines) => Some(engines),
            Err(error) => {
                tracing::warn!(%error, "an entry in Consul is left out");
                None
            }
        });
        Ok(good.flatten().take(list::MAX_ENGINES).collect())
    }
}

/// Keeps the key of an engine until told to stop; the key goes with this process and with its host.
///
/// # Errors
/// When the address is no engine's, or Consul refuses for a reason that does not pass.
pub async fn join(
    consul: &consul_client::Client,
    prefix: &str,
    advertise: &str,
    stop: &CancellationToken,
    joined: impl Fn(),
) -> Result<()> {
    let engines = list::entry(advertise).context("--advertise")?;
    ensure!(engines.len() == 1, "--advertise is {advertise}: one engine joins at a time");
    let key = format!("{}{advertise}", folder(prefix));
    let held = consul.ephemeral(&key).value(advertise.to_owned()).ttl(TTL).hold();
    let here = tokio::select! {
        here = held => here.with_context(|| format!("the key {key} can't be held in Consul"))?,
        () = stop.cancelled() => return Ok(()),
    };
    let mut state = here.subscribe_state();
    state.mark_changed();
    loop {
        tokio::select! {
            changed = state.changed() => if changed.is_err() { break },
            () = stop.cancelled() => break,
        }
        match &*state.borrow_and_update() {
            EphemeralState::Present => {
                tracing::info!(%key, "joined");
                joined();
            }
            // It is tried again by itself.
            state => tracing::warn!(%key, ?state, "no longer joined"),
        }
    }
    if let Err(error) = here.release().await {
        tracing::warn!(%error, "the key was not deleted; it ends with its session");
    }
    Ok(())
}

fn folder(prefix: &str) -> String {
    let prefix = prefix.trim_matches('/');
    if prefix.is_empty() { "docker/nodes/".to_owned() } else { format!("{prefix}/docker/nodes/") }
}

/// The prefix of our own keys.
pub const PREFIX: &str = "ha-stack/engines";
/// The shortest that Consul offers. A host that is lost is gone sooner, by Consul's own failure detection.
const TTL: Duration = Duration::from_secs(10);
/// Consul answers in milliseconds, or the pool goes on with what it knows.
const LIMIT: Duration = Duration::from_secs(2);
