//! By what gateways, scalers and those who look find each other and agree: Consul, or the Swarm itself.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use async_trait::async_trait;
use autoscaler::State;
use autoscaler::controller::{
    Held, Journal, JournalEntry, JournalError, Lease, LeaseError, RegisterJournal, RegisterLease, Term,
};
use clap::ValueEnum;
use consul_client::Status;

use super::consul_lease::ConsulLease;
use super::journal::{ConsulJournal, decided};
use super::labels;
use super::leader::Leading;
use super::swarm_register::SwarmRegister;
use crate::platform::{Backend, Decided};
use crate::settings::Backends;

/// Who is asked where the replicas and the gateways are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Discovery {
    /// Consul, which a registrar on each host feeds.
    #[default]
    Consul,
    /// The Swarm's own tasks: no Consul is needed, but a manager at each gateway.
    Swarm,
}

impl Discovery {
    /// As its flag writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Consul => "consul",
            Self::Swarm => "swarm",
        }
    }
}

/// The way to them all.
#[derive(Clone)]
pub enum Coordination {
    /// Through Consul.
    Consul(consul_client::Client),
    /// Through the Swarm, with the name of the gateways' service.
    Swarm {
        /// A client of its managers.
        swarm: swarm_client::Client,
        /// The service whose tasks are the gateways.
        gateways: String,
    },
}

/// A gateway, and the machine that it is on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The machine's name.
    pub host: String,
    /// Its address.
    pub address: String,
    /// Where users reach the gateway.
    pub site: String,
    /// Where it says how busy it is.
    pub admin: String,
    /// Whether the machine is there, as far as Consul or the managers know.
    pub up: bool,
    /// Whether the machine's manager leads the Swarm, where that is asked.
    pub leads: bool,
}

impl Coordination {
    /// As the settings say.
    ///
    /// # Errors
    /// When Consul's address is none, or no engine can be reached.
    pub async fn of(discovery: Discovery, gateways: &str, backends: &Backends) -> Result<Self> {
        Ok(match discovery {
            Discovery::Consul => Self::Consul(backends.consul()?),
            Discovery::Swarm => Self::Swarm { swarm: backends.swarm().await?, gateways: gateways.to_owned() },
        })
    }

    /// Which of them it is.
    pub fn discovery(&self) -> Discovery {
        match self {
            Self::Consul(_) => Discovery::Consul,
            Self::Swarm { .. } => Discovery::Swarm,
        }
    }

    /// The gateways that are known, those on machines that are lost too.
    ///
    /// # Errors
    /// When nobody can be asked: that is not the same as none.
    pub async fn peers(&self) -> Result<Vec<Peer>> {
        match self {
            Self::Consul(consul) => {
                let registered = consul.health().service(labels::GATEWAYS).list().await?.value;
                Ok(registered.iter().map(registered_peer).collect())
            }
            Self::Swarm { swarm, gateways } => {
                let service = swarm.services().get(gateways).await.with_context(|| {
                    format!("the gateways' service {gateways} (--gateways) can't be asked for")
                })?;
                let (tasks, nodes) = (swarm.services().tasks(gateways).await?, swarm.nodes().list().await?);
                let port = |label: &str, default: u16| {
                    service.label(label).and_then(|port| port.parse().ok()).unwrap_or(default)
                };
                let (site, admin) = (port(labels::SITE_PORT, 8080), port(labels::ADMIN_PORT, 8081));
                Ok(task_peers(&tasks, &nodes, site, admin))
            }
        }
    }

    /// How the scalers of a service elect their leader. `name` is how people know this one. Through Consul, `leading` tells
    /// from then on whether it leads.
    pub fn lease(&self, service: &str, name: &str, leading: &Leading) -> Arc<dyn Lease> {
        match self {
            Self::Consul(consul) => {
                Arc::new(ConsulLease::new(consul.clone(), lock_key(service), name, leading.clone()))
            }
            Self::Swarm { swarm, .. } => Arc::new(SwarmLease {
                lease: RegisterLease::new(register(swarm, service, LEADER), name, LEASE_TTL),
                swarm: swarm.clone(),
                service: service.to_owned(),
            }),
        }
    }

    /// Where the scalers of a service keep their journal and their state. In Consul only the leader writes.
    pub fn journal(&self, service: &str, leading: &Leading) -> Arc<dyn Journal> {
        match self {
            Self::Consul(consul) => {
                Arc::new(ConsulJournal::written_by(leading.clone(), consul.clone(), service))
            }
            Self::Swarm { swarm, .. } => Arc::new(SwarmJournal(journal(swarm, service))),
        }
    }

    /// The newest decisions about a service, oldest first.
    ///
    /// # Errors
    /// When they can't be read.
    pub async fn decisions(&self, service: &str) -> Result<Vec<Decided>> {
        match self {
            Self::Consul(consul) => Ok(ConsulJournal::new(consul.clone(), service).decisions().await?),
            Self::Swarm { swarm, .. } => {
                let entries = journal(swarm, service).entries(service).await?;
                Ok(entries.iter().filter_map(decided).collect())
            }
        }
    }

    /// Forgets what the scalers of a service kept.
    ///
    /// # Errors
    /// When that can't be done.
    pub async fn forget(&self, service: &str) -> Result<()> {
        match self {
            Self::Consul(consul) => Ok(ConsulJournal::new(consul.clone(), service).clear().await?),
            Self::Swarm { swarm, .. } => {
                for used_for in [JOURNAL, LEADER] {
                    let register = register(swarm, service, used_for);
                    let removed = register.remove().await;
                    removed.with_context(|| format!("the config {}", register.name()))?;
                }
                Ok(())
            }
        }
    }

    /// Which scaler leads, where the Swarm keeps that; `None` where Consul does.
    ///
    /// # Errors
    /// When it can't be read.
    pub async fn leader(&self, service: &str) -> Result<Option<(String, Term)>> {
        match self {
            Self::Consul(_) => Ok(None),
            Self::Swarm { swarm, .. } => {
                let lease = RegisterLease::new(register(swarm, service, LEADER), "", LEASE_TTL);
                Ok(lease.holder().await?)
            }
        }
    }

    /// How what they stand on is: Consul, if it is needed, and who leads the scaling.
    pub async fn health(&self, service: &str) -> Vec<Backend> {
        use crate::platform::swarm::health;
        match self {
            Self::Consul(consul) => {
                let (consul, scaler) = tokio::join!(health::consul(consul), health::leader(consul, service));
                vec![consul, scaler]
            }
            Self::Swarm { .. } => {
                let leader = health::within(self.leader(service)).await;
                vec![health::backend(
                    "scaler",
                    leader.map(|leader| match leader {
                        Some((name, term)) => (true, format!("the one on {name} leads, term {term}")),
                        None => (false, "none leads: nothing is scaled".into()),
                    }),
                )]
            }
        }
    }
}

/// The key in Consul whose lock the leading scaler holds.
pub(crate) fn lock_key(service: &str) -> String {
    format!("ha-stack/scaler/{service}/leader")
}

fn register(swarm: &swarm_client::Client, service: &str, used_for: &str) -> SwarmRegister {
    SwarmRegister::new(swarm.clone(), service, used_for)
}

fn journal(swarm: &swarm_client::Client, service: &str) -> RegisterJournal<SwarmRegister> {
    RegisterJournal::new(register(swarm, service, JOURNAL), ENTRIES_KEPT)
}

fn registered_peer(gateway: &consul_client::ServiceEntry) -> Peer {
    let failed = |check: &consul_client::HealthCheck| check.is_of_agent() && check.status == Status::Critical;
    let port = gateway.service.meta.get(labels::META_ADMIN_PORT).map_or("", String::as_str);
    let address = gateway.address();
    Peer {
        host: gateway.node.node.clone(),
        site: format!("{address}:{}", gateway.service.port),
        admin: format!("{address}:{port}"),
        address: gateway.node.address.clone(),
        // A gateway that fails its check may just have too much to do; only its host's end takes it out.
        up: !gateway.checks.iter().any(failed),
        leads: false,
    }
}

/// The tasks that run, each in its host's own network, at these ports.
pub(super) fn task_peers(
    tasks: &[swarm_client::Task],
    nodes: &[swarm_client::Node],
    site: u16,
    admin: u16,
) -> Vec<Peer> {
    let running = tasks.iter().filter(|task| task.is_running());
    let mut peers: Vec<Peer> = running
        .filter_map(|task| {
            let node = nodes.iter().find(|node| task.node_id.as_ref() == Some(node.id()))?;
            let ip: IpAddr = node.addr()?;
            Some(Peer {
                host: node.hostname().to_owned(),
                address: ip.to_string(),
                site: std::net::SocketAddr::new(ip, site).to_string(),
                admin: std::net::SocketAddr::new(ip, admin).to_string(),
                up: !node.is_down(),
                leads: node.is_leader(),
            })
        })
        .collect();
    peers.sort_by(|a, b| a.host.cmp(&b.host));
    // While one is replaced by the next, both may run for a moment; they are one place to ask.
    peers.dedup_by(|a, b| a.admin == b.admin);
    peers
}

/// A lease in the Swarm whose terms go on above what stands at the service, should the lease's own config be lost.
struct SwarmLease {
    lease: RegisterLease<SwarmRegister>,
    swarm: swarm_client::Client,
    service: String,
}

#[async_trait]
impl Lease for SwarmLease {
    async fn acquire(&self) -> Result<Held, LeaseError> {
        // Where it can't be read, the target itself refuses a lower term.
        if let Ok(Some(service)) = self.swarm.services().get_opt(&self.service).await
            && let Some(term) = service.label(labels::TERM).and_then(|term| term.parse().ok())
        {
            self.lease.above(Term(term));
        }
        self.lease.acquire().await
    }

    async fn release(&self, held: &Held) {
        self.lease.release(held).await;
    }
}

/// A journal that is in the log too.
struct SwarmJournal(RegisterJournal<SwarmRegister>);

#[async_trait]
impl Journal for SwarmJournal {
    async fn record(&self, entry: JournalEntry) -> Result<(), JournalError> {
        tracing::info!("{entry}");
        if decided(&entry).is_none() { Ok(()) } else { self.0.record(entry).await }
    }

    async fn load_state(&self, service: &str) -> Result<Option<State>, JournalError> {
        self.0.load_state(service).await
    }

    async fn save_state(&self, service: &str, state: &State) -> Result<(), JournalError> {
        self.0.save_state(service, state).await
    }
}

const LEADER: &str = "leader";
const JOURNAL: &str = "journal";
/// Three writes to the managers' log in this time. Longer than a pause of a busy machine; a leader that ends in order
/// gives it back, so only one that is lost costs that long.
const LEASE_TTL: Duration = Duration::from_secs(10);
/// Some ten kilobytes beside the state: all of it is written anew each time, and goes through the managers' log.
const ENTRIES_KEPT: usize = 30;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn gateways_are_tasks_that_run_and_a_lost_host_is_told() {
        let node = |id: &str, state: &str, leads: bool| -> swarm_client::Node {
            let mut node = json!({"ID": id, "Description": {"Hostname": format!("host-{id}")},
                "Status": {"State": state, "Addr": format!("198.18.0.1{id}")}});
            if leads {
                node["ManagerStatus"] = json!({"Leader": true, "Reachability": "reachable", "Addr": "x"});
            }
            serde_json::from_value(node).unwrap()
        };
        let task = |id: &str, node: &str, state: &str| -> swarm_client::Task {
            serde_json::from_value(
                json!({"ID": id, "ServiceID": "s", "NodeID": node, "DesiredState": "running",
                "Status": {"State": state}}),
            )
            .unwrap()
        };
        let nodes = [node("1", "ready", true), node("2", "down", false), node("3", "ready", false)];
        let tasks = [
            task("c", "3", "starting"),
            task("b", "2", "running"),
            task("a", "1", "running"),
            task("d", "1", "running"),
            task("e", "9", "running"),
        ];
        let found = task_peers(&tasks, &nodes, 8080, 8081);
        let told: Vec<(&str, &str, bool, bool)> =
            found.iter().map(|peer| (peer.host.as_str(), peer.admin.as_str(), peer.up, peer.leads)).collect();
        assert_eq!(
            told,
            [("host-1", "198.18.0.11:8081", true, true), ("host-2", "198.18.0.12:8081", false, false)]
        );
    }
}
