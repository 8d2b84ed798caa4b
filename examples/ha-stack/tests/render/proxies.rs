//! The renderers against the real nginx and the real HAProxy, on loopback.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use consul_client::{Check, ServiceRegistration};
use ha_stack::render::Sink;
use ha_stack::render::haproxy::HaproxySocket;
use ha_stack::render::membership::Server;
use ha_stack::render::nginx::{NginxFile, Site};

use crate::gateway::{consul, eventually, start};
use crate::ports::free_address;

/// A site that says its name, and takes a while for `/slow`.
async fn site(name: &'static str) -> Server {
    ending_site(name).await.0
}

/// The same, and its end.
async fn ending_site(name: &'static str) -> (Server, tokio::task::JoinHandle<std::io::Result<()>>) {
    use axum::routing::get;
    let slow = get(move || async move {
        tokio::time::sleep(Duration::from_secs(2)).await;
        name
    });
    let app = axum::Router::new().route("/", get(move || async move { name })).route("/slow", slow);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let serving = tokio::spawn(async move { axum::serve(listener, app).await });
    (Server { id: name.into(), addr, host: "here".into(), draining: false }, serving)
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

    /// Who answers, over some requests; asked until it is as wanted three times in a row, or for 5 s. Once is not enough: an nginx
    /// worker that is told to end takes connections for a moment yet.
    async fn answers(&self, wanted: &[&str]) -> BTreeSet<String> {
        let (began, mut in_a_row) = (Instant::now(), 0);
        loop {
            let mut seen = BTreeSet::new();
            for _ in 0..8 {
                seen.insert(self.get("/").await);
            }
            let good = seen.iter().map(String::as_str).eq(wanted.iter().copied());
            in_a_row = if good { in_a_row + 1 } else { 0 };
            if in_a_row == 3 || began.elapsed() > Duration::from_secs(5) {
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

/// nginx with a rendered file of nobody.
fn nginx() -> (Proxy, Site, PathBuf, String) {
    let folder = tempfile::tempdir().unwrap();
    let (at, listen) = (folder.path().display().to_string(), free_address());
    let (conf, file) = (folder.path().join("nginx.conf"), folder.path().join("site.conf"));
    let temp: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .iter()
        .map(|what| format!("{what}_temp_path {at}/{what};\n"))
        .collect();
    let text = format!(
        "pid {at}/pid;\nerror_log {at}/error.log;\nevents {{}}\nhttp {{\naccess_log off;\n{temp}include {at}/site.conf;\n}}\n"
    );
    std::fs::write(&conf, text).unwrap();
    let read_timeout = Duration::from_secs(3);
    let site =
        Site { service: "web".into(), listen: listen.to_string(), server_name: "_".into(), read_timeout };
    std::fs::write(&file, ha_stack::render::nginx::render(&site, &[])).unwrap();
    let conf = conf.display().to_string();
    let proxy = Proxy::start("nginx", listen, folder, &["-c", &conf, "-p", &at, "-g", "daemon off;"]);
    let nginx = program("nginx").display().to_string();
    // It is up when it has written who it is.
    let began = Instant::now();
    while !proxy.folder.path().join("pid").is_file() && began.elapsed() < Duration::from_secs(5) {
        std::thread::sleep(Duration::from_millis(50));
    }
    let reload = format!("{nginx} -c {conf} -p {at} -s reload");
    (proxy, site, file, reload)
}

#[tokio::test]
#[ignore = "needs nginx: ./test.sh runs it"]
async fn nginx_follows_the_members_and_keeps_the_last_good_file() {
    let (proxy, site, file, reload) = nginx();
    let mut sink = NginxFile { site, file: file.clone(), reload };
    members_come_and_go(&proxy, &mut sink).await;

    // A server that takes requests and stays silent costs a user the read timeout, once: another one is asked.
    let (one, two) = (self::site("one").await, self::site("two").await);
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let hung = Server { id: "hung".into(), addr: silent.local_addr().unwrap(), ..one.clone() };
    sink.apply(&[hung, one.clone(), two.clone()]).await.unwrap();
    for _ in 0..6 {
        let answer = proxy.get("/").await;
        assert!(["one", "two"].contains(&answer.as_str()), "{answer}");
    }
    sink.apply(&[one, two]).await.unwrap();

    // A reload that fails leaves the file as it was, and nginx as it is.
    let before = std::fs::read_to_string(&file).unwrap();
    let mut broken = NginxFile { reload: "echo no such thing >&2; false".into(), ..sink };
    let error = broken.apply(&[]).await.unwrap_err().to_string();
    assert!(error.contains("no such thing"), "{error}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), before);
    assert_eq!(proxy.answers(&["one", "two"]).await.len(), 2);
}

/// HAProxy with room for two.
async fn haproxy() -> (Proxy, HaproxySocket) {
    let folder = tempfile::tempdir().unwrap();
    let (at, listen) = (folder.path().display().to_string(), free_address());
    let text = format!(
        "global\nstats socket {at}/sock mode 600 level admin\ndefaults\nmode http\ntimeout connect 1s\ntimeout client 9s\n\
         timeout server 9s\nfrontend users\nbind {listen}\ndefault_backend web\nbackend web\nbalance roundrobin\n\
         server-template web 1-2 127.0.0.1:9 disabled\nserver sorry {listen} backup\n"
    );
    std::fs::write(folder.path().join("cfg"), text).unwrap();
    let proxy = Proxy::start("haproxy", listen, folder, &["-f", &format!("{at}/cfg"), "-db"]);
    let sink = HaproxySocket { socket: format!("{at}/sock").into(), backend: "web".into() };
    let began = Instant::now();
    while sink.ask("show version").await.is_err() && began.elapsed() < Duration::from_secs(5) {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    (proxy, sink)
}

#[tokio::test]
#[ignore = "needs haproxy: ./test.sh runs it"]
async fn haproxy_follows_the_members_by_its_socket_without_a_reload() {
    let (proxy, mut sink) = haproxy().await;
    members_come_and_go(&proxy, &mut sink).await;
    let state = sink.ask("show servers state web").await.unwrap();
    let sorry = state.lines().find(|line| line.contains(" sorry ")).unwrap().to_owned();
    assert_eq!(sorry.split(' ').nth(6), Some("0"), "a server that is none of ours is left alone: {sorry}");

    // More servers than it has room for, and a backend that it has not: said, and nothing changed.
    let third = site("three").await;
    let error =
        sink.apply(&[site("four").await, third.clone(), site("five").await]).await.unwrap_err().to_string();
    assert!(error.contains("server-template"), "{error}");
    let mut other = HaproxySocket { backend: "shop".into(), ..sink.clone() };
    assert!(other.apply(&[third]).await.is_err());
    assert_eq!(proxy.answers(&["one", "two"]).await.len(), 2);
}

/// `ha-stack render` itself, with a real Consul: who is registered and passes serves; who is taken out, or fails its check, does
/// not; and without Consul all stays as it is.
async fn the_program_follows_consul(proxy: &Proxy, flags: &[String]) {
    let folder = tempfile::tempdir().unwrap();
    let (agent, address, client) = consul(folder.path()).await;
    let mut render = Command::new(env!("CARGO_BIN_EXE_ha-stack"));
    render.args(["render", "--service", "web", "--drain", "1", "--consul", &address]).args(flags);
    let _render = start(&mut render);
    let one = site("one").await;
    let (two, two_ends) = ending_site("two").await;
    for server in [&one, &two] {
        let check = Check::http(format!("http://{}/", server.addr)).interval(Duration::from_millis(500));
        let web = ServiceRegistration::new("web", &server.id).address("127.0.0.1").port(server.addr.port());
        client.agent().register(&web.check(check)).await.unwrap();
    }
    let serve = async |names: &[&str]| {
        let wanted: BTreeSet<String> = names.iter().map(|name| (*name).to_owned()).collect();
        eventually(&format!("{wanted:?} answer"), async || proxy.answers(names).await == wanted).await;
    };
    serve(&["one", "two"]).await;
    client.agent().deregister("one").await.unwrap();
    serve(&["two"]).await;
    let check = Check::http(format!("http://{}/", one.addr)).interval(Duration::from_millis(500));
    let web = ServiceRegistration::new("web", "one").address("127.0.0.1").port(one.addr.port()).check(check);
    client.agent().register(&web).await.unwrap();
    serve(&["one", "two"]).await;
    // It dies without a word to Consul.
    two_ends.abort();
    serve(&["one"]).await;
    drop(agent);
    tokio::time::sleep(Duration::from_secs(3)).await;
    serve(&["one"]).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs nginx and consul: ./test.sh runs it"]
async fn the_program_keeps_nginx_in_step_with_consul() {
    let (proxy, _, file, reload) = nginx();
    let listen = proxy.url.trim_start_matches("http://").to_owned();
    let flags = ["--nginx".to_owned(), file.display().to_string(), "--reload".into(), reload];
    the_program_follows_consul(&proxy, &[&flags[..], &["--listen".into(), listen]].concat()).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs haproxy and consul: ./test.sh runs it"]
async fn the_program_keeps_haproxy_in_step_with_consul() {
    let (proxy, sink) = haproxy().await;
    the_program_follows_consul(&proxy, &["--haproxy".into(), sink.socket.display().to_string()]).await;
}
