//! How the lab is, and who leads what.

use std::net::Ipv4Addr;

use serde::Serialize;

use crate::error::{Error, Result};
use crate::lab::{Lab, host_at};
use crate::plan::{Host, VIRTUAL_ADDR};
use crate::ready::{self, ASK};
use crate::state::State;
use crate::{net, redis, swarm};

/// Which host leads what, as the clusters themselves tell.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Leaders {
    /// The Swarm's leader; none while the managers have none, or without a Swarm.
    pub swarm: Option<String>,
    /// Consul's leader; none while the servers have none, or without Consul.
    pub consul: Option<String>,
    /// The host of the Redis master to which the Sentinels send clients, which may just have died; none without Redis.
    pub redis: Option<String>,
}

impl Leaders {
    /// Whether the host leads anything.
    #[must_use]
    pub fn includes(&self, host: &str) -> bool {
        [&self.swarm, &self.consul, &self.redis].into_iter().flatten().any(|leader| leader == host)
    }
}

/// The state of a lab.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Status {
    /// `h1` first.
    pub hosts: Vec<HostStatus>,
}

impl Status {
    /// Whether every host is on, connected, and well in every part.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.hosts.iter().all(|h| {
            h.power && h.cable && [&h.engine, &h.swarm, &h.consul, &h.redis].into_iter().all(|part| part.ok)
        })
    }
}

/// The state of one host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct HostStatus {
    /// Its name.
    pub name: String,
    /// Its address.
    pub addr: Ipv4Addr,
    /// Whether it is on.
    pub power: bool,
    /// Whether its cable is plugged in.
    pub cable: bool,
    /// The Docker engine.
    pub engine: Part,
    /// Its part in the Swarm.
    pub swarm: Part,
    /// Its part in the Consul cluster.
    pub consul: Part,
    /// Its Redis.
    pub redis: Part,
}

/// One part of a host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Part {
    /// Whether it does what it should.
    pub ok: bool,
    /// What it does: `leader`, `ready`, `replica in sync`; or what is wrong, in words.
    pub is: String,
}

impl Lab {
    /// Asks every part of every host. A host that is off or cut is not asked. Needs no root.
    ///
    /// # Errors
    /// When the lab is gone or its state can't be read. A part that doesn't answer is no error, but not well.
    pub async fn status(&self) -> Result<Status> {
        let state = State::load()?.ok_or(Error::NotUp)?;
        let live = self.live(&state);
        let nodes = if state.swarm { ready::nodes(&live).await } else { Ok(None) };
        let leader = if state.bare { Ok(None) } else { ready::consul_leader(&live).await };
        let mut hosts = Vec::new();
        for (host, known) in self.hosts().iter().zip(&state.hosts) {
            let power = known.power.is_some_and(|p| p.init.is_alive());
            let mut status = HostStatus {
                name: host.name.clone(),
                addr: host.addr,
                power,
                cable: !known.cut,
                engine: bad(NOT_ASKED),
                swarm: bad(NOT_ASKED),
                consul: bad(NOT_ASKED),
                redis: bad(NOT_ASKED),
            };
            if power && status.cable {
                status.engine = swarm::ping(host, ASK).await.map_or_else(bad, |()| good("answers"));
                status.swarm = if state.swarm { swarm_part(host, &nodes) } else { good("none") };
                if state.bare {
                    (status.consul, status.redis) = (good("none"), good("none"));
                } else {
                    status.consul = consul_part(host, &live, &leader).await;
                    status.redis = redis_part(host).await;
                }
            }
            hosts.push(status);
        }
        Ok(Status { hosts })
    }

    /// The host that holds [`VIRTUAL_ADDR`](crate::VIRTUAL_ADDR) now; none while no host has a ready gateway, or in the
    /// moment between two.
    ///
    /// # Errors
    /// When not root, or the hosts' addresses can't be listed.
    pub async fn address_holder(&self) -> Result<Option<String>> {
        let state = State::load()?.ok_or(Error::NotUp)?;
        for host in self.live(&state) {
            if net::holds(host, VIRTUAL_ADDR).await? {
                return Ok(Some(host.name.clone()));
            }
        }
        Ok(None)
    }

    /// Asks who leads. Needs no root.
    ///
    /// # Errors
    /// When nobody of a cluster answers: that is not the same as "it has no leader".
    pub async fn leaders(&self) -> Result<Leaders> {
        let state = State::load()?.ok_or(Error::NotUp)?;
        let live = self.live(&state);
        let nodes = if state.swarm { ready::nodes(&live).await? } else { None };
        let consul = if state.bare { None } else { ready::consul_leader(&live).await? };
        let redis = if state.bare { None } else { ready::redis_master(&live).await? };
        let named = |addr: Option<Ipv4Addr>| addr.and_then(|addr| host_at(self.hosts(), addr));
        Ok(Leaders {
            swarm: nodes.into_iter().flatten().find(|node| node.leader).map(|node| node.name),
            consul: named(consul.and_then(|addr| addr.parse().ok())),
            redis: named(redis),
        })
    }
}

fn swarm_part(host: &Host, nodes: &Result<Option<Vec<swarm::Node>>>) -> Part {
    let nodes = match nodes {
        Ok(Some(nodes)) => nodes,
        Ok(None) => return bad("the managers have no leader"),
        Err(error) => return bad(error),
    };
    match nodes.iter().find(|node| node.name == host.name) {
        Some(node) if node.ready && node.reachable => good(if node.leader { "leader" } else { "ready" }),
        Some(node) => bad(format!("ready {}, manager reachable {}", node.ready, node.reachable)),
        None => bad("no node"),
    }
}

async fn consul_part(host: &Host, live: &[&Host], leader: &Result<Option<String>>) -> Part {
    match ready::consul_voter(host, live).await {
        Ok(()) if leader.as_ref().is_ok_and(|l| l.as_deref() == Some(host.addr.to_string().as_str())) => {
            good("leader")
        }
        Ok(()) => good("voter"),
        Err(why) => bad(why),
    }
}

async fn redis_part(host: &Host) -> Part {
    match redis::replication(host, ASK).await {
        Ok(redis) if redis.role == "master" => good(format!("master, {} replicas", redis.replicas)),
        Ok(redis) if redis.link_up => good("replica in sync"),
        Ok(_) => bad("replica without its master"),
        Err(error) => bad(error),
    }
}

fn good(is: impl ToString) -> Part {
    Part { ok: true, is: is.to_string() }
}

fn bad(is: impl ToString) -> Part {
    Part { ok: false, is: is.to_string() }
}

const NOT_ASKED: &str = "not asked";
