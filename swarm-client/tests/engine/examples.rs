//! The examples run as they stand, on a small Swarm on loopback: `cargo test` has built them beside this program.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use super::world::World;
use super::*;

fn program(name: &str, url: &str) -> Command {
    let here = std::env::current_exe().unwrap();
    let file: PathBuf = here.ancestors().nth(2).unwrap().join("examples").join(name);
    assert!(file.is_file(), "{} is not built: run `cargo test` without naming a test target", file.display());
    let mut command = Command::new(file);
    command.env("DOCKER_HOST", url).env_remove("DOCKER_TLS_VERIFY").stdin(Stdio::null());
    command
}

/// Runs it to its end, which is waited for elsewhere than where the engine answers.
async fn run(mut command: Command) -> Output {
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

fn said(out: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr))
}

#[tokio::test]
async fn a_rollout_is_followed_to_its_end() {
    let (world, engine) = World::start(3, 2).await;
    let mut rollout = program("rollout", &engine.url);
    rollout.args(["web", "5"]);
    let out = run(rollout).await;
    assert!(out.status.success() && said(&out).ends_with("converged: 5 running\n"), "{}", said(&out));
    assert_eq!(world.running().len(), 5);

    let mut missing = program("rollout", &engine.url);
    missing.args(["other", "5"]);
    let out = run(missing).await;
    assert!(!out.status.success() && said(&out).contains("other"), "{}", said(&out));
}

#[tokio::test]
async fn a_node_is_drained_and_taken_back() {
    let (world, engine) = World::start(3, 3).await;
    let mut drain = program("drain", &engine.url);
    drain.arg("h1");
    let out = run(drain).await;
    assert!(out.status.success(), "{}", said(&out));
    assert_eq!(said(&out), "h1 is empty; moved: web\n");
    assert_eq!((world.spread()[0], world.least()), (0, 3));
    let mut back = program("drain", &engine.url);
    back.args(["h1", "back"]);
    let out = run(back).await;
    assert!(out.status.success() && said(&out).starts_with("web: move 1 of 3 tasks"), "{}", said(&out));
    assert_eq!((world.spread(), world.least()), (vec![1, 1, 1], 3));
}

#[tokio::test]
async fn tasks_are_watched_as_they_change() {
    let (_world, engine) = World::start(2, 2).await;
    let mut child = program("watch_tasks", &engine.url).arg("web").stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let (line, lines) =
        tokio::task::spawn_blocking(move || (lines.next().unwrap().unwrap(), lines)).await.unwrap();
    let scaled = engine.client().await.services().scale("web", 3).await;
    // Until the new task runs; the end of the program is the end of its lines.
    let ran = tokio::task::spawn_blocking(move || {
        lines.map_while(Result::ok).find(|line| line == "t3 on n1 is running")
    });
    let ran = tokio::time::timeout(Duration::from_secs(60), ran).await;
    child.kill().unwrap();
    child.wait().unwrap();
    scaled.unwrap();
    assert_eq!(line, "web: 2 tasks run");
    assert!(ran.unwrap().unwrap().is_some());
}
