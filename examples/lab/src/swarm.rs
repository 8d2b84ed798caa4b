//! The few Swarm calls that building a lab takes. Each is of one engine alone, so each has a client of its own.

use std::time::Duration;

use swarm_client::model::Role;
use swarm_client::{Client, InitOptions, JoinOptions, Reason, Tls};

use crate::error::Result;
use crate::plan::{Host, SWARM_PORT};

/// One Swarm node, as a manager sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) ready: bool,
    /// A manager that takes part in the managers' votes now.
    pub(crate) reachable: bool,
    pub(crate) leader: bool,
}

pub(crate) async fn ping(host: &Host, limit: Duration) -> Result<()> {
    client(host, limit).await.map(drop)
}

/// Makes the host the first manager. The heartbeat of 1 s has a dead node noticed in about 3 s rather than 12.
pub(crate) async fn init(host: &Host) -> Result<()> {
    let options = InitOptions {
        listen_addr: swarm_addr(host),
        advertise_addr: host.addr.to_string(),
        heartbeat_period: Some(Duration::from_secs(1)),
        task_history_limit: Some(1),
        ..InitOptions::default()
    };
    client(host, JOIN_LIMIT).await?.swarm().init(options).await?;
    Ok(())
}

/// Has `host` join as a manager through `manager`. It is a member then, and the caller watches [`nodes`] until it is ready.
pub(crate) async fn join(host: &Host, manager: &Host) -> Result<()> {
    let token = client(manager, JOIN_LIMIT).await?.swarm().join_token(Role::Manager).await?;
    let mut options = JoinOptions::new([swarm_addr(manager)], token);
    options.listen_addr = swarm_addr(host);
    options.advertise_addr = host.addr.to_string();
    Ok(client(host, JOIN_LIMIT).await?.swarm().join(options).await?)
}

/// The nodes as `host` sees them; none if it is a manager but the managers have no leader now.
pub(crate) async fn nodes(host: &Host, limit: Duration) -> Result<Option<Vec<Node>>> {
    match client(host, limit).await?.nodes().list().await {
        Ok(nodes) => Ok(Some(nodes.iter().map(node).collect())),
        Err(error) if error.is_no_leader() || error.reason() == Some(Reason::ManagerStarting) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Connects, which an engine that does not answer fails.
async fn client(host: &Host, limit: Duration) -> Result<Client> {
    let mut builder = Client::builder().endpoint(host.engine_url());
    if let Some(certificates) = host.certificates() {
        builder = builder.tls(Tls::from_dir(certificates)?);
    }
    Ok(builder.connect_timeout(limit).request_timeout(limit).connect().await?)
}

fn node(node: &swarm_client::Node) -> Node {
    let reachability = node.manager_status.as_ref().and_then(|status| status.reachability.as_deref());
    Node {
        name: node.hostname().to_owned(),
        ready: node.is_ready(),
        reachable: reachability == Some("reachable"),
        leader: node.is_leader(),
    }
}

fn swarm_addr(host: &Host) -> String {
    format!("{}:{SWARM_PORT}", host.addr)
}

const JOIN_LIMIT: Duration = Duration::from_secs(30);
