//! Ends a stack on plain engines: its containers, and nothing that another run started.

use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Result, bail};
use swarm_client::engines::Located;

use super::EnginesPlatform;
use super::record::ConsulRoster;
use crate::progress::Progress;
use crate::roles::labels;

impl EnginesPlatform {
    /// Removes every container of this run from the hosts that answer.
    pub(super) async fn take_down(&self, progress: &Progress) -> Result<()> {
        if !self.creating.load(Ordering::Relaxed) {
            // What runs there was started by somebody else.
            return Ok(());
        }
        // Who would start things again ends first; then the site, while the registrars still take its replicas out of Consul.
        let leads = |name: &str| name.starts_with("ha-watchdog.") || name.starts_with("ha-scaler.");
        let step = progress.step("removing watchdogs and scalers");
        self.remove_where(leads).await?;
        step.done("gone");
        self.records.delete(&self.spec.service).await?;
        ConsulRoster::new(self.consul.clone()).clear().await?;
        let step = progress.step(format!("removing {}", self.spec.service));
        let named = format!("{}.", self.spec.service);
        self.remove_where(|name| name.starts_with(&named)).await?;
        tokio::time::sleep(REGISTRAR_ROUND).await;
        step.done("gone");
        let step = progress.step("removing the rest");
        self.remove_where(|_| true).await?;
        step.done("gone");
        for engine in self.pool.refresh().await?.iter().filter(|engine| !engine.reached) {
            let (name, addr) = (&engine.name, engine.id.addr());
            progress.line(format!(
                "{name} ({addr}) does not answer; what it has of this stack starts with it, and goes with `ha-stack engines rm`"
            ));
        }
        Ok(())
    }

    /// The stack's containers, of whatever run.
    pub(super) async fn existing(&self) -> Result<Vec<Located>> {
        let mut all = self.pool.list().await?;
        all.retain(|there| there.reached && there.container.labels.contains_key(labels::STACK));
        Ok(all)
    }

    async fn remove_where(&self, is: impl Fn(&str) -> bool) -> Result<()> {
        let mut failed = Vec::new();
        for _ in 0..TRIES {
            let mut ours = self.existing().await?;
            ours.retain(|there| {
                there.container.labels[labels::STACK] == self.run && is(&there.container.name)
            });
            if ours.is_empty() {
                return Ok(());
            }
            let removals = ours.iter().map(|there| self.pool.remove_at(there, None));
            let removed = futures_util::future::join_all(removals).await;
            failed = removed.into_iter().filter_map(Result::err).map(|error| error.to_string()).collect();
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
        bail!("containers are left: {}", failed.join("; "))
    }
}

/// The registrars look twice a second.
const REGISTRAR_ROUND: Duration = Duration::from_millis(1200);
const TRIES: usize = 5;
