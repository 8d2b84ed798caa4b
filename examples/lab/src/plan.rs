//! Names and addresses: everything about a lab that follows from a host's number alone.
//!
//! 198.18.0.0/15 is set aside for benchmarks (RFC 2544), so it collides with nobody's network.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// The most hosts that a lab has.
pub const MAX_HOSTS: usize = 9;

/// The name under which the Sentinels know the Redis master.
pub const REDIS_MASTER: &str = "main";

/// The address that wanders: it is on the host whose gateway users reach.
pub const VIRTUAL_ADDR: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 100);

/// Where users reach a gateway.
pub(crate) const GATEWAY_PORT: u16 = 8080;

/// The bridge that joins the hosts.
pub(crate) const BRIDGE: &str = "halab0";
/// The root namespace's address on the bridge.
pub(crate) const BRIDGE_CIDR: &str = "198.18.0.1/24";
/// Nothing in this range may leave the machine.
pub(crate) const RANGE: &str = "198.18.0.0/15";

pub(crate) const DOCKER_PORT: u16 = 2375;
pub(crate) const DOCKER_TLS_PORT: u16 = 2376;
pub(crate) const SWARM_PORT: u16 = 2377;
pub(crate) const CONSUL_PORT: u16 = 8500;
pub(crate) const REDIS_PORT: u16 = 6379;
pub(crate) const SENTINEL_PORT: u16 = 26379;

/// One host of the lab: `h1` at 198.18.0.11, and so on.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Host {
    /// Its name: also its host name, its Swarm node's and its Consul node's.
    pub name: String,
    /// Its address, reachable from the root namespace, from the other hosts and from their containers.
    pub addr: Ipv4Addr,
    index: u8,
    /// What its engine asks of whoever connects; none where it speaks in the clear.
    certificates: Option<PathBuf>,
    bare: bool,
}

impl Host {
    /// Hosts `h1` to `h<count>`.
    pub(crate) fn all(count: usize) -> Result<Vec<Self>> {
        Self::all_with(count, None)
    }

    /// The same, where the engines speak TLS alone, with the certificates of that folder.
    pub(crate) fn all_with(count: usize, certificates: Option<&Path>) -> Result<Vec<Self>> {
        if !(1..=MAX_HOSTS).contains(&count) {
            let rule = format!("a lab has 1 to {MAX_HOSTS} hosts");
            return Err(Error::Setting { setting: "--hosts", value: count.to_string(), rule });
        }
        let named = |index| Self {
            name: format!("h{index}"),
            addr: Ipv4Addr::new(198, 18, 0, 10 + index),
            index,
            certificates: certificates.map(Path::to_owned),
            bare: false,
        };
        Ok((1u8..).take(count).map(named).collect())
    }

    /// Sets whether it has an engine and nothing else.
    pub(crate) fn bare(mut self, bare: bool) -> Self {
        self.bare = bare;
        self
    }

    /// Whether it has an engine alone: no Consul, no Redis, no Sentinel ([`Options::bare`](crate::Options::bare)).
    #[must_use]
    pub fn is_bare(&self) -> bool {
        self.bare
    }

    /// The engine's API for `DOCKER_HOST`: `tcp://198.18.0.11:2375`; with TLS ([`Options::tls`](crate::Options::tls))
    /// `tcp://198.18.0.11:2376`, as docker's own command line writes it.
    #[must_use]
    pub fn docker_endpoint(&self) -> String {
        format!(
            "tcp://{}",
            self.socket(if self.certificates.is_some() { DOCKER_TLS_PORT } else { DOCKER_PORT })
        )
    }

    /// The same for whoever does not read the environment.
    pub(crate) fn engine_url(&self) -> String {
        let endpoint = self.docker_endpoint();
        if self.certificates.is_some() { endpoint.replacen("tcp://", "https://", 1) } else { endpoint }
    }

    /// The folder with the ca.pem, cert.pem and key.pem for its engine, for `DOCKER_CERT_PATH`; none where that speaks in the
    /// clear.
    #[must_use]
    pub fn certificates(&self) -> Option<&Path> {
        self.certificates.as_deref()
    }

    /// Consul's HTTP API for `CONSUL_HTTP_ADDR`: `http://198.18.0.11:8500`.
    #[must_use]
    pub fn consul_addr(&self) -> String {
        format!("http://{}", self.socket(CONSUL_PORT))
    }

    /// Where Redis listens.
    #[must_use]
    pub fn redis_addr(&self) -> SocketAddr {
        self.socket(REDIS_PORT)
    }

    /// Where the Sentinel listens.
    #[must_use]
    pub fn sentinel_addr(&self) -> SocketAddr {
        self.socket(SENTINEL_PORT)
    }

    pub(crate) fn socket(&self, port: u16) -> SocketAddr {
        SocketAddr::from((self.addr, port))
    }

    /// The name of the network namespace, of the bridge's end of the cable and of the cgroup.
    pub(crate) fn unit(&self) -> String {
        format!("halab-{}", self.name)
    }

    pub(crate) fn netns_path(&self) -> String {
        format!("/run/netns/{}", self.unit())
    }

    /// The same after a restart, as a machine's is: no neighbour keeps a stale entry.
    pub(crate) fn mac(&self) -> String {
        format!("02:c6:12:00:00:{:02x}", 10 + self.index)
    }

    /// The default bridge of the host's engine; distinct, so that a log line tells whose container it was.
    pub(crate) fn container_bridge(&self) -> String {
        format!("198.19.{}.1/24", 10 + self.index)
    }
}

/// What `lab env` exports.
pub(crate) fn env(hosts: &[Host]) -> Vec<(String, String)> {
    let list = |f: &dyn Fn(&Host) -> String| hosts.iter().map(f).collect::<Vec<_>>().join(",");
    let mut vars = Vec::new();
    if let Some(first) = hosts.first() {
        vars.push(("DOCKER_HOST".to_owned(), first.docker_endpoint()));
        if let Some(certificates) = first.certificates() {
            vars.push(("DOCKER_TLS_VERIFY".to_owned(), "1".to_owned()));
            vars.push(("DOCKER_CERT_PATH".to_owned(), certificates.display().to_string()));
        }
    }
    if let Some(first) = hosts.first().filter(|first| !first.is_bare()) {
        vars.push(("CONSUL_HTTP_ADDR".to_owned(), first.consul_addr()));
        let sentinels = list(&|h| h.sentinel_addr().to_string());
        vars.push(("REDIS_URL".to_owned(), format!("redis+sentinel://{sentinels}/{REDIS_MASTER}")));
    }
    vars.push(("HA_STACK_ENGINES".to_owned(), list(&|h| format!("{}={}", h.name, h.docker_endpoint()))));
    vars.push(("HA_STACK_FRONT".to_owned(), VIRTUAL_ADDR.to_string()));
    vars.push(("HA_STACK_LAB".to_owned(), "1".to_owned()));
    vars
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_have_their_own_name_address_and_card() {
        let hosts = Host::all(MAX_HOSTS).unwrap();
        let mut seen = std::collections::HashSet::new();
        for host in &hosts {
            for name in [host.unit(), host.addr.to_string(), host.mac(), host.container_bridge()] {
                assert!(seen.insert(name.clone()), "{name} is used twice");
            }
            assert!(host.unit().len() <= 15, "an interface name has at most 15 characters");
        }
        assert_eq!(hosts[0].docker_endpoint(), "tcp://198.18.0.11:2375");
        assert_eq!(hosts[2].consul_addr(), "http://198.18.0.13:8500");
    }

    #[test]
    fn a_bare_lab_names_no_server_that_it_has_not() {
        let names = |bare: bool| {
            let hosts: Vec<Host> = Host::all(3).unwrap().into_iter().map(|host| host.bare(bare)).collect();
            env(&hosts).into_iter().map(|(name, _)| name).collect::<Vec<_>>()
        };
        let (bare, whole) = (names(true), names(false));
        assert!(whole.contains(&"CONSUL_HTTP_ADDR".into()) && whole.contains(&"REDIS_URL".into()));
        assert_eq!(bare, ["DOCKER_HOST", "HA_STACK_ENGINES", "HA_STACK_FRONT", "HA_STACK_LAB"]);
    }

    #[test]
    fn a_lab_with_tls_says_where_the_certificates_are() {
        let hosts = Host::all_with(3, Some("/var/lib/x/certificates".as_ref())).unwrap();
        assert_eq!(hosts[1].docker_endpoint(), "tcp://198.18.0.12:2376");
        let env = env(&hosts);
        let has = |key: &str, value: &str| env.iter().any(|(k, v)| k == key && v == value);
        assert!(has("DOCKER_HOST", "tcp://198.18.0.11:2376") && has("DOCKER_TLS_VERIFY", "1"), "{env:?}");
        assert!(has("DOCKER_CERT_PATH", "/var/lib/x/certificates"), "{env:?}");
    }

    #[test]
    fn a_lab_without_hosts_or_with_too_many_is_refused() {
        for count in [0, MAX_HOSTS + 1] {
            let error = Host::all(count).unwrap_err();
            assert!(error.is_refusal());
            assert!(error.to_string().contains("1 to 9"), "{error}");
        }
    }

    #[test]
    fn env_points_the_usual_tools_at_the_lab() {
        let env = env(&Host::all(3).unwrap());
        let get = |key: &str| env.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str()).unwrap();
        assert_eq!(get("DOCKER_HOST"), "tcp://198.18.0.11:2375");
        assert_eq!(get("CONSUL_HTTP_ADDR"), "http://198.18.0.11:8500");
        assert_eq!(
            get("REDIS_URL"),
            "redis+sentinel://198.18.0.11:26379,198.18.0.12:26379,198.18.0.13:26379/main"
        );
        assert_eq!(
            get("HA_STACK_ENGINES"),
            "h1=tcp://198.18.0.11:2375,h2=tcp://198.18.0.12:2375,h3=tcp://198.18.0.13:2375"
        );
        assert_eq!(get("HA_STACK_FRONT"), "198.18.0.100");
        assert_eq!(get("HA_STACK_LAB"), "1");
    }
}
