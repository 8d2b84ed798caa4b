//! What a Redis URL says.

use crate::{
    connect::{Login, StoreOptions, config},
    error::StoreError,
};
use redis::{ConnectionAddr, IntoConnectionInfo, RedisConnectionInfo};

/// Where the master is, or who knows.
#[derive(Clone)]
pub(super) enum Target {
    Single { address: ConnectionAddr, login: RedisConnectionInfo },
    Sentinel { sentinels: Vec<(String, u16)>, master: String, login: RedisConnectionInfo },
}

/// What a URL says, with what the options add.
#[derive(Clone)]
pub(super) struct Settings {
    pub(super) target: Target,
    /// How many replicas have to confirm what must not be undone.
    pub(super) replicas: u8,
    /// User and password of the Sentinels themselves.
    pub(super) sentinel_login: RedisConnectionInfo,
    pub(super) transport: Transport,
}

/// What the bytes travel in.
#[derive(Clone)]
pub(super) enum Transport {
    Plain,
    #[cfg(feature = "tls")]
    Tls(super::tls::Tls),
}

pub(super) fn parse(url: &str, options: &StoreOptions) -> Result<Settings, StoreError> {
    let (base, query) = url.split_once('?').unwrap_or((url, ""));
    let query = Query::parse(url, query)?;
    let target = Target::parse(url, base)?;
    let is_sentinel = matches!(target, Target::Sentinel { .. });
    let (user, password) = options
        .sentinel_login
        .as_ref()
        .map_or((None, None), |Login { user, password }| (user.clone(), Some(password.clone())));
    let (user, password) =
        (query.sentinel_user.clone().or(user), query.sentinel_password.clone().or(password));
    if !is_sentinel && (user.is_some() || password.is_some()) {
        return Err(config(url, "it has a login for Sentinels and names none", SENTINEL_HINT));
    }
    if user.is_some() && password.is_none() {
        return Err(config(url, "it has a user for the Sentinels and no sentinel-password", SENTINEL_HINT));
    }
    let mut sentinel_login = RedisConnectionInfo::default();
    if let Some(user) = user {
        sentinel_login = sentinel_login.set_username(user);
    }
    if let Some(password) = password {
        sentinel_login = sentinel_login.set_password(password);
    }
    let transport = if base.starts_with("rediss") {
        query.secure(url, options)?
    } else if query.names_tls() {
        return Err(config(
            url,
            "ca, cert, key and server-name are for TLS",
            "write rediss:// or rediss+sentinel://",
        ));
    } else {
        Transport::Plain
    };
    let replicas = query.replicas.unwrap_or(u8::from(is_sentinel));
    Ok(Settings { target, replicas, sentinel_login, transport })
}

/// What stands after `?`.
#[derive(Default)]
struct Query {
    replicas: Option<u8>,
    sentinel_user: Option<String>,
    sentinel_password: Option<String>,
    ca: Option<String>,
    cert: Option<String>,
    key: Option<String>,
    server_name: Option<String>,
}

impl Query {
    fn parse(url: &str, text: &str) -> Result<Self, StoreError> {
        let mut query = Self::default();
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = unescape(value);
            let value =
                value.ok_or_else(|| config(url, format!("what {name} is set to cannot be read"), HINT))?;
            match name {
                "replicas" => match value.parse::<u8>().ok().filter(|number| *number <= MAX_REPLICAS) {
                    Some(number) => query.replicas = Some(number),
                    None => return Err(config(url, "replicas is not 0 to 9", HINT)),
                },
                "sentinel-user" => query.sentinel_user = Some(value),
                "sentinel-password" => query.sentinel_password = Some(value),
                "ca" => query.ca = Some(value),
                "cert" => query.cert = Some(value),
                "key" => query.key = Some(value),
                "server-name" => query.server_name = Some(value),
                _ => return Err(config(url, "it has a setting after ? that there is not", QUERY_HINT)),
            }
        }
        Ok(query)
    }

    const fn names_tls(&self) -> bool {
        self.ca.is_some() || self.cert.is_some() || self.key.is_some() || self.server_name.is_some()
    }

    #[cfg(feature = "tls")]
    fn secure(&self, url: &str, options: &StoreOptions) -> Result<Transport, StoreError> {
        let read = |path: &str| {
            std::fs::read(path)
                .map_err(|error| config(url, format!("cannot read {path:?}: {error}"), QUERY_HINT))
        };
        let mut tls = options.tls.clone().unwrap_or_default();
        if let Some(path) = &self.ca {
            tls = tls.ca_pem(read(path)?);
        }
        match (&self.cert, &self.key) {
            (Some(cert), Some(key)) => tls = tls.client_pem(read(cert)?, read(key)?),
            (None, None) => {}
            _ => return Err(config(url, "it has one of cert and key without the other", QUERY_HINT)),
        }
        if let Some(name) = &self.server_name {
            tls = tls.server_name(name);
        }
        Ok(Transport::Tls(tls.build(url)?))
    }

    #[cfg(not(feature = "tls"))]
    fn secure(&self, url: &str, _: &StoreOptions) -> Result<Transport, StoreError> {
        Err(config(
            url,
            "TLS is not built in",
            "build with the feature tls, or write redis:// on a private network",
        ))
    }
}

/// `%41` and the like.
fn unescape(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let digit = |byte: Option<u8>| {
                    char::from(byte?).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
                };
                let (high, low) = (digit(rest.next())?, digit(rest.next())?);
                high << 4 | low
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}

impl Target {
    fn parse(url: &str, base: &str) -> Result<Self, StoreError> {
        match base.split_once("://") {
            Some(("redis" | "rediss", rest)) => single(url, &format!("redis://{rest}")),
            Some(("redis+sentinel" | "rediss+sentinel", rest)) => sentinel(url, rest),
            Some(("redis+cluster" | "rediss+cluster", _)) => Err(config(
                url,
                "Redis Cluster is not offered: a log-in moves a session between slots",
                SENTINEL_HINT,
            )),
            Some(_) => Err(config(url, "its scheme names no store", HINT)),
            None => match base.rsplit_once(':') {
                Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => {
                    single(url, &format!("redis://{base}"))
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
const QUERY_HINT: &str =
    "there are replicas, sentinel-user, sentinel-password, and for TLS ca, cert, key, server-name";
const SENTINEL_HINT: &str = "write redis+sentinel://HOST[:PORT],HOST[:PORT]/MASTER[/DB]";

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(url: &str) -> Result<Settings, StoreError> {
        parse(url, &StoreOptions::new())
    }

    #[test]
    fn sentinels_have_a_login_of_their_own() {
        let url = "redis+sentinel://ada:one@a/main?sentinel-user=b%26b&sentinel-password=t%77o&replicas=2";
        let Settings { target: Target::Sentinel { login, .. }, sentinel_login, replicas, .. } =
            settings(url).unwrap()
        else {
            panic!("not a sentinel target")
        };
        assert_eq!((login.username(), login.password(), replicas), (Some("ada"), Some("one"), 2));
        assert_eq!((sentinel_login.username(), sentinel_login.password()), (Some("b&b"), Some("two")));
        let options = StoreOptions::new().sentinel_login(None, "three");
        assert!(!format!("{options:?}").contains("three"));
        let given = parse("redis+sentinel://a/main", &options).unwrap().sentinel_login;
        assert_eq!((given.username(), given.password()), (None, Some("three")));
    }

    #[test]
    fn sentinels_master_and_login_are_read() {
        let target = settings("redis+sentinel://:s%40cret@a,b:1,[::1]:2/main/3").unwrap().target;
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
            assert_eq!(settings(url).unwrap().replicas, replicas, "{url}");
        }
    }

    #[test]
    fn plain_host_and_port_is_a_server() {
        for url in ["127.0.0.1:6379", "redis://127.0.0.1:6379"] {
            let Target::Single { address, .. } = settings(url).unwrap().target else { panic!("{url}") };
            assert_eq!(address.to_string(), "127.0.0.1:6379");
        }
    }

    #[test]
    fn what_cannot_work_is_said_without_the_password() {
        for url in [
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
            "redis://h?ca=secret",
            "redis://h?sentinel-password=secret",
            "redis+sentinel://a/m?sentinel-user=secret",
            "redis+sentinel://a/m?sentinel-password=%zzsecret",
            "rediss://:secret@h?cert=/nowhere",
            "rediss://:secret@h?ca=/nowhere/ca.pem",
        ] {
            let Err(error) = settings(url) else { panic!("{url} was taken") };
            assert!(error.is_config() && !format!("{error} {error:?}").contains("secret"), "{url}: {error}");
        }
    }
}
