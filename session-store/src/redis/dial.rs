//! Finding the master, connecting to it, and asking it for its role. Each step has its own short deadline.

#[cfg(feature = "tls")]
use super::tls::Tls;
use super::{
    failure::Failure,
    url::{Settings, Transport},
};
#[cfg(feature = "tls")]
use redis::io::tcp::socket2::SockRef;
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, IntoConnectionInfo, RedisConnectionInfo,
    aio::MultiplexedConnection,
    io::tcp::{TcpSettings, socket2::TcpKeepalive},
};
#[cfg(feature = "tls")]
use std::sync::Arc;
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
    #[cfg(feature = "tls")]
    _driver: Option<Arc<Driver>>,
}

/// The task of a connection over a stream of our own, which redis-rs leaves to us. It would wait for a server that hangs for ever.
#[cfg(feature = "tls")]
struct Driver(tokio::task::AbortHandle);

#[cfg(feature = "tls")]
impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Asks all Sentinels at once. The newest configuration counts that is among the answers of a majority, or that comes within `stragglers` of it; if no
/// majority answers, the newest there is, whose role is checked next.
pub(super) async fn resolve(
    sentinels: &[(String, u16)],
    master: &str,
    settings: &Settings,
    stragglers: Duration,
) -> Result<Found, Failure> {
    let mut asked = JoinSet::new();
    for (host, port) in sentinels.iter().cloned() {
        let (master, settings) = (master.to_owned(), settings.clone());
        asked.spawn(async move {
            let answer = ask(ConnectionAddr::Tcp(host.clone(), port), &master, &settings).await;
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
async fn ask(address: ConnectionAddr, master: &str, settings: &Settings) -> Result<Found, Failure> {
    let wire = open(address, &settings.sentinel_login, SENTINEL_RESPONSE, &settings.transport).await?;
    let mut connection = wire.redis.clone();
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
    login: &RedisConnectionInfo,
    response: Duration,
    transport: &Transport,
) -> Result<Wire, Failure> {
    let settings = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(CONNECT))
        .set_response_timeout(Some(response));
    let limit = CONNECT + response;
    let connecting = async {
        match transport {
            Transport::Plain => open_plain(address, login.clone(), &settings).await,
            #[cfg(feature = "tls")]
            Transport::Tls(tls) => open_tls(address, login, settings, tls).await,
        }
    };
    match tokio::time::timeout(limit, connecting).await {
        Ok(wire) => wire,
        Err(_) => Err(Failure::again(format!("no connection within {limit:?}"))),
    }
}

async fn open_plain(
    address: ConnectionAddr,
    login: RedisConnectionInfo,
    settings: &AsyncConnectionConfig,
) -> Result<Wire, Failure> {
    let tcp = TcpSettings::default().set_nodelay(true).set_keepalive(keepalive());
    #[cfg(target_os = "linux")]
    let tcp = tcp.set_user_timeout(USER_TIMEOUT);
    let info = address.into_connection_info()?.set_tcp_settings(tcp).set_redis_settings(login);
    let redis = Client::open(info)?.get_multiplexed_async_connection_with_config(settings).await?;
    Ok(Wire {
        redis,
        #[cfg(feature = "tls")]
        _driver: None,
    })
}

#[cfg(feature = "tls")]
async fn open_tls(
    address: ConnectionAddr,
    login: &RedisConnectionInfo,
    settings: AsyncConnectionConfig,
    tls: &Tls,
) -> Result<Wire, Failure> {
    let ConnectionAddr::Tcp(host, port) = address else {
        return Err(Failure::again("its address is no host and port"));
    };
    let name = tls.name_of(&host);
    let name =
        name.map_err(|name| Failure::again(format!("{name:?} is no name that a certificate can hold")))?;
    let connecting = tokio::time::timeout(CONNECT, tokio::net::TcpStream::connect((host, port))).await;
    let stream = connecting.map_err(|_| Failure::again(format!("no connection within {CONNECT:?}")))?;
    let stream = stream.map_err(|error| Failure::again(error.to_string()))?;
    let set = |socket: SockRef<'_>| {
        socket.set_tcp_nodelay(true)?;
        #[cfg(target_os = "linux")]
        socket.set_tcp_user_timeout(Some(USER_TIMEOUT))?;
        socket.set_tcp_keepalive(&keepalive())
    };
    set(SockRef::from(&stream)).map_err(|error| Failure::again(error.to_string()))?;
    let connector = tokio_rustls::TlsConnector::from(tls.settings.clone());
    let stream = connector.connect(name, stream).await.map_err(Failure::handshake)?;
    let (redis, driver) = MultiplexedConnection::new_with_config(login, stream, settings).await?;
    let driver = Driver(tokio::spawn(driver).abort_handle());
    Ok(Wire { redis, _driver: Some(Arc::new(driver)) })
}

fn keepalive() -> TcpKeepalive {
    TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE)
}

pub(super) async fn check_role(mut connection: MultiplexedConnection) -> Result<(), Failure> {
    let role: Vec<redis::Value> = redis::cmd("ROLE").query_async(&mut connection).await?;
    match role.first() {
        Some(redis::Value::BulkString(name)) if name == b"master" => Ok(()),
        Some(redis::Value::SimpleString(name)) if name == "master" => Ok(()),
        _ => Err(Failure::again("it is a replica; name the master, or write redis+sentinel://")),
    }
}

/// Whether the server can be worked with, as far as it tells: an account with few rights may not ask.
pub(super) async fn check_server(mut connection: MultiplexedConnection, name: &str) -> Result<(), Failure> {
    let mut info =
        async |section| redis::cmd("INFO").arg(section).query_async::<String>(&mut connection).await;
    if let Ok(text) = info("server").await {
        check_version(&text)?;
    }
    if let Some(policy) = info("memory").await.ok().and_then(|text| losing_policy(&text)) {
        tracing::warn!(
            target: "session_store", master = name, policy,
            "Redis throws sessions away when its memory is full; set maxmemory-policy noeviction"
        );
    }
    Ok(())
}

fn check_version(info: &str) -> Result<(), Failure> {
    let version = field(info, "redis_version").unwrap_or_default();
    let mut numbers = version.split('.').map_while(|part| part.parse::<u32>().ok());
    match (numbers.next(), numbers.next()) {
        (Some(major), Some(minor)) if (major, minor) < OLDEST => Err(Failure {
            reason: format!(
                "it is Redis {version}, and {}.{} or newer is needed; update it",
                OLDEST.0, OLDEST.1
            ),
            again: false,
            short: None,
        }),
        _ => Ok(()),
    }
}

/// The policy of a server whose memory is bounded, if it is one that takes sessions before their time.
fn losing_policy(info: &str) -> Option<String> {
    let policy = field(info, "maxmemory_policy")?;
    (field(info, "maxmemory")? != "0" && policy != "noeviction").then(|| policy.to_owned())
}

fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}

/// A host on the same network answers within a few milliseconds or not at all.
const CONNECT: Duration = Duration::from_millis(300);
const SENTINEL_RESPONSE: Duration = Duration::from_millis(300);
/// Redis answers in less than a millisecond; a second tells a hung host from a busy one.
pub(super) const RESPONSE: Duration = Duration::from_secs(1);
const KEEPALIVE: Duration = Duration::from_secs(2);
#[cfg(target_os = "linux")]
const USER_TIMEOUT: Duration = Duration::from_secs(3);
/// Of Redis: the first with all commands and options that are used.
const OLDEST: (u32, u32) = (6, 2);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_server_is_refused_for_good_and_a_strange_one_is_tried() {
        for (version, fits) in [
            ("2.8.4", false),
            ("5.0.14", false),
            ("6.0.16", false),
            ("6.2.0", true),
            ("7.0.15", true),
            ("10.1.0", true),
            ("v1", true),
        ] {
            let answer = check_version(&format!("# Server\r\nredis_version:{version}\r\nos:Linux\r\n"));
            assert_eq!(answer.is_ok(), fits, "{version}");
            let Err(failure) = answer else { continue };
            assert!(!failure.again && failure.reason.contains(version) && failure.reason.contains("6.2"));
        }
        assert!(check_version("").is_ok());
    }

    #[test]
    fn a_policy_that_loses_sessions_is_told() {
        let info = |bytes: &str, policy: &str| {
            format!("maxmemory:{bytes}\r\nmaxmemory_human:x\r\nmaxmemory_policy:{policy}\r\n")
        };
        assert_eq!(losing_policy(&info("1048576", "allkeys-lru")).as_deref(), Some("allkeys-lru"));
        assert_eq!(losing_policy(&info("0", "allkeys-lru")), None, "unbounded: nothing is thrown away");
        assert_eq!(losing_policy(&info("1048576", "noeviction")), None);
        assert_eq!(losing_policy(""), None);
    }
}
