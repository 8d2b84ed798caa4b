//! Power: starting and stopping one host.

use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::Instant;

use crate::command::PATH;
use crate::error::{Error, Result};
use crate::files;
use crate::folder::Folder;
use crate::net;
use crate::plan::Host;
use crate::process::{Process, in_netns, wait_gone};
use crate::state::Power;

/// How a host starts.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Boot {
    /// On empty folders. The first host is the one from which the clusters grow.
    First,
    /// On the folders of an earlier life.
    Again {
        /// Where the Sentinels of the others see the Redis master.
        master: Option<Ipv4Addr>,
        /// Whether Consul has a leader. Its heartbeats to a server that was away are up to 10 s apart, and a server that
        /// hears nothing for 1 s calls an election that unseats it. So Consul starts with ten times the patience;
        /// [`hurry_consul`] takes that back.
        led: bool,
    },
}

/// Writes the host's files, plugs it in and switches it on. Returns when its PID 1 runs, before its daemons answer.
pub(crate) async fn start(
    host: &Host,
    hosts: &[Host],
    folder: &Folder,
    consul: &Path,
    boot: Boot,
) -> Result<Power> {
    write_files(host, hosts, folder, consul, boot)?;
    net::plug_in(host).await?;
    spawn(host, folder).await
}

/// Takes the power away: the link first, so that no peer gets a farewell that a dead machine would not send. Returns when
/// every process of the host has been reaped and its network is gone. A host that is off already is no error.
pub(crate) async fn stop(host: &Host, power: Option<Power>) -> Result<()> {
    net::cut_if_there(host).await?;
    let path = host.netns_path();
    let left = || {
        let known = power.into_iter().flat_map(|p| [p.init, p.outer]).filter(|p| p.is_alive());
        known.chain(in_netns(&path)).collect::<Vec<_>>()
    };
    // PID 1 first: the kernel ends everything in its PID namespace with it.
    left().into_iter().for_each(Process::kill);
    let stuck = wait_gone(KILL_LIMIT, left).await;
    if let Some(process) = stuck.first() {
        return Err(Error::Deadline {
            what: format!("the end of {} processes of {}", stuck.len(), host.name),
            within: KILL_LIMIT,
            last: format!("process {} is still there", process.pid()),
            logs: String::new(),
        });
    }
    net::unplug(host).await?;
    net::remove_cgroups(host).await;
    Ok(())
}

/// Restarts Consul of a running host with Raft's timeouts at their normal length, once its leader talks to it again.
pub(crate) async fn hurry_consul(host: &Host, folder: &Folder, consul: &Path) -> Result<()> {
    let path = folder.host(&host.name).join("consul.json");
    fs::write(&path, files::consul_json(1)).map_err(Error::file("write", &path))?;
    let program = fs::canonicalize(consul).map_err(Error::file("find", consul))?;
    let servers: Vec<Process> =
        in_netns(&host.netns_path()).into_iter().filter(|p| p.program().as_ref() == Some(&program)).collect();
    // The host's first process starts it again.
    servers.iter().for_each(|p| p.kill());
    let stuck = wait_gone(KILL_LIMIT, || servers.iter().copied().filter(|p| p.is_alive()).collect()).await;
    match stuck.first() {
        None => Ok(()),
        Some(process) => Err(Error::Deadline {
            what: format!("the restart of consul on {}", host.name),
            within: KILL_LIMIT,
            last: format!("process {} is still there", process.pid()),
            logs: String::new(),
        }),
    }
}

fn write_files(host: &Host, hosts: &[Host], folder: &Folder, consul: &Path, boot: Boot) -> Result<()> {
    folder.create_host(&host.name)?;
    let data = folder.host(&host.name);
    let others: Vec<&Host> = hosts.iter().filter(|other| *other != host).collect();
    let first = hosts.first().unwrap_or(host);
    let is_first = first == host;
    let write = |name: &str, text: String| {
        let path = data.join(name);
        fs::write(&path, text).map_err(Error::file("write", &path))
    };
    let read = |name: &str| {
        let path = data.join(name);
        fs::read_to_string(&path).map_err(Error::file("read", &path))
    };
    let bootstrap = is_first && matches!(boot, Boot::First);
    write("init.sh", files::init(host, &others, folder, consul, bootstrap))?;
    write("daemon.json", files::daemon_json(host, folder))?;
    write("keepalived.conf", files::keepalived_conf(host))?;
    write("gateway-check.sh", files::GATEWAY_CHECK.to_owned())?;
    write("silent.sh", files::SILENT.to_owned())?;
    let patient = matches!(boot, Boot::Again { led: true, .. });
    write("consul.json", files::consul_json(if patient { 10 } else { 1 }))?;
    match boot {
        Boot::First => {
            write("redis.conf", files::redis_conf(host, folder, (!is_first).then_some(first.addr)))?;
            write("sentinel.conf", files::sentinel_conf(host, folder, first.addr, hosts.len() / 2 + 1))
        }
        Boot::Again { master: Some(master), .. } => {
            write("redis.conf", files::redis_conf_again(&read("redis.conf")?, host, master))?;
            write("sentinel.conf", files::sentinel_conf_again(&read("sentinel.conf")?, master))
        }
        Boot::Again { master: None, .. } => Ok(()),
    }
}

/// `nsenter --net` rather than `ip netns exec`: that one remounts /sys, and the engine then finds no control groups.
async fn spawn(host: &Host, folder: &Folder) -> Result<Power> {
    let path = folder.logs(&host.name).join("host.log");
    let log =
        fs::OpenOptions::new().create(true).append(true).open(&path).map_err(Error::file("open", &path))?;
    let errors = log.try_clone().map_err(Error::file("open", &path))?;
    let mut command = Command::new("setsid");
    command
        .arg("nsenter")
        .arg(format!("--net={}", host.netns_path()))
        .args(["unshare", "--mount", "--uts", "--ipc", "--pid", "--fork", "--kill-child", "--mount-proc"])
        .args(["--propagation", "private", "/bin/sh"])
        .arg(folder.host(&host.name).join("init.sh"))
        .current_dir("/")
        .env_clear()
        .env("PATH", PATH)
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(errors);
    let mut child = command.spawn().map_err(Error::file("start", "setsid"))?;
    let end = Instant::now() + SPAWN_LIMIT;
    loop {
        let outer = child.id().and_then(|pid| Process::find(pid.cast_signed()));
        if let Some(outer) = outer
            && let Some(init) = outer.child()
        {
            return Ok(Power { outer, init });
        }
        let ended = child.try_wait().map_err(Error::file("wait for", "unshare"))?;
        if ended.is_some() || Instant::now() >= end {
            return Err(Error::Deadline {
                what: format!("the start of {}", host.name),
                within: SPAWN_LIMIT,
                last: ended
                    .map_or_else(|| "no child process".to_owned(), |status| format!("unshare: {status}")),
                logs: folder.log_tails(&host.name),
            });
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

const KILL_LIMIT: Duration = Duration::from_secs(10);
const SPAWN_LIMIT: Duration = Duration::from_secs(5);
