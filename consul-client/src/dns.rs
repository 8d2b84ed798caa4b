//! Names in Consul's DNS: services, nodes, prepared queries; over UDP, and over TCP when an answer does not fit.
//!
//! For those who are asked for addresses and have no use for checks and watches. What is critical is left out by the agent; what
//! warns is not, unless the agent is set so.

use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use hickory_resolver::{
    Resolver, TokioResolver,
    config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig},
    net::{DnsError as Negative, NetError, runtime::TokioRuntimeProvider},
    proto::{
        op::ResponseCode,
        rr::{RData, Record, RecordType},
    },
};

/// Asks an agent's DNS, on port 8600 unless the agent is set otherwise. Nothing is cached.
///
/// ```no_run
/// # async fn run() -> Result<(), consul_client::dns::DnsError> {
/// use consul_client::dns::{Dns, Name};
///
/// let dns = Dns::new("127.0.0.1:8600".parse().unwrap())?;
/// for target in dns.targets(&Name::service("web").tag("v2").datacenter("dc2")).await? {
///     println!("{} {:?} port {}", target.host, target.addresses, target.port);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Dns {
    resolver: TokioResolver,
    server: SocketAddr,
    domain: String,
}

impl Dns {
    /// Asks the agent whose DNS is at this address.
    ///
    /// # Errors
    /// [`DnsError::Failed`] when the resolver cannot be set up.
    pub fn new(server: SocketAddr) -> Result<Self, DnsError> {
        let connection = |mut connection: ConnectionConfig| {
            connection.port = server.port();
            connection
        };
        let connections = vec![connection(ConnectionConfig::udp()), connection(ConnectionConfig::tcp())];
        let servers = vec![NameServerConfig::new(server.ip(), true, connections)];
        let config = ResolverConfig::from_parts(None, Vec::new(), servers);
        let mut builder = Resolver::builder_with_config(config, TokioRuntimeProvider::default());
        let options = builder.options_mut();
        options.timeout = TIMEOUT;
        options.attempts = ATTEMPTS;
        // Consul's answers are of the moment.
        options.cache_size = 0;
        options.use_hosts_file = ResolveHosts::Never;
        options.try_tcp_on_error = true;
        // More addresses in a packet: fewer answers that have to be asked for again over TCP.
        options.edns_payload_len = 1232;
        let resolver = builder.build().map_err(|error| DnsError::failed("", server, error))?;
        Ok(Self { resolver, server, domain: "consul".to_owned() })
    }

    /// The domain that the agent answers for (`consul` unless it is set otherwise).
    #[must_use]
    pub fn domain(mut self, domain: impl Into<String>) -> Self {
        self.domain = domain.into();
        self
    }

    /// Where the instances are, with their ports (SRV). None when there is nothing by that name, or nothing healthy.
    ///
    /// # Errors
    /// [`DnsError::Name`] for what is no name; [`DnsError::Failed`] when no usable answer came.
    pub async fn targets(&self, name: &Name) -> Result<Vec<Target>, DnsError> {
        let name = name.to_dns(&self.domain)?;
        match self.lookup(&name, RecordType::SRV).await? {
            Some((answers, additionals)) => Ok(targets(&answers, &additionals)),
            None => Ok(Vec::new()),
        }
    }

    /// The addresses (A, and AAAA where there is no A). None when there is nothing by that name, or nothing healthy.
    ///
    /// # Errors
    /// As [`targets`](Self::targets).
    pub async fn addresses(&self, name: &Name) -> Result<Vec<IpAddr>, DnsError> {
        let name = name.to_dns(&self.domain)?;
        for kind in [RecordType::A, RecordType::AAAA] {
            if let Some((answers, _)) = self.lookup(&name, kind).await? {
                let found: Vec<_> = answers.iter().filter_map(address).collect();
                if !found.is_empty() {
                    return Ok(found);
                }
            }
        }
        Ok(Vec::new())
    }

    /// Answers and additional records; `None` when the agent says that there are none.
    async fn lookup(
        &self,
        name: &str,
        kind: RecordType,
    ) -> Result<Option<(Vec<Record>, Vec<Record>)>, DnsError> {
        match self.resolver.lookup(name, kind).await {
            Ok(found) => Ok(Some((found.answers().to_vec(), found.additionals().to_vec()))),
            Err(NetError::Dns(Negative::NoRecordsFound(none)))
                if matches!(none.response_code, ResponseCode::NXDomain | ResponseCode::NoError) =>
            {
                Ok(None)
            }
            Err(error) => Err(DnsError::failed(name, self.server, error)),
        }
    }
}

impl fmt::Debug for Dns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dns")
            .field("server", &self.server)
            .field("domain", &self.domain)
            .finish_non_exhaustive()
    }
}

/// What to look up.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct Name {
    labels: Vec<String>,
    kind: &'static str,
    datacenter: Option<String>,
}

impl Name {
    /// The healthy instances of a service: `<name>.service`.
    pub fn service(name: impl Into<String>) -> Self {
        Self { labels: vec![name.into()], kind: "service", datacenter: None }
    }

    /// The same in the notation of RFC 2782: `_<name>._<protocol>.service`. Consul takes any other protocol than `tcp` and `udp` for a
    /// tag.
    pub fn rfc2782(name: impl fmt::Display, protocol: impl fmt::Display) -> Self {
        Self { labels: vec![format!("_{name}"), format!("_{protocol}")], kind: "service", datacenter: None }
    }

    /// A prepared query: `<name>.query`.
    pub fn query(name: impl Into<String>) -> Self {
        Self { labels: vec![name.into()], kind: "query", datacenter: None }
    }

    /// A node: `<name>.node`.
    pub fn node(name: impl Into<String>) -> Self {
        Self { labels: vec![name.into()], kind: "node", datacenter: None }
    }

    /// Only instances with this tag; for [`service`](Self::service).
    pub fn tag(mut self, tag: impl Into<String>) -> Self {
        self.labels.insert(0, tag.into());
        self
    }

    /// In another data centre.
    pub fn datacenter(mut self, name: impl Into<String>) -> Self {
        self.datacenter = Some(name.into());
        self
    }

    fn to_dns(&self, domain: &str) -> Result<String, DnsError> {
        // A service's or query's name may hold dots; a label between two dots may be neither empty nor longer than 63 bytes.
        let parts =
            self.labels.iter().map(String::as_str).chain([self.kind]).chain(self.datacenter.as_deref());
        let name = parts.chain([domain]).collect::<Vec<_>>().join(".");
        let wrong = name.split('.').any(|label| label.is_empty() || label.len() > 63);
        let odd = |c: char| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
        if wrong || name.len() > 253 || name.contains(odd) {
            return Err(DnsError::Name { name: name.chars().take(128).collect() });
        }
        Ok(format!("{name}."))
    }
}

/// Where an instance is.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Target {
    /// The host's name in DNS.
    pub host: String,
    /// Its addresses, as far as the same answer told them.
    pub addresses: Vec<IpAddr>,
    /// The port.
    pub port: u16,
    /// Lower ones first; Consul says 1 for all.
    pub priority: u16,
    /// The share among equal priorities.
    pub weight: u16,
}

/// A look-up that failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DnsError {
    /// Not a name in DNS.
    #[error(
        "{name:?} is no name in DNS: labels of 1 to 63 letters, digits, `-` and `_`, together up to 253 bytes"
    )]
    Name {
        /// What was asked for.
        name: String,
    },
    /// No usable answer.
    #[error("looking up {name:?} at {server}: no usable answer; is that a consul agent's DNS port (8600)?")]
    Failed {
        /// What was asked for.
        name: String,
        /// Whom.
        server: SocketAddr,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl DnsError {
    fn failed(name: &str, server: SocketAddr, error: NetError) -> Self {
        Self::Failed { name: name.to_owned(), server, source: Box::new(error) }
    }
}

fn address(record: &Record) -> Option<IpAddr> {
    match &record.data {
        RData::A(a) => Some(IpAddr::V4(a.0)),
        RData::AAAA(aaaa) => Some(IpAddr::V6(aaaa.0)),
        _ => None,
    }
}

fn targets(answers: &[Record], additionals: &[Record]) -> Vec<Target> {
    let mut addresses: BTreeMap<String, Vec<IpAddr>> = BTreeMap::new();
    for record in additionals {
        if let Some(found) = address(record) {
            let known = addresses.entry(record.name.to_ascii().to_lowercase()).or_default();
            // Consul repeats the record for each instance of the host.
            if !known.contains(&found) {
                known.push(found);
            }
        }
    }
    let target = |record: &Record| {
        let RData::SRV(srv) = &record.data else {
            return None;
        };
        let host = srv.target.to_ascii();
        let addresses = addresses.get(&host.to_lowercase()).cloned().unwrap_or_default();
        Some(Target { host, addresses, port: srv.port, priority: srv.priority, weight: srv.weight })
    };
    answers.iter().filter_map(target).collect()
}

/// An agent is near, and asks its servers for no longer.
const TIMEOUT: Duration = Duration::from_secs(2);
const ATTEMPTS: usize = 2;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_are_consuls() {
        let dns = |name: Name| name.to_dns("consul").unwrap();
        assert_eq!(dns(Name::service("web")), "web.service.consul.");
        assert_eq!(dns(Name::service("web").tag("v2").datacenter("dc2")), "v2.web.service.dc2.consul.");
        assert_eq!(dns(Name::rfc2782("web", "tcp")), "_web._tcp.service.consul.");
        assert_eq!(dns(Name::query("find.web")), "find.web.query.consul.");
        assert_eq!(dns(Name::node("n1").datacenter("dc1")), "n1.node.dc1.consul.");
        for name in ["", "a b", "a..b", "ä", &"a".repeat(64), "a/b"] {
            let error = Name::service(name).to_dns("consul").unwrap_err().to_string();
            assert!(error.contains("no name in DNS"), "{error}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]
        #[test]
        fn what_is_accepted_is_a_name(name in "[ -~ä]{0,80}") {
            if let Ok(dns) = Name::service(name).to_dns("consul") {
                prop_assert!(hickory_resolver::proto::rr::Name::from_ascii(&dns).is_ok(), "{dns}");
            }
        }
    }
}
