//! A stack that runs as a program of its own, and ends with the test.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use crate::ports::free_address;

/// `ha-stack up` on the local platform.
pub(crate) struct Up {
    child: Child,
    /// Its dashboard and control address.
    pub(crate) control: SocketAddr,
    /// Its site.
    pub(crate) site: String,
    _folder: tempfile::TempDir,
}

impl Up {
    /// Starts a stack and waits until its site answers.
    pub(crate) fn start(arguments: &[&str], token: Option<&str>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let control = free_address();
        let mut command = Command::new(env!("CARGO_BIN_EXE_ha-stack"));
        command.args(["up", "--listen", "127.0.0.1:0", "--control", &control.to_string()]).args(arguments);
        command.env("TMPDIR", folder.path()).env_remove("HA_STACK_TOKEN").env_remove("RUST_LOG");
        if let Some(token) = token {
            command.env("HA_STACK_TOKEN", token);
        }
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let line = lines.by_ref().map(Result::unwrap).find(|line| line.contains("the site is at"));
        let line = line.expect("the stack ended early");
        let site =
            line.split("the site is at ").nth(1).and_then(|rest| rest.split(';').next()).unwrap().to_owned();
        // Read on, or the stack waits for us.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, control, site, _folder: folder }
    }

    /// The address of the dashboard.
    pub(crate) fn url(&self) -> String {
        format!("http://{}/", self.control)
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ = self.child.wait();
    }
}
