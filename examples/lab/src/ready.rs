//! Asking the daemons how they are, and waiting until they are well.

use std::net::Ipv4Addr;
use std::time::Duration;

use tokio::time::Instant;

use crate::error::{Error, Result};
use crate::folder::Folder;
use crate::plan::Host;
use crate::state::Power;
use crate::{consul, redis, swarm};

/// One question's time: a daemon that takes longer is not well.
pub(crate) const ASK: Duration = Duration::from_secs(2);

/// Waits until `check` has no objection, and gives what it found. Fails early when the host's power goes, late with the last
/// objection and the logs.
// The future is a type of its own, not an async closure's: only so can the compiler see that it may move between threads.
pub(crate) async fn until<T, F>(
    what: String,
    within: Duration,
    folder: &Folder,
    watched: &[(&Host, Power)],
    check: impl Fn() -> F + Send,
) -> Result<T>
where
    F: Future<Output = Result<T, String>> + Send,
{
    let end = Instant::now() + within;
    loop {
        let mut last = match check().await {
            Ok(found) => return Ok(found),
            Err(objection) => objection,
        };
        let dead = watched.iter().find(|(_, power)| !power.init.is_alive());
        if let Some((host, _)) = dead {
            last = format!("{} went off: its first process ended", host.name);
        }
        if dead.is_some() || Instant::now() >= end {
            let logs = watched.iter().map(|(host, _)| folder.log_tails(&host.name)).collect();
            return Err(Error::Deadline { what, within, last, logs });
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Whether `host` is a ready node and a voting manager, as one of `witnesses` sees it.
pub(crate) async fn swarm_node(host: &Host, witnesses: &[&Host]) -> Result<(), String> {
    let nodes = nodes(witnesses).await.map_err(|e| e.to_string())?.ok_or("the managers have no leader")?;
    let node =
        nodes.iter().find(|n| n.name == host.name).ok_or_else(|| format!("{} is no node", host.name))?;
    match (node.ready, node.reachable) {
        (true, true) => Ok(()),
        (ready, reachable) => {
            Err(format!("node {}: ready {ready}, manager reachable {reachable}", host.name))
        }
    }
}

/// Whether `host` knows a leader and is a healthy voter, as one of `witnesses` sees it.
pub(crate) async fn consul_voter(host: &Host, witnesses: &[&Host]) -> Result<(), String> {
    // Its own answer first: a server that has just died counts as healthy for a moment.
    consul::leader(host, ASK)
        .await
        .map_err(|e| e.to_string())?
        .ok_or_else(|| format!("consul on {} knows no leader", host.name))?;
    let mut why = "nobody to ask".to_owned();
    for witness in witnesses {
        match consul::servers(witness, ASK).await {
            Ok(servers) => {
                let server = servers.iter().find(|s| s.name == host.name);
                return match server.map(|s| (s.voter, s.healthy)) {
                    Some((true, true)) => Ok(()),
                    Some((voter, healthy)) => {
                        Err(format!("consul on {}: voter {voter}, healthy {healthy}", host.name))
                    }
                    None => Err(format!("consul on {} is no server of the cluster yet", host.name)),
                };
            }
            Err(error) => why = error.to_string(),
        }
    }
    Err(why)
}

/// Whether Redis on `host` is the master or follows it, and its Sentinel knows the `others` and all replicas.
pub(crate) async fn redis_in_sync(host: &Host, others: usize) -> Result<(), String> {
    let state = redis::replication(host, ASK).await.map_err(|e| e.to_string())?;
    if state.role != "master" && !state.link_up {
        return Err(format!("redis on {} does not follow its master yet", host.name));
    }
    let seen = redis::verdict(host, ASK).await.map_err(|e| e.to_string())?;
    if seen.replicas < others || seen.other_sentinels < others {
        let (replicas, sentinels) = (seen.replicas, seen.other_sentinels);
        return Err(format!(
            "the sentinel on {} knows {replicas} replicas, {sentinels} sentinels",
            host.name
        ));
    }
    Ok(())
}

/// The Swarm's nodes as the first of `witnesses` that can tell sees them; none if those that answer know no leader.
pub(crate) async fn nodes(witnesses: &[&Host]) -> Result<Option<Vec<swarm::Node>>> {
    let mut answers = Answers::default();
    for witness in witnesses {
        if let Some(nodes) = answers.take(swarm::nodes(witness, ASK).await) {
            return Ok(Some(nodes));
        }
    }
    answers.none()
}

/// The address of Consul's leader, in the same way.
pub(crate) async fn consul_leader(witnesses: &[&Host]) -> Result<Option<String>> {
    let mut answers = Answers::default();
    for witness in witnesses {
        if let Some(leader) = answers.take(consul::leader(witness, ASK).await) {
            return Ok(Some(leader));
        }
    }
    answers.none()
}

/// The address of the Redis master, as the Sentinel with the newest knowledge tells it.
pub(crate) async fn redis_master(witnesses: &[&Host]) -> Result<Option<Ipv4Addr>> {
    let mut answers = Answers::default();
    let mut newest: Option<redis::Verdict> = None;
    for witness in witnesses {
        let verdict = answers.take(redis::verdict(witness, ASK).await.map(Some));
        if verdict.as_ref().is_some_and(|v| newest.as_ref().is_none_or(|n| v.epoch > n.epoch)) {
            newest = verdict;
        }
    }
    match newest {
        Some(verdict) => Ok(verdict.addr.parse().ok()),
        None => answers.none(),
    }
}

/// Tells "those asked know of none" from "nobody answered", which must not look alike.
#[derive(Default)]
struct Answers {
    any: bool,
    error: Option<Error>,
}

impl Answers {
    fn take<T>(&mut self, answer: Result<Option<T>>) -> Option<T> {
        match answer {
            Ok(value) => {
                self.any = true;
                value
            }
            Err(error) => {
                self.error = Some(error);
                None
            }
        }
    }

    fn none<T>(self) -> Result<Option<T>> {
        match self.error {
            Some(error) if !self.any => Err(error),
            _ => Ok(None),
        }
    }
}

const PAUSE: Duration = Duration::from_millis(100);
