//! The lab's folder on disk: data and logs of the hosts, and the cache of fetched packages.

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::command::tail;
use crate::error::{Error, Result};
use crate::plan::Host;

/// Where data, logs and fetched packages live.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Folder(PathBuf);

impl Folder {
    /// `LAB_DIR`, or /var/lib/ha-stack-lab.
    pub(crate) fn from_env() -> Result<Self> {
        Self::new(&std::env::var("LAB_DIR").unwrap_or_else(|_| DEFAULT.to_owned()))
    }

    fn new(value: &str) -> Result<Self> {
        let path = PathBuf::from(value);
        let plain = value.chars().all(|c| c.is_ascii_alphanumeric() || "/._-".contains(c));
        let refuse = |rule: &str| Error::Setting {
            setting: "LAB_DIR",
            value: value.to_owned(),
            rule: rule.to_owned(),
        };
        if !path.is_absolute() || !plain || value.contains("..") {
            return Err(refuse("it must be an absolute path of letters, digits and . _ - without .."));
        }
        // Each host has its own /run, /etc and /opt, and the kernel's file systems hold no data.
        if ["/run", "/var/run", "/etc", "/opt", "/proc", "/sys", "/dev"]
            .iter()
            .any(|root| path.starts_with(root))
        {
            return Err(refuse("it must lie on a disk, outside /run, /etc, /opt, /proc, /sys and /dev"));
        }
        if path.components().count() < 3 {
            return Err(refuse("it must be a folder of the lab's own, at least two levels deep"));
        }
        Ok(Self(path))
    }

    /// Makes the folder. One that exists, holds files and is not marked as a lab's is left alone and refused.
    pub(crate) fn create(&self) -> Result<()> {
        if let Ok(mut entries) = fs::read_dir(&self.0)
            && entries.next().is_some()
            && !self.0.join(MARK).exists()
        {
            let rule =
                format!("the folder holds files and has no {MARK}, so it is not a lab's: name another one");
            return Err(Error::Setting { setting: "LAB_DIR", value: self.0.display().to_string(), rule });
        }
        make(&self.0, 0o755)?;
        fs::write(self.0.join(MARK), "a lab's folder: lab down empties it\n")
            .map_err(Error::file("write", self.0.join(MARK)))
    }

    /// Removes data and logs, and the folder itself unless it holds fetched packages.
    pub(crate) fn clear(&self) -> Result<()> {
        if !self.0.join(MARK).exists() {
            return Ok(());
        }
        for part in PARTS.map(|part| self.0.join(part)) {
            if part.exists() {
                fs::remove_dir_all(&part).map_err(Error::file("remove", &part))?;
            }
        }
        self.remove_unless_used()
    }

    /// Removes the folder if there is neither a lab nor a fetched package in it.
    pub(crate) fn remove_unless_used(&self) -> Result<()> {
        let used = PARTS.iter().chain(&["cache"]).any(|part| self.0.join(part).exists());
        if !used && self.0.join(MARK).exists() {
            fs::remove_file(self.0.join(MARK)).map_err(Error::file("remove", self.0.join(MARK)))?;
            fs::remove_dir(&self.0).map_err(Error::file("remove", &self.0))?;
        }
        Ok(())
    }

    pub(crate) fn cache(&self) -> PathBuf {
        self.0.join("cache")
    }

    /// Who may ask the engines, where they speak TLS.
    pub(crate) fn certificates(&self) -> PathBuf {
        self.0.join("certificates")
    }

    /// Makes the folders of the certificates. Only root looks inside.
    pub(crate) fn create_certificates(&self, hosts: &[Host]) -> Result<()> {
        hosts.iter().try_for_each(|host| make(&self.certificates().join(&host.name), 0o700))
    }

    /// The data of one host. Only root looks inside: it holds the Swarm's keys.
    pub(crate) fn host(&self, name: &str) -> PathBuf {
        self.0.join("hosts").join(name)
    }

    pub(crate) fn logs(&self, name: &str) -> PathBuf {
        self.0.join("logs").join(name)
    }

    /// The file that is the disk of one host.
    pub(crate) fn disk(&self, name: &str) -> PathBuf {
        self.0.join("hosts").join(format!("{name}.disk"))
    }

    /// Makes the folder on which a host's disk is mounted.
    pub(crate) fn create_mount_point(&self, name: &str) -> Result<()> {
        make(&self.host(name), 0o700)
    }

    /// Makes a host's folders.
    pub(crate) fn create_host(&self, name: &str) -> Result<()> {
        for part in
            ["docker", "consul", "redis", "sentinel", "etc/upper", "etc/work", "opt/upper", "opt/work"]
        {
            make(&self.host(name).join(part), 0o700)?;
        }
        make(&self.logs(name), 0o755)
    }

    /// The ends of a host's logs, for an error message.
    pub(crate) fn log_tails(&self, name: &str) -> String {
        let mut text = String::new();
        let Ok(files) = fs::read_dir(self.logs(name)) else { return text };
        let mut files: Vec<PathBuf> = files.flatten().map(|f| f.path()).collect();
        files.sort();
        for file in files {
            let log = fs::read(&file).unwrap_or_default();
            let end =
                tail(&String::from_utf8_lossy(&log[log.len().saturating_sub(TAIL_BYTES)..]), TAIL_LINES);
            if !end.is_empty() {
                let daemon = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
                text.push_str(&format!("\n--- the end of {name}'s {daemon} log ---\n{end}"));
            }
        }
        text
    }
}

impl AsRef<Path> for Folder {
    fn as_ref(&self) -> &Path {
        &self.0
    }
}

fn make(path: &Path, mode: u32) -> Result<()> {
    fs::DirBuilder::new().recursive(true).mode(mode).create(path).map_err(Error::file("create", path))
}

const DEFAULT: &str = "/var/lib/ha-stack-lab";
/// What a lab leaves in it, beside fetched packages.
const PARTS: [&str; 3] = ["hosts", "logs", "certificates"];
const MARK: &str = ".ha-stack-lab";
const TAIL_BYTES: usize = 16 * 1024;
const TAIL_LINES: usize = 6;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_cannot_be_the_labs_is_refused() {
        for bad in
            ["", "lab", "/", "/srv", "/run/lab", "/etc/lab", "/srv/../etc/lab", "/srv/a b", "/srv/$(x)"]
        {
            let error = Folder::new(bad).unwrap_err();
            assert!(error.is_refusal() && error.to_string().contains("LAB_DIR"), "{bad}: {error}");
        }
        assert!(Folder::new(DEFAULT).is_ok());
    }

    #[test]
    fn a_strangers_folder_is_neither_used_nor_emptied() {
        let path = std::env::temp_dir().join(format!("lab-folder-test-{}", std::process::id()));
        fs::create_dir_all(path.join("hosts")).unwrap();
        fs::write(path.join("hosts/precious"), "x").unwrap();
        let folder = Folder(path.clone());
        assert!(folder.create().unwrap_err().is_refusal());
        folder.clear().unwrap();
        assert!(path.join("hosts/precious").exists());
        fs::remove_dir_all(&path).unwrap();

        folder.create().unwrap();
        folder.create_host("h1").unwrap();
        fs::write(folder.logs("h1").join("dockerd.log"), "one\ntwo\n").unwrap();
        assert!(folder.log_tails("h1").contains("h1's dockerd log ---\none\ntwo"));
        folder.clear().unwrap();
        assert!(!path.exists());
    }
}
