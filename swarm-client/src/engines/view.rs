//! What is known of an engine at one moment: the scheduler's input. Plain data.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// An engine of the pool: the engine's own id and its address, because cloned machines share the id.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct EngineId(String);

impl EngineId {
    /// From what `GET /info` says and where it was asked.
    #[must_use]
    pub fn new(id: &str, addr: &str) -> Self {
        Self(format!("{id}|{addr}"))
    }

    /// The engine's own id, which need not be unique.
    #[must_use]
    pub fn own_id(&self) -> &str {
        self.0.split_once('|').map_or(self.0.as_str(), |(id, _)| id)
    }

    /// Where it is reached.
    #[must_use]
    pub fn addr(&self) -> &str {
        self.0.split_once('|').map_or("", |(_, addr)| addr)
    }
}

impl fmt::Display for EngineId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One engine as it was seen last.
#[derive(Clone, Debug, PartialEq)]
pub struct Engine {
    /// Its id.
    pub id: EngineId,
    /// The host's name.
    pub name: String,
    /// Whether it answered when it was asked last.
    pub reached: bool,
    /// How often in a row it did not answer before that.
    pub failures: u32,
    /// Its labels, with the built-in ones `storagedriver`, `kernelversion`, `operatingsystem` and `ostype`.
    pub labels: BTreeMap<String, String>,
    /// Processors, in billionths.
    pub nano_cpus: u64,
    /// Memory in bytes.
    pub memory: u64,
    /// Its containers, stopped ones included, and those that are about to be created.
    pub containers: Vec<Container>,
    /// Its images.
    pub images: Vec<Image>,
}

impl Engine {
    /// 0 where nothing may be placed: it does not answer, or failed three times in a row. Otherwise 100 less a third for each
    /// failure.
    #[must_use]
    pub fn health(&self) -> u32 {
        if self.reached { 100_u32.saturating_sub(self.failures.saturating_mul(100) / RETRY) } else { 0 }
    }

    /// The containers that hold memory, processors and ports.
    pub fn holding(&self) -> impl Iterator<Item = &Container> {
        self.containers.iter().filter(|container| container.state.holds())
    }

    /// Processors that its containers have reserved, in billionths.
    #[must_use]
    pub fn reserved_nano_cpus(&self) -> u64 {
        self.holding().fold(0, |sum, container| sum.saturating_add(container.nano_cpus))
    }

    /// Memory that its containers have reserved, in bytes.
    #[must_use]
    pub fn reserved_memory(&self) -> u64 {
        self.holding().fold(0, |sum, container| sum.saturating_add(container.memory))
    }
}

/// A container on an engine.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Container {
    /// Its id; empty while it is about to be created.
    pub id: String,
    /// Its name, without a slash.
    pub name: String,
    /// The image as it was asked for.
    pub image: String,
    /// What it does.
    pub state: ContainerState,
    /// When it was created, in seconds since 1970.
    pub created: i64,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Processors reserved, in billionths.
    pub nano_cpus: u64,
    /// Memory reserved, in bytes.
    pub memory: u64,
    /// Ports of the host that it holds or asked for.
    pub ports: Vec<HostPort>,
    /// Whether it lives in the host's own network; then `ports` are those that it exposes.
    pub host_network: bool,
}

impl Container {
    /// The id that is the same wherever in the pool the container is started.
    #[must_use]
    pub fn swarm_id(&self) -> Option<&str> {
        self.labels.get(super::labels::SWARM_ID).map(String::as_str)
    }
}

/// What a container does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ContainerState {
    /// An engine was chosen for it, and it is not created yet.
    Pending,
    /// Created, never started.
    Created,
    /// Running, restarting or paused.
    #[default]
    Running,
    /// Ended.
    Stopped,
}

impl ContainerState {
    /// Reads the engine's word for it.
    #[must_use]
    pub fn parse(word: &str) -> Self {
        match word {
            "created" => Self::Created,
            "exited" | "dead" | "removing" => Self::Stopped,
            // One that is not known holds what it holds.
            _ => Self::Running,
        }
    }

    /// Whether it takes room. A stopped container took room in the classic manager; it has neither memory nor ports, and
    /// the dead copies of a container that crashed would keep its replacement away.
    #[must_use]
    pub fn holds(self) -> bool {
        self != Self::Stopped
    }
}

impl fmt::Display for ContainerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pending => "pending",
            Self::Created => "created",
            Self::Running => "running",
            Self::Stopped => "stopped",
        })
    }
}

/// A port of a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    /// The address it is bound to; `None` for all.
    pub ip: Option<IpAddr>,
    /// Its number.
    pub port: u16,
    /// `tcp`, `udp` or `sctp`.
    pub protocol: String,
}

impl HostPort {
    /// Whether both can't be bound on one host. The classic manager did not look at the protocol, so that a DNS server could not
    /// have 53/tcp and 53/udp.
    #[must_use]
    pub fn collides(&self, other: &Self) -> bool {
        let everywhere = |ip: &Option<IpAddr>| ip.is_none_or(|ip| ip.is_unspecified());
        let same_ip = self.ip == other.ip || everywhere(&self.ip) || everywhere(&other.ip);
        self.port == other.port && self.protocol.eq_ignore_ascii_case(&other.protocol) && same_ip
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.ip {
            Some(ip) => write!(f, "{ip}:{}/{}", self.port, self.protocol),
            None => write!(f, "{}/{}", self.port, self.protocol),
        }
    }
}

/// An image on an engine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Image {
    /// Its id, with `sha256:`.
    pub id: String,
    /// Its names: `redis:7`.
    pub tags: Vec<String>,
}

impl Image {
    /// Everything that it is known by: id, tags, and tags without what stands after the last colon.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let repository = |tag: &'_ str| -> usize {
            // A colon before a slash belongs to a registry's port.
            tag.rfind(':').filter(|at| !tag[*at..].contains('/')).unwrap_or(tag.len())
        };
        let tags = self.tags.iter().flat_map(move |tag| [tag.as_str(), &tag[..repository(tag)]]);
        std::iter::once(self.id.as_str()).chain(tags)
    }
}

/// Failures in a row after which nothing more is placed on an engine.
pub(super) const RETRY: u32 = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_collide_by_number_protocol_and_address() {
        let port = |ip: &str, protocol: &str| HostPort {
            ip: ip.parse().ok(),
            port: 53,
            protocol: protocol.to_owned(),
        };
        assert!(port("", "tcp").collides(&port("10.0.0.1", "tcp")));
        assert!(port("0.0.0.0", "tcp").collides(&port("10.0.0.1", "TCP")));
        assert!(!port("10.0.0.2", "tcp").collides(&port("10.0.0.1", "tcp")));
        assert!(!port("", "tcp").collides(&port("", "udp")));
    }

    #[test]
    fn an_image_is_known_by_id_tag_and_repository() {
        let image = Image { id: "sha256:1".into(), tags: vec!["r:5000/redis:7".into(), "r:5000/x".into()] };
        let names: Vec<&str> = image.names().collect();
        assert_eq!(names, ["sha256:1", "r:5000/redis:7", "r:5000/redis", "r:5000/x", "r:5000/x"]);
    }

    #[test]
    fn an_id_keeps_both_halves() {
        let id = EngineId::new("AB:CD", "198.18.0.11:2375");
        assert_eq!((id.own_id(), id.addr()), ("AB:CD", "198.18.0.11:2375"));
    }
}
