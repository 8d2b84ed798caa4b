//! A few words of Docker's and Redis' protocols, an image made of this machine's Redis, and a look for what a lab left.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use lab::Host;
use serde_json::{Value, json};

/// Asks an engine; panics at anything but 2xx.
pub(crate) fn docker(host: &Host, request: &str, kind: &str, body: &[u8]) -> Value {
    let addr: SocketAddr = host.docker_endpoint().trim_start_matches("tcp://").parse().unwrap();
    let mut stream = TcpStream::connect_timeout(&addr, Duration::from_secs(5)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    write!(stream, "{request} HTTP/1.0\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n", body.len())
        .unwrap();
    stream.write_all(body).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let text = String::from_utf8_lossy(&answer);
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.0 2"), "{request} on {}: {head}\n{body}", host.name);
    serde_json::from_str(body).unwrap_or(Value::Null)
}

/// Starts a container of [`image`] and gives its id.
pub(crate) fn container(host: &Host, command: &[&str], port: Option<u16>) -> String {
    let mut spec = json!({ "Image": "lab-test:1", "Cmd": command });
    if let Some(port) = port {
        let key = format!("{port}/tcp");
        spec["ExposedPorts"] = json!({ &key: {} });
        spec["HostConfig"] = json!({ "PortBindings": { &key: [{ "HostPort": port.to_string() }] } });
    }
    let made = docker(host, "POST /containers/create", "application/json", spec.to_string().as_bytes());
    let id = made["Id"].as_str().unwrap().to_owned();
    docker(host, &format!("POST /containers/{id}/start"), "application/json", b"");
    id
}

/// Runs a container to its end and gives its exit code.
pub(crate) fn run_container(host: &Host, command: &[&str]) -> i64 {
    let id = container(host, command, None);
    docker(host, &format!("POST /containers/{id}/wait"), "application/json", b"")["StatusCode"]
        .as_i64()
        .unwrap()
}

/// Puts an image with Redis' server and client on an engine; nothing is pulled.
pub(crate) fn image(host: &Host) {
    docker(host, "POST /images/create?fromSrc=-&repo=lab-test&tag=1", "application/x-tar", &image_tar());
}

/// The image's files.
pub(crate) fn image_tar() -> Vec<u8> {
    let programs = ["/usr/bin/redis-server", "/usr/bin/redis-cli"];
    let mut files: Vec<String> = programs.iter().map(ToString::to_string).collect();
    for program in programs {
        let libraries = output("ldd", &[program]);
        files.extend(libraries.split_whitespace().filter(|word| word.starts_with('/')).map(str::to_owned));
    }
    files.sort();
    files.dedup();
    let mut tar = Command::new("tar");
    tar.args(["--create", "--dereference", "--file", "-", "--directory", "/"]);
    let tar = tar.args(files.iter().map(|file| file.trim_start_matches('/'))).output().unwrap();
    assert!(tar.status.success(), "{}", String::from_utf8_lossy(&tar.stderr));
    tar.stdout
}

/// One inline command to a Redis: the first bytes of its answer, or why there was none.
pub(crate) fn redis(addr: SocketAddr, command: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&addr, Duration::from_secs(1))?;
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    write!(stream, "{command}\r\n")?;
    let mut answer = [0; 512];
    let read = stream.read(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer[..read]).into_owned())
}

/// Polls until `check` holds; gives how long that took.
pub(crate) fn eventually(what: &str, within: Duration, mut check: impl FnMut() -> bool) -> Duration {
    let start = Instant::now();
    while !check() {
        assert!(start.elapsed() < within, "{what}: not within {within:?}");
        std::thread::sleep(Duration::from_millis(100));
    }
    start.elapsed()
}

/// Takes the lab away when a walk stops half-way.
pub(crate) struct DownAtLast {
    program: &'static str,
}

impl DownAtLast {
    pub(crate) fn new(program: &'static str) -> Self {
        Self { program }
    }
}

impl Drop for DownAtLast {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let _ = Command::new(self.program).arg("down").status();
        }
    }
}

/// Whatever of a lab is still on this machine.
pub(crate) fn left_overs() -> Vec<String> {
    let mut found = Vec::new();
    let mut note = |what: &str, text: String, mark: &str| {
        found.extend(text.lines().filter(|line| line.contains(mark)).map(|line| format!("{what}: {line}")));
    };
    note("namespace", output("ip", &["netns", "list"]), "halab");
    note("link", output("ip", &["-o", "link"]), "halab");
    note("route", output("ip", &["route", "show", "table", "all"]), "198.18.");
    note("rule", output("iptables-save", &[]), "halab");
    note("mount", fs::read_to_string("/proc/self/mountinfo").unwrap(), "halab");
    note("mount", fs::read_to_string("/proc/self/mountinfo").unwrap(), "ha-stack-lab");
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        // Its programs in the cache may be run by others.
        note("process", line, "/ha-stack-lab/hosts/");
    }
    for root in fs::read_dir("/sys/fs/cgroup").unwrap().flatten() {
        let groups = fs::read_dir(root.path()).into_iter().flatten().flatten();
        groups.for_each(|group| note("control group", group.path().display().to_string(), "halab"));
    }
    if Path::new("/run/ha-stack-lab").exists() {
        found.push("/run/ha-stack-lab".to_owned());
    }
    let folder = std::env::var("LAB_DIR").unwrap_or_else(|_| "/var/lib/ha-stack-lab".to_owned());
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_name() != "cache" && entry.file_name() != ".ha-stack-lab" {
            found.push(entry.path().display().to_string());
        }
    }
    found
}

fn output(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().unwrap();
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}
