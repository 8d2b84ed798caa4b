//! Backends and proxies: processes on their cores, ended when dropped.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// Builds the two proxies that are programs of this package; without it, `cargo run` builds the main one only.
pub fn build() -> Result<()> {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args(["build", "--release", "--quiet", "--bins", "--manifest-path"])
        .arg(manifest)
        .status()?;
    if !status.success() {
        bail!("ours or pingora can't be built; what cargo said stands above");
    }
    Ok(())
}

/// Three nginx that answer 200 at once.
pub struct Backends {
    folder: PathBuf,
    first: u16,
    all: Vec<Child>,
}

impl Backends {
    pub fn start(folder: &Path, first: u16) -> Result<Self> {
        let mut backends = Self { folder: folder.into(), first, all: Vec::new() };
        for n in 0..3 {
            let child = backends.spawn(n)?;
            backends.all.push(child);
            wait_for(first + n)?;
        }
        Ok(backends)
    }

    pub fn addresses(&self) -> Vec<String> {
        (0..3).map(|n| format!("127.0.0.1:{}", self.first + n)).collect()
    }

    /// SIGKILL to the master and its worker.
    pub fn kill(&mut self, n: usize) -> Result<()> {
        let master = self.all[n].id();
        // A master that sees its worker die starts another one, which would outlive it.
        signal("STOP", master)?;
        for pid in children(master)?.into_iter().chain([master]) {
            signal("KILL", pid)?;
        }
        self.all[n].wait()?;
        Ok(())
    }

    /// Graceful: finishes what it has.
    pub fn stop(&mut self, n: usize) -> Result<()> {
        signal("QUIT", self.all[n].id())
    }

    /// The worker goes on existing, and does nothing.
    pub fn hang(&mut self, n: usize) -> Result<()> {
        children(self.all[n].id())?.into_iter().try_for_each(|pid| signal("STOP", pid))
    }

    pub fn wake(&mut self, n: usize) -> Result<()> {
        children(self.all[n].id())?.into_iter().try_for_each(|pid| signal("CONT", pid))
    }

    pub fn restart(&mut self, n: usize) -> Result<()> {
        self.all[n].wait()?;
        self.all[n] = self.spawn(n as u16)?;
        wait_for(self.first + n as u16)
    }

    fn spawn(&self, n: u16) -> Result<Child> {
        let port = self.first + n;
        let text = format!(
            "daemon off; worker_processes 1; pid {folder}/backend{port}.pid; error_log /dev/null;\n\
             events {{ worker_connections 4096; }}\n\
             http {{ access_log off; keepalive_requests 1000000000; keepalive_timeout 3600s;\n{temp}\
             server {{ listen 127.0.0.1:{port}; location / {{ return 200 'hello from a backend\\n'; }} }} }}\n",
            folder = self.folder.display(),
            temp = nginx_temp(&self.folder),
        );
        let path = self.folder.join(format!("backend{port}.conf"));
        fs::write(&path, text)?;
        pinned("1", "nginx")
            .arg("-c")
            .arg(path)
            .spawn()
            .context("nginx does not start; ./bench.sh installs it")
    }
}

impl Drop for Backends {
    fn drop(&mut self) {
        for n in 0..self.all.len() {
            let _ = self.wake(n);
            let _ = self.kill(n);
        }
    }
}

/// A proxy on core 0.
pub struct Proxy {
    pub name: &'static str,
    pub port: u16,
    child: Child,
    stdin: Option<ChildStdin>,
}

impl Proxy {
    pub fn start(name: &'static str, port: u16, folder: &Path, backends: &[String]) -> Result<Self> {
        let path = folder.join(format!("{name}{port}.conf"));
        let listen = format!("127.0.0.1:{port}");
        let mut command = match name {
            "nginx" => {
                fs::write(&path, nginx(folder, port, backends))?;
                let mut command = pinned("0", "nginx");
                command.arg("-c").arg(&path);
                command
            }
            "haproxy" => {
                fs::write(&path, haproxy(port, backends))?;
                let mut command = pinned("0", "haproxy");
                command.arg("-db").arg("-f").arg(&path);
                command
            }
            _ => {
                let program = std::env::current_exe()?;
                let program = program.with_file_name(if name == "ours" { "ours" } else { "pingora-peer" });
                let mut command = pinned("0", program.to_str().context("a path that is no text")?);
                command.arg(&listen).args(backends);
                command
            }
        };
        let mut child =
            command.stdin(Stdio::piped()).spawn().with_context(|| format!("{name} does not start"))?;
        let stdin = child.stdin.take();
        let proxy = Self { name, port, child, stdin };
        wait_for(port).with_context(|| format!("{name} does not listen"))?;
        // Probed and warm.
        std::thread::sleep(Duration::from_millis(700));
        Ok(proxy)
    }

    /// Sends a line to its standard input.
    pub fn tell(&mut self, line: &str) -> Result<()> {
        let stdin = self.stdin.as_mut().context("it takes no input")?;
        writeln!(stdin, "{line}").context("it is gone")
    }

    /// User and system time so far, workers included.
    pub fn cpu(&self) -> Result<Duration> {
        let master = self.child.id();
        let pids = children(master)?.into_iter().chain([master]);
        pids.map(cpu_of).sum()
    }

    fn resident_kib(&self) -> Result<f64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).context("no VmRSS")?;
        Ok(line.split_whitespace().nth(1).context("no figure")?.parse()?)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // As for the backends: nginx is one of the proxies.
        let _ = signal("STOP", self.child.id());
        for pid in children(self.child.id()).unwrap_or_default() {
            let _ = signal("KILL", pid);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a client connection costs that has been served and idles: the growth of resident memory over a thousand.
pub fn idle_connection_kib(proxy: &Proxy) -> Result<f64> {
    const COUNT: usize = 1000;
    let open = || -> Result<Vec<TcpStream>> {
        let mut held = Vec::new();
        for _ in 0..COUNT {
            let mut stream = TcpStream::connect(("127.0.0.1", proxy.port))?;
            stream.write_all(b"GET / HTTP/1.1\r\nHost: bench\r\n\r\n")?;
            let mut answer = [0; 4096];
            let n = stream.read(&mut answer)?;
            if !answer[..n].starts_with(b"HTTP/1.1 200") {
                bail!("no answer to an idle connection's request");
            }
            held.push(stream);
        }
        Ok(held)
    };
    let before = proxy.resident_kib()?;
    let held = open()?;
    std::thread::sleep(Duration::from_millis(500));
    let after = proxy.resident_kib()?;
    drop(held);
    Ok((after - before) / COUNT as f64)
}

fn nginx(folder: &Path, port: u16, backends: &[String]) -> String {
    let servers: String = backends.iter().map(|addr| format!("server {addr};")).collect();
    format!(
        "daemon off; worker_processes 1; pid {folder}/proxy{port}.pid; error_log /dev/null;\n\
         events {{ worker_connections 4096; }}\n\
         http {{ access_log off; keepalive_requests 1000000000; keepalive_timeout 3600s;\n{temp}\
         upstream web {{ {servers} keepalive 64; keepalive_requests 1000000000; }}\n\
         server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://web; proxy_http_version 1.1;\n\
         proxy_set_header Connection ''; proxy_set_header Host $host;\n\
         proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; proxy_set_header X-Forwarded-Proto $scheme;\n\
         proxy_set_header X-Request-Id $request_id; }} }} }}\n",
        folder = folder.display(),
        temp = nginx_temp(folder),
    )
}

fn nginx_temp(folder: &Path) -> String {
    let kinds = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
    kinds.iter().map(|kind| format!("{kind}_temp_path {}/{kind};\n", folder.display())).collect()
}

fn haproxy(port: u16, backends: &[String]) -> String {
    let servers: String = backends
        .iter()
        .enumerate()
        .map(|(n, addr)| format!("  server s{n} {addr} check inter 500ms\n"))
        .collect();
    format!(
        "global\n  nbthread 1\n  maxconn 4096\n\
         defaults\n  mode http\n  timeout connect 1s\n  timeout client 60s\n  timeout server 60s\n  option forwardfor\n\
         \x20 http-reuse always\n  retries 3\n  option redispatch 1\n  retry-on all-retryable-errors\n\
         frontend in\n  bind 127.0.0.1:{port}\n  unique-id-format %[uuid()]\n  unique-id-header X-Request-Id\n  default_backend web\n\
         backend web\n  balance roundrobin\n{servers}"
    )
}

fn pinned(core: &str, program: &str) -> Command {
    let mut command = Command::new("taskset");
    command.args(["-c", core, program]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::inherit());
    command
}

fn children(pid: u32) -> Result<Vec<u32>> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    Ok(text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect())
}

fn cpu_of(pid: u32) -> Result<Duration> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let after = text.rsplit(')').next().context("no stat")?;
    let fields: Vec<_> = after.split_whitespace().collect();
    let ticks: u64 = [11, 12].iter().filter_map(|at| fields.get(*at)?.parse::<u64>().ok()).sum();
    // The kernel counts hundredths of a second for user space.
    Ok(Duration::from_millis(ticks * 10))
}

fn signal(name: &str, pid: u32) -> Result<()> {
    let status = Command::new("kill").args([&format!("-{name}"), &pid.to_string()]).status()?;
    if status.success() { Ok(()) } else { bail!("no SIG{name} to {pid}") }
}

fn wait_for(port: u16) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(10);
    while Instant::now() < deadline {
        if TcpStream::connect(("127.0.0.1", port)).is_ok() {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    bail!("nothing listens on port {port} after 10 s")
}
