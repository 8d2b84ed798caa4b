//! What the stack on a Swarm stands on: the managers, Consul, the session store, and who leads the scaling.

use std::time::Duration;

use super::SwarmPlatform;
use crate::platform::Backend;
use crate::platform::sessions::seen;
use crate::roles::coordination::lock_key;
use crate::settings::Backends;

impl SwarmPlatform {
    pub(super) async fn health(&self) -> Vec<Backend> {
        let (swarm, sessions, others) =
            tokio::join!(self.managers(), sessions(&self.backends), self.by.health(&self.spec.service));
        [swarm, sessions].into_iter().chain(others).collect()
    }

    async fn managers(&self) -> Backend {
        let listed = within(async { Ok::<_, anyhow::Error>(self.swarm.nodes().list().await?) }).await;
        backend(
            "swarm",
            listed.map(|nodes| {
                let managers: Vec<_> = nodes.iter().filter(|node| node.is_manager()).collect();
                let ready = managers.iter().filter(|node| node.is_ready()).count();
                let leader =
                    managers.iter().find(|node| node.is_leader()).map_or("nobody", |node| node.hostname());
                (
                    2 * ready > managers.len(),
                    format!("{leader} leads, {ready} of {} managers are there", managers.len()),
                )
            }),
        )
    }
}

/// The session store, as the settings name it.
pub(crate) async fn sessions(backends: &Backends) -> Backend {
    let Some(url) = backends.redis() else {
        return backend("sessions", Ok((true, "not known here: set --redis (REDIS_URL)".into())));
    };
    let asked = async { Ok(seen(url.expose(), "Redis answers and takes writes").await?) };
    backend("sessions", within(asked).await.map(|words| (true, words)))
}

/// Consul, as an agent of it answers.
pub(crate) async fn consul(consul: &consul_client::Client) -> Backend {
    let asked = async {
        let status = consul.status();
        Ok::<_, anyhow::Error>((status.leader().await?, status.peers().await?))
    };
    backend(
        "consul",
        within(asked).await.map(|(leader, peers)| match leader {
            Some(leader) => (true, format!("{leader} leads {} servers", peers.len())),
            None => (false, format!("{} servers, and none leads", peers.len())),
        }),
    )
}

/// Which scaler leads: the holder of the lock.
pub(crate) async fn leader(consul: &consul_client::Client, service: &str) -> Backend {
    let asked = async {
        let lock = consul.kv().get(&lock_key(service)).await?.value;
        let Some(session) = lock.and_then(|pair| pair.session) else { return Ok(None) };
        Ok::<_, anyhow::Error>(consul.sessions().info(&session).await?.map(|session| session.node))
    };
    backend(
        "scaler",
        within(asked).await.map(|node| match node {
            Some(node) => (true, format!("the one on {node} leads")),
            None => (false, "none leads: nothing is scaled".into()),
        }),
    )
}

/// What was asked, as a state.
pub(crate) fn backend(name: &str, asked: anyhow::Result<(bool, String)>) -> Backend {
    let (ok, detail) = asked.unwrap_or_else(|error| (false, format!("{error:#}")));
    Backend { name: name.into(), ok, detail }
}

/// An answer, or an error after a while.
pub(crate) async fn within<T>(asked: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let answer = tokio::time::timeout(DEADLINE, asked).await;
    answer.unwrap_or_else(|_| Err(anyhow::anyhow!("no answer within {} s", DEADLINE.as_secs())))
}

const DEADLINE: Duration = Duration::from_secs(2);
