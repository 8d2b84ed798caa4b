//! Who looks: a platform, which sees everything, or a gateway, which sees what Consul or the Swarm and its peers say.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use async_trait::async_trait;

use super::view::{ServiceSeen, View};
use crate::load;
use crate::platform::{Backend, Decided, GatewayStatus, Happening, Host, Platform};
use crate::roles::admin::{self, LoadSeen};
use crate::roles::coordination::{Coordination, Peer};
use crate::roles::services::Services;

/// Something that can say how the stack is.
#[async_trait]
pub trait Source: Send + Sync {
    /// The stack at this moment.
    ///
    /// # Errors
    /// When nothing can be seen at all.
    async fn look(&self) -> Result<View>;
}

/// A platform in this process.
pub struct PlatformSource {
    platform: Arc<dyn Platform>,
    target: f64,
    events: Last<Vec<Happening>>,
    decisions: Last<Vec<Decided>>,
}

impl PlatformSource {
    /// The stack of `platform`, where a replica should have `target` requests in flight.
    pub fn new(platform: Arc<dyn Platform>, target: f64) -> Self {
        Self { platform, target, events: Last::default(), decisions: Last::default() }
    }
}

#[async_trait]
impl Source for PlatformSource {
    async fn look(&self) -> Result<View> {
        let (status, backends, events, decisions) = tokio::join!(
            self.platform.status(),
            self.platform.backends(),
            soon(self.platform.events()),
            soon(self.platform.decisions()),
        );
        let status = status?;
        Ok(View {
            platform: status.platform,
            service: status.service,
            seen_from: "this program".into(),
            site: Some(self.platform.site()),
            wanted: Some(status.wanted),
            target: Some(self.target),
            hold: status.hold,
            hosts: status.hosts,
            replicas: status.replicas,
            // A platform starts one service.
            services: Vec::new(),
            unrouted_total: 0,
            gateways: status.gateways,
            backends,
            decisions: self.decisions.or_last(decisions),
            events: self.events.or_last(events),
        })
    }
}

/// The gateway of this process, and its peers as far as they are known.
pub struct GatewaySource {
    services: Services,
    by: Coordination,
    http: reqwest::Client,
    service: String,
    here: String,
    peers: Last<Vec<Peer>>,
    decisions: Last<Vec<Decided>>,
}

impl GatewaySource {
    /// A gateway in front of `services`; `service` is the one whose scaler's decisions are shown, `here` where users reach
    /// it.
    ///
    /// # Errors
    /// When the HTTP client can't be built.
    pub fn new(services: Services, by: Coordination, service: &str, here: String) -> Result<Self> {
        Ok(Self {
            services,
            by,
            http: load::client(PEER_TIMEOUT)?,
            service: service.into(),
            here,
            peers: Last::default(),
            decisions: Last::default(),
        })
    }

    async fn load_of(&self, peers: &[Peer]) -> Vec<(GatewayStatus, Option<LoadSeen>)> {
        let asked = peers.iter().map(|peer| async move {
            let (name, address) = (peer.host.clone(), format!("http://{}", peer.site));
            match LoadSeen::fetch(&self.http, &peer.admin).await {
                Ok(seen) => (seen.status(&name, &address), Some(seen)),
                Err(error) => {
                    let error = Some(format!("{error:#}"));
                    (GatewayStatus { name, address, error, ..GatewayStatus::default() }, None)
                }
            }
        });
        futures_util::future::join_all(asked).await
    }
}

#[async_trait]
impl Source for GatewaySource {
    async fn look(&self) -> Result<View> {
        let own = LoadSeen::of_all(&self.services)?;
        let (peers, decisions, backends) = tokio::join!(
            soon(self.by.peers()),
            soon(self.by.decisions(&self.service)),
            self.by.health(&self.service),
        );
        let peers = self.peers.or_last(peers);
        let mut loads = self.load_of(&peers).await;
        if loads.is_empty() {
            // With nobody to ask this gateway still knows what it does itself.
            loads.push((own.status("here", &self.here), Some(own.clone())));
        }
        let (gateways, seen): (Vec<_>, Vec<_>) = loads.into_iter().unzip();
        let seen: Vec<LoadSeen> = seen.into_iter().flatten().collect();
        let services = ServiceSeen::together(&own.services(), seen.iter().map(LoadSeen::services));
        Ok(View {
            platform: "gateway".into(),
            service: self.service.clone(),
            seen_from: format!("the gateway at {}", self.here),
            hosts: hosts(&peers, &backends),
            replicas: own.replicas(),
            // One that gets everything is what the whole page is about.
            services: if services.iter().all(|one| one.rules.is_empty()) { Vec::new() } else { services },
            unrouted_total: seen.iter().map(LoadSeen::unrouted_total).sum(),
            gateways,
            backends,
            decisions: self.decisions.or_last(decisions),
            events: admin::happenings_of_all(&self.services),
            ..View::default()
        })
    }
}

/// The answer, if it comes soon: one that is away must not hide the others.
async fn soon<T, E>(read: impl Future<Output = Result<T, E>>) -> Option<T> {
    tokio::time::timeout(READ_DEADLINE, read).await.ok()?.ok()
}

/// What was read last: a read that failed is not an empty answer.
struct Last<T>(Mutex<T>);

impl<T: Default> Default for Last<T> {
    fn default() -> Self {
        Self(Mutex::new(T::default()))
    }
}

impl<T: Clone> Last<T> {
    fn or_last(&self, read: Option<T>) -> T {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(read) = read {
            *last = read;
        }
        last.clone()
    }
}

/// The machines that have a gateway, and what they lead: the Swarm, or Consul as that one's own line says.
fn hosts(peers: &[Peer], backends: &[Backend]) -> Vec<Host> {
    let consul = backends.iter().find(|backend| backend.name == "consul");
    let hosts = peers.iter().map(|peer| {
        let leads_consul =
            consul.is_some_and(|consul| consul.detail.starts_with(&format!("{}:", peer.address)));
        let leads = [(peer.leads, "swarm"), (leads_consul, "consul")];
        Host {
            name: peer.host.clone(),
            address: peer.address.clone(),
            up: peer.up,
            leads: leads.into_iter().filter(|(leads, _)| *leads).map(|(_, what)| what.into()).collect(),
            drained: false,
        }
    });
    hosts.collect()
}

/// Well within the time that a look as a whole may take.
const READ_DEADLINE: std::time::Duration = std::time::Duration::from_secs(2);
const PEER_TIMEOUT: std::time::Duration = std::time::Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_read_is_not_an_empty_answer() {
        let last = Last::default();
        assert_eq!(last.or_last(Some(vec![1, 2])), [1, 2]);
        assert_eq!(last.or_last(None), [1, 2]);
        assert_eq!(last.or_last(Some(Vec::new())), [0; 0]);
    }
}
