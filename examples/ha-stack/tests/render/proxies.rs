//! The renderers against the real nginx and the real HAProxy, on loopback.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ha_stack::render::Sink;
use ha_stack::render::haproxy::HaproxySocket;
use ha_stack::render::membership::Server;
use ha_stack::render::nginx::{NginxFile, Site};

/// A site that says its name, and takes a while for `/slow`.
async fn site(name: &'static str) -> Server {
    use axum::routing::get;
    let slow = get(move || async move {
        tokio::time::sleep(Duration::from_secs(2)).await;
        name
    });
    let app = axum::Router::new().route("/", get(move || async move { name })).route("/slow", slow);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await });
    Server { id: name.into(), addr, host: "here".into(), draining: false }
}

struct Proxy {
    child: Child,
    url: String,
    http: reqwest::Client,
    folder: tempfile::TempDir,
}

impl Proxy {
    fn start(name: &str, listen: SocketAddr, folder: tempfile::TempDir, args: &[&str]) -> Self {
        let log = std::fs::File::create(folder.path().join("log")).unwrap();
        let child = Command::new(program(name))
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        let http = reqwest::Client::builder().pool_max_idle_per_host(0).build().unwrap();
        Self { child: child.unwrap(), url: format!("http://{listen}"), http, folder }
    }

    async fn get(&self, path: &str) -> String {
        let answer = self.http.get(format!("{}{path}", self.url)).send().await;
        match answer {
            Ok(answer) if answer.status().is_success() => answer.text().await.unwrap(),
            Ok(answer) => answer.status().to_string(),
            Err(error) => error.to_string(),
        }
    }

    /// Who answers, over some requests; asked until it is as wanted, or for 5 s.
    async fn answers(&self, wanted: &[&str]) -> BTreeSet<String> {
        let began = Instant::now();
        loop {
            let mut seen = BTreeSet::new();
            for _ in 0..8 {
                seen.insert(self.get("/").await);
            }
            let good = seen.iter().map(String::as_str).eq(wanted.iter().copied());
            if good || began.elapsed() > Duration::from_secs(5) {
                return seen;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // SIGTERM, so that nginx's master ends its workers.
        if let Some(pid) = rustix::process::Pid::from_raw(i32::try_from(self.child.id()).unwrap()) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let _ = self.child.wait();
    }
}

fn program(name: &str) -> PathBuf {
    let places = ["/usr/sbin", "/usr/local/sbin", "/usr/bin", "/usr/local/bin"];
    let found = places.iter().map(|place| Path::new(place).join(name)).find(|file| file.is_file());
    found.unwrap_or_else(|| panic!("{name} is not installed: apt-get install {name}"))
}

fn free() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// What both proxies must do: take up, drain without breaking what is under way, let go.
async fn members_come_and_go(proxy: &Proxy, sink: &mut impl Sink) {
    let (one, two) = (site("one").await, site("two").await);
    sink.apply(std::slice::from_ref(&one)).await.unwrap();
    assert_eq!(proxy.answers(&["one"]).await, BTreeSet::from(["one".to_owned()]));
    sink.apply(&[one.clone(), two.clone()]).await.unwrap();
    assert_eq!(proxy.answers(&["one", "two"]).await.len(), 2);
    // A request that is under way on a server that leaves is answered by it.
    sink.apply(std::slice::from_ref(&one)).await.unwrap();
    proxy.answers(&["one"]).await;
    let slow = async { proxy.get("/slow").await };
    let leave = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let leaving = Server { draining: true, ..one.clone() };
        sink.apply(&[leaving, two.clone()]).await.unwrap();
        proxy.answers(&["two"]).await
    };
    let (slow, new) = tokio::join!(slow, leave);
    assert_eq!((slow.as_str(), new), ("one", BTreeSet::from(["two".to_owned()])));
    sink.apply(std::slice::from_ref(&two)).await.unwrap();
    sink.apply(&[two.clone(), one.clone()]).await.unwrap();
    assert_eq!(proxy.answers(&["one", "two"]).await.len(), 2, "one that came back takes part");
}

#[tokio::test]
#[ignore = "needs nginx: ./test.sh runs it"]
async fn nginx_follows_the_members_and_keeps_the_last_good_file() {
    let folder = tempfile::tempdir().unwrap();
    let (at, listen) = (folder.path().display().to_string(), free());
    let (conf, file) = (folder.path().join("nginx.conf"), folder.path().join("site.conf"));
    let temp: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .iter()
        .map(|what| format!("{what}_temp_path {at}/{what};\n"))
        .collect();
    let text = format!(
        "pid {at}/pid;\nerror_log {at}/error.log;\nevents {{}}\nhttp {{\naccess_log off;\n{temp}include {at}/site.conf;\n}}\n"
    );
    std::fs::write(&conf, text).unwrap();
    let site = Site { service: "web".into(), listen: listen.to_string(), server_name: "_".into() };
    std::fs::write(&file, ha_stack::render::nginx::render(&site, &[])).unwrap();
    let conf = conf.display().to_string();
    let proxy = Proxy::start("nginx", listen, folder, &["-c", &conf, "-p", &at, "-g", "daemon off;"]);
    let nginx = program("nginx").display().to_string();
    // It is up when it has written who it is.
    let began = Instant::now();
    while !proxy.folder.path().join("pid").is_file() && began.elapsed() < Duration::from_secs(5) {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let reload = format!("{nginx} -c {conf} -p {at} -s reload");
    let mut sink = NginxFile { site, file: file.clone(), reload };
    members_come_and_go(&proxy, &mut sink).await;

    // A reload that fails leaves the file as it was, and nginx as it is.
    let before = std::fs::read_to_string(&file).unwrap();
    let mut broken = NginxFile { reload: "echo no such thing >&2; false".into(), ..sink };
    let error = broken.apply(&[]).await.unwrap_err().to_string();
    assert!(error.contains("no such thing"), "{error}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), before);
    assert_eq!(proxy.answers(&["one", "two"]).await.len(), 2);
}

#[tokio::test]
#[ignore = "needs haproxy: ./test.sh runs it"]
async fn haproxy_follows_the_members_by_its_socket_without_a_reload() {
    let folder = tempfile::tempdir().unwrap();
    let (at, listen) = (folder.path().display().to_string(), free());
    let text = format!(
        "global\nstats socket {at}/sock mode 600 level admin\ndefaults\nmode http\ntimeout connect 1s\ntimeout client 9s\n\
         timeout server 9s\nfrontend users\nbind {listen}\ndefault_backend web\nbackend web\nbalance roundrobin\n\
         server-template web 1-2 127.0.0.1:9 disabled\n"
    );
    std::fs::write(folder.path().join("cfg"), text).unwrap();
    let proxy = Proxy::start("haproxy", listen, folder, &["-f", &format!("{at}/cfg"), "-db"]);
    let mut sink = HaproxySocket { socket: format!("{at}/sock").into(), backend: "web".into() };
    let began = Instant::now();
    while sink.ask("show version").await.is_err() && began.elapsed() < Duration::from_secs(5) {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    members_come_and_go(&proxy, &mut sink).await;

    // More servers than it has room for, and a backend that it has not: said, and nothing changed.
    let third = site("three").await;
    let error =
        sink.apply(&[site("four").await, third.clone(), site("five").await]).await.unwrap_err().to_string();
    assert!(error.contains("server-template"), "{error}");
    let mut other = HaproxySocket { backend: "shop".into(), ..sink.clone() };
    assert!(other.apply(&[third]).await.is_err());
    assert_eq!(proxy.answers(&["one", "two"]).await.len(), 2);
}
