//! Processes known by number *and* start time, so that a reused number is never mistaken for ours.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

/// One process, now and after its number has gone to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Process {
    pid: i32,
    /// Clock ticks since the machine started.
    started: u64,
}

impl Process {
    /// The live process with this number, if there is one.
    pub(crate) fn find(pid: i32) -> Option<Self> {
        let (state, started) = parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)?;
        (state != 'Z' && state != 'X').then_some(Self { pid, started })
    }

    /// A process that had this number once.
    #[cfg(test)]
    pub(crate) fn earlier(self) -> Self {
        Self { started: self.started.wrapping_sub(1), ..self }
    }

    pub(crate) fn pid(self) -> i32 {
        self.pid
    }

    /// Still there, and still the same one.
    pub(crate) fn is_alive(self) -> bool {
        Self::find(self.pid) == Some(self)
    }

    /// The first child: of `unshare --fork` that is the new namespace's PID 1.
    pub(crate) fn child(self) -> Option<Self> {
        let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", self.pid)).ok()?;
        children.split_whitespace().next()?.parse().ok().and_then(Self::find)
    }

    /// The file that it runs.
    pub(crate) fn program(self) -> Option<PathBuf> {
        fs::read_link(format!("/proc/{}/exe", self.pid)).ok()
    }

    /// The name by which it was started, without folders.
    pub(crate) fn name(self) -> Option<String> {
        let line = fs::read(format!("/proc/{}/cmdline", self.pid)).ok()?;
        // Redis writes its address behind its name, with a blank between.
        let first = line.split(|byte| *byte == 0 || *byte == b' ').next()?;
        Some(String::from_utf8_lossy(first).rsplit('/').next()?.to_owned())
    }

    /// SIGKILL. A process that has gone already is as good as killed.
    pub(crate) fn kill(self) {
        self.signal(Signal::KILL);
    }

    /// Sends a signal, unless the process has gone already.
    pub(crate) fn signal(self, signal: Signal) {
        // Held by a descriptor first and looked at then, so that the number can't change hands in between.
        let held = Pid::from_raw(self.pid).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
        if let Some(held) = held
            && self.is_alive()
        {
            let _ = pidfd_send_signal(held, signal);
        }
    }
}

/// The live processes whose network namespace is the one at `path`: known by where they are, not by what they are
/// called. Containers live in namespaces of their own and die with their host's PID 1.
pub(crate) fn in_netns(path: &str) -> Vec<Process> {
    let Ok(wanted) = fs::metadata(path) else { return Vec::new() };
    let Ok(all) = fs::read_dir("/proc") else { return Vec::new() };
    all.flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| {
            fs::metadata(format!("/proc/{pid}/ns/net"))
                .is_ok_and(|ns| ns.ino() == wanted.ino() && ns.dev() == wanted.dev())
        })
        .filter_map(Process::find)
        .collect()
}

/// Waits until `list` is empty; gives what is left when the time is up.
pub(crate) async fn wait_gone(within: Duration, list: impl Fn() -> Vec<Process>) -> Vec<Process> {
    let end = Instant::now() + within;
    loop {
        let left = list();
        if left.is_empty() || Instant::now() >= end {
            return left;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// State and start time. The name in field 2 may hold spaces and brackets, so counting starts after the last one.
fn parse_stat(stat: &str) -> Option<(char, u64)> {
    let rest = &stat[stat.rfind(')')? + 1..];
    let mut fields = rest.split_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((state, fields.nth(18)?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_is_read_behind_a_hostile_name() {
        let stat = "42 (a) R 9) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 777 20 21";
        assert_eq!(parse_stat(stat), Some(('S', 777)));
        assert_eq!(parse_stat("42 (x"), None);
        assert_eq!(parse_stat("42 (x) S 1"), None);
    }

    #[test]
    fn another_start_time_is_another_process() {
        let me = Process::find(std::process::id().cast_signed()).unwrap();
        assert!(me.is_alive());
        assert!(!me.earlier().is_alive());
    }

    #[test]
    fn this_process_is_in_its_own_network_namespace() {
        let me = std::process::id().cast_signed();
        assert!(in_netns("/proc/self/ns/net").iter().any(|p| p.pid() == me));
        assert!(in_netns("/nowhere").is_empty());
    }
}
