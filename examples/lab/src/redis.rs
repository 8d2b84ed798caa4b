//! Just enough of Redis' protocol to ask Redis and Sentinel how they are.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use crate::error::{Error, Result};
use crate::plan::{Host, REDIS_MASTER};

/// `INFO replication` of one Redis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Replication {
    /// `master` or `slave`, in Redis' own words.
    pub(crate) role: String,
    /// Of a replica: whether it follows its master now.
    pub(crate) link_up: bool,
    pub(crate) replicas: usize,
}

/// What one Sentinel says of the master.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) addr: String,
    /// The higher, the newer.
    pub(crate) epoch: u64,
    pub(crate) replicas: usize,
    pub(crate) other_sentinels: usize,
}

pub(crate) async fn replication(host: &Host, limit: Duration) -> Result<Replication> {
    let parts = ask("redis", host.redis_addr(), "INFO replication", limit).await?;
    let text = parts.concat();
    let field = |key: &str| text.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix(':')).map(str::trim);
    match field("role") {
        Some(role) => Ok(Replication {
            role: role.to_owned(),
            link_up: field("master_link_status") == Some("up")
                && field("master_sync_in_progress") == Some("0"),
            replicas: field("connected_slaves").and_then(|n| n.parse().ok()).unwrap_or(0),
        }),
        None => Err(garbled("redis", host.redis_addr(), "INFO replication")),
    }
}

pub(crate) async fn verdict(host: &Host, limit: Duration) -> Result<Verdict> {
    let request = format!("SENTINEL MASTER {REDIS_MASTER}");
    let parts = ask("sentinel", host.sentinel_addr(), &request, limit).await?;
    let fields: HashMap<&str, &str> =
        parts.chunks_exact(2).map(|pair| (pair[0].as_str(), pair[1].as_str())).collect();
    let number = |key: &str| fields.get(key).and_then(|n| n.parse::<u64>().ok());
    match (fields.get("ip"), number("config-epoch"), number("num-slaves"), number("num-other-sentinels")) {
        (Some(addr), Some(epoch), Some(replicas), Some(others)) => Ok(Verdict {
            addr: (*addr).to_owned(),
            epoch,
            replicas: replicas.try_into().unwrap_or(usize::MAX),
            other_sentinels: others.try_into().unwrap_or(usize::MAX),
        }),
        _ => Err(garbled("sentinel", host.sentinel_addr(), &request)),
    }
}

/// Sends one inline command; a flat answer comes as its parts.
async fn ask(service: &'static str, addr: SocketAddr, request: &str, limit: Duration) -> Result<Vec<String>> {
    let fail =
        |why: String| Error::Service { service, addr: addr.to_string(), request: request.to_owned(), why };
    match tokio::time::timeout(limit, exchange(addr, request)).await {
        Ok(Ok(Ok(parts))) => Ok(parts),
        Ok(Ok(Err(refusal))) => Err(fail(refusal)),
        Ok(Err(error)) => Err(fail(error.to_string())),
        Err(_) => Err(fail(format!("no answer within {} ms", limit.as_millis()))),
    }
}

async fn exchange(addr: SocketAddr, request: &str) -> std::io::Result<Result<Vec<String>, String>> {
    let mut stream = BufReader::new(TcpStream::connect(addr).await?);
    stream.write_all(format!("{request}\r\n").as_bytes()).await?;
    let head = line(&mut stream).await?;
    if let Some(refusal) = head.strip_prefix('-') {
        return Ok(Err(refusal.to_owned()));
    }
    let mut parts = Vec::new();
    if head.starts_with('$') {
        parts.push(bulk(&mut stream, &head).await?);
    } else if let Some(count) = head.strip_prefix('*').and_then(|n| n.parse::<usize>().ok()) {
        for _ in 0..count.min(MAX_PARTS) {
            let head = line(&mut stream).await?;
            parts.push(bulk(&mut stream, &head).await?);
        }
    } else {
        parts.push(head);
    }
    Ok(Ok(parts))
}

async fn line(stream: &mut BufReader<TcpStream>) -> std::io::Result<String> {
    let mut text = String::new();
    if stream.take(MAX_BULK).read_line(&mut text).await? == 0 {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    Ok(text.trim_end().to_owned())
}

async fn bulk(stream: &mut BufReader<TcpStream>, head: &str) -> std::io::Result<String> {
    let length = head.strip_prefix('$').and_then(|n| n.parse::<u64>().ok()).filter(|n| *n <= MAX_BULK);
    let length = length.ok_or(std::io::ErrorKind::InvalidData)?;
    let mut bytes = Vec::new();
    if stream.take(length + 2).read_to_end(&mut bytes).await? as u64 != length + 2 {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    bytes.truncate(bytes.len() - 2);
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn garbled(service: &'static str, addr: SocketAddr, request: &str) -> Error {
    let why = "the answer lacks the fields that it should have".to_owned();
    Error::Service { service, addr: addr.to_string(), request: request.to_owned(), why }
}

const MAX_PARTS: usize = 1024;
const MAX_BULK: u64 = 1 << 20;
