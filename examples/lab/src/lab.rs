//! The verbs of a lab that is up. Each that changes something takes the lock, reads the state, acts and writes the state.

use std::net::Ipv4Addr;
use std::process::{Output, Stdio};
use std::time::Duration;

use tokio::process::Command;

use crate::command::PATH;
use crate::error::{Error, Result};
use crate::folder::Folder;
use crate::host::{self, Boot};
use crate::plan::{self, Host};
use crate::progress::{note, step};
use crate::ready;
use crate::state::{HostState, Lock, Power, State};
use crate::{net, swarm};

/// The lab that is up. It outlives this value: only [`Lab::down`] ends it, in this process or another. The future of each verb
/// is `Send`, so it can be spawned while a test goes on.
#[derive(Clone, Debug)]
pub struct Lab {
    hosts: Vec<Host>,
}

impl Lab {
    pub(crate) fn new(hosts: Vec<Host>) -> Self {
        Self { hosts }
    }

    /// The lab that is up, if there is one. Needs no root.
    ///
    /// # Errors
    /// When the state file can't be read: that is not the same as no lab.
    pub fn attach() -> Result<Option<Self>> {
        match State::load()? {
            Some(state) if state.is_lab() => Ok(Some(Self { hosts: state.hosts()? })),
            _ => Ok(None),
        }
    }

    /// The hosts, `h1` first.
    #[must_use]
    pub fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    /// The host of that name.
    ///
    /// # Errors
    /// A refusal that names the hosts that there are.
    pub fn host(&self, name: &str) -> Result<&Host> {
        self.index(name).map(|at| &self.hosts[at])
    }

    /// What points the usual tools at this lab: `DOCKER_HOST` (with `DOCKER_TLS_VERIFY` and `DOCKER_CERT_PATH` where its engines
    /// speak TLS), `CONSUL_HTTP_ADDR`, `REDIS_URL`, `HA_STACK_ENGINES`, `HA_STACK_LAB`.
    #[must_use]
    pub fn env(&self) -> Vec<(String, String)> {
        plan::env(&self.hosts)
    }

    /// Takes the power of a host away, as if its plug were pulled: its peers hear nothing of it. Returns when all of its
    /// processes are gone. What it has written to its disk stays; its cable counts as plugged in when it comes back.
    ///
    /// # Errors
    /// A refusal when it is off already or there is no such host.
    pub async fn power_off(&self, name: &str) -> Result<()> {
        let at = self.index(name)?;
        let (_lock, mut state) = change("lab power-off").await?;
        let power = part(&mut state, at)?.power.ok_or_else(|| refused(name, "is off", "see lab status"))?;
        step(format!("{name} is off"), host::stop(&self.hosts[at], Some(power))).await?;
        *part(&mut state, at)? = HostState::default();
        state.save()
    }

    /// Gives a host its power back, on the same disk, and waits until it takes part again: engine, Swarm manager, Consul
    /// voter, Redis replica in sync. It unseats no leader of Consul, and an old Redis master comes back as a replica. Where too few hosts are on for a majority it waits for the engine alone.
    ///
    /// # Errors
    /// A refusal when it is on already; what the other hosts' Sentinels failed to answer, before it is on; otherwise what did
    /// not come about in time, with the ends of its logs. It is on then.
    pub async fn power_on(&self, name: &str) -> Result<()> {
        let at = self.index(name)?;
        let (_lock, mut state) = change("lab power-on").await?;
        if part(&mut state, at)?.power.is_some_and(|p| p.init.is_alive()) {
            return Err(refused(name, "is on", "see lab status"));
        }
        let host = &self.hosts[at];
        // A start that was broken off may have left half a host.
        host::stop(host, part(&mut state, at)?.power).await?;
        *part(&mut state, at)? = HostState::default();
        let others = self.live(&state);
        let master = if state.bare { None } else { self.redis_master(&others, &state).await? };
        let led = !state.bare && ready::consul_leader(&others).await.is_ok_and(|leader| leader.is_some());
        let started =
            host::start(host, &self.hosts, &state.folder, &state.consul, Boot::Again { master, led });
        let power = step(format!("{name} has power"), started).await?;
        *part(&mut state, at)? = HostState { power: Some(power), cut: false };
        state.save()?;
        let live = self.live(&state);
        if live.len() <= self.hosts.len() / 2 {
            note(format!(
                "{} of {} hosts on, no majority: not waiting for clusters",
                live.len(),
                self.hosts.len()
            ));
            return self.wait_engine(host, power, &state).await;
        }
        self.wait_consul(host, power, &state).await?;
        if led {
            let hurried = host::hurry_consul(host, &state.folder, &state.consul);
            step(format!("Consul of {name} restarted with normal timeouts"), hurried).await?;
        }
        self.wait_engine(host, power, &state).await?;
        self.wait_swarm(host, power, &state).await?;
        self.wait_consul(host, power, &state).await?;
        self.wait_redis(host, power, &state).await
    }

    /// Pulls the network cable of a host. Everything on it runs on: a true partition.
    ///
    /// # Errors
    /// A refusal when it is off or cut already.
    pub async fn cut(&self, name: &str) -> Result<()> {
        self.set_cable(name, "lab cut", false).await
    }

    /// Puts the network cable of a host back. Does not wait until its daemons have noticed. A Consul server that was cut off
    /// for a second or more has called elections meanwhile, and may unseat the leader with them: that is Raft's nature.
    ///
    /// # Errors
    /// A refusal when it is off or not cut.
    pub async fn heal(&self, name: &str) -> Result<()> {
        self.set_cable(name, "lab heal", true).await
    }

    /// Runs a command inside a host: in its namespaces, with its /run and /etc, where `docker` finds the host's own engine.
    /// The output is collected; a command of more than a minute is ended.
    ///
    /// # Errors
    /// When the host is off or the command can't be started or does not end. Its exit status is no error here.
    pub async fn exec(&self, name: &str, command: &[&str]) -> Result<Output> {
        let mut args = self.exec_args(name)?;
        args.extend(command.iter().map(|&arg| arg.to_owned()));
        let mut nsenter = Command::new("nsenter");
        nsenter.args(&args).current_dir("/").env_clear().env("PATH", PATH).env("HOME", "/root");
        nsenter.stdin(Stdio::null()).kill_on_drop(true);
        match tokio::time::timeout(EXEC_LIMIT, nsenter.output()).await {
            Ok(output) => output.map_err(Error::file("run", "nsenter")),
            Err(_) => Err(Error::Command {
                command: command.join(" "),
                status: format!("no end within {}s", EXEC_LIMIT.as_secs()),
                output: String::new(),
            }),
        }
    }

    /// The arguments of `nsenter` that lead into a host; the command and its arguments follow them.
    ///
    /// # Errors
    /// A refusal when not root, when there is no such host or when it is off.
    pub fn exec_args(&self, name: &str) -> Result<Vec<String>> {
        need_root("lab exec")?;
        let at = self.index(name)?;
        let state = State::load()?.ok_or(Error::NotUp)?;
        let power = state.hosts.get(at).and_then(|h| h.power).filter(|p| p.init.is_alive());
        let init =
            power.ok_or_else(|| refused(name, "is off", "give it power first: lab power-on"))?.init.pid();
        let flags = ["--mount", "--uts", "--ipc", "--net", "--pid", "--"].map(str::to_owned);
        Ok([vec!["--target".to_owned(), init.to_string()], flags.to_vec()].concat())
    }

    /// The hosts that are on and can be reached.
    pub(crate) fn live(&self, state: &State) -> Vec<&Host> {
        let on = |h: &HostState| !h.cut && h.power.is_some_and(|p| p.init.is_alive());
        self.hosts.iter().zip(&state.hosts).filter(|(_, h)| on(h)).map(|(host, _)| host).collect()
    }

    async fn set_cable(&self, name: &str, verb: &'static str, up: bool) -> Result<()> {
        let at = self.index(name)?;
        let (_lock, mut state) = change(verb).await?;
        let host = part(&mut state, at)?;
        if host.power.is_none() {
            return Err(refused(name, "is off", "give it power first: lab power-on"));
        }
        if host.cut != up {
            let (is, hint) = if up { ("is not cut", "see lab status") } else { ("is cut", "see lab status") };
            return Err(refused(name, is, hint));
        }
        host.cut = !up;
        let done = if up { "is connected again" } else { "is cut off" };
        step(format!("{name} {done}"), net::set_link(&self.hosts[at], up)).await?;
        state.save()
    }

    /// Where the others' Sentinels see the Redis master; none if there are no others, and the host goes by its own disk.
    /// Others that don't answer are not "no others": on a guess, an old master would come back as a second one.
    async fn redis_master(&self, others: &[&Host], state: &State) -> Result<Option<Ipv4Addr>> {
        let check = || async { ready::redis_master(others).await.map_err(|e| e.to_string()) };
        ready::until("word of the Redis master".to_owned(), MASTER_LIMIT, &state.folder, &[], check).await
    }

    pub(crate) async fn wait_engine(&self, host: &Host, power: Power, state: &State) -> Result<()> {
        let check = || async { swarm::ping(host, ready::ASK).await.map_err(|e| e.to_string()) };
        until(format!("engine of {} answers", host.name), &state.folder, &[(host, power)], check).await
    }

    pub(crate) async fn wait_swarm(&self, host: &Host, power: Power, state: &State) -> Result<()> {
        if !state.swarm {
            return Ok(());
        }
        let live = self.live(state);
        let check = || ready::swarm_node(host, &live);
        until(format!("Swarm manager {} ready", host.name), &state.folder, &[(host, power)], check).await
    }

    pub(crate) async fn wait_consul(&self, host: &Host, power: Power, state: &State) -> Result<()> {
        if state.bare {
            return Ok(());
        }
        let live = self.live(state);
        let check = || ready::consul_voter(host, &live);
        until(format!("Consul voter {} healthy", host.name), &state.folder, &[(host, power)], check).await
    }

    pub(crate) async fn wait_redis(&self, host: &Host, power: Power, state: &State) -> Result<()> {
        if state.bare {
            return Ok(());
        }
        let others = self.live(state).len().saturating_sub(1);
        let check = || ready::redis_in_sync(host, others);
        until(format!("Redis of {} in sync", host.name), &state.folder, &[(host, power)], check).await
    }

    pub(crate) fn index(&self, name: &str) -> Result<usize> {
        self.hosts.iter().position(|host| host.name == name).ok_or_else(|| Error::Setting {
            setting: "HOST",
            value: name.to_owned(),
            rule: format!("the lab's hosts are h1 to h{}", self.hosts.len()),
        })
    }
}

pub(crate) async fn change(verb: &'static str) -> Result<(Lock, State)> {
    need_root(verb)?;
    if State::load()?.is_none() {
        return Err(Error::NotUp);
    }
    let lock = Lock::take(LOCK_WAIT).await?;
    match State::load()? {
        Some(state) if state.ready => Ok((lock, state)),
        _ => Err(Error::NotUp),
    }
}

pub(crate) fn part(state: &mut State, at: usize) -> Result<&mut HostState> {
    state.hosts.get_mut(at).ok_or(Error::NotUp)
}

pub(crate) fn need_root(what: &'static str) -> Result<()> {
    if rustix::process::geteuid().is_root() { Ok(()) } else { Err(Error::NotRoot { what }) }
}

pub(crate) fn refused(host: &str, state: impl Into<String>, hint: &'static str) -> Error {
    Error::HostState { host: host.to_owned(), state: state.into(), hint }
}

async fn until<F>(
    what: String,
    folder: &Folder,
    watched: &[(&Host, Power)],
    check: impl Fn() -> F + Send,
) -> Result<()>
where
    F: Future<Output = Result<(), String>> + Send,
{
    let name = what.clone();
    step(&name, ready::until(what, READY_LIMIT, folder, watched, check)).await
}

/// The Redis master's host, by address.
pub(crate) fn host_at(hosts: &[Host], addr: Ipv4Addr) -> Option<String> {
    hosts.iter().find(|host| host.addr == addr).map(|host| host.name.clone())
}

pub(crate) const LOCK_WAIT: Duration = Duration::from_secs(90);
const MASTER_LIMIT: Duration = Duration::from_secs(15);
const EXEC_LIMIT: Duration = Duration::from_secs(60);
/// Each part comes up in seconds; a machine that is busy with a build takes several times that.
const READY_LIMIT: Duration = Duration::from_secs(150);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Options;

    /// Compiles only while every verb's future may be spawned on a runtime of several threads.
    const _: fn(&Lab) = |lab| {
        fn is_send<T: Send>(_: T) {}
        is_send(Lab::up(3));
        is_send(Lab::up_with(&Options::default()));
        is_send(lab.status());
        is_send(lab.leaders());
        is_send(lab.power_off("h2"));
        is_send(lab.power_on("h2"));
        is_send(lab.cut("h2"));
        is_send(lab.heal("h2"));
        is_send(lab.daemon("h2", crate::Daemon::Redis, crate::Deed::Pause));
        is_send(lab.exec("h2", &["true"]));
        is_send(lab.clone().down());
        is_send(Lab::clear());
        is_send(Lab::install_packages());
    };
}
