//! For people who keep their nginx or HAProxy: the same membership stream that feeds our gateway, rendered for theirs.
//!
//! [`membership`] turns changes into snapshots (coalesced, drained before removed), [`nginx`] and [`haproxy`] turn a snapshot into
//! a configuration or into commands, all of it pure; [`follow`] does the reading and writing.

use std::time::{Duration, Instant};

use anyhow::Result;
use tokio_util::sync::CancellationToken;

use self::membership::{Membership, Server};
use crate::roles::members::Members;

pub mod fronted;
pub mod haproxy;
pub mod membership;
pub mod nginx;

/// Where snapshots go.
pub trait Sink: Send {
    /// Brings the proxy to this snapshot. After an error the proxy is as it was, and the same is tried again.
    fn apply(&mut self, servers: &[Server]) -> impl Future<Output = Result<()>> + Send;
}

/// Follows a service's health in Consul until told to stop. Consul's outage changes nothing: the last good set stays.
pub async fn follow(
    consul: &consul_client::Client,
    service: &str,
    drain: Duration,
    sink: &mut impl Sink,
    seen: &tokio::sync::watch::Sender<Vec<Server>>,
    stop: &CancellationToken,
) {
    let mut members = match Members::new(consul, service, None) {
        Ok(members) => members,
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "nothing can be followed");
            return;
        }
    };
    let began = Instant::now();
    let mut membership = Membership::new(drain);
    loop {
        let wait = membership.due().map_or(FAR, |due| due.saturating_sub(began.elapsed()));
        tokio::select! {
            change = members.next() => {
                for update in change.updates {
                    membership.apply(update, began.elapsed());
                }
            }
            () = tokio::time::sleep(wait) => {
                let now = began.elapsed();
                let Some(servers) = membership.take(now) else { continue };
                match sink.apply(&servers).await {
                    Ok(()) => {
                        tracing::info!(servers = servers.len(), "rendered");
                        let _ = seen.send(servers);
                    }
                    Err(error) => {
                        tracing::warn!(error = format!("{error:#}"), "not rendered; the last good state stays");
                        membership.retry(now);
                    }
                }
            }
            () = stop.cancelled() => return,
        }
    }
}

/// Nothing is due.
const FAR: Duration = Duration::from_secs(3600);
