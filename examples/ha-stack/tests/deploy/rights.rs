//! Each role of the reference deployment does its work with its own rights, and is refused what is not its work: at a real
//! Consul and a real Redis, with the secrets that a deploy makes.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use consul_client::{Check, Client, NewToken, Policy, ServiceRegistration};
use ha_stack::deploy::secrets;
use ha_stack::roles::access::{self, Tokens};

use crate::gateway::{Ending, consul_with, eventually, start};
use crate::ports::free_address;

/// A Consul that denies by default, with policies and tokens as the keeper makes them.
struct Kept {
    // Ends before its folder goes.
    _agent: Ending,
    address: String,
    nobody: Client,
    tokens: Tokens,
    made: secrets::Made,
    _folder: tempfile::TempDir,
}

impl Kept {
    async fn start(management: Option<&str>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let made = secrets::consul(management, rand_bytes);
        let file = |name: &str| folder.path().join(name);
        std::fs::write(file("acl.json"), &made["consul-acl"]).unwrap();
        std::fs::write(file("tokens"), &made["consul-tokens"]).unwrap();
        let acl = ["-config-file".to_owned(), file("acl.json").display().to_string()];
        let (agent, address, nobody) = consul_with(&file("data"), &acl).await;
        let tokens = Tokens::read(&file("tokens")).unwrap();
        eventually("all is made", async || access::ensure(&nobody, &tokens).await.is_ok()).await;
        Self { _agent: agent, address, nobody, tokens, made, _folder: folder }
    }
}

#[tokio::test]
#[ignore = "needs consul: ./test.sh runs it"]
async fn each_role_may_do_its_own_work_in_consul_and_nothing_else() {
    let kept = Kept::start(None).await;
    let Kept { address, nobody, tokens, made, .. } = &kept;
    assert_eq!(access::ensure(nobody, tokens).await.unwrap(), Vec::<String>::new(), "nothing is left to do");

    let role = |name: &str| {
        let token = &made[format!("consul-{name}").as_str()];
        Client::builder().address(address).token(token).build().unwrap()
    };
    let [gateway, registrar, scaler] = ["gateway", "registrar", "scaler"].map(role);
    let service = |name: &str| {
        let check = Check::http("http://127.0.0.1:1/healthz").interval(Duration::from_secs(60));
        ServiceRegistration::new(name, format!("{name}.1")).port(8080).check(check)
    };

    // What each does all day.
    gateway.agent().self_info().await.unwrap();
    gateway.agent().register(&service("ha-gateway")).await.unwrap();
    registrar.agent().register(&service("web")).await.unwrap();
    assert!(registrar.agent().services().await.unwrap().contains_key("web.1"));
    registrar.kv().put("ha-stack/routes/web", "{}").await.unwrap();
    assert!(gateway.kv().get("ha-stack/routes/web").await.unwrap().value.is_some());
    let election = scaler.election("ha-stack/scaler/web/leader").campaign().unwrap();
    let key = "ha-stack/scaler/web/leader";
    eventually("the scaler leads", async || {
        scaler.kv().get(key).await.is_ok_and(|read| read.value.is_some_and(|pair| pair.session.is_some()))
    })
    .await;
    scaler.kv().put("ha-stack/scaler/web/state", "{}").await.unwrap();
    for reader in [&gateway, &scaler] {
        // Written to the catalog by the agent, with a token of its own.
        eventually("the services are found", async || {
            let gateways = reader.health().service("ha-gateway").list().await.unwrap().value;
            let webs = reader.health().service("web").list().await.unwrap().value;
            (gateways.len(), webs.len()) == (1, 1)
        })
        .await;
    }

    // What none of them may do.
    for (name, one) in
        [("gateway", &gateway), ("registrar", &registrar), ("scaler", &scaler), ("nobody", nobody)]
    {
        let refused = [
            one.kv().put("elsewhere", "x").await.unwrap_err(),
            one.acl().create_token(&NewToken::default()).await.unwrap_err(),
            one.acl().create_policy(&Policy::new("all", "operator = \"write\"")).await.unwrap_err(),
            one.acl().tokens().await.unwrap_err(),
        ];
        for error in refused {
            assert!(error.is_denied(), "{name}: {error}");
        }
    }
    // What is another's.
    for (what, refused) in [
        ("the gateway registers a replica", gateway.agent().register(&service("web")).await),
        ("the gateway writes a route", gateway.kv().put("ha-stack/routes/x", "x").await.map(drop)),
        ("the gateway writes the scaler's state", gateway.kv().put("ha-stack/scaler/x", "x").await.map(drop)),
        ("the registrar registers a gateway", registrar.agent().register(&service("ha-gateway")).await),
        ("the registrar takes the lock", registrar.kv().put(key, "x").await.map(drop)),
        ("the scaler registers a replica", scaler.agent().register(&service("web")).await),
        ("the scaler removes one", scaler.agent().deregister("web.1").await),
        ("the scaler writes a route", scaler.kv().put("ha-stack/routes/web", "x").await.map(drop)),
        ("nobody removes one", nobody.agent().deregister("web.1").await),
    ] {
        let error = refused.expect_err(what);
        assert!(error.is_denied(), "{what}: {error}");
    }
    drop(election);
}

#[tokio::test]
#[ignore = "needs consul: ./test.sh runs it"]
async fn a_policy_that_somebody_widened_is_corrected() {
    let kept = Kept::start(Some("5d1f8a3e-6a3b-4f53-9c1b-0f5f5a4d2c11")).await;
    let (nobody, tokens) = (&kept.nobody, &kept.tokens);
    let person = nobody.with_token("5d1f8a3e-6a3b-4f53-9c1b-0f5f5a4d2c11").unwrap().acl();
    let list = person.policies().await.unwrap().value;
    let mut policy = list.into_iter().find(|policy| policy.name == "ha-stack-gateway").unwrap();
    policy.rules = "operator = \"write\"".into();
    person.update_policy(&policy).await.unwrap();
    let done = access::ensure(nobody, tokens).await.unwrap();
    assert_eq!(done, ["policy ha-stack-gateway: corrected"]);
    assert!(person.policy(&policy.id).await.unwrap().rules.contains("service \"ha-gateway\""));
}

/// A Redis or a Sentinel with the files that a container would see as secrets.
fn server(folder: &Path, port: u16, more: &str, sentinel: bool) -> Ending {
    let login = if sentinel { "sentinel-login" } else { "redis-replica" };
    let data = folder.join(port.to_string());
    std::fs::create_dir_all(&data).unwrap();
    // As in the images, at another place.
    let text = if sentinel {
        include_str!("../../images/redis/secure-sentinel.conf").replace("26379", &port.to_string())
    } else {
        include_str!("../../images/redis/secure.conf").replace("6379", &port.to_string())
    };
    let secure = data.join("secure.conf");
    std::fs::write(&secure, text.replace("/run/secrets", &folder.display().to_string())).unwrap();
    let config = data.join("redis.conf");
    std::fs::write(&config, format!("bind 127.0.0.1\ndir {}\nlogfile log\n{more}", data.display())).unwrap();
    let mut command = Command::new("redis-server");
    command.arg(&config).args(sentinel.then_some("--sentinel"));
    command.arg("--include").arg(&secure).arg("--include").arg(folder.join(login));
    start(command.current_dir(&data))
}

/// Until it succeeds; what it failed with last, and what the servers say, when it does not.
async fn attempt<T, E: std::fmt::Display>(
    what: &str,
    said: &impl Fn() -> String,
    mut once: impl AsyncFnMut() -> Result<T, E>,
) -> T {
    let began = Instant::now();
    loop {
        match once().await {
            Ok(value) => return value,
            Err(error) => assert!(began.elapsed() < LONG, "not in time: {what}: {error}; {}", said()),
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// For servers that begin while a machine does other things.
const LONG: Duration = Duration::from_secs(60);

/// What a server answers to one command, after this log-in.
fn answer(folder: &Path, port: u16, login: Option<(&str, &str)>, command: &[&str]) -> String {
    let mut tool = Command::new("redis-cli");
    tool.args(["--tls", "--no-auth-warning", "-p", &port.to_string(), "--cacert"])
        .arg(folder.join("redis-ca"));
    // The certificate is for the names on the stack's network.
    tool.args(["--sni", "redis-1", "-h", "127.0.0.1"]);
    if let Some((user, password)) = login {
        tool.args(["--user", user]).env("REDISCLI_AUTH", password);
    }
    let out = tool.args(command).output().expect("redis-cli can't be run; install the package redis-tools");
    let said = [out.stdout, out.stderr].concat();
    String::from_utf8_lossy(&said).trim().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs redis-server: ./test.sh runs it"]
async fn each_user_of_redis_may_do_its_own_work_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let made = secrets::redis(rand_bytes).unwrap();
    // All of them before the first server reads one: a file that is written again is empty for a moment.
    for (name, content) in &made {
        std::fs::write(folder.join(name), content).unwrap();
    }
    let [master, replica, watcher, other]: [u16; 4] = std::array::from_fn(|_| free_address().port());
    let _master = server(folder, master, "", false);
    let follow = format!("replicaof 127.0.0.1 {master}\nrepl-diskless-sync-delay 0\n");
    let _replica = server(folder, replica, &follow, false);
    let monitor = format!("sentinel monitor main 127.0.0.1 {master} 1\n");
    let sentinels = [watcher, other].map(|port| server(folder, port, &monitor, true));
    let said = || {
        let log = |port: u16| std::fs::read_to_string(folder.join(format!("{port}/log")));
        [master, replica, watcher, other]
            .map(|port| format!("{port}: {}", log(port).unwrap_or_default()))
            .join("\n")
    };

    // The site, by the URL that it gets: all that session-store promises, with two copies of each change.
    let url = made["redis-url"].trim();
    let password = url.split([':', '@']).nth(2).unwrap();
    let (hosts, ca) = (format!("127.0.0.1:{watcher},127.0.0.1:{other}"), folder.join("redis-ca"));
    let url = url.replace("sentinel-1:26379,sentinel-2:26379,sentinel-3:26379", &hosts);
    let url = url.replace("/run/secrets/redis-ca", &format!("{}&server-name=redis-1", ca.display()));
    assert!(url.starts_with("rediss+sentinel://web:") && url.contains(&hosts), "the form of the URL");
    let store = attempt("the site finds its master", &said, async || {
        let store = session_store::connect(&url).await?;
        store.health().await.map(|()| store)
    })
    .await;
    let web = Some(("web", password));
    // The replica follows by its own password, and is seen to.
    eventually("the replica follows", async || {
        answer(folder, master, web, &["info", "replication"]).contains("state=online")
    })
    .await;
    session_store::conformance::run(store).await;

    let refused = |port: u16, login: Option<(&str, &str)>, command: &[&str]| {
        let said = answer(folder, port, login, command);
        let who = login.map_or("nobody", |(user, _)| user);
        assert!(said.contains("NOPERM") || said.contains("NOAUTH"), "{who} {command:?}: {said}");
    };
    for command in [
        &["flushall"][..],
        &["config", "get", "dir"],
        &["config", "rewrite"],
        &["keys", "*"],
        &["acl", "list"],
        &["get", "elsewhere"],
        &["replicaof", "no", "one"],
        &["publish", "__sentinel__:hello", "x"],
        &["eval", "return redis.call('get', KEYS[1])", "1", "elsewhere"],
        &["shutdown"],
    ] {
        refused(master, web, command);
        refused(master, None, command);
    }
    let word = |name: &str, user: &str| {
        let of = made[name].lines().find(|line| line.contains(user)).unwrap();
        of.split_whitespace().last().unwrap().to_owned()
    };
    let replica_password = word("redis-replica", "masterauth");
    let sentinel_password = word("sentinel-login", "auth-pass");
    for (user, password) in [("replica", &replica_password), ("sentinel", &sentinel_password)] {
        assert_eq!(answer(folder, master, Some((user, password)), &["ping"]), "PONG");
        for command in
            [&["get", "session:x"][..], &["set", "session:x", "y"], &["flushall"], &["acl", "list"]]
        {
            refused(master, Some((user, password)), command);
        }
    }
    refused(master, Some(("sentinel", &sentinel_password)), &["config", "get", "masterauth"]);
    // The Sentinels' own users.
    for command in [
        &["sentinel", "failover", "main"][..],
        &["sentinel", "set", "main", "quorum", "9"],
        &["sentinel", "remove", "main"],
        &["shutdown"],
    ] {
        refused(watcher, web, command);
        refused(watcher, None, command);
    }
    let wrong = answer(folder, master, Some(("web", "guess")), &["ping"]);
    assert!(wrong.contains("WRONGPASS"), "{wrong}");
    // And nobody speaks to it in the clear.
    let plain = plain_ping(SocketAddr::from(([127, 0, 0, 1], master)));
    assert!(!plain.contains("PONG") && !plain.contains("NOAUTH"), "{plain}");
    drop(sentinels);
}

/// Redis reads its own file as the default user, who may do nothing here in the name of others.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs redis-server: ./test.sh runs it"]
async fn what_the_site_wrote_is_there_when_redis_starts_again() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let made = secrets::redis(rand_bytes).unwrap();
    for (name, content) in &made {
        std::fs::write(folder.join(name), content).unwrap();
    }
    let password = made["redis-url"].split([':', '@']).nth(2).unwrap();
    let web = Some(("web", password));
    let port = free_address().port();
    let answers = async || {
        eventually("it answers", async || answer(folder, port, web, &["ping"]) == "PONG").await;
    };
    let kept = "appendonly yes\nappendfsync always\n";
    let before = server(folder, port, kept, false);
    answers().await;
    // Several keys at once, as session-store's scripts write them: a transaction in the file.
    let script = "redis.call('set', KEYS[1], 'ada') return redis.call('zadd', KEYS[2], 1, 'one')";
    let written = answer(folder, port, web, &["eval", script, "2", "session:one", "session-user:ada"]);
    assert_eq!(written, "1");
    drop(before);
    let _after = server(folder, port, kept, false);
    answers().await;
    assert_eq!(answer(folder, port, web, &["get", "session:one"]), "ada");
}

fn plain_ping(server: SocketAddr) -> String {
    let mut stream = std::net::TcpStream::connect(server).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    stream.write_all(b"PING\r\n").unwrap();
    let mut said = [0; 64];
    // An alert of TLS, the end, or nothing.
    let read = std::io::Read::read(&mut stream, &mut said).unwrap_or(0);
    String::from_utf8_lossy(&said[..read]).into_owned()
}

/// For a test any bytes do that no other test has.
fn rand_bytes() -> [u8; 32] {
    rand::random()
}

#[test]
fn a_deploy_shows_no_secret_when_it_is_told_a_bad_token() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ha-stack"));
    command.args(["deploy", "--docker-host", "tcp://127.0.0.1:1"]).env("CONSUL_HTTP_TOKEN", "hunter2");
    let out = command.stdin(Stdio::null()).output().unwrap();
    let said = [out.stdout, out.stderr].concat();
    assert!(!out.status.success() && !String::from_utf8_lossy(&said).contains("hunter2"));
}
