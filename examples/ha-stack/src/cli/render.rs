//! `ha-stack render`: nginx or HAProxy kept in step with a service's replicas.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::Args;
use tokio_util::sync::CancellationToken;

use crate::render::haproxy::HaproxySocket;
use crate::render::membership::Server;
use crate::render::nginx::{NginxFile, Site};
use crate::render::{Sink, follow};
use crate::settings::Backends;

/// Flags of `render`.
#[derive(Args, Debug)]
#[command(group(clap::ArgGroup::new("proxy").required(true).args(["nginx", "haproxy"])))]
pub struct RenderArgs {
    /// The service in Consul
    #[arg(long, default_value = "web")]
    service: String,
    /// nginx: the file to write, included from its http block
    #[arg(long, value_name = "FILE", requires = "reload")]
    nginx: Option<PathBuf>,
    /// nginx: the command by which it reads the file
    #[arg(long, value_name = "CMD")]
    reload: Option<String>,
    /// nginx: what the rendered server block listens on
    #[arg(long, default_value = "80", value_name = "ADDR")]
    listen: String,
    /// nginx: the host names that lead to the service; _ for all
    #[arg(long, default_value = "_", value_name = "NAMES")]
    server_name: String,
    /// nginx: so long a server may be silent before another is asked (GETs alone); 60 is nginx's own. A host without power is
    /// silent: users whose request it had wait so long
    #[arg(long, default_value_t = 60, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=3600))]
    read_timeout: u64,
    /// HAProxy: its stats socket, of level admin
    #[arg(long, value_name = "SOCKET")]
    haproxy: Option<PathBuf>,
    /// HAProxy: the backend, with a server-template [default: the service's name]
    #[arg(long, value_name = "NAME")]
    backend: Option<String>,
    /// How long a server that leaves is kept without new requests
    #[arg(long, default_value_t = 5, value_name = "SECONDS")]
    drain: u64,
}

/// Follows the service until told to stop. The proxy keeps what it has then.
///
/// # Errors
/// When a setting is wrong. Consul and the proxy may come later.
pub async fn run(args: RenderArgs, backends: &Backends, stop: CancellationToken) -> Result<ExitCode> {
    let consul = backends.consul()?;
    let drain = Duration::from_secs(args.drain);
    let service = args.service.clone();
    if let Some(socket) = args.haproxy {
        let backend = args.backend.unwrap_or_else(|| service.clone());
        return keep(consul, service, drain, HaproxySocket { socket, backend }, stop).await;
    }
    let site = Site {
        service: service.clone(),
        listen: args.listen,
        server_name: args.server_name,
        read_timeout: Duration::from_secs(args.read_timeout),
    };
    let (file, reload) = (args.nginx.unwrap_or_default(), args.reload.unwrap_or_default());
    keep(consul, service, drain, NginxFile { site, file, reload }, stop).await
}

async fn keep(
    consul: consul_client::Client,
    service: String,
    drain: Duration,
    mut sink: impl Sink,
    stop: CancellationToken,
) -> Result<ExitCode> {
    let (seen, mut rendered) = tokio::sync::watch::channel(Vec::<Server>::new());
    let told = tokio::spawn(async move {
        while rendered.changed().await.is_ok() {
            let servers = rendered.borrow_and_update().clone();
            let lines: Vec<String> = servers
                .iter()
                .map(|server| {
                    format!("{} {}{}", server.id, server.addr, if server.draining { " draining" } else { "" })
                })
                .collect();
            println!("{} servers: {}", lines.len(), lines.join(", "));
        }
    });
    follow(&consul, &service, drain, &mut sink, &seen, &stop).await;
    drop(seen);
    let _ = told.await;
    Ok(ExitCode::SUCCESS)
}
