//! Running the system's own tools, each with a deadline and its output in the error.

use std::ffi::OsStr;
use std::process::{Output, Stdio};
use std::time::Duration;

use tokio::process::Command;

use crate::error::{Error, Result};

/// Long enough for `ip` and `iptables` on a machine whose cores are all busy.
pub(crate) const SHORT: Duration = Duration::from_secs(15);

/// Runs `program` and gives its stdout; anything but success is an error.
pub(crate) async fn run<S: AsRef<OsStr>>(program: &str, args: &[S]) -> Result<String> {
    run_for(SHORT, program, args).await
}

/// As [`run`], with a deadline of one's own. The process is killed when the time is up or the caller is dropped.
pub(crate) async fn run_for<S: AsRef<OsStr>>(limit: Duration, program: &str, args: &[S]) -> Result<String> {
    let output = output(limit, program, args).await?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let text = [output.stdout, output.stderr].concat();
    Err(failed(program, args, output.status.to_string(), tail(&String::from_utf8_lossy(&text), 8)))
}

/// Runs `program` where failure is an answer too.
pub(crate) async fn succeeds<S: AsRef<OsStr>>(program: &str, args: &[S]) -> Result<bool> {
    Ok(output(SHORT, program, args).await?.status.success())
}

/// The last `lines` lines of a text.
pub(crate) fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.trim_end().lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

async fn output<S: AsRef<OsStr>>(limit: Duration, program: &str, args: &[S]) -> Result<Output> {
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null()).kill_on_drop(true);
    // The answers are read by this program, not by a person of some language.
    command.env("LC_ALL", "C").env("PATH", PATH);
    match tokio::time::timeout(limit, command.output()).await {
        Ok(Ok(output)) => Ok(output),
        Ok(Err(error)) => Err(failed(program, args, "not started".to_owned(), error.to_string())),
        Err(_) => Err(failed(program, args, format!("no end within {}s", limit.as_secs()), String::new())),
    }
}

fn failed<S: AsRef<OsStr>>(program: &str, args: &[S], status: String, output: String) -> Error {
    let mut command = program.to_owned();
    for arg in args {
        command.push(' ');
        command.push_str(&arg.as_ref().to_string_lossy());
    }
    Error::Command { command, status, output }
}

/// A user's PATH often lacks the system folders, also under sudo.
pub(crate) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_failing_command_says_what_it_wrote() {
        let error = run("sh", &["-c", "echo out; echo why >&2; exit 3"]).await.unwrap_err().to_string();
        assert!(error.contains("exit status: 3") && error.contains("why"), "{error}");
        assert!(!succeeds("sh", &["-c", "exit 1"]).await.unwrap());
    }

    #[tokio::test]
    async fn a_command_that_hangs_is_ended() {
        let error = run_for(Duration::from_millis(100), "sleep", &["60"]).await.unwrap_err().to_string();
        assert!(error.contains("no end within"), "{error}");
    }

    #[test]
    fn the_tail_of_a_short_text_is_all_of_it() {
        assert_eq!(tail("a\nb\n", 5), "a\nb");
        assert_eq!(tail("a\nb\nc\n", 2), "b\nc");
        assert_eq!(tail("", 2), "");
    }
}
