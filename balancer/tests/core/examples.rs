//! The examples run as they stand: `cargo test` has built them beside this program.

use std::path::PathBuf;
use std::process::Command;

fn program(name: &str) -> PathBuf {
    let here = std::env::current_exe().unwrap();
    let file = here.ancestors().nth(2).unwrap().join("examples").join(name);
    assert!(file.is_file(), "{} is not built: run `cargo test` without naming a test target", file.display());
    file
}

#[test]
fn each_example_runs_to_its_end() {
    for name in ["pick", "ejection", "retry_budget"] {
        let out = Command::new(program(name)).output().unwrap();
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(out.status.success() && !out.stdout.is_empty(), "{name}: {said}");
    }
}
