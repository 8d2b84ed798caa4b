//! Who looks: a platform, which sees everything, or a gateway, which sees what Consul and its peers say.

use std::sync::Arc;

use anyhow::Result;
use async_trait::async_trait;
use balancer::proxy::Gateway;
use consul_client::{ServiceEntry, Status};

use super::view::View;
use crate::load;
use crate::platform::swarm::health;
use crate::platform::{GatewayStatus, Host, Platform};
use crate::roles::admin::{self, LoadSeen};
use crate::roles::journal::ConsulJournal;
use crate::roles::labels;

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
}

impl PlatformSource {
    /// The stack of `platform`, where a replica should have `target` requests in flight.
    pub fn new(platform: Arc<dyn Platform>, target: f64) -> Self {
        Self { platform, target }
    }
}

#[async_trait]
impl Source for PlatformSource {
    async fn look(&self) -> Result<View> {
        let (status, backends, events, decisions) = tokio::join!(
            self.platform.status(),
            self.platform.backends(),
            self.platform.events(),
            self.platform.decisions(),
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
            gateways: status.gateways,
            backends,
            // A look without the past is better than none.
            decisions: decisions.unwrap_or_default(),
            events: events.unwrap_or_default(),
        })
    }
}

/// The gateway of this process, and its peers as far as Consul knows them.
pub struct GatewaySource {
    gateway: Gateway,
    consul: consul_client::Client,
    http: reqwest::Client,
    service: String,
    here: String,
}

impl GatewaySource {
    /// A gateway in front of `service`; `here` is where users reach it.
    ///
    /// # Errors
    /// When the HTTP client can't be built.
    pub fn new(gateway: Gateway, consul: consul_client::Client, service: &str, here: String) -> Result<Self> {
        Ok(Self { gateway, consul, http: load::client(PEER_TIMEOUT)?, service: service.into(), here })
    }

    async fn peers(&self, registered: &[ServiceEntry]) -> Vec<GatewayStatus> {
        let asked = registered.iter().map(|peer| async move {
            let name = peer.node.node.clone();
            let port = peer.service.meta.get(labels::META_ADMIN_PORT).map_or("", String::as_str);
            let address = format!("http://{}:{}", peer.address(), peer.service.port);
            match LoadSeen::fetch(&self.http, &format!("{}:{port}", peer.address())).await {
                Ok(seen) => seen.status(&name, &address),
                Err(error) => GatewayStatus {
                    name,
                    address,
                    error: Some(format!("{error:#}")),
                    ..GatewayStatus::default()
                },
            }
        });
        futures_util::future::join_all(asked).await
    }
}

#[async_trait]
impl Source for GatewaySource {
    async fn look(&self) -> Result<View> {
        let own = LoadSeen::of(&self.gateway)?;
        let journal = ConsulJournal::new(self.consul.clone(), &self.service);
        let query = self.consul.health().service(labels::GATEWAYS);
        let (registered, decisions, consul, scaler) = tokio::join!(
            query.list(),
            journal.decisions(),
            health::consul(&self.consul),
            health::leader(&self.consul, &self.service),
        );
        // Without Consul this gateway still knows what it does itself.
        let registered = registered.map(|answer| answer.value).unwrap_or_default();
        let mut gateways = self.peers(&registered).await;
        if gateways.is_empty() {
            gateways.push(own.status("here", &self.here));
        }
        let decisions = decisions.unwrap_or_default();
        Ok(View {
            platform: "gateway".into(),
            service: self.service.clone(),
            seen_from: format!("the gateway at {}", self.here),
            hosts: hosts(&registered, &consul.detail),
            replicas: own.replicas(),
            gateways,
            backends: vec![consul, scaler],
            decisions,
            events: admin::happenings(&self.gateway),
            ..View::default()
        })
    }
}

/// The machines that have a gateway; one is up while Consul's own check of it passes.
fn hosts(registered: &[ServiceEntry], leader: &str) -> Vec<Host> {
    let hosts = registered.iter().map(|entry| {
        let lost = |check: &consul_client::HealthCheck| {
            check.check_id == "serfHealth" && check.status == Status::Critical
        };
        let leads = leader.starts_with(&format!("{}:", entry.node.address));
        Host {
            name: entry.node.node.clone(),
            address: entry.node.address.clone(),
            up: !entry.checks.iter().any(lost),
            leads: if leads { vec!["consul".into()] } else { Vec::new() },
            drained: false,
        }
    });
    hosts.collect()
}

const PEER_TIMEOUT: std::time::Duration = std::time::Duration::from_millis(500);
