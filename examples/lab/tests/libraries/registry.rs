//! A registry with one image of several platforms, inside a host of the lab: Docker takes one on loopback without TLS.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use lab::{Host, Lab};

use crate::pause;

/// Where it listens, inside the host.
pub(crate) const ADDR: &str = "127.0.0.1:5005";
const QUIT: &str = "/quit";
const LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";

/// A process that was started.
pub(crate) struct Registry(Child);

impl Registry {
    pub(crate) async fn start(lab: &Lab, host: &Host) -> Self {
        let program = std::env::current_exe().unwrap();
        let child = Command::new("nsenter")
            .args(lab.exec_args(&host.name).unwrap())
            .arg(program)
            .args(["--ignored", "--exact", "registry::a_registry_in_a_process_of_its_own"])
            .current_dir("/")
            .env("LAB_REGISTRY", ADDR)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn();
        let registry = Self(child.unwrap());
        let start = Instant::now();
        while !asked(lab, host, "/v2/").await {
            assert!(start.elapsed() < Duration::from_secs(20), "the registry does not start");
            pause().await;
        }
        registry
    }

    /// Ends it by a request: it is not `nsenter` that serves.
    pub(crate) async fn stop(mut self, lab: &Lab, host: &Host) {
        assert!(asked(lab, host, QUIT).await);
        assert!(self.0.wait().unwrap().success());
    }
}

/// Asks inside the host; whether there was an answer.
async fn asked(lab: &Lab, host: &Host, path: &str) -> bool {
    let (addr, port) = ADDR.split_once(':').unwrap();
    let ask = format!(
        "exec 3<>/dev/tcp/{addr}/{port} && printf 'GET {path} HTTP/1.0\\r\\n\\r\\n' >&3 && grep -q 200 <&3"
    );
    lab.exec(&host.name, &["bash", "-c", &ask]).await.unwrap().status.success()
}

/// The digest of the image.
pub(crate) fn digest() -> String {
    let mut sum = Command::new("sha256sum").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    sum.stdin.take().unwrap().write_all(index().as_bytes()).unwrap();
    let output = sum.wait_with_output().unwrap();
    format!("sha256:{}", String::from_utf8_lossy(&output.stdout).split_whitespace().next().unwrap())
}

/// An image for two platforms, and an attestation, which runs nowhere.
fn index() -> String {
    let of = |digit: &str, os: &str, architecture: &str| {
        let digest = digit.repeat(64);
        format!(
            r#"{{"mediaType":"{MANIFEST}","size":100,"digest":"sha256:{digest}","platform":{{"os":"{os}","architecture":"{architecture}"}}}}"#
        )
    };
    let all = [of("a", "linux", "amd64"), of("b", "linux", "arm64"), of("c", "unknown", "unknown")];
    format!(r#"{{"schemaVersion":2,"mediaType":"{LIST}","manifests":[{}]}}"#, all.join(","))
}

/// The registry's process. Without the variable, when the test runner runs it, it has nothing to do.
#[test]
#[ignore = "the registry of a case of the walk"]
fn a_registry_in_a_process_of_its_own() {
    let Ok(addr) = std::env::var("LAB_REGISTRY") else { return };
    let digest = digest();
    for stream in TcpListener::bind(addr).unwrap().incoming().flatten() {
        if answer(stream, &digest).is_ok_and(|path| path == QUIT) {
            return;
        }
    }
}

/// Answers one request; its path.
fn answer(mut stream: TcpStream, digest: &str) -> std::io::Result<String> {
    // One that says nothing keeps nobody waiting.
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let Some(Ok(first)) = lines.next() else { return Ok(String::new()) };
    while lines.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
    let (method, path) = first.split_once(' ').unwrap_or_default();
    let path = path.split(' ').next().unwrap_or_default();
    let (status, kind, body) = match path {
        "/v2/" | QUIT => ("200 OK", "application/json", "{}".to_owned()),
        _ if path == "/v2/web/manifests/1" || path == format!("/v2/web/manifests/{digest}") => {
            ("200 OK", LIST, index())
        }
        _ => {
            let body = r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#;
            ("404 Not Found", "application/json", body.to_owned())
        }
    };
    write!(
        stream,
        "HTTP/1.1 {status}\r\nConnection: close\r\nDocker-Distribution-Api-Version: registry/2.0\r\nContent-Type: {kind}\r\n\
         Docker-Content-Digest: {digest}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    )?;
    if method != "HEAD" {
        stream.write_all(body.as_bytes())?;
    }
    Ok(path.to_owned())
}
