//! Building the lab, and taking it away with all that it left.

use std::path::Path;
use std::path::PathBuf;

use crate::error::{Error, Result};
use crate::folder::Folder;
use crate::host::{self, Boot};
use crate::lab::{LOCK_WAIT, Lab, need_root, part};
use crate::plan::{self, Host, MAX_HOSTS};
use crate::progress::{step, steps};
use crate::state::{HostState, Lock, Power, State};
use crate::{certificates, disk, net, packages, swarm};

/// How to build a lab.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Options {
    /// How many hosts, 1 to [`MAX_HOSTS`]. Three is the least that survives the loss of one.
    pub hosts: usize,
    /// Whether to join the engines into a Swarm of managers, led by `h1`.
    pub swarm: bool,
    /// The size of each host's disk in MiB; 0 for a plain folder, on a machine without loop devices.
    pub disk: u32,
    /// Whether the engines speak TLS alone, to whoever has a certificate that the lab makes.
    pub tls: bool,
    /// Whether the hosts have an engine and nothing else: for a stack that brings Consul and Redis along.
    pub bare: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { hosts: 3, swarm: true, disk: DISK, tls: false, bare: false }
    }
}

impl Options {
    /// Sets the number of hosts.
    #[must_use]
    pub fn hosts(mut self, hosts: usize) -> Self {
        self.hosts = hosts;
        self
    }

    /// Sets whether there is a Swarm.
    #[must_use]
    pub fn swarm(mut self, swarm: bool) -> Self {
        self.swarm = swarm;
        self
    }

    /// Sets the size of each host's disk in MiB, 256 or more; 0 for none of its own.
    #[must_use]
    pub fn disk(mut self, mib: u32) -> Self {
        self.disk = mib;
        self
    }

    /// Sets whether the engines speak TLS alone.
    #[must_use]
    pub fn tls(mut self, tls: bool) -> Self {
        self.tls = tls;
        self
    }

    /// Sets whether there is neither Consul nor Redis nor a Sentinel.
    #[must_use]
    pub fn bare(mut self, bare: bool) -> Self {
        self.bare = bare;
        self
    }
}

impl Lab {
    /// Builds a lab of `hosts` hosts with a Swarm. See [`Lab::up_with`].
    ///
    /// # Errors
    /// As [`Lab::up_with`].
    pub async fn up(hosts: usize) -> Result<Self> {
        Self::up_with(&Options::default().hosts(hosts)).await
    }

    /// Builds a lab, installing what is missing first, and returns when every part of it is well: engines answer, all nodes are
    /// ready managers led by `h1`, Consul has as many voters, Redis' replicas are in sync. Removes the remains of a lab that
    /// crashed before, and its own when it fails.
    ///
    /// A caller that drops the future half-way leaves remains: [`Lab::clear`] removes them.
    ///
    /// # Errors
    /// A refusal when not root, when a lab is up, or when a setting is wrong; otherwise what failed, with the ends of the daemons' logs.
    pub async fn up_with(options: &Options) -> Result<Self> {
        need_root("lab up")?;
        if (1..DISK_AT_LEAST).contains(&options.disk) {
            let rule = format!("a disk has {DISK_AT_LEAST} MiB or more; 0 is a folder without a limit");
            return Err(Error::Setting { setting: "--disk", value: options.disk.to_string(), rule });
        }
        let folder = Folder::from_env()?;
        let certificates = options.tls.then(|| folder.certificates());
        let hosts = Host::all_with(options.hosts, certificates.as_deref())?;
        let hosts: Vec<Host> = hosts.into_iter().map(|host| host.bare(options.bare)).collect();
        let lock = Lock::take(LOCK_WAIT).await?;
        // What can't be understood is no lab either, but its remains.
        let (old, known) = (State::load().unwrap_or(None), !matches!(State::load(), Ok(None)));
        if let Some(old) = old.as_ref().filter(|old| old.is_lab()) {
            return Err(Error::AlreadyUp { hosts: old.hosts.len() });
        }
        let built = async {
            let consul = packages::ensure(&folder).await?;
            if known || remains() {
                step("remains of an earlier lab removed", sweep()).await?;
            }
            if let Some(old) = &old {
                old.folder.clear()?;
            }
            folder.clear()?;
            folder.create()?;
            let mut state = State {
                ready: false,
                folder: folder.clone(),
                consul,
                swarm: options.swarm,
                tls: options.tls,
                bare: options.bare,
                made_netns_mount: !net::has_netns_mount(),
                hosts: vec![HostState::default(); hosts.len()],
            };
            state.save()?;
            build(&hosts, &mut state, options.disk).await
        };
        if let Err(error) = built.await {
            // The first failure is the one to report; the next up removes what could not be removed now.
            let _ = sweep().await;
            let _ = folder.clear();
            let _ = lock.remove_all();
            return Err(error);
        }
        Ok(Self::new(hosts))
    }

    /// Takes the lab away: as [`Lab::clear`].
    ///
    /// # Errors
    /// When something could not be removed.
    pub async fn down(self) -> Result<()> {
        Self::clear().await.map(drop)
    }

    /// Removes the lab, or the remains of one: processes, namespaces, links, routes, firewall rule, control groups, data and
    /// logs. Only fetched packages stay, in the folder's `cache`. True if there was anything.
    ///
    /// # Errors
    /// When not root, when another command is at work, or when something could not be removed.
    pub async fn clear() -> Result<bool> {
        need_root("lab down")?;
        let lock = Lock::take(LOCK_WAIT).await?;
        let state = State::load();
        let there = !matches!(state, Ok(None)) || remains();
        if there {
            step("hosts, links and rules removed", sweep()).await?;
        }
        let folder = state.unwrap_or(None).map_or_else(Folder::from_env, |s| Ok(s.folder))?;
        step("data and logs removed", async { folder.clear() }).await?;
        lock.remove_all()?;
        Ok(there)
    }

    /// The packages that [`Lab::up`] would install, and `consul` if it would have to be fetched.
    ///
    /// # Errors
    /// A refusal when `LAB_DIR` can't be a lab's folder.
    pub fn missing_packages() -> Result<Vec<&'static str>> {
        Ok(packages::missing(&Folder::from_env()?))
    }

    /// Installs what is missing, and starts nothing of it. Gives the path of the Consul program.
    ///
    /// # Errors
    /// When not root, or with the name of the package that could not be had.
    pub async fn install_packages() -> Result<PathBuf> {
        need_root("lab packages")?;
        let lock = Lock::take(LOCK_WAIT).await?;
        let installed = packages::ensure(&Folder::from_env()?).await;
        if State::load()?.is_none() {
            lock.remove_all()?;
        }
        installed
    }
}

async fn build(hosts: &[Host], state: &mut State, disk: u32) -> Result<()> {
    steps(steps_of(hosts.len(), state, disk));
    step("bridge laid", net::lay_bridge()).await?;
    if disk > 0 {
        let made = async {
            for host in hosts {
                disk::make(host, &state.folder, disk).await?;
            }
            Ok(())
        };
        step(format!("{} disks of {disk} MiB", hosts.len()), made).await?;
    }
    if state.tls {
        step("certificates made", async { certificates::make(hosts, &state.folder) }).await?;
    }
    let power = async {
        for (at, host) in hosts.iter().enumerate() {
            let power = host::start(host, hosts, &state.folder, &state.consul, Boot::First).await?;
            part(state, at)?.power = Some(power);
            state.save()?;
        }
        Ok(())
    };
    step(format!("{} hosts have power", hosts.len()), power).await?;
    let lab = Lab::new(hosts.to_vec());
    let watched: Vec<(&Host, Power)> =
        hosts.iter().zip(&state.hosts).filter_map(|(host, s)| Some((host, s.power?))).collect();
    for (host, power) in &watched {
        lab.wait_engine(host, *power, state).await?;
    }
    if let (true, Some((first, rest))) = (state.swarm, watched.split_first()) {
        step(format!("Swarm founded by {}", first.0.name), swarm::init(first.0)).await?;
        // One after the other: the managers take one change of their membership at a time.
        for (host, power) in rest {
            step(format!("{} joined", host.name), swarm::join(host, first.0)).await?;
            lab.wait_swarm(host, *power, state).await?;
        }
    }
    for (host, power) in &watched {
        lab.wait_consul(host, *power, state).await?;
        lab.wait_redis(host, *power, state).await?;
    }
    state.ready = true;
    state.save()
}

/// How many steps [`build`] takes: bridge and power, disks and certificates where there are any; an engine, Consul and Redis on each
/// host; the Swarm's founding, and two for each host that joins.
fn steps_of(hosts: usize, state: &State, disk: u32) -> usize {
    let joins = if state.swarm { 2 * hosts - 1 } else { 0 };
    let parts = if state.bare { 1 } else { 3 };
    2 + usize::from(disk > 0) + usize::from(state.tls) + parts * hosts + joins
}

/// Images, the engine's own files and logs take about 300 MiB of it.
const DISK: u32 = 4096;
const DISK_AT_LEAST: u32 = 256;

/// Whether anything of a lab is on this machine.
fn remains() -> bool {
    let linked = |name: &str| Path::new("/sys/class/net").join(name).exists();
    let host = |h: &Host| linked(&h.unit()) || Path::new(&h.netns_path()).exists();
    linked(plan::BRIDGE) || Host::all(MAX_HOSTS).is_ok_and(|all| all.iter().any(host))
}

/// Removes hosts and wiring, whether or not a state file tells of them: what is a lab's is known by where it is.
async fn sweep() -> Result<()> {
    let state = State::load().ok().flatten();
    for (at, host) in Host::all(MAX_HOSTS)?.iter().enumerate() {
        let power = state.as_ref().and_then(|s| s.hosts.get(at)).and_then(|h| h.power);
        host::stop(host, power).await?;
    }
    let folder = state.as_ref().map_or_else(Folder::from_env, |s| Ok(s.folder.clone()))?;
    for host in Host::all(MAX_HOSTS)? {
        disk::remove(&host, &folder).await?;
    }
    net::remove_bridge().await?;
    if state.is_some_and(|s| s.made_netns_mount) {
        net::remove_netns_mount().await?;
    }
    Ok(())
}
