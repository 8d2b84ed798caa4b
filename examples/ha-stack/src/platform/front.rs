//! What the platforms with gateways in containers share: the view through the front gateway, and the services that all of them need.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use super::{GatewayStatus, Happening};
use crate::load;
use crate::roles::admin::{self, LoadSeen};
use crate::settings::{Backends, Secret};

/// Where each host's gateway takes users' requests.
pub(super) const GATEWAY_PORT: u16 = 8080;
/// Where each host's gateway says how busy it is: for the scalers, not for users.
pub(super) const ADMIN_PORT: u16 = 8081;

/// The host whose gateway the story goes through.
pub(super) struct Front {
    pub(super) ip: IpAddr,
    /// The address that users know, where it is not a host's own.
    public: Option<IpAddr>,
    /// Of the gateways' services the one that is looked at.
    service: String,
    http: reqwest::Client,
}

impl Front {
    pub(super) fn new(ip: IpAddr, public: Option<IpAddr>, service: &str) -> Result<Self> {
        Ok(Self { ip, public, service: service.to_owned(), http: load::client(Duration::from_secs(1))? })
    }

    pub(super) fn site(&self) -> String {
        format!("http://{}:{GATEWAY_PORT}", self.public.unwrap_or(self.ip))
    }

    /// The view of the front gateway.
    pub(super) async fn seen(&self) -> Result<LoadSeen> {
        self.seen_at(self.ip).await
    }

    /// The view of the first gateway that answers on these hosts.
    pub(super) async fn seen_elsewhere(&self, hosts: Vec<IpAddr>) -> Option<LoadSeen> {
        for host in hosts.into_iter().filter(|host| *host != self.ip) {
            if let Ok(seen) = self.seen_at(host).await {
                return Some(seen);
            }
        }
        None
    }

    pub(super) async fn seen_at(&self, host: IpAddr) -> Result<LoadSeen> {
        let seen =
            LoadSeen::fetch_service(&self.http, &format!("{host}:{ADMIN_PORT}"), &self.service).await?;
        seen.with_context(|| format!("the gateway at {host} does not serve {}", self.service))
    }

    /// What the front gateway saw happen lately.
    pub(super) async fn events(&self) -> Result<Vec<Happening>> {
        admin::events(&self.http, &format!("{}:{ADMIN_PORT}", self.ip)).await
    }

    /// Waits until the site answers.
    pub(super) async fn wait_for_site(&self) -> Result<()> {
        let mut last = String::new();
        for _ in 0..SITE_TRIES {
            match self.http.get(format!("{}/healthz", self.site())).send().await {
                Ok(answer) if answer.status().is_success() => return Ok(()),
                Ok(answer) => last = answer.status().to_string(),
                Err(error) => last = load::failure_kind(&error),
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        bail!("the services run, but {} does not answer: {last}", self.site())
    }

    /// The gateways of these hosts, each with what it has to do.
    pub(super) async fn gateways(&self, hosts: Vec<(String, IpAddr)>) -> Vec<GatewayStatus> {
        let asked = hosts.into_iter().map(|(name, ip)| async move {
            let address = format!("http://{ip}:{GATEWAY_PORT}");
            match self.seen_at(ip).await {
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

/// Consul must answer and have a leader.
pub(super) async fn check_consul(consul: &consul_client::Client, backends: &Backends) -> Result<()> {
    let address = backends.consul_shown();
    // Refused connections are tried again for as long as the client's deadline, which no person waits for.
    let leader = tokio::time::timeout(CONSUL_DEADLINE, consul.status().leader()).await;
    let leader = leader.map_err(anyhow::Error::from).and_then(|leader| Ok(leader?)).with_context(|| {
        format!(
            "Consul at {address} (--consul, CONSUL_HTTP_ADDR) does not answer: is an agent running there?"
        )
    })?;
    ensure!(leader.is_some(), "Consul at {address} (--consul, CONSUL_HTTP_ADDR) has no leader");
    Ok(())
}

/// The session store must answer, and be one that several hosts can share.
pub(super) async fn check_redis<'a>(backends: &'a Backends, platform: &str) -> Result<&'a Secret> {
    let redis = backends.redis();
    let redis = redis.with_context(|| {
        format!("the platform {platform} keeps sessions in Redis: set --redis (REDIS_URL)")
    })?;
    let store = session_store::connect(redis.expose()).await.context("--redis (REDIS_URL) can't be used")?;
    ensure!(
        store.is_shared(),
        "--redis (REDIS_URL) names a store of one machine: replicas on several hosts need Redis"
    );
    let health = tokio::time::timeout(HEALTH_DEADLINE, store.health()).await;
    health
        .map_err(anyhow::Error::from)
        .and_then(|answer| Ok(answer?))
        .context("Redis (--redis, REDIS_URL) does not answer: is it running?")?;
    Ok(redis)
}

const CONSUL_DEADLINE: Duration = Duration::from_secs(4);
const HEALTH_DEADLINE: Duration = Duration::from_secs(5);
const SITE_TRIES: usize = 60;
