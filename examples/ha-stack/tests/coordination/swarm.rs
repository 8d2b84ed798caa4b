//! What scalers agree on in the Swarm itself, against engines that keep the managers' rule: an update needs the version
//! that was read.

#[path = "../../../../swarm-client/tests/engine/support.rs"]
#[allow(dead_code, reason = "swarm-client's own tests use the rest")]
mod engine;

use std::collections::BTreeMap;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use autoscaler::controller::{Lease, Register, RegisterLease, Term};
use axum::routing::{get, post};
use axum::{Json, Router};
use engine::{Asked, CONFLICT, Engine, NO_LEADER, Reply, version};
use ha_stack::roles::coordination::Coordination;
use ha_stack::roles::leader::Leading;
use ha_stack::roles::swarm_register::SwarmRegister;
use serde_json::{Value, json};
use swarm_client::Client;

/// What the managers keep, behind any number of engines.
#[derive(Default)]
struct Managers {
    /// The configs by name: version and spec.
    configs: Mutex<Kept>,
    /// The services likewise. Each has its replicas as running tasks on the one node there is.
    services: Mutex<Kept>,
    writes: Mutex<u64>,
}

type Kept = BTreeMap<String, (u64, Value)>;

impl Managers {
    fn answer(&self, asked: &Asked) -> Reply {
        let mut configs = self.configs.lock().unwrap();
        let mut writes = self.writes.lock().unwrap();
        let line = asked.line();
        let words: Vec<&str> = line.split(['/', ' ']).filter(|word| !word.is_empty()).collect();
        // An id is the name with `id-` before it.
        let called = |word: &str| word.strip_prefix("id-").unwrap_or(word).to_owned();
        match words[..] {
            ["GET", "configs", name] => match configs.get(&called(name)) {
                Some((version, spec)) => Reply::ok(
                    json!({"ID": format!("id-{}", called(name)), "Version": {"Index": version}, "Spec": spec}),
                ),
                None => Reply::refuse(404, &format!("config {name} not found")),
            },
            ["POST", "configs", "create"] => {
                let name = asked.body["Name"].as_str().unwrap().to_owned();
                if configs.contains_key(&name) {
                    return Reply::refuse(
                        409,
                        "rpc error: code = AlreadyExists desc = config already exists",
                    );
                }
                *writes += 1;
                configs.insert(name.clone(), (*writes, asked.body.clone()));
                Reply::Json(201, json!({"ID": format!("id-{name}")}))
            }
            ["POST", "configs", id, "update"] => {
                let Some(kept) = configs.get_mut(&called(id)) else { return Reply::refuse(404, "not found") };
                if version(asked) != kept.0 {
                    return Reply::refuse(500, CONFLICT);
                }
                assert_eq!(kept.1["Data"], asked.body["Data"], "the managers refuse any other change");
                *writes += 1;
                *kept = (*writes, asked.body.clone());
                Reply::ok(Value::Null)
            }
            ["DELETE", "configs", id] => match configs.remove(&called(id)) {
                Some(_) => Reply::ok(Value::Null),
                None => Reply::refuse(404, "not found"),
            },
            ["GET", "services"] => {
                let services = self.services.lock().unwrap();
                Reply::ok(services.iter().map(|(name, kept)| service(name, kept)).collect())
            }
            ["GET", "services", name] => {
                let (name, services) = (called(name), self.services.lock().unwrap());
                match services.get(&name) {
                    Some(kept) => Reply::ok(service(&name, kept)),
                    None => Reply::refuse(404, &format!("service {name} not found")),
                }
            }
            ["POST", "services", id, "update"] => {
                let mut services = self.services.lock().unwrap();
                let Some(kept) = services.get_mut(&called(id)) else {
                    return Reply::refuse(404, "not found");
                };
                if version(asked) != kept.0 {
                    return Reply::refuse(500, CONFLICT);
                }
                *writes += 1;
                *kept = (*writes, asked.body.clone());
                Reply::ok(json!({"Warnings": null}))
            }
            ["GET", "tasks"] => {
                let services = self.services.lock().unwrap();
                Reply::ok(services.iter().flat_map(|(name, (_, spec))| tasks(name, spec)).collect())
            }
            ["GET", "nodes"] => Reply::ok(
                json!([{"ID": "n1", "Version": {"Index": 1}, "Spec": {"Role": "manager", "Availability": "active"},
                "Description": {"Hostname": "h1"}, "Status": {"State": "ready", "Addr": "127.0.0.1"},
                "ManagerStatus": {"Leader": true, "Reachability": "reachable", "Addr": "127.0.0.1:2377"}}]),
            ),
            ["GET", "info"] => {
                Reply::ok(json!({"ID": "e1", "Name": "h1", "Swarm": {"NodeID": "n1", "NodeAddr": "127.0.0.1",
                "LocalNodeState": "active", "ControlAvailable": true}}))
            }
            _ => Reply::refuse(404, "page not found"),
        }
    }

    fn add(&self, name: &str, replicas: u64, labels: Value) {
        let spec = json!({"Name": name, "Labels": labels, "TaskTemplate": {"ContainerSpec": {"Image": "x"}},
            "Mode": {"Replicated": {"Replicas": replicas}}});
        self.services.lock().unwrap().insert(name.to_owned(), (1, spec));
    }

    fn spec(&self, service: &str) -> Value {
        self.services.lock().unwrap()[service].1.clone()
    }

    /// An engine that answers for these managers until it is cut off from them.
    async fn engine(self: &Arc<Self>) -> (Engine, Client, Arc<AtomicBool>) {
        let (managers, cut) = (Arc::clone(self), Arc::new(AtomicBool::new(false)));
        let is_cut = Arc::clone(&cut);
        let engine = Engine::start(move |asked| {
            if is_cut.load(Ordering::SeqCst) { Reply::refuse(503, NO_LEADER) } else { managers.answer(asked) }
        })
        .await;
        let client = engine.client().await;
        (engine, client, cut)
    }
}

fn service(name: &str, (version, spec): &(u64, Value)) -> Value {
    json!({"ID": format!("id-{name}"), "Version": {"Index": version}, "Spec": spec})
}

fn replicas(spec: &Value) -> u64 {
    spec["Mode"]["Replicated"]["Replicas"].as_u64().unwrap()
}

fn tasks(service: &str, spec: &Value) -> Vec<Value> {
    let task = |slot: u64| {
        json!({"ID": format!("{service}{slot}"), "Version": {"Index": 1}, "ServiceID": format!("id-{service}"),
        "Slot": slot, "NodeID": "n1", "DesiredState": "running", "Status": {"State": "running"}, "Spec": {}})
    };
    (1..=replicas(spec)).map(task).collect()
}

fn by(client: &Client) -> Coordination {
    Coordination::Swarm { swarm: client.clone(), gateways: "ha-gateway".into() }
}

async fn soon<T>(what: &str, wait: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), wait)
        .await
        .unwrap_or_else(|_| panic!("{what}: not within 30 s"))
}

#[tokio::test]
async fn of_many_writers_that_saw_the_same_version_one_writes() {
    let managers = Arc::new(Managers::default());
    let (_engine, client, _) = managers.engine().await;
    let register = SwarmRegister::new(client, "web", "test");
    for round in 0..5_u32 {
        let seen = register.get().await.unwrap().map(|(_, version)| version);
        let puts = (0..4).map(|who| register.put(format!("{round} by {who}"), seen));
        let put: Vec<bool> =
            futures_util::future::join_all(puts).await.into_iter().collect::<Result<_, _>>().unwrap();
        assert_eq!(put.iter().filter(|stored| **stored).count(), 1, "round {round}: {put:?}");
        let winner = put.iter().position(|stored| *stored).unwrap();
        let (text, version) = register.get().await.unwrap().unwrap();
        assert_eq!(text, format!("{round} by {winner}"));
        assert!(Some(version) > seen, "every text has a new version");
    }
    register.remove().await.unwrap();
    register.remove().await.unwrap();
    assert_eq!(register.get().await.unwrap(), None);
}

#[tokio::test]
async fn a_leader_that_is_cut_off_gives_up_before_the_next_one_leads_with_a_higher_term() {
    let managers = Arc::new(Managers::default());
    let ((_one, first, cut), (_two, second, _)) = (managers.engine().await, managers.engine().await);
    let lease = |client: Client, name: &str| {
        RegisterLease::new(SwarmRegister::new(client, "web", "leader"), name, Duration::from_secs(3))
    };
    let (a, b) = (lease(first, "a"), lease(second, "b"));
    let held = soon("the first lease", a.acquire()).await.unwrap();
    assert_eq!(held.term, Term(1));
    assert_eq!(b.holder().await.unwrap(), Some(("a".into(), Term(1))));
    let waiting = tokio::spawn(async move {
        let held = b.acquire().await.unwrap();
        (held, Instant::now(), b)
    });
    cut.store(true, Ordering::SeqCst);
    soon("a leader that is cut off", held.lost.cancelled()).await;
    let lost = Instant::now();
    let (next, led, _b) = soon("the next leader", waiting).await.unwrap();
    assert_eq!(next.term, Term(2));
    assert!(led > lost, "two at once for {:?}", lost - led);
}

#[tokio::test]
async fn terms_go_on_above_those_at_the_service_when_the_leases_config_is_lost() {
    let managers = Arc::new(Managers::default());
    let (_engine, client, _) = managers.engine().await;
    managers.add("web", 2, json!({"ha-stack.term": "41"}));
    let by = by(&client);
    let lease = by.lease("web", "h1", &Leading::default());
    let held = soon("the lease", lease.acquire()).await.unwrap();
    assert_eq!(held.term, Term(42));
    assert_eq!(by.leader("web").await.unwrap(), Some(("h1".into(), Term(42))));
    soon("giving it back", lease.release(&held)).await;
    assert_eq!(by.leader("web").await.unwrap(), None);
    let other = soon("the next lease", by.lease("web", "h2", &Leading::default()).acquire()).await.unwrap();
    assert_eq!(other.term, Term(43));
}

#[tokio::test]
async fn state_and_decisions_outlive_the_scaler_that_kept_them() {
    let managers = Arc::new(Managers::default());
    let ((_one, first, _), (_two, second, _)) = (managers.engine().await, managers.engine().await);
    let state = autoscaler::State::seeded(4, Duration::from_secs(100));
    by(&first).journal("web", &Leading::default()).save_state("web", &state).await.unwrap();
    let kept = by(&second).journal("web", &Leading::default()).load_state("web").await.unwrap();
    assert_eq!(kept, Some(state));
    assert!(by(&second).decisions("web").await.unwrap().is_empty());
    by(&second).forget("web").await.unwrap();
    assert_eq!(by(&first).journal("web", &Leading::default()).load_state("web").await.unwrap(), None);
}

/// Something that answers on loopback until it is dropped.
struct Stub {
    port: u16,
    server: tokio::task::JoinHandle<()>,
}

impl Stub {
    async fn start(routes: Router) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
        Self { port, server }
    }
}

impl Drop for Stub {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// The program itself, without a Consul: one service by the requests in flight at its gateway, another by the CPU that a
/// registrar measures, and two that are none of its business.
#[tokio::test(flavor = "multi_thread")]
async fn one_scaler_scales_two_services_by_policies_of_their_own() {
    let managers = Arc::new(Managers::default());
    let gateway = Router::new()
        .route(
            "/load",
            get(async || {
                Json(json!({"service": "web", "in_flight": 35, "rate_per_second": 9.0, "endpoints": []}))
            }),
        )
        .route("/drain", post(async || Json(json!({}))));
    let gateway = Stub::start(gateway).await;
    let measured = Arc::clone(&managers);
    // Work for nine tenths of one replica's half processor, however many there are.
    let usage = move || {
        let count = replicas(&measured.spec("jobs"));
        let cores = 0.45 / count as f64;
        let usage = |slot| {
            json!({"instance": format!("jobs.{slot}.jobs{slot}"), "service": "jobs", "cores": cores,
            "of": 0.5, "over_ms": 2000, "age_ms": 100})
        };
        std::future::ready(Json((1..=count).map(usage).collect::<Vec<_>>()))
    };
    let registrar = Router::new().route("/usage", get(usage));
    let registrar = Stub::start(registrar).await;
    managers.add("ha-gateway", 1, json!({"ha-stack.admin-port": gateway.port.to_string()}));
    managers.add("ha-registrar", 1, json!({}));
    managers.add(
        "web",
        2,
        json!({"ha-stack.scale": "kpa", "ha-stack.scale.target": "10", "ha-stack.scale.max": "20"}),
    );
    managers.add(
        "jobs",
        1,
        json!({"ha-stack.scale": "hpa", "ha-stack.scale.cpu": "70", "ha-stack.scale.min": "1"}),
    );
    managers.add("quiet", 3, json!({"ha-stack.scale": "off"}));
    managers.add("other", 4, json!({}));
    let (engine, _, _) = managers.engine().await;
    let mut scaler = tokio::process::Command::new(env!("CARGO_BIN_EXE_ha-stack"));
    scaler.args(["scaler", "--labelled", "--discovery=swarm", "--docker-host", &engine.url]);
    scaler.args(["--registrar-port", &registrar.port.to_string()]);
    for other in ["HA_STACK_ENGINES", "CONSUL_HTTP_ADDR", "DOCKER_HOST"] {
        scaler.env_remove(other);
    }
    let mut scaler = scaler.env("RUST_LOG", "warn").stdin(Stdio::null()).kill_on_drop(true).spawn().unwrap();

    let start = Instant::now();
    let count = |service: &str| replicas(&managers.spec(service));
    while (count("web"), count("jobs")) != (4, 2) {
        let there = (count("web"), count("jobs"));
        assert!(start.elapsed() < Duration::from_secs(60), "4 of web and 2 of jobs are wanted: {there:?}");
        assert!(scaler.try_wait().unwrap().is_none(), "the scaler has ended");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // Enough is enough: a few more decisions change nothing, and nobody else was touched.
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!((count("web"), count("jobs"), count("quiet"), count("other")), (4, 2, 3, 4));
    for service in ["web", "jobs"] {
        assert_eq!(managers.spec(service)["Labels"]["ha-stack.term"], "1", "written under the leader's term");
    }
    let client = engine.client().await;
    let decisions = by(&client).decisions("jobs").await.unwrap();
    assert!(decisions.iter().any(|decided| (decided.from, decided.to) == (1, 2)), "{decisions:?}");
    scaler.start_kill().unwrap();
    soon("the scaler's end", scaler.wait()).await.unwrap();
}
