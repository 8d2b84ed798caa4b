//! The examples run as they stand, against the fake: `cargo test` has built them beside this program.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::{path::PathBuf, time::Duration};

use consul_client::testing::FakeConsul;

fn program(name: &str) -> PathBuf {
    let here = std::env::current_exe().unwrap();
    let file = here.ancestors().nth(2).unwrap().join("examples").join(name);
    assert!(file.is_file(), "{} is not built: run `cargo test` without naming a test target", file.display());
    file
}

#[tokio::test]
async fn each_example_runs_to_its_end() {
    for (name, last) in [
        ("keys", "left: 0"),
        ("lock", "host-2 works with fence "),
        ("watch", "web is [\"web-1\"]"),
        ("election", "the first writes again: false"),
        ("counter", "counted to 8; "),
    ] {
        let consul = FakeConsul::start().await;
        let mut command = tokio::process::Command::new(program(name));
        let running = command.env("CONSUL_HTTP_ADDR", consul.address()).kill_on_drop(true).output();
        let out = tokio::time::timeout(Duration::from_secs(60), running).await;
        let out = out.unwrap_or_else(|_| panic!("{name} does not end within a minute")).unwrap();
        let (said, wrong) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
        let end = said.lines().last().unwrap_or_default();
        assert!(out.status.success() && end.starts_with(last), "{name}: {said}{wrong}");
    }
}
