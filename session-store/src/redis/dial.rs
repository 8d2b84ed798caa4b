//! Finding the master, connecting to it, and asking it for its role. Each step has its own short deadline.

use super::failure::Failure;
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, IntoConnectionInfo, RedisConnectionInfo,
    aio::MultiplexedConnection, io::tcp::TcpSettings,
};
use std::{collections::HashMap, time::Duration};
use tokio::task::JoinSet;

/// A master, as the Sentinels name it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Found {
    pub(super) address: ConnectionAddr,
    /// Of the election that made it one; 0 without Sentinel.
    pub(super) epoch: u64,
}

impl Found {
    pub(super) fn name(&self) -> String {
        self.address.to_string()
    }

    /// A Sentinel that has not heard of the last election yet names the master before it, with an older epoch.
    pub(super) fn replaces(&self, other: &Self) -> bool {
        self.address != other.address && self.epoch >= other.epoch
    }
}

/// A connection to one server.
#[derive(Clone)]
pub(super) struct Wire {
    pub(super) redis: MultiplexedConnection,
}

/// Asks all Sentinels at once. The newest configuration counts that is among the answers of a majority, or that comes within `stragglers` of it; if no
/// majority answers, the newest there is, whose role is checked next.
pub(super) async fn resolve(
    sentinels: &[(String, u16)],
    master: &str,
    stragglers: Duration,
) -> Result<Found, Failure> {
    let mut asked = JoinSet::new();
    for (host, port) in sentinels.iter().cloned() {
        let master = master.to_owned();
        asked.spawn(async move {
            let answer = ask(ConnectionAddr::Tcp(host.clone(), port), &master).await;
            answer.map_err(|failure| failure.at(&format!("Sentinel {host}:{port}")))
        });
    }
    let mut newest: Option<Found> = None;
    let (mut answers, mut reason) = (0, "no Sentinel answered".to_owned());
    loop {
        let enough = answers > sentinels.len() / 2;
        let next = match enough {
            true => tokio::time::timeout(stragglers, asked.join_next()).await.unwrap_or_default(),
            false => asked.join_next().await,
        };
        match next {
            None => return newest.ok_or_else(|| Failure::again(reason)),
            Some(Ok(Ok(found))) => {
                answers += 1;
                if newest.as_ref().is_none_or(|newest| newest.epoch < found.epoch) {
                    newest = Some(found);
                }
            }
            Some(Ok(Err(failure))) => reason = failure.reason,
            Some(Err(error)) => reason = error.to_string(),
        }
    }
}

/// Address and epoch in one round trip: both change in the same moment of an election.
async fn ask(address: ConnectionAddr, master: &str) -> Result<Found, Failure> {
    let mut connection = open(address, RedisConnectionInfo::default(), SENTINEL_RESPONSE).await?.redis;
    let mut pipe = redis::pipe();
    pipe.cmd("SENTINEL").arg("GET-MASTER-ADDR-BY-NAME").arg(master);
    pipe.cmd("SENTINEL").arg("MASTER").arg(master);
    let (address, details): (Option<(String, u16)>, HashMap<String, String>) =
        pipe.query_async(&mut connection).await?;
    let Some((host, port)) = address else {
        return Err(Failure::again(format!("it knows no master {master:?}")));
    };
    let epoch = details.get("config-epoch").and_then(|epoch| epoch.parse().ok());
    Ok(Found { address: ConnectionAddr::Tcp(host, port), epoch: epoch.unwrap_or_default() })
}

pub(super) async fn open(
    address: ConnectionAddr,
    login: RedisConnectionInfo,
    response: Duration,
) -> Result<Wire, Failure> {
    let keepalive =
        redis::io::tcp::socket2::TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE);
    let tcp = TcpSettings::default().set_nodelay(true).set_keepalive(keepalive);
    #[cfg(target_os = "linux")]
    let tcp = tcp.set_user_timeout(USER_TIMEOUT);
    let info = address.into_connection_info()?.set_tcp_settings(tcp).set_redis_settings(login);
    let settings = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(CONNECT))
        .set_response_timeout(Some(response));
    let connecting =
        async move { Client::open(info)?.get_multiplexed_async_connection_with_config(&settings).await };
    match tokio::time::timeout(CONNECT + response, connecting).await {
        Ok(connection) => Ok(Wire { redis: connection? }),
        Err(_) => Err(Failure::again(format!("no connection within {:?}", CONNECT + response))),
    }
}

pub(super) async fn check_role(mut connection: MultiplexedConnection) -> Result<(), Failure> {
    let role: Vec<redis::Value> = redis::cmd("ROLE").query_async(&mut connection).await?;
    match role.first() {
        Some(redis::Value::BulkString(name)) if name == b"master" => Ok(()),
        Some(redis::Value::SimpleString(name)) if name == "master" => Ok(()),
        _ => Err(Failure::again("it is a replica; name the master, or write redis+sentinel://")),
    }
}

/// A host on the same network answers within a few milliseconds or not at all.
const CONNECT: Duration = Duration::from_millis(300);
const SENTINEL_RESPONSE: Duration = Duration::from_millis(300);
/// Redis answers in less than a millisecond; a second tells a hung host from a busy one.
pub(super) const RESPONSE: Duration = Duration::from_secs(1);
const KEEPALIVE: Duration = Duration::from_secs(2);
#[cfg(target_os = "linux")]
const USER_TIMEOUT: Duration = Duration::from_secs(3);
