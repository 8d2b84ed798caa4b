//! Every command of the guide is run as it stands.
//!
//! A page is one script. A block is fenced as `console`, with what it needs after a comma: `stays` (goes on running
//! until the page's end), `terminal` (draws on one), `prometheus` (its package), `lab` (`./test.sh` runs these on three
//! hosts), `host` (its `--long` runs these on each of them, read from the page) and `shown` (needs somebody's cluster: each is parsed by the program itself). Lines below a command are part of
//! what it must say.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use clap::Parser;

use crate::ports::free_address;

/// Pages whose commands need somebody's cluster or certificates: each is parsed, or `./test.sh` runs it.
const UNDERSTOOD: &[&str] = &[
    "three-hosts.md",
    "without-consul.md",
    "from-the-original.md",
    "compose.md",
    "certificates.md",
    "security.md",
    "operating.md",
];
/// Pages whose commands are run here.
const RUN: &[&str] = &["laptop.md", "policy.md", "watching.md"];

struct Block {
    needs: String,
    /// Each command with the lines that it must say.
    commands: Vec<(String, Vec<String>)>,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/src")
}

fn page(name: &str) -> Vec<Block> {
    let text = std::fs::read_to_string(folder().join(name)).unwrap();
    let mut blocks = Vec::new();
    let mut open: Option<Block> = None;
    for line in text.lines() {
        match (&mut open, line) {
            (None, fence) if fence.starts_with("```console") => {
                let needs = fence.trim_start_matches("```console").trim_start_matches(',').to_owned();
                open = Some(Block { needs, commands: Vec::new() });
            }
            (Some(_), "```") => blocks.extend(open.take()),
            (Some(block), line) => match line.strip_prefix("$ ") {
                Some(command) => block.commands.push((command.to_owned(), Vec::new())),
                None => {
                    let (command, said) = block.commands.last_mut().unwrap();
                    if command.contains("<<'END'") && !command.ends_with("\nEND") {
                        command.push('\n');
                        command.push_str(line);
                    } else {
                        said.push(line.to_owned());
                    }
                }
            },
            (None, _) => {}
        }
    }
    assert!(open.is_none(), "{name}: a block is not closed");
    blocks
}

/// A script of the page's blocks that need at most `have`; each command's output is held against the page.
fn script(blocks: &[Block], have: &[&str]) -> String {
    let mut script = String::from("set -euo pipefail\n");
    for block in blocks.iter().filter(|block| have.contains(&block.needs.as_str())) {
        for (command, said) in &block.commands {
            let _ = writeln!(script, "echo {} >&2", quoted(&format!("$ {command}")));
            if ["export ", "eval ", "cd "].iter().any(|builtin| command.starts_with(builtin)) {
                let _ = writeln!(script, "{command}");
                continue;
            }
            match block.needs.as_str() {
                "stays" => {
                    let _ = writeln!(script, "({command}) >/dev/null 2>&1 & stays+=($!)");
                    script.push_str("for _ in $(seq 100); do [[ $(ha-stack status 2>/dev/null) == *'2 of 2'* ]] && break; sleep 0.2; done\n");
                    continue;
                }
                "terminal" => {
                    // In the foreground: a group of its own would be stopped when it sets the terminal, whatever $SHELL is.
                    let inner =
                        quoted(&format!("stty cols 100 rows 30; timeout --foreground -k 5 3 {command}"));
                    let _ = writeln!(script, "said=$(script -qc {inner} /dev/null) || true");
                    script
                        .push_str("[[ $said == *REPLICA* ]] || { echo \"not drawn: $said\" >&2; exit 1; }\n");
                    continue;
                }
                _ => {
                    let _ = writeln!(script, "said=$({command}\n)");
                }
            }
            for line in said {
                let line = quoted(line);
                let _ = writeln!(
                    script,
                    "[[ $said == *{line}* ]] || {{ echo {line} is not in \"$said\" >&2; exit 1; }}"
                );
            }
        }
    }
    script
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// Runs a page with addresses of its own, so that a stack that runs on this machine is not in the way.
fn run(name: &str, have: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    let (site, control) = (free_address().to_string(), free_address().to_string());
    let program = env!("CARGO_BIN_EXE_ha-stack");
    let wrapper = format!(
        "#!/bin/bash\ncase $1 in\n  up) exec {program} \"$@\" --listen {site} --control {control} ;;\n  \
         status | scale | top) exec {program} \"$@\" --control {control} ;;\n  \
         load) exec {program} \"$@\" --url 'http://{site}/work?ms=100' ;;\n  *) exec {program} \"$@\" ;;\nesac\n"
    );
    let file = folder.path().join("ha-stack");
    std::fs::write(&file, wrapper).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", folder.path().display(), std::env::var("PATH").unwrap());
    let body = script(&page(name), have).replace("127.0.0.1:8080", &site).replace("127.0.0.1:7070", &control);
    let ends = "stays=()\ntrap 'for one in \"${stays[@]}\"; do kill \"$one\"; done; wait' EXIT\n";
    // A page that hangs is a failure that says where it hung, not a run that never ends.
    let mut command = Command::new("timeout");
    command.args(["-k", "10", "180", "bash", "-c"]).arg(format!("{ends}{body}"));
    command.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")).env("PATH", path);
    command
        .env("TMPDIR", folder.path())
        .env("TERM", "xterm")
        .env("SHELL", "/bin/sh")
        .env_remove("HA_STACK_TOKEN")
        .env_remove("RUST_LOG");
    let out = command.stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(out.status.success(), "{name}: {said}");
}

#[test]
fn one_laptop() {
    run("laptop.md", &["", "stays", "terminal"]);
}

#[test]
fn writing_a_policy() {
    run("policy.md", &[""]);
}

#[test]
fn watching_it() {
    run("watching.md", &["", "stays"]);
}

#[test]
#[ignore = "needs prometheus: ./test.sh runs it"]
fn watching_it_with_prometheus() {
    run("watching.md", &["prometheus"]);
}

#[test]
fn what_needs_a_cluster_is_at_least_understood() {
    for name in UNDERSTOOD.iter().chain(RUN) {
        for block in page(name).iter().filter(|block| block.needs == "shown") {
            for (command, _) in &block.commands {
                if !command.starts_with("export ") {
                    let parsed = ha_stack::cli::Cli::try_parse_from(command.split_whitespace());
                    assert!(parsed.is_ok(), "{command}: {}", parsed.unwrap_err());
                }
            }
        }
    }
}

/// The compose file of the guide is one that `ha-stack deploy` takes.
#[test]
fn the_compose_file_of_the_guide_is_taken() {
    let text = std::fs::read_to_string(folder().join("compose.md")).unwrap();
    let yaml = text.split("```yaml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let host = ha_stack::deploy::Member { name: "h1".into(), address: "10.0.0.11".into() };
    let read = ha_stack::deploy::read("shop", yaml, Path::new("."), &[host], &|_| None).unwrap();
    assert!(read.builds.is_empty());
    assert_eq!(read.stack.services().map(|(key, _)| key).collect::<Vec<_>>(), ["shop"]);
}

#[test]
fn the_lab_s_commands_are_those_of_the_tests() {
    let tests = std::fs::read_to_string(folder().join("../../test.sh")).unwrap();
    let mut asked = 0;
    for name in UNDERSTOOD {
        for block in page(name).iter().filter(|block| block.needs == "lab") {
            for (command, _) in &block.commands {
                // As the functions of test.sh have it: without who runs it, and for each of some words by a variable.
                let words = command.replace("sudo ", "").replace("-E ", "").replace("target/release/", "");
                let words = words.replace("ha-stack ", "").replace(" --json", "").replace("eval ", "");
                let words = words.trim_matches(|c| "\"$()".contains(c)).replace("$host", "\"$host\"");
                let words = words.split(" --gateway ").next().unwrap().split("; done").next().unwrap();
                let words = words.replace("lab up --no-swarm", "in_lab --no-swarm");
                assert!(tests.contains(&words), "{name}: test.sh does not run {words:?}");
                asked += 1;
            }
        }
    }
    assert!(asked >= 12, "{asked}");
    assert!(tests.contains("for front in own nginx haproxy"));
}

#[test]
fn no_page_is_left_out_and_no_link_is_dead() {
    let summary = std::fs::read_to_string(folder().join("SUMMARY.md")).unwrap();
    let known = ["", "stays", "terminal", "prometheus", "lab", "host", "shown"];
    let run_here = [RUN, UNDERSTOOD].concat();
    let mut pages = BTreeSet::new();
    for entry in std::fs::read_dir(folder()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if name == "SUMMARY.md" {
            continue;
        }
        assert!(summary.contains(&format!("({name})")), "{name} is not in the summary");
        let blocks = page(&name);
        assert!(
            blocks.is_empty() || run_here.contains(&name.as_str()),
            "{name} has commands that no test runs"
        );
        assert!(blocks.iter().all(|block| known.contains(&block.needs.as_str())), "{name}");
        pages.insert(name);
    }
    for name in &pages {
        let text = std::fs::read_to_string(folder().join(name)).unwrap();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            assert!(pages.contains(link) || link.starts_with("http"), "{name} links to {link}");
        }
    }
    let listed = summary.matches(".md)").count();
    assert_eq!(listed, pages.len(), "the summary lists a page that is not there");
}
