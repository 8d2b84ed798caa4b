//! What a Redis URL says.

use crate::{connect::config, error::StoreError};
use redis::{ConnectionAddr, IntoConnectionInfo, RedisConnectionInfo};

/// Where the master is, or who knows.
#[derive(Clone)]
pub(super) enum Target {
    Single { address: ConnectionAddr, login: RedisConnectionInfo },
    Sentinel { sentinels: Vec<(String, u16)>, master: String, login: RedisConnectionInfo },
}

/// What a URL says: where, and how many replicas have to confirm what must not be undone.
pub(super) fn parse(url: &str) -> Result<(Target, u8), StoreError> {
    let (base, query) = url.split_once('?').unwrap_or((url, ""));
    let mut replicas = None;
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let number = pair.strip_prefix("replicas=").and_then(|number| number.parse::<u8>().ok());
        match number.filter(|number| *number <= MAX_REPLICAS) {
            Some(number) => replicas = Some(number),
            None => return Err(config(url, "what stands after ? is not replicas=0 to 9", HINT)),
        }
    }
    let target = Target::parse(base)?;
    let replicas = replicas.unwrap_or(match target {
        Target::Single { .. } => 0,
        Target::Sentinel { .. } => 1,
    });
    Ok((target, replicas))
}

impl Target {
    fn parse(url: &str) -> Result<Self, StoreError> {
        match url.split_once("://") {
            Some(("redis", _)) => single(url, url),
            Some(("redis+sentinel", rest)) => sentinel(url, rest),
            Some(("rediss" | "rediss+sentinel", _)) => Err(config(
                url,
                "TLS to Redis is not offered yet",
                "write redis:// and keep Redis on a private network",
            )),
            Some(("redis+cluster", _)) => {
                Err(config(url, "Redis Cluster is not offered", "write redis+sentinel://"))
            }
            Some(_) => Err(config(url, "its scheme names no store", HINT)),
            None => match url.rsplit_once(':') {
                Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => {
                    single(url, &format!("redis://{url}"))
                }
                _ => Err(config(url, "it is no URL and no HOST:PORT", HINT)),
            },
        }
    }
}

fn single(url: &str, full: &str) -> Result<Target, StoreError> {
    // The parser's own message may quote the URL, password and all: only its kind is passed on.
    let info = full.into_connection_info().map_err(|error| config(url, error.category(), HINT))?;
    Ok(Target::Single { address: info.addr().clone(), login: info.redis_settings().clone() })
}

fn sentinel(url: &str, rest: &str) -> Result<Target, StoreError> {
    let (login, rest) = rest.rsplit_once('@').map_or(("", rest), |(login, rest)| (login, rest));
    let (hosts, path) = rest.split_once('/').unwrap_or((rest, ""));
    let (master, db) = path.split_once('/').unwrap_or((path, "0"));
    if master.is_empty() || master.contains(['?', '/']) {
        return Err(config(url, "it does not end in the master's name", SENTINEL_HINT));
    }
    let db: i64 = db.parse().map_err(|_| config(url, "its database is no number", SENTINEL_HINT))?;
    let sentinels = hosts.split(',').map(|host| host_port(host).ok_or(host)).collect::<Result<Vec<_>, _>>();
    let sentinels =
        sentinels.map_err(|host| config(url, format!("{host:?} is no HOST[:PORT]"), SENTINEL_HINT))?;
    if sentinels.len() > MAX_SENTINELS {
        return Err(config(url, format!("it names more than {MAX_SENTINELS} Sentinels"), SENTINEL_HINT));
    }
    // User and password are those of Redis, in the form of a single server's URL.
    let login = format!("redis://{login}{}localhost/{db}", if login.is_empty() { "" } else { "@" });
    let login = login.into_connection_info().map_err(|error| config(url, error.category(), SENTINEL_HINT))?;
    Ok(Target::Sentinel { sentinels, master: master.to_owned(), login: login.redis_settings().clone() })
}

fn host_port(text: &str) -> Option<(String, u16)> {
    let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, "")) => (host, SENTINEL_PORT),
        Some((host, port)) => (host, port.strip_prefix(':')?.parse().ok()?),
        None => match text.split_once(':') {
            Some((host, port)) => (host, port.parse().ok()?),
            None => (text, SENTINEL_PORT),
        },
    };
    (!host.is_empty() && port != 0).then(|| (host.to_owned(), port))
}

const SENTINEL_PORT: u16 = 26379;
const MAX_REPLICAS: u8 = 9;
/// All are asked at once.
const MAX_SENTINELS: usize = 16;
const HINT: &str = "write redis://HOST:PORT, redis+sentinel://HOST,HOST,HOST/MASTER, sqlite:PATH or memory:";
const SENTINEL_HINT: &str = "write redis+sentinel://HOST[:PORT],HOST[:PORT]/MASTER[/DB]";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentinels_master_and_login_are_read() {
        let target = Target::parse("redis+sentinel://:s%40cret@a,b:1,[::1]:2/main/3").unwrap();
        let Target::Sentinel { sentinels, master, login } = target else { panic!("not a sentinel target") };
        assert_eq!(sentinels, [("a".into(), 26379), ("b".into(), 1), ("::1".into(), 2)]);
        assert_eq!((master.as_str(), login.db(), login.password()), ("main", 3, Some("s@cret")));
    }

    #[test]
    fn replicas_are_asked_of_sentinel_only_unless_told() {
        for (url, replicas) in [
            ("h:1", 0),
            ("redis://h", 0),
            ("redis://h/2?replicas=2", 2),
            ("redis+sentinel://a,b,c/main", 1),
            ("redis+sentinel://a,b,c/main/3?replicas=0", 0),
        ] {
            assert_eq!(parse(url).unwrap().1, replicas, "{url}");
        }
    }

    #[test]
    fn plain_host_and_port_is_a_server() {
        for url in ["127.0.0.1:6379", "redis://127.0.0.1:6379"] {
            let Target::Single { address, .. } = Target::parse(url).unwrap() else { panic!("{url}") };
            assert_eq!(address.to_string(), "127.0.0.1:6379");
        }
    }

    #[test]
    fn what_cannot_work_is_said_without_the_password() {
        for url in [
            "rediss://:secret@h",
            "redis+cluster://h",
            "mysql://:secret@h",
            "h",
            ":1",
            "redis+sentinel://:secret@a,b",
            "redis+sentinel://a,,b/m",
            "redis+sentinel://a:x/m",
            "redis://:secret@h:99999",
            "redis://:secret@h?replicas=x",
            "redis+sentinel://:secret@a/m?replicas=10",
            "redis://h?secret=1",
        ] {
            let Err(error) = parse(url) else { panic!("{url} was taken") };
            assert!(error.is_config() && !format!("{error} {error:?}").contains("secret"), "{url}: {error}");
        }
    }
}
