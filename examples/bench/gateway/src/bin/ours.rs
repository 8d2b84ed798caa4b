//! The gateway under test: `ours LISTEN BACKEND...`, on one thread. Each line of standard input is a new set of
//! backends.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, Result};
use balancer::proxy::{self, Gateway};
use balancer::{Config, Endpoint, Pool, Update};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpListener;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let listen: SocketAddr = arguments.next().context("where to listen?")?.parse()?;
    let backends: Vec<String> = arguments.collect();
    let pool = Arc::new(Pool::new(Config::default(), 1)?);
    let gateway = Gateway::new(pool, proxy::Config::default().probe("/healthz"))?;
    gateway.apply(set(&backends.join(" "))?);
    let listener = TcpListener::bind(listen).await?;
    let changing = gateway.clone();
    tokio::spawn(async move {
        let mut lines = BufReader::new(tokio::io::stdin()).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            match set(&line) {
                Ok(update) => changing.apply(update),
                Err(error) => eprintln!("{line}: {error:#}"),
            }
        }
    });
    gateway.serve(listener, std::future::pending()).await?;
    Ok(())
}

fn set(backends: &str) -> Result<Update> {
    let endpoints: Result<Vec<_>> = backends
        .split_whitespace()
        .map(|addr| Ok(Endpoint::new(addr, addr.parse().with_context(|| format!("{addr} is no address"))?)))
        .collect();
    Ok(Update::reset(endpoints?))
}
