//! Settings that several commands share: from flags first, then from the usual environment variables.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};

/// Where the stack runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PlatformName {
    /// Child processes on loopback; needs nothing installed.
    Local,
    /// Services of a Docker Swarm, with Consul and Redis.
    Swarm,
    /// Containers on plain engines without Swarm mode, with Consul and Redis.
    Engines,
}

/// How Docker, Consul and Redis are reached.
#[derive(Args, Clone, Debug, Default)]
pub struct Backends {
    /// A manager's Docker API: unix:///run/docker.sock or tcp://HOST:2375; with DOCKER_TLS_VERIFY and DOCKER_CERT_PATH as docker
    /// has them, tcp://HOST:2376 by TLS
    #[arg(long, env = "DOCKER_HOST", value_name = "URL", hide_env_values = true, global = true)]
    pub docker_host: Option<String>,
    /// Every engine of the cluster, for images and for the loss of a manager: h1=tcp://ADDR:2375,h2=...
    #[arg(
        long,
        env = "HA_STACK_ENGINES",
        value_name = "NAME=URL,...",
        hide_env_values = true,
        global = true
    )]
    pub engines: Option<String>,
    /// A Consul agent
    #[arg(long, env = "CONSUL_HTTP_ADDR", value_name = "URL", hide_env_values = true, global = true)]
    pub consul: Option<String>,
    /// The address by which users reach the gateways, when it is not a host's own: a virtual IP
    #[arg(long, env = "HA_STACK_FRONT", value_name = "IP", hide_env_values = true, global = true)]
    pub front: Option<String>,
    /// The token for Consul
    #[arg(long, env = "CONSUL_HTTP_TOKEN", value_name = "TOKEN", hide_env_values = true, global = true)]
    pub consul_token: Option<Secret>,
    /// A file with that token, such as a Swarm secret, read anew when Consul denies what it held; wins over --consul-token
    #[arg(long, env = "CONSUL_HTTP_TOKEN_FILE", value_name = "FILE", hide_env_values = true, global = true)]
    pub consul_token_file: Option<PathBuf>,
    /// The session store: redis://HOST:PORT or redis+sentinel://A,B,C/NAME
    #[arg(long, env = "REDIS_URL", value_name = "URL", hide_env_values = true, global = true)]
    pub redis: Option<Secret>,
}

/// A setting that must not be shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The value itself.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Secret {
    fn from(value: &str) -> Self {
        Self(value.to_owned())
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("<redacted>")
    }
}

impl Backends {
    /// A manager's address; an empty setting is none.
    fn docker_host(&self) -> Option<&str> {
        self.docker_host.as_deref().filter(|url| !url.trim().is_empty())
    }

    /// The session store's URL.
    pub fn redis(&self) -> Option<&Secret> {
        self.redis.as_ref().filter(|url| !url.expose().trim().is_empty())
    }

    /// The token for Consul.
    pub fn consul_token(&self) -> Option<&Secret> {
        self.consul_token.as_ref().filter(|token| !token.expose().trim().is_empty())
    }

    /// The address by which users reach the gateways; `None` where it is a host's own.
    ///
    /// # Errors
    /// When it is no IP address.
    pub fn front(&self) -> Result<Option<IpAddr>> {
        let Some(front) = self.front.as_deref().map(str::trim).filter(|front| !front.is_empty()) else {
            return Ok(None);
        };
        let parsed = front.parse();
        parsed.map(Some).with_context(|| {
            format!("--front (HA_STACK_FRONT) is {front:?}; give an IP address, for example 198.18.0.100")
        })
    }

    /// Consul's address as it may be shown.
    pub fn consul_shown(&self) -> String {
        shown(self.consul_address())
    }

    fn consul_address(&self) -> &str {
        self.consul.as_deref().filter(|url| !url.trim().is_empty()).unwrap_or(DEFAULT_CONSUL)
    }

    /// The engines by name; with no list, the one of `--docker-host` under the name `engine`.
    ///
    /// # Errors
    /// When an entry is not `NAME=URL`.
    pub fn engines(&self) -> Result<BTreeMap<String, String>> {
        let Some(list) = self.engines.as_deref().filter(|list| !list.trim().is_empty()) else {
            let one = self.docker_host().unwrap_or(DEFAULT_SOCKET).to_owned();
            return Ok(BTreeMap::from([("engine".into(), one)]));
        };
        let mut engines = BTreeMap::new();
        for entry in list.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
            let Some((name, url)) =
                entry.split_once('=').filter(|(name, url)| !name.is_empty() && !url.is_empty())
            else {
                bail!(
                    "--engines (HA_STACK_ENGINES) has the entry {:?}; write NAME=URL, for example h1=tcp://198.18.0.11:2375",
                    shown(entry)
                );
            };
            if engines.insert(name.to_owned(), url.to_owned()).is_some() {
                bail!("--engines (HA_STACK_ENGINES) names the engine {name} twice");
            }
        }
        Ok(engines)
    }

    /// A client of the Swarm that knows every manager, the one of `--docker-host` first.
    ///
    /// # Errors
    /// When no engine can be reached, with the setting, its value and what to do.
    pub async fn swarm(&self) -> Result<swarm_client::Client> {
        let mut endpoints: Vec<String> = self.docker_host().iter().map(|url| (*url).to_owned()).collect();
        endpoints
            .extend(self.engines()?.into_values().filter(|url| Some(url.as_str()) != self.docker_host()));
        // A manager that was cut off holds a request for 20 s; another one answers sooner.
        let mut builder = swarm_client::Client::builder().request_timeout(REQUEST_TIMEOUT);
        for endpoint in &endpoints {
            builder = builder.endpoint(endpoint.as_str());
        }
        builder.tls_from_env().connect().await.with_context(|| {
            let tried = endpoints.iter().map(|url| shown(url)).collect::<Vec<_>>().join(", ");
            format!("no Docker engine at {tried} (--docker-host, DOCKER_HOST): is one running there?")
        })
    }

    /// A client of Consul.
    ///
    /// # Errors
    /// When the address is not one.
    pub fn consul(&self) -> Result<consul_client::Client> {
        let mut builder = consul_client::Client::builder().address(self.consul_address());
        let file = self.consul_token_file.as_ref().filter(|file| !file.as_os_str().is_empty());
        if let Some(file) = file {
            builder = builder.token_file(file);
        } else if let Some(token) = self.consul_token() {
            builder = builder.token(token.expose());
        }
        builder.build().with_context(|| format!("--consul (CONSUL_HTTP_ADDR) is {:?}", self.consul_shown()))
    }
}

/// An address without the user and password that may stand in it.
pub fn shown(url: &str) -> String {
    match (url.find("://"), url.rfind('@')) {
        (Some(scheme), Some(at)) if at > scheme => format!("{}://…{}", &url[..scheme], &url[at..]),
        _ => url.to_owned(),
    }
}

const DEFAULT_SOCKET: &str = "unix:///var/run/docker.sock";
const DEFAULT_CONSUL: &str = "http://127.0.0.1:8500";
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn engines_are_read_and_bad_entries_are_named() {
        let with = |list: &str| Backends { engines: Some(list.into()), ..Backends::default() }.engines();
        let two = with("h1=tcp://a:1, h2=tcp://b:2").unwrap();
        assert_eq!(two.get("h2").map(String::as_str), Some("tcp://b:2"));
        for bad in ["h1", "=tcp://a:1", "h1="] {
            let error = with(bad).unwrap_err().to_string();
            assert!(error.contains(&format!("{bad:?}")) && error.contains("NAME=URL"), "{error}");
        }
        assert!(with("h1=a,h1=b").unwrap_err().to_string().contains("twice"));
        assert_eq!(with(" ").unwrap().len(), 1);
    }

    #[test]
    fn secrets_are_not_shown() {
        let backends = Backends { redis: Some("redis://:hunter2@h:1".into()), ..Backends::default() };
        assert!(!format!("{backends:?}").contains("hunter2"));
        assert_eq!(shown("http://admin:hunter2@h:8500"), "http://…@h:8500");
        assert_eq!(shown("tcp://h:2375"), "tcp://h:2375");
        let bad = Backends { consul: Some("ftp://admin:hunter2@h:1".into()), ..Backends::default() };
        let error = format!("{:#}", bad.consul().unwrap_err());
        assert!(!error.contains("hunter2") && error.contains("--consul"), "{error}");
    }

    #[test]
    fn an_empty_setting_is_none() {
        let empty = Backends {
            docker_host: Some(String::new()),
            consul: Some(String::new()),
            redis: Some("".into()),
            ..Backends::default()
        };
        assert_eq!(empty.engines().unwrap().into_values().collect::<Vec<_>>(), [DEFAULT_SOCKET]);
        assert_eq!(empty.consul_shown(), DEFAULT_CONSUL);
        assert_eq!(empty.redis(), None);
        let odd = Backends { front: Some("here".into()), ..Backends::default() };
        assert!(odd.front().unwrap_err().to_string().contains("--front"));
    }
}
