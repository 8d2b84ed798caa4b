//! A replica as a child process: this very program, run as `ha-stack replica`.
//!
//! The child binds its own port and says which on its first line of output, so no port can be taken in between. It
//! ends when its standard input ends: a parent that dies, however it dies, leaves no replica behind.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStdin, Command};

use super::placement::Placed;

/// What a new replica needs to know.
pub struct ReplicaSpec<'a> {
    /// Which of the service's replicas it is, and where.
    pub placed: Placed,
    /// The address of its host.
    pub ip: IpAddr,
    /// The URL of the session store.
    pub sessions: &'a str,
    /// Idle lifetime of a session.
    pub session_lifetime: Duration,
    /// How long it serves on after it was told to stop.
    pub drain: Duration,
    /// The file that its log is appended to.
    pub log: &'a Path,
}

/// A running child process.
pub struct Replica {
    /// Which of the service's replicas it is, and where.
    pub placed: Placed,
    /// Where it listens.
    pub address: SocketAddr,
    /// When it began to listen.
    pub started: Instant,
    /// Since when it has been told to stop.
    pub stopping: Option<Instant>,
    child: Child,
    // Held open: its end tells the child that we are gone.
    _stdin: Option<ChildStdin>,
}

impl Replica {
    /// Starts a replica and waits until it listens.
    ///
    /// # Errors
    /// When the program can't be run, or ends or says nothing within five seconds; with what it wrote to its log.
    pub async fn start(spec: ReplicaSpec<'_>) -> Result<Self> {
        let program = std::env::current_exe().context("the path of this program can't be read")?;
        let log = std::fs::File::options().create(true).append(true).open(spec.log);
        let log = log.with_context(|| format!("the log {} can't be opened", spec.log.display()))?;
        let mut command = Command::new(&program);
        command
            .arg("replica")
            .args(["--listen", &SocketAddr::new(spec.ip, 0).to_string()])
            .args(["--session", spec.sessions])
            .args(["--session-lifetime", &spec.session_lifetime.as_secs().to_string()])
            .args(["--instance", &spec.placed.instance])
            .args(["--host", &spec.placed.host])
            .args(["--drain", &spec.drain.as_secs().to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .kill_on_drop(true);
        // A Ctrl-C in the terminal is for us: we end the replicas in order.
        command.process_group(0);
        let mut child = command.spawn().with_context(|| format!("{} can't be run", program.display()))?;
        let stdin = child.stdin.take();
        let Some(stdout) = child.stdout.take() else {
            bail!("the output of {} can't be read", spec.placed.instance)
        };
        let mut lines = BufReader::new(stdout).lines();
        let first = tokio::time::timeout(START_DEADLINE, lines.next_line()).await;
        let said = first.ok().and_then(Result::ok).flatten();
        let address = said.as_deref().and_then(|line| line.strip_prefix(LISTENING)?.trim().parse().ok());
        let Some(address) = address else {
            let log = std::fs::read_to_string(spec.log).unwrap_or_default();
            let tail = log.lines().last().unwrap_or("it wrote nothing to its log");
            bail!("replica {} did not start on {}: {tail}", spec.placed.instance, spec.ip);
        };
        Ok(Self {
            placed: spec.placed,
            address,
            started: Instant::now(),
            stopping: None,
            child,
            _stdin: stdin,
        })
    }

    /// Whether the process has ended.
    pub fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// Asks the replica to drain and end.
    pub fn stop(&mut self) {
        if self.stopping.is_none() {
            self.stopping = Some(Instant::now());
            self.signal(Signal::TERM);
        }
    }

    /// Ends the replica as a power cut would.
    pub fn kill(&mut self) {
        self.signal(Signal::KILL);
    }

    fn signal(&mut self, signal: Signal) {
        // A child that was not waited for keeps its pid, so this can't hit a stranger.
        let pid = self.child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        if let Some(pid) = pid
            && let Err(error) = rustix::process::kill_process(pid, signal)
        {
            tracing::debug!(instance = %self.placed.instance, %error, "the signal found no process");
        }
    }
}

/// How a replica's first line begins; the address follows.
pub const LISTENING: &str = "listening on ";

const START_DEADLINE: Duration = Duration::from_secs(5);
