//! What the stack on plain engines stands on: the pool, Consul, the session store, and who leads watchdogs and scalers.

use super::EnginesPlatform;
use crate::platform::Backend;
use crate::platform::swarm::health::{backend, consul, leader, sessions, within};

impl EnginesPlatform {
    pub(super) async fn health(&self) -> Vec<Backend> {
        let (engines, consul, sessions, watchdog, scaler) = tokio::join!(
            self.engines(),
            consul(&self.consul),
            sessions(&self.backends),
            self.watchdog(),
            leader(&self.consul, &self.spec.service)
        );
        vec![engines, consul, sessions, watchdog, scaler]
    }

    async fn engines(&self) -> Backend {
        let asked = within(async { Ok(self.pool.refresh().await?) }).await;
        backend(
            "engines",
            asked.map(|engines| {
                let there = engines.iter().filter(|engine| engine.reached).count();
                (2 * there > engines.len(), format!("{there} of {} answer", engines.len()))
            }),
        )
    }

    async fn watchdog(&self) -> Backend {
        let asked = within(self.records.leader()).await;
        backend(
            "watchdog",
            asked.map(|leader| match leader {
                Some(host) => (true, format!("the one on {host} leads")),
                None => (false, "none leads: nothing is started elsewhere".into()),
            }),
        )
    }
}
