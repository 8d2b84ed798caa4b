//! Finding the master, connecting to it, and asking it for its role. Each step has its own short deadline.

use super::link::Failure;
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, IntoConnectionInfo, RedisConnectionInfo,
    aio::MultiplexedConnection, io::tcp::TcpSettings,
};
use std::{collections::HashMap, time::Duration};
use tokio::task::JoinSet;

/// Asks all Sentinels at once. A majority that agrees is enough; after their time the most named address counts, whose role is checked next.
pub(super) async fn resolve(sentinels: &[(String, u16)], master: &str) -> Result<ConnectionAddr, Failure> {
    let mut asked = JoinSet::new();
    for (host, port) in sentinels.iter().cloned() {
        let master = master.to_owned();
        asked.spawn(async move {
            let answer = ask(ConnectionAddr::Tcp(host.clone(), port), &master).await;
            answer.map_err(|failure| failure.at(&format!("Sentinel {host}:{port}")))
        });
    }
    let mut votes: HashMap<(String, u16), usize> = HashMap::new();
    let mut reason = "no Sentinel answered".to_owned();
    while let Some(answer) = asked.join_next().await {
        match answer {
            Ok(Ok(address)) => {
                let count = votes.entry(address.clone()).or_default();
                *count += 1;
                if *count > sentinels.len() / 2 {
                    return Ok(ConnectionAddr::Tcp(address.0, address.1));
                }
            }
            Ok(Err(failure)) => reason = failure.reason,
            Err(error) => reason = error.to_string(),
        }
    }
    match votes.into_iter().max_by_key(|(_, count)| *count) {
        Some(((host, port), _)) => Ok(ConnectionAddr::Tcp(host, port)),
        None => Err(Failure::again(reason)),
    }
}

async fn ask(address: ConnectionAddr, master: &str) -> Result<(String, u16), Failure> {
    let mut connection = open(address, RedisConnectionInfo::default(), SENTINEL_RESPONSE).await?;
    let mut command = redis::cmd("SENTINEL");
    command.arg("GET-MASTER-ADDR-BY-NAME").arg(master);
    match command.query_async::<Option<(String, u16)>>(&mut connection).await? {
        Some(address) => Ok(address),
        None => Err(Failure::again(format!("it knows no master {master:?}"))),
    }
}

pub(super) async fn open(
    address: ConnectionAddr,
    login: RedisConnectionInfo,
    response: Duration,
) -> Result<MultiplexedConnection, Failure> {
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
        Ok(connection) => Ok(connection?),
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
