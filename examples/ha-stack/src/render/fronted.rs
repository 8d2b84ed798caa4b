//! A platform whose users go through nginx or HAProxy instead of our gateways: the story told again, to see what is lost.
//!
//! The proxy runs on this machine, rendered from Consul as `ha-stack render` does it. It is registered beside the gateways, with
//! its requests in flight, so that the scaler sees the load.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use async_trait::async_trait;
use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use clap::ValueEnum;
use consul_client::{Check, Registration, ServiceRegistration};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::process::{Child, Command};
use tokio::sync::{Mutex, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::haproxy::{HaproxySocket, in_flight};
use super::membership::Server;
use super::nginx::{NginxFile, Site};
use crate::load;
use crate::platform::{Backend, Decided, Faults, Happening, Platform, Replica, StackSpec, Status};
use crate::progress::Progress;
use crate::roles::labels;

/// What stands in front.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum FrontProxy {
    /// Our own gateways.
    #[default]
    Own,
    /// nginx, reloaded at each change.
    Nginx,
    /// HAProxy, told by its runtime socket.
    Haproxy,
}

impl FrontProxy {
    /// Its name, when it is not ours.
    pub fn foreign(self) -> Option<&'static str> {
        match self {
            Self::Own => None,
            Self::Nginx => Some("nginx"),
            Self::Haproxy => Some("HAProxy"),
        }
    }
}

/// A platform behind a proxy that is not ours.
pub struct Fronted {
    inner: Arc<dyn Platform>,
    proxy: FrontProxy,
    spec: StackSpec,
    consul: consul_client::Client,
    listen: SocketAddr,
    seen: watch::Sender<Vec<Server>>,
    running: Mutex<Option<Running>>,
}

struct Running {
    stop: CancellationToken,
    registration: Registration,
    tasks: Vec<JoinHandle<()>>,
    child: Child,
    /// Configuration, socket, logs.
    _folder: TempDir,
}

/// How the proxy says what it has to do.
#[derive(Clone)]
enum Busy {
    Nginx(reqwest::Client, String),
    Haproxy(HaproxySocket),
}

impl Fronted {
    /// Puts a proxy in front of a platform; nothing is started yet.
    ///
    /// # Errors
    /// When no port of this machine is free.
    pub fn new(
        inner: Arc<dyn Platform>,
        proxy: FrontProxy,
        spec: StackSpec,
        consul: consul_client::Client,
    ) -> Result<Self> {
        let listen = free_address()?;
        Ok(Self {
            inner,
            proxy,
            spec,
            consul,
            listen,
            seen: watch::channel(Vec::new()).0,
            running: Mutex::default(),
        })
    }

    async fn start_proxy(&self, progress: &Progress) -> Result<()> {
        let folder = tempfile::Builder::new()
            .prefix("ha-stack-front-")
            .tempdir()
            .context("no folder for the proxy")?;
        let stop = CancellationToken::new();
        let (consul, service, drain) = (self.consul.clone(), self.spec.service.clone(), self.spec.drain);
        let (seen, told) = (self.seen.clone(), stop.clone());
        let status = free_address()?;
        let (child, busy, follow) = match self.proxy {
            FrontProxy::Haproxy => {
                let mut sink =
                    HaproxySocket { socket: folder.path().join("haproxy.sock"), backend: service.clone() };
                let busy = Busy::Haproxy(sink.clone());
                let conf = folder.path().join("haproxy.cfg");
                std::fs::write(&conf, haproxy_config(&service, self.listen, status, &sink.socket))?;
                let child = spawn("haproxy", &["-f", &conf.to_string_lossy(), "-db"], folder.path())?;
                let follow = tokio::spawn(async move {
                    super::follow(&consul, &service, drain, &mut sink, &seen, &told).await;
                });
                (child, busy, follow)
            }
            FrontProxy::Nginx | FrontProxy::Own => {
                let (conf, file) = (folder.path().join("nginx.conf"), folder.path().join("site.conf"));
                let site = Site {
                    service: service.clone(),
                    listen: self.listen.to_string(),
                    server_name: "_".into(),
                    // Longer than the site takes for anything.
                    read_timeout: Duration::from_secs(5),
                };
                std::fs::write(&file, super::nginx::render(&site, &[]))?;
                std::fs::write(&conf, nginx_config(folder.path(), &file, status))?;
                let args = [
                    "-c",
                    &conf.to_string_lossy(),
                    "-p",
                    &folder.path().to_string_lossy(),
                    "-g",
                    "daemon off;",
                ];
                let child = spawn("nginx", &args, folder.path())?;
                let reload = format!(
                    "{} -c '{}' -p '{}' -s reload",
                    program("nginx")?.display(),
                    conf.display(),
                    folder.path().display()
                );
                let mut sink = NginxFile { site, file, reload };
                let busy =
                    Busy::Nginx(load::client(Duration::from_secs(1))?, format!("http://{status}/status"));
                let follow = tokio::spawn(async move {
                    super::follow(&consul, &service, drain, &mut sink, &seen, &told).await;
                });
                (child, busy, follow)
            }
        };
        let step = progress.step(format!("{} in front, at {}", self.inner_name(), self.site()));
        let (registration, side) = self.tell_load(busy).await?;
        let side = tokio::spawn(side);
        let log = folder.path().join(format!("{}.log", self.program_name()));
        // Kept from here on, so that stopping ends it whatever comes.
        *self.running.lock().await =
            Some(Running { stop, registration, tasks: vec![follow, side], child, _folder: folder });
        let http = load::client(Duration::from_secs(1))?;
        for _ in 0..SITE_TRIES {
            let answer = http.get(format!("{}/healthz", self.site())).send().await;
            if answer.is_ok_and(|answer| answer.status().is_success()) {
                step.done("it answers");
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
        let said = std::fs::read_to_string(&log).unwrap_or_default();
        let said: Vec<&str> = said.lines().rev().take(3).collect();
        bail!(
            "{} does not answer at {}: {}",
            self.inner_name(),
            self.site(),
            said.into_iter().rev().collect::<Vec<_>>().join("; ")
        )
    }

    fn program_name(&self) -> &'static str {
        if self.proxy == FrontProxy::Haproxy { "haproxy" } else { "nginx" }
    }

    fn inner_name(&self) -> &'static str {
        self.proxy.foreign().unwrap_or("nginx")
    }

    /// Says over HTTP how busy the proxy is, where the scaler looks.
    async fn tell_load(
        &self,
        busy: Busy,
    ) -> Result<(Registration, impl Future<Output = ()> + Send + 'static)> {
        let here = address_toward(&self.inner.site())?;
        let listener = TcpListener::bind((here, 0)).await.context("no port for the proxy's load")?;
        let port = listener.local_addr()?.port();
        let state = (busy, self.seen.subscribe());
        let app = Router::new()
            .route("/healthz", get(|| async { "ready\n" }))
            .route("/load", get(load_of))
            .with_state(state);
        let check = Check::http(format!("http://{here}:{port}/healthz"))
            .interval(Duration::from_secs(1))
            .timeout(Duration::from_secs(1))
            .deregister_critical_after(Duration::from_secs(60));
        let registration = ServiceRegistration::new(labels::GATEWAYS, FRONT_ID)
            .address(here.to_string())
            .port(self.listen.port())
            .meta(labels::META_ADMIN_PORT, port.to_string())
            .check(check);
        let kept = self.consul.agent().keep_registered(registration).await;
        let kept = kept.context("the proxy can't be registered in Consul")?;
        let tell = async move {
            if let Err(error) = axum::serve(listener, app).await {
                tracing::warn!(%error, "the proxy's load is no longer told");
            }
        };
        Ok((kept, tell))
    }
}

async fn load_of(State((busy, seen)): State<(Busy, watch::Receiver<Vec<Server>>)>) -> Json<Value> {
    let count = match &busy {
        Busy::Haproxy(socket) => {
            socket.ask("show stat").await.map(|stat| in_flight(&stat, &socket.backend)).unwrap_or(0)
        }
        Busy::Nginx(http, url) => match http.get(url).send().await {
            Ok(answer) => answer.text().await.map(|text| writing(&text)).unwrap_or(0),
            Err(_) => 0,
        },
    };
    let endpoints: Vec<Value> = seen
        .borrow()
        .iter()
        .map(|server| {
            json!({"id": server.id, "addr": server.addr.to_string(), "host": server.host, "in_flight": 0, "why": "",
                   "state": if server.draining { "draining" } else { "ready" }})
        })
        .collect();
    Json(json!({"in_flight": count, "rate_per_second": 0.0, "latency_p95": null, "endpoints": endpoints}))
}

/// Requests that nginx works on, its own status left out: the number after `Writing:` in `stub_status`.
fn writing(status: &str) -> u64 {
    let after = status.split("Writing:").nth(1).unwrap_or_default();
    let number = after.split_whitespace().next().and_then(|n| n.parse::<u64>().ok());
    number.unwrap_or(0).saturating_sub(1)
}

#[async_trait]
impl Platform for Fronted {
    fn name(&self) -> &'static str {
        match (self.inner.name(), self.proxy) {
            ("engines", FrontProxy::Haproxy) => "engines behind haproxy",
            ("engines", _) => "engines behind nginx",
            (_, FrontProxy::Haproxy) => "swarm behind haproxy",
            _ => "swarm behind nginx",
        }
    }

    async fn start(&self, progress: &Progress) -> Result<()> {
        self.inner.start(progress).await?;
        self.start_proxy(progress).await
    }

    async fn stop(&self, progress: &Progress) -> Result<()> {
        if let Some(mut running) = self.running.lock().await.take() {
            running.stop.cancel();
            running.tasks.iter().for_each(JoinHandle::abort);
            if let Err(error) = running.registration.deregister().await {
                tracing::warn!(%error, "the proxy could not be deregistered; Consul's check will find it gone");
            }
            // SIGTERM first: the master ends its workers.
            if let Some(pid) =
                running.child.id().and_then(|id| rustix::process::Pid::from_raw(id.try_into().ok()?))
            {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
            }
            if tokio::time::timeout(Duration::from_secs(5), running.child.wait()).await.is_err() {
                let _ = running.child.kill().await;
            }
        }
        self.inner.stop(progress).await
    }

    fn site(&self) -> String {
        format!("http://{}", self.listen)
    }

    async fn replicas(&self) -> Result<Vec<Replica>> {
        let seen = self.seen.borrow();
        let replicas = seen.iter().map(|server| Replica {
            instance: server.id.clone(),
            host: server.host.clone(),
            address: server.addr.to_string(),
            usable: !server.draining,
            state: if server.draining { "draining" } else { "ready" }.into(),
            ..Replica::default()
        });
        Ok(replicas.collect())
    }

    async fn status(&self) -> Result<Status> {
        Ok(Status { replicas: self.replicas().await?, ..self.inner.status().await? })
    }

    async fn scale(&self, replicas: u32, hold: Duration) -> Result<()> {
        self.inner.scale(replicas, hold).await
    }

    async fn release(&self) -> Result<()> {
        self.inner.release().await
    }

    async fn decisions(&self) -> Result<Vec<Decided>> {
        self.inner.decisions().await
    }

    async fn backends(&self) -> Vec<Backend> {
        self.inner.backends().await
    }

    async fn events(&self) -> Result<Vec<Happening>> {
        self.inner.events().await
    }

    async fn drain(&self, host: &str, on: bool) -> Result<()> {
        self.inner.drain(host, on).await
    }

    fn faults(&self) -> Option<&dyn Faults> {
        self.inner.faults()
    }
}

fn nginx_config(folder: &Path, site: &Path, status: SocketAddr) -> String {
    let folder = folder.display();
    format!(
        "pid {folder}/nginx.pid;\nerror_log {folder}/error.log;\nworker_processes 2;\nevents {{ worker_connections 1024; }}\n\
         http {{\n    access_log off;\n    client_body_temp_path {folder}/body;\n    proxy_temp_path {folder}/proxy;\n    \
         fastcgi_temp_path {folder}/fastcgi;\n    uwsgi_temp_path {folder}/uwsgi;\n    scgi_temp_path {folder}/scgi;\n    \
         include {};\n    server {{ listen {status}; location /status {{ stub_status; }} }}\n}}\n",
        site.display()
    )
}

/// What was under way on a host that has lost its power is given up after three unanswered probes of TCP, or three seconds after
/// it was sent and not received (`tcp-ut`, which HAProxy 2.6 does not take over from `default-server`), and sent again. Where
/// HAProxy's checks find nobody up it would refuse at once: the server that stands by says 503 after a second instead, and the
/// request is tried again until Consul's word of another server comes.
fn haproxy_config(service: &str, listen: SocketAddr, standby: SocketAddr, socket: &Path) -> String {
    format!(
        "global
    stats socket {} mode 600 level admin
defaults
    mode http
    timeout connect 1s
    timeout client 60s
    timeout server 60s
    timeout queue 20s
    option redispatch 1
    retries 20
    retry-on conn-failure empty-response response-timeout 503
    option srvtcpka
    srvtcpka-idle 1s
    srvtcpka-intvl 1s
    srvtcpka-cnt 3
frontend users
    bind {listen}
    http-request set-header X-Request-ID %[uuid()]
    default_backend {service}
backend {service}
    balance leastconn
    option httpchk GET /healthz
    default-server check inter 500ms fall 2 rise 1
    server-template {service} 1-20 127.0.0.1:9 disabled tcp-ut 3s
    server standby {standby} backup no-check
frontend standby
    bind {standby}
    timeout tarpit 1s
    http-request tarpit deny_status 503
",
        socket.display()
    )
}

fn spawn(name: &str, args: &[&str], folder: &Path) -> Result<Child> {
    let log = std::fs::File::create(folder.join(format!("{name}.log")))?;
    let mut command = Command::new(program(name)?);
    command.args(args).current_dir(folder).stdin(std::process::Stdio::null()).kill_on_drop(true);
    command.stdout(log.try_clone()?).stderr(log);
    command.spawn().with_context(|| format!("{name} can't be started"))
}

/// The program; it lives where a person's PATH often does not look.
fn program(name: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders =
        std::env::split_paths(&path).chain(["/usr/sbin", "/usr/local/sbin", "/sbin"].map(PathBuf::from));
    let mut found = folders.map(|folder| folder.join(name)).filter(|file| file.is_file());
    found.next().with_context(|| format!("{name} is not installed: it comes with the package {name}"))
}

fn free_address() -> Result<SocketAddr> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").context("no port is free on loopback")?;
    Ok(listener.local_addr()?)
}

/// The address of this machine that the hosts of the platform reach.
fn address_toward(site: &str) -> Result<IpAddr> {
    let host = site.trim_start_matches("http://");
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    // Nothing is sent: the kernel only says which way it would go.
    socket.connect(host).with_context(|| format!("no way leads to {site}"))?;
    Ok(socket.local_addr()?.ip())
}

const FRONT_ID: &str = "ha-gateway-front";
const SITE_TRIES: usize = 80;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nginx_says_how_many_requests_it_works_on() {
        let status = "Active connections: 5 \nserver accepts handled requests\n 9 9 12 \nReading: 0 Writing: 4 Waiting: 1 \n";
        assert_eq!(writing(status), 3);
        assert_eq!(writing("nonsense"), 0);
    }

    /// Without it a request that was never received hangs until the dead host is back.
    #[test]
    fn haproxys_servers_have_a_limit_for_what_is_not_received() {
        let addr = "127.0.0.1:1".parse().unwrap();
        let conf = haproxy_config("web", addr, addr, Path::new("s"));
        let template = conf.lines().find(|line| line.trim_start().starts_with("server-template"));
        assert!(template.is_some_and(|line| line.contains(" tcp-ut ")), "{conf}");
    }
}
