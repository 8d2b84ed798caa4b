//! What the lab knows about itself between two commands, and the lock that keeps them one at a time.
//!
//! Both live in /run: they describe processes and namespaces, which a restart of the machine takes away too.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::error::{Error, Result};
use crate::folder::Folder;
use crate::plan::Host;
use crate::process::Process;

/// The state file's content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct State {
    /// False while `up` is still at work: what is there then is not a lab, only its remains.
    pub(crate) ready: bool,
    pub(crate) folder: Folder,
    pub(crate) consul: PathBuf,
    pub(crate) swarm: bool,
    /// Whether the engines speak TLS alone.
    #[serde(default)]
    pub(crate) tls: bool,
    /// Whether the hosts have an engine and nothing else.
    #[serde(default)]
    pub(crate) bare: bool,
    /// Whether this lab switched /run/netns into a mount, and so has to switch it back.
    pub(crate) made_netns_mount: bool,
    pub(crate) hosts: Vec<HostState>,
}

/// One host's part of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HostState {
    /// `unshare`, and the PID 1 of the host's PID namespace; none while the power is off.
    pub(crate) power: Option<Power>,
    /// The cable is pulled.
    pub(crate) cut: bool,
}

/// The two processes that carry a running host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Power {
    pub(crate) outer: Process,
    pub(crate) init: Process,
}

impl State {
    /// The state of the lab, if there is one.
    pub(crate) fn load() -> Result<Option<Self>> {
        Self::load_from(Path::new(STATE))
    }

    fn load_from(path: &Path) -> Result<Option<Self>> {
        match fs::read(path) {
            Ok(text) => serde_json::from_slice(&text)
                .map(Some)
                .map_err(|source| Error::State { path: path.to_owned(), source }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::file("read", path)(error)),
        }
    }

    /// Writes it, whole or not at all.
    pub(crate) fn save(&self) -> Result<()> {
        self.save_to(Path::new(STATE))
    }

    fn save_to(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_vec_pretty(self)
            .map_err(|source| Error::State { path: path.to_owned(), source })?;
        let new = path.with_extension("new");
        fs::write(&new, text).map_err(Error::file("write", &new))?;
        // Everybody may ask how the lab is, whatever root's umask: it holds no secret.
        fs::set_permissions(&new, Permissions::from_mode(0o644)).map_err(Error::file("write", &new))?;
        fs::rename(&new, path).map_err(Error::file("write", path))
    }

    /// Its hosts.
    pub(crate) fn hosts(&self) -> Result<Vec<Host>> {
        let certificates = self.tls.then(|| self.folder.certificates());
        let hosts = Host::all_with(self.hosts.len(), certificates.as_deref())?;
        Ok(hosts.into_iter().map(|host| host.bare(self.bare)).collect())
    }

    /// Whether this is a lab rather than the remains of one: complete, and some host runs, or all were switched off.
    pub(crate) fn is_lab(&self) -> bool {
        let mut on = self.hosts.iter().filter_map(|h| h.power).peekable();
        self.ready && (on.peek().is_none() || on.any(|p| p.init.is_alive()))
    }
}

/// Held while a command changes the lab. The kernel lets go of it when its process ends, however it ends.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

impl Lock {
    /// Waits its turn for at most `limit`.
    pub(crate) async fn take(limit: Duration) -> Result<Self> {
        let end = Instant::now() + limit;
        loop {
            if let Some(lock) = Self::try_take()? {
                return Ok(lock);
            }
            if Instant::now() >= end {
                let holder = fs::read_to_string(LOCK).unwrap_or_default().trim().to_owned();
                let holder = if holder.is_empty() { "unknown".to_owned() } else { holder };
                return Err(Error::Busy { holder, waited: limit });
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    fn try_take() -> Result<Option<Self>> {
        fs::create_dir_all(FOLDER).map_err(Error::file("create", FOLDER))?;
        fs::set_permissions(FOLDER, Permissions::from_mode(0o755)).map_err(Error::file("open", FOLDER))?;
        let open = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(LOCK);
        let mut file = open.map_err(Error::file("open", LOCK))?;
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            return Ok(None);
        }
        // Whoever held it may have removed the file: then the lock is on a file that nobody else sees.
        let mine = file.metadata().map_err(Error::file("read", LOCK))?;
        if !fs::metadata(LOCK).is_ok_and(|there| there.ino() == mine.ino()) {
            return Ok(None);
        }
        let written = file
            .set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "{}", std::process::id()));
        written.map_err(Error::file("write", LOCK))?;
        Ok(Some(Self { _file: file }))
    }

    /// Ends the lab's life in /run: state, lock and folder.
    pub(crate) fn remove_all(self) -> Result<()> {
        for file in [STATE, LOCK] {
            match fs::remove_file(file) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(Error::file("remove", file)(error));
                }
                _ => {}
            }
        }
        // A next command may be waiting and have made its own lock file here already.
        let _ = fs::remove_dir(FOLDER);
        Ok(())
    }
}

/// Whether something is mounted at `path`.
pub(crate) fn is_mount(path: &str) -> bool {
    let mut mounts = String::new();
    let read = File::open("/proc/self/mountinfo").and_then(|mut f| f.read_to_string(&mut mounts));
    read.is_ok() && mounts.lines().any(|line| line.split(' ').nth(4) == Some(path))
}

const FOLDER: &str = "/run/ha-stack-lab";
const STATE: &str = "/run/ha-stack-lab/state.json";
const LOCK: &str = "/run/ha-stack-lab/lock";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_survives_the_file_and_garbage_is_named() {
        let me = Process::find(std::process::id().cast_signed()).unwrap();
        let mut state = State {
            ready: true,
            folder: serde_json::from_str("\"/var/lib/x\"").unwrap(),
            consul: "/usr/bin/consul".into(),
            swarm: true,
            tls: false,
            bare: false,
            made_netns_mount: false,
            hosts: vec![
                HostState { power: Some(Power { outer: me, init: me }), cut: true },
                HostState::default(),
            ],
        };
        let path = std::env::temp_dir().join(format!("lab-state-test-{}.json", std::process::id()));
        assert_eq!(State::load_from(&path).unwrap(), None);
        state.save_to(&path).unwrap();
        assert_eq!(State::load_from(&path).unwrap().as_ref(), Some(&state));
        assert!(state.is_lab());
        let gone = me.earlier();
        state.hosts[0].power = Some(Power { outer: gone, init: gone });
        assert!(!state.is_lab(), "a host that should run and does not");
        state.hosts[0].power = None;
        assert!(state.is_lab(), "all switched off");
        state.ready = false;
        assert!(!state.is_lab(), "never completed");

        fs::write(&path, "{\"ready\":tr").unwrap();
        let error = State::load_from(&path).unwrap_err().to_string();
        assert!(error.contains("lab-state-test") && error.contains("lab down"), "{error}");
        fs::remove_file(&path).unwrap();
    }

    #[test]
    fn mounts_are_recognised_by_their_whole_path() {
        assert!(is_mount("/proc"));
        assert!(!is_mount("/pro"));
    }
}
