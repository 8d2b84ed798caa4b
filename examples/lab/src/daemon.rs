//! Faults of one daemon of a host, rather than of the whole host: killed, kept down, hung.

use std::fs;
use std::str::FromStr;
use std::time::Duration;

use rustix::process::Signal;

use crate::error::{Error, Result};
use crate::lab::{Lab, change, part, refused};
use crate::process::{Process, in_netns, wait_gone};
use crate::progress::step;

/// A daemon that runs on each host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Daemon {
    /// The Docker engine; its containers run on without it.
    Engine,
    /// The Consul server.
    Consul,
    /// Redis.
    Redis,
    /// The Sentinel.
    Sentinel,
    /// What moves the virtual address.
    Keepalived,
}

/// What is done to a daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Deed {
    /// SIGKILL. The host starts it again after 1 s, as a service manager would.
    Kill,
    /// SIGKILL, and it stays down until [`Deed::Start`] or the host's next power-on.
    Stop,
    /// Lets a stopped daemon run again.
    Start,
    /// SIGSTOP: it holds its connections, and answers nothing.
    Pause,
    /// SIGCONT.
    Resume,
}

impl Daemon {
    /// Every daemon of a host.
    pub const ALL: [Self; 5] = [Self::Engine, Self::Consul, Self::Redis, Self::Sentinel, Self::Keepalived];

    /// Its name on the command line: `engine`, `consul`, `redis`, `sentinel`, `keepalived`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Engine => "engine",
            Self::Consul => "consul",
            Self::Redis => "redis",
            Self::Sentinel => "sentinel",
            Self::Keepalived => "keepalived",
        }
    }

    /// The name of its log, of its file in `hold` and of its part of the start script.
    fn unit(self) -> &'static str {
        match self {
            Self::Engine => "dockerd",
            other => other.name(),
        }
    }

    /// The name under which its process runs.
    fn program(self) -> &'static str {
        match self {
            Self::Engine => "dockerd",
            Self::Redis => "redis-server",
            Self::Sentinel => "redis-sentinel",
            other => other.name(),
        }
    }
}

impl FromStr for Deed {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Ok(match text {
            "kill" => Self::Kill,
            "stop" => Self::Stop,
            "start" => Self::Start,
            "pause" => Self::Pause,
            "resume" => Self::Resume,
            _ => {
                return Err(Error::Setting {
                    setting: "DEED",
                    value: text.to_owned(),
                    rule: "it must be kill, stop, start, pause or resume".to_owned(),
                });
            }
        })
    }
}

impl FromStr for Daemon {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|daemon| daemon.name() == text).ok_or_else(|| Error::Setting {
            setting: "DAEMON",
            value: text.to_owned(),
            rule: format!("the daemons of a host are {}", Self::ALL.map(Self::name).join(", ")),
        })
    }
}

impl Lab {
    /// Does something to one daemon of a host. Returns when a killed or stopped one has gone; waits for nothing else.
    ///
    /// # Errors
    /// A refusal when the host is off, there is no such host, or the daemon does not run; a deadline when it can't be killed.
    pub async fn daemon(&self, host: &str, daemon: Daemon, deed: Deed) -> Result<()> {
        let at = self.index(host)?;
        let (_lock, mut state) = change("lab daemon").await?;
        if part(&mut state, at)?.power.is_none() {
            return Err(refused(host, "is off", "give it power first: lab power-on"));
        }
        let hold = state.folder.host(host).join("hold").join(daemon.unit());
        let path = self.hosts()[at].netns_path();
        let running = || {
            let ours = |p: &Process| p.name().as_deref() == Some(daemon.program());
            in_netns(&path).into_iter().filter(ours).collect::<Vec<_>>()
        };
        if deed == Deed::Start {
            return match fs::remove_file(&hold) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    Err(Error::file("remove", &hold)(error))
                }
                _ => Ok(()),
            };
        }
        if deed == Deed::Stop {
            fs::write(&hold, "").map_err(Error::file("write", &hold))?;
        }
        let found = running();
        if found.is_empty() && deed != Deed::Stop {
            return Err(refused(host, format!("has no {} running", daemon.name()), "see lab status"));
        }
        let (signal, done) = match deed {
            Deed::Pause => (Signal::STOP, "hangs"),
            Deed::Resume => (Signal::CONT, "goes on"),
            _ => (Signal::KILL, "was killed"),
        };
        found.iter().for_each(|process| process.signal(signal));
        let gone = async {
            if signal != Signal::KILL {
                return Ok(());
            }
            let left = || found.iter().copied().filter(|p| p.is_alive()).collect();
            match wait_gone(KILL_LIMIT, left).await.first() {
                None => Ok(()),
                Some(process) => Err(Error::Deadline {
                    what: format!("the end of {} on {host}", daemon.name()),
                    within: KILL_LIMIT,
                    last: format!("process {} is still there", process.pid()),
                    logs: String::new(),
                }),
            }
        };
        step(format!("{} of {host} {done}", daemon.name()), gone).await
    }
}

const KILL_LIMIT: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_daemon_that_there_is_not_names_those_that_there_are() {
        let error = "nginx".parse::<Daemon>().unwrap_err();
        assert!(error.is_refusal());
        assert!(error.to_string().contains("engine, consul, redis, sentinel, keepalived"), "{error}");
        assert_eq!("redis".parse::<Daemon>().unwrap(), Daemon::Redis);
    }
}
