//! The programs that a lab is made of, and how to get those that are missing.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::apt::{Mirror, mirror};
use crate::command::{self, PATH};
use crate::error::{Error, Result};
use crate::folder::Folder;
use crate::progress::{note, step};

/// The packages whose programs are not there, in the order in which they would be installed; `consul` among them.
pub(crate) fn missing(folder: &Folder) -> Vec<&'static str> {
    let mut packages: Vec<&'static str> = Vec::new();
    for (program, package) in PROGRAMS {
        if find(program).is_none() && !packages.contains(package) {
            packages.push(package);
        }
    }
    // Debian 13 has Docker's own command in a package apart; before that it came with the engine.
    if find("dockerd").is_some() && find("docker").is_none() {
        packages.push("docker-cli");
    }
    if consul(folder).is_none() {
        packages.push("consul");
    }
    packages
}

/// Installs what is missing, saying so first, and gives the path of Consul. Starts no daemon.
pub(crate) async fn ensure(folder: &Folder) -> Result<PathBuf> {
    check_consul_bin()?;
    // Twice: what a package lacks is seen once it is there.
    for _ in 0..2 {
        let wanted: Vec<&str> = missing(folder).into_iter().filter(|package| *package != "consul").collect();
        if wanted.is_empty() {
            break;
        }
        let names = wanted.join(", ");
        note(format!("installing {names} through apt-get; nothing of it is started"));
        step(format!("{names} installed"), install(&wanted)).await?;
    }
    if missing(folder).contains(&"consul") {
        note(format!("fetching consul 1.8 from Debian bullseye into {}", folder.cache().display()));
        step("consul fetched", fetch_consul(folder)).await?;
    }
    if let Some(left) = missing(folder).first() {
        return Err(not_had(
            left,
            "apt-get ended well, yet the program is not in the path",
            "install it by hand",
        ));
    }
    consul(folder).ok_or_else(|| not_had("consul", "it is not where it was unpacked", HINT_CONSUL))
}

/// `CONSUL_BIN`, then PATH, then the lab's own cache.
fn consul(folder: &Folder) -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("CONSUL_BIN") {
        return Some(PathBuf::from(path));
    }
    find("consul").or_else(|| Some(cached_consul(folder)).filter(|path| path.is_file()))
}

fn check_consul_bin() -> Result<()> {
    match std::env::var("CONSUL_BIN") {
        Ok(path) if !(path.starts_with('/') && Path::new(&path).is_file()) => Err(Error::Setting {
            setting: "CONSUL_BIN",
            value: path,
            rule: "it must be the absolute path of a consul program".to_owned(),
        }),
        _ => Ok(()),
    }
}

fn cached_consul(folder: &Folder) -> PathBuf {
    folder.cache().join("consul/usr/bin/consul")
}

/// A program in the system's folders or in PATH.
fn find(program: &str) -> Option<PathBuf> {
    let path = format!("{PATH}:{}", std::env::var("PATH").unwrap_or_default());
    path.split(':').filter(|p| p.starts_with('/')).map(|p| Path::new(p).join(program)).find(|p| p.is_file())
}

async fn install(packages: &[&str]) -> Result<()> {
    if find("apt-get").is_none() {
        return Err(not_had(
            &packages.join(", "),
            "there is no apt-get on this machine",
            "install them by hand",
        ));
    }
    let systemd = Path::new("/run/systemd/system").exists();
    let guard = NoStart::set()?;
    let installed = async {
        apt(&["-q", "update"]).await?;
        apt(&[&["-q", "-y", "--no-install-recommends", "install"], packages].concat()).await
    };
    let result = installed.await;
    drop(guard);
    result.map_err(|error| {
        not_had(&packages.join(", "), &error.to_string(), "install them by hand, or mend apt")
    })?;
    // Not at the next boot either: an engine in the root namespace turns FORWARD to DROP.
    if systemd {
        for unit in [
            "docker.service",
            "docker.socket",
            "redis-server.service",
            "redis-sentinel.service",
            "keepalived.service",
        ] {
            if packages.iter().any(|p| unit.starts_with(p.trim_end_matches(".io"))) {
                command::succeeds("systemctl", &["disable", unit]).await?;
            }
        }
    }
    Ok(())
}

async fn apt(args: &[&str]) -> Result<String> {
    apt_in("/", args).await
}

/// `apt-get download` writes into the folder that it is started in.
async fn apt_in(folder: &str, args: &[&str]) -> Result<String> {
    let all =
        [&["-C", folder, "DEBIAN_FRONTEND=noninteractive", "apt-get", "-o", "DPkg::Lock::Timeout=60"], args]
            .concat();
    command::run_for(APT_LIMIT, "env", &all).await
}

/// Debian's maintainer scripts ask /usr/sbin/policy-rc.d before they start a daemon; 101 is "no".
struct NoStart {
    kept: bool,
}

impl NoStart {
    fn set() -> Result<Self> {
        // One that a crash left here is not the machine's own.
        let ours = fs::read_to_string(POLICY).is_ok_and(|text| text == SAY_NO);
        if Path::new(POLICY).exists() && !ours {
            fs::rename(POLICY, POLICY_KEPT).map_err(Error::file("set aside", POLICY))?;
        }
        let guard = Self { kept: Path::new(POLICY_KEPT).exists() };
        fs::write(POLICY, SAY_NO).map_err(Error::file("write", POLICY))?;
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(POLICY, mode).map_err(Error::file("write", POLICY))?;
        Ok(guard)
    }
}

impl Drop for NoStart {
    fn drop(&mut self) {
        let _ = if self.kept { fs::rename(POLICY_KEPT, POLICY) } else { fs::remove_file(POLICY) };
    }
}

/// Consul left Debian after bullseye: a private apt configuration reads that release without touching the machine's.
async fn fetch_consul(folder: &Folder) -> Result<()> {
    let mirror = machine_mirror().ok_or_else(|| {
        not_had("consul", "no Debian archive stands in this machine's apt sources", HINT_CONSUL)
    })?;
    folder.create()?;
    let work = folder.cache().join("apt");
    let fetched = fetch_into(&work, &folder.cache().join("consul"), &mirror).await;
    fs::remove_dir_all(&work).map_err(Error::file("remove", &work))?;
    if fetched.is_err() {
        // Not empty if there is something else in it, which then stays.
        let _ = fs::remove_dir(folder.cache());
        folder.remove_unless_used()?;
    }
    fetched.map_err(|error| match error {
        Error::Command { output, status, .. } => {
            let last = output.lines().last().unwrap_or(&status).trim().to_owned();
            let uri = &mirror.uri;
            not_had(
                "consul",
                &format!("{uri} did not give bullseye's, which may be in an archive now: {last}"),
                HINT_CONSUL,
            )
        }
        other => other,
    })
}

async fn fetch_into(work: &Path, place: &Path, mirror: &Mirror) -> Result<()> {
    for part in ["lists/partial", "archives/partial"] {
        fs::create_dir_all(work.join(part)).map_err(Error::file("create", work))?;
    }
    let list = work.join("sources.list");
    let key = mirror.signed_by.as_deref().unwrap_or(KEYRING);
    fs::write(&list, format!("deb [signed-by={key}] {} bullseye main\n", mirror.uri))
        .map_err(Error::file("write", &list))?;
    let at = |name: &str, path: &Path| format!("{name}={}", path.display());
    let settings = [
        at("Dir::Etc::sourcelist", &list),
        "Dir::Etc::sourceparts=/dev/null".to_owned(),
        at("Dir::State::lists", &work.join("lists")),
        at("Dir::Cache", work),
        "APT::Sandbox::User=root".to_owned(),
        "APT::Update::Error-Mode=any".to_owned(),
        "Acquire::Languages=none".to_owned(),
        // The release is past its life; what is fetched is still checked against its signature.
        "Acquire::Check-Valid-Until=false".to_owned(),
    ];
    let mut options: Vec<&str> = vec!["-q"];
    for setting in &settings {
        options.extend(["-o", setting]);
    }
    apt(&[options.as_slice(), &["update"]].concat()).await?;
    // `download` takes the package alone, without a look at what this machine's packages think of it.
    apt_in(&work.to_string_lossy(), &[options.as_slice(), &["download", "consul"]].concat()).await?;
    let deb = fs::read_dir(work)
        .map_err(Error::file("read", work))?
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.file_name().is_some_and(|n| n.to_string_lossy().starts_with("consul_")))
        .ok_or_else(|| not_had("consul", "the archive has no such package for this machine", HINT_CONSUL))?;
    // Moved into place when whole: half a program must not pass for one.
    let new = work.join("root");
    command::run_for(APT_LIMIT, "dpkg", &["-x".as_ref(), deb.as_os_str(), new.as_os_str()]).await?;
    fs::rename(&new, place).map_err(Error::file("create", place))
}

fn machine_mirror() -> Option<Mirror> {
    let mut files = vec![PathBuf::from("/etc/apt/sources.list")];
    let mut parts: Vec<PathBuf> = fs::read_dir("/etc/apt/sources.list.d")
        .ok()
        .into_iter()
        .flatten()
        .flatten()
        .map(|e| e.path())
        .collect();
    parts.sort();
    files.extend(parts);
    files.iter().find_map(|file| mirror(&fs::read_to_string(file).ok()?))
}

fn not_had(part: &str, why: &str, hint: &'static str) -> Error {
    Error::Missing { part: part.to_owned(), why: why.to_owned(), hint }
}

const PROGRAMS: &[(&str, &str)] = &[
    ("dockerd", "docker.io"),
    ("redis-server", "redis-server"),
    ("redis-sentinel", "redis-sentinel"),
    ("keepalived", "keepalived"),
    ("ip", "iproute2"),
    ("iptables", "iptables"),
    ("unshare", "util-linux"),
    ("nsenter", "util-linux"),
    ("setsid", "util-linux"),
    ("mount", "mount"),
    ("mkfs.ext4", "e2fsprogs"),
    ("hostname", "hostname"),
];
const HINT_CONSUL: &str = "get a consul program and set CONSUL_BIN to its path";
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
const POLICY: &str = "/usr/sbin/policy-rc.d";
const POLICY_KEPT: &str = "/usr/sbin/policy-rc.d.ha-stack-lab";
const SAY_NO: &str = "#!/bin/sh\n# lab: installed, not started\nexit 101\n";
const APT_LIMIT: Duration = Duration::from_secs(300);
