//! The program as a person meets it: wrong settings end in one clear line and exit code 2, Ctrl-C leaves nothing behind.

#![allow(clippy::unwrap_used)] // A test stops at the first surprise.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use ports::free_address;

#[path = "support/ports.rs"]
mod ports;

fn ha_stack(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ha-stack"));
    command.args(args);
    for variable in
        ["DOCKER_HOST", "HA_STACK_ENGINES", "CONSUL_HTTP_ADDR", "CONSUL_HTTP_TOKEN", "REDIS_URL", "RUST_LOG"]
    {
        command.env_remove(variable);
    }
    command
}

/// Runs to the end and expects exit code 2 and, besides progress, one line: with each of `words`.
fn refused(args: &[&str], words: &[&str]) {
    let out: Output = ha_stack(args).output().unwrap();
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert_eq!(out.status.code(), Some(2), "{args:?}: {said}");
    let progress = |line: &&str| line.is_empty() || line.starts_with('[') || line.starts_with("== ");
    let lines: Vec<&str> = said.lines().filter(|line| !progress(line)).collect();
    let [line] = lines[..] else { panic!("{args:?}: one line was wanted: {said}") };
    assert!(line.starts_with("ha-stack: "), "{args:?}: {line}");
    for word in words {
        assert!(line.contains(word), "{args:?}: {word:?} is not in: {line}");
    }
}

/// A stack that runs, and the lines that it says.
struct Up {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStderr>>,
    folder: tempfile::TempDir,
}

impl Up {
    fn start(control: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut command = ha_stack(&["up", "--listen", "127.0.0.1:0", "--control", control]);
        command.env("TMPDIR", folder.path()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        Self { child, lines, folder }
    }

    fn wait_for(&mut self, word: &str) -> String {
        self.lines
            .by_ref()
            .map(Result::unwrap)
            .find(|line| line.contains(word))
            .expect("the stack ended early")
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap(), signal).unwrap();
    }

    /// Processes of this machine that keep their sessions in the stack's folder.
    fn replicas(&self) -> Vec<PathBuf> {
        let folder = self.folder.path().to_string_lossy().into_owned();
        let processes = std::fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().path());
        let ours = |path: &PathBuf| {
            std::fs::read(path.join("cmdline"))
                .is_ok_and(|line| String::from_utf8_lossy(&line).contains(&folder))
        };
        processes.filter(ours).collect()
    }

    fn nothing_is_left(&self) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while !self.replicas().is_empty() {
            assert!(Instant::now() < deadline, "left: {:?}", self.replicas());
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_platform_that_does_not_exist_names_those_that_do() {
    refused(&["up", "--platform", "nomad"], &["nomad", "--platform", "local", "swarm"]);
}

#[test]
fn a_taken_port_is_named_with_its_flag() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let control = free_address().to_string();
    refused(&["up", "--listen", &address, "--control", &control], &["--listen", &address]);
    refused(&["up", "--listen", "127.0.0.1:0", "--control", &address], &["--control", &address]);
    refused(&["gateway", "--listen", &address, "--admin", "127.0.0.1:0"], &["--listen", &address]);
}

#[test]
fn certificates_that_can_not_be_used_are_named() {
    let gateway = ["gateway", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--tls-cert", "/none.pem"];
    let with = |more: &[&'static str]| [&gateway[..], more].concat();
    refused(&with(&["--tls-key", "/none.key"]), &["--tls-cert", "/none.pem"]);
    refused(&with(&["--tls-cert", "/b.pem", "--tls-key", "/a.key"]), &["--tls-cert", "2 times", "1 times"]);
    refused(
        &["gateway", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--retry-on", "200"],
        &["retry_statuses", "200", "400 to 599"],
    );
}

/// HTTP/2 by ALPN, and a certificate that was renewed in its file, as certbot does it.
#[test]
fn a_gateway_serves_tls_and_takes_a_renewed_certificate() {
    let folder = tempfile::tempdir().unwrap();
    let (chain, key) = (folder.path().join("chain.pem"), folder.path().join("key.pem"));
    let renew = || {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        std::fs::write(&chain, made.cert.pem()).unwrap();
    };
    renew();
    let address = free_address().to_string();
    let mut gateway = ha_stack(&["gateway", "--listen", &address, "--admin", "127.0.0.1:0", "--wait", "0"]);
    gateway.arg("--tls-cert").arg(&chain).arg("--tls-key").arg(&key).stderr(Stdio::null());
    let mut gateway = gateway.spawn().unwrap();
    let port = address.rsplit(':').next().unwrap();
    // Trusts what is in the file now: the answer shows that it is what is served.
    let asked = || {
        let out = Command::new("curl")
            .args(["-s", "-m", "5", "-o", "/dev/null", "-w", "%{http_code} %{http_version}", "--cacert"])
            .arg(&chain)
            .args([
                "--resolve",
                &format!("localhost:{port}:127.0.0.1"),
                &format!("https://localhost:{port}/"),
            ])
            .output()
            .unwrap();
        String::from_utf8_lossy(&out.stdout).into_owned()
    };
    let until = |limit: u64| {
        let began = Instant::now();
        let mut last = asked();
        while last != "503 2" && began.elapsed() < Duration::from_secs(limit) {
            std::thread::sleep(Duration::from_millis(200));
            last = asked();
        }
        last
    };
    let first = until(10);
    renew();
    let renewed = until(30);
    let told = kill_process(Pid::from_child(&gateway), Signal::TERM);
    gateway.wait().unwrap();
    assert!(told.is_ok());
    // Nobody is behind it, which is what it says.
    assert_eq!((first.as_str(), renewed.as_str()), ("503 2", "503 2"));
}

#[test]
fn no_docker_is_named_with_the_setting() {
    refused(
        &["demo", "--platform", "swarm", "--docker-host", "unix:///nowhere/docker.sock"],
        &["DOCKER_HOST", "unix:///nowhere/docker.sock"],
    );
    refused(&["registrar", "--docker-host", "tcp://127.0.0.1:1"], &["DOCKER_HOST", "127.0.0.1:1"]);
}

#[test]
fn docker_without_swarm_mode_says_what_to_do() {
    let engine = fake_engine("inactive", false);
    let words = ["not a Swarm manager", "docker swarm init"];
    refused(&["status", "--platform", "swarm", "--docker-host", &engine], &words);
    refused(&["registrar", "--docker-host", &engine], &words[..1]);
}

#[test]
fn consul_out_of_reach_is_named_with_the_setting() {
    let engine = fake_engine("active", true);
    let args = ["demo", "--platform", "swarm", "--docker-host", &engine, "--consul", "http://127.0.0.1:1"];
    refused(&args, &["Consul at http://127.0.0.1:1", "CONSUL_HTTP_ADDR"]);
    let args = ["demo", "--platform", "swarm", "--docker-host", &engine, "--consul", "ftp://u:hunter2@h"];
    refused(&args, &["--consul", "…@h"]);
}

#[test]
fn bounds_that_make_no_sense_are_named() {
    refused(&["up", "--min", "5", "--max", "3"], &["--max is 3", "--min"]);
    refused(&["up", "--target", "0"], &["--target is 0"]);
    refused(&["load", "--workers", "0"], &["--workers is 0"]);
}

#[test]
fn a_control_address_for_others_needs_a_token_that_is_no_guess() {
    refused(&["up", "--control", "0.0.0.0:0"], &["--control is 0.0.0.0:0", "--token", "HA_STACK_TOKEN"]);
    refused(&["up", "--control", "127.0.0.1:0", "--token", "short"], &["--token", "at least 16"]);
}

#[test]
fn top_without_a_terminal_says_what_else_there_is() {
    refused(&["top"], &["terminal", "ha-stack status"]);
}

#[test]
fn a_dashboard_of_its_own_is_for_a_stack_that_runs_elsewhere() {
    refused(&["dashboard"], &["ha-stack up", "--platform swarm"]);
    let swarm = ["dashboard", "--platform", "swarm", "--docker-host", "tcp://127.0.0.1:1"];
    refused(&[&swarm[..], &["--control", "0.0.0.0:0"]].concat(), &["--control is 0.0.0.0:0", "--token"]);
    refused(&[&swarm[..], &["--control", "127.0.0.1:0"]].concat(), &["--docker-host", "tcp://127.0.0.1:1"]);
}

#[test]
fn no_stack_is_said_by_status_and_scale() {
    let nobody = free_address().to_string();
    refused(&["status", "--control", &nobody], &["--control", "ha-stack up"]);
    refused(&["scale", "web", "3", "--control", &nobody], &["--control", "ha-stack up"]);
}

#[test]
fn every_command_shows_an_example() {
    let commands = [
        "up",
        "demo",
        "status",
        "top",
        "dashboard",
        "scale",
        "images",
        "load",
        "gateway",
        "registrar",
        "scaler",
        "web",
        "engines",
        "render",
    ];
    for command in commands {
        let out = ha_stack(&[command, "--help"]).output().unwrap();
        let help = String::from_utf8_lossy(&out.stdout).into_owned();
        assert!(out.status.success() && help.contains("Example:"), "{command}: {help}");
    }
    for verb in ["join", "info", "ps", "run", "scale", "rm", "watch"] {
        let out = ha_stack(&["engines", verb, "--help"]).output().unwrap();
        let help = String::from_utf8_lossy(&out.stdout).into_owned();
        assert!(out.status.success() && help.contains("Example:"), "engines {verb}: {help}");
    }
}

#[test]
fn a_pool_that_can_not_be_used_is_named_with_its_setting() {
    refused(&["engines", "info"], &["--engines", "tcp://IP:2375"]);
    refused(&["engines", "ps", "--discovery", "nodes://h1"], &["--discovery", "\"h1\"", "no port"]);
    refused(&["engines", "ps", "--discovery", "file:///nowhere/engines"], &["/nowhere/engines"]);
    refused(
        &["engines", "info", "--discovery", "nodes://h1:2375", "--filters", "luck"],
        &["--filters", "\"luck\"", "containerslots"],
    );
    let dead = ["engines", "run", "--discovery", "nodes://127.0.0.1:1"];
    refused(&[&dead[..], &["web:1"]].concat(), &["\"web\"", "127.0.0.1:1", "health: it does not answer"]);
    let flags = [
        "-e",
        "A=b",
        "-l",
        "c=d",
        "-p",
        "80",
        "-a",
        "image==~x",
        "-m",
        "64",
        "web:1",
        "--listen",
        "0.0.0.0:80",
    ];
    refused(&[&dead[..], &flags].concat(), &["health: it does not answer"]);
    refused(&[&dead[..], &["-c", "1==2", "web:1"]].concat(), &["\"1==2\"", "key==value"]);
    refused(&[&dead[..], &["-p", "eighty", "web:1"]].concat(), &["--publish", "\"eighty\""]);
    refused(&["engines", "watch", "--discovery", "nodes://127.0.0.1:1"], &["--discovery", "consul://"]);
    refused(
        &["demo", "--platform", "engines", "--engines", "h1=tcp://127.0.0.1:1"],
        &["HA_STACK_ENGINES", "127.0.0.1:1"],
    );
}

#[test]
fn a_renderer_needs_one_proxy_and_the_demos_needs_consul() {
    refused(&["render"], &["--nginx", "--haproxy"]);
    refused(&["render", "--nginx", "/tmp/x"], &["--reload"]);
    refused(&["demo", "--gateway", "nginx"], &["--gateway", "--platform engines"]);
}

#[test]
fn a_secret_from_the_environment_is_not_in_the_help() {
    let out = ha_stack(&["up", "--help"]).env("REDIS_URL", "redis://:hunter2@h:1").output().unwrap();
    assert!(!String::from_utf8_lossy(&out.stdout).contains("hunter2"));
}

#[test]
fn a_stack_is_shown_scaled_and_ended_by_ctrl_c() {
    let control = free_address().to_string();
    let mut up = Up::start(&control);
    up.wait_for("Ctrl-C ends the stack");
    assert_eq!(up.replicas().len(), 2);
    let scaled = ha_stack(&["scale", "web", "3", "--control", &control]).output().unwrap();
    assert!(scaled.status.success(), "{scaled:?}");
    up.wait_for("3 of 3 wanted");
    let status = ha_stack(&["status", "--json", "--control", &control]).output().unwrap();
    let status: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
    assert_eq!(status["wanted"], 3);
    assert_eq!(status["hosts"].as_array().map(Vec::len), Some(3));
    refused(&["scale", "shop", "3", "--control", &control], &["shop", "web"]);

    up.signal(Signal::INT);
    assert_eq!(up.child.wait().unwrap().code(), Some(0));
    up.nothing_is_left();
    let left: Vec<_> = std::fs::read_dir(up.folder.path()).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn replicas_end_with_a_parent_that_is_killed() {
    let mut up = Up::start(&free_address().to_string());
    up.wait_for("Ctrl-C ends the stack");
    assert_eq!(up.replicas().len(), 2);
    up.signal(Signal::KILL);
    up.child.wait().unwrap();
    up.nothing_is_left();
}

#[test]
fn a_demo_that_is_interrupted_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = ha_stack(&["demo"]);
    command.env("TMPDIR", folder.path()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut up = Up { child, lines, folder };
    up.wait_for("is logged in");
    up.signal(Signal::INT);
    assert_eq!(up.child.wait().unwrap().code(), Some(130));
    up.nothing_is_left();
}

/// An engine in this state, for a few requests.
fn fake_engine(state: &'static str, manager: bool) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().take(20) {
            let mut stream = stream.unwrap();
            let mut seen = Vec::new();
            let mut buffer = [0_u8; 4096];
            while !seen.windows(4).any(|end| end == b"\r\n\r\n") {
                match stream.read(&mut buffer) {
                    Ok(n) if n > 0 => seen.extend_from_slice(&buffer[..n]),
                    _ => break,
                }
            }
            let body = if String::from_utf8_lossy(&seen).contains("/info") {
                format!(
                    r#"{{"Name":"here","ID":"x","Swarm":{{"LocalNodeState":"{state}","NodeID":"n","NodeAddr":"127.0.0.1","ControlAvailable":{manager},"Error":""}}}}"#
                )
            } else {
                "OK".to_owned()
            };
            let head = format!(
                "HTTP/1.1 200 OK\r\nApi-Version: 1.41\r\nSwarm: inactive\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                body.len()
            );
            let _ = stream.write_all(format!("{head}{body}").as_bytes());
        }
    });
    format!("tcp://{address}")
}

#[test]
fn a_recorded_load_is_replayed_against_policies() {
    let folder = tempfile::tempdir().unwrap();
    let svg = folder.path().join("replay.svg");
    let here = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("replay");
    let (trace, policy) = (here.join("worldcup98-day.csv"), here.join("web.toml"));
    let mut command = ha_stack(&["replay", trace.to_str().unwrap(), "--policy", policy.to_str().unwrap()]);
    command.args(["--against", "balanced,hpa,hpa-cpu,kpa,threshold", "--peak", "40", "--json", "--svg"]);
    let out = command.arg(&svg).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let scores: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    let names: Vec<&str> = scores.as_array().unwrap().iter().map(|s| s["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["web", "balanced", "hpa", "hpa-cpu", "kpa", "threshold"]);
    for score in scores.as_array().unwrap() {
        assert_eq!(score["seconds"], 86_400, "{score}");
        assert_eq!(score["wrong_way"], 0, "{score}");
        assert!(score["cost_ratio"].as_f64().unwrap() > 0.8, "{score}");
    }
    let picture = std::fs::read_to_string(svg).unwrap();
    assert!(picture.starts_with("<svg ") && picture.ends_with("</svg>\n") && picture.contains("kpa: "));
}

#[test]
fn a_policy_that_breaks_a_rule_is_refused_with_its_line() {
    let folder = tempfile::tempdir().unwrap();
    let (trace, policy) = (folder.path().join("load.csv"), folder.path().join("policy.toml"));
    std::fs::write(&trace, "t,load\n0,60\n60,x\n").unwrap();
    std::fs::write(&policy, "max = 4\n\nmin = 5\n").unwrap();
    let (trace, policy) = (trace.to_str().unwrap(), policy.to_str().unwrap());
    refused(&["replay", trace], &["load.csv can't be replayed", "line 3", "\"60,x\""]);
    std::fs::write(trace, "t,load\n0,60\n60,70\n").unwrap();
    refused(&["replay", trace, "--policy", policy], &["line 3: min is 5, but it must not exceed max"]);
    refused(&["replay", trace, "--target", "0"], &["--target is 0"]);
    refused(&["replay", "no-such-file.csv"], &["no-such-file.csv can't be read"]);
}
