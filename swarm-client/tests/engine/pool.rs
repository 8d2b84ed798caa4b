//! A pool over engines that answer, refuse, send garbage or stay silent.

use futures_util::StreamExt;
use serde_json::Map;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use swarm_client::engines::{
    ContainerSpec, EnginePool, LogOptions, PoolError, Scheduler, StaticNodes, Strategy,
};

use super::*;

/// A small Docker engine without Swarm mode: containers that one can create, start, stop and remove.
pub(crate) struct Docker {
    engine: Engine,
    containers: Arc<Mutex<Vec<Value>>>,
    /// It answers nothing but errors.
    broken: Arc<AtomicBool>,
}

impl Docker {
    pub(crate) async fn start(name: &'static str, id: &'static str, images: &'static [&'static str]) -> Self {
        let (containers, broken) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let (state, breaks) = (containers.clone(), broken.clone());
        let engine = Engine::start(move |asked| {
            if breaks.load(Ordering::SeqCst) {
                return Reply::refuse(500, "out of order");
            }
            let mut state = state.lock().unwrap();
            answer(name, id, images, &mut state, asked)
        });
        Self { engine: engine.await, containers, broken }
    }

    pub(crate) fn set_broken(&self, broken: bool) {
        self.broken.store(broken, Ordering::SeqCst);
    }

    pub(crate) fn asked(&self) -> usize {
        self.engine.asked().len()
    }

    pub(crate) fn addr(&self) -> &str {
        self.engine.url.trim_start_matches("tcp://")
    }

    pub(crate) fn names(&self) -> Vec<String> {
        let containers = self.containers.lock().unwrap();
        let mut names: Vec<String> =
            containers.iter().map(|c| c["Name"].as_str().unwrap()[1..].to_owned()).collect();
        names.sort();
        names
    }
}

fn answer(
    name: &str,
    id: &str,
    images: &[&str],
    containers: &mut Vec<Value>,
    asked: &support::Asked,
) -> Reply {
    let line = asked.line();
    let words: Vec<&str> = line.split(['/', ' ']).filter(|word| !word.is_empty()).collect();
    match words[..] {
        ["GET", "info"] => {
            Reply::ok(json!({"ID": id, "Name": name, "NCPU": 2, "MemTotal": 1_000_000_000_u64}))
        }
        ["GET", "events"] => {
            let event =
                r#"{"Type":"container","Action":"start","Actor":{"ID":"abc","Attributes":{"name":"web.1"}}}"#;
            Reply::Raw(format!("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{event}\n").into_bytes())
        }
        ["GET", "images", "json"] => Reply::ok(json!([{"Id": "sha256:1", "RepoTags": images}])),
        ["GET", "containers", "json"] => {
            let listed = containers.iter().map(|c| {
                json!({"Id": c["Id"], "Names": [c["Name"]], "Image": c["Config"]["Image"], "State": c["State"]["Status"],
                       "Labels": c["Config"]["Labels"], "Created": 1, "HostConfig": {"NetworkMode": "default"}})
            });
            Reply::ok(Value::Array(listed.collect()))
        }
        ["POST", "containers", "create"] => {
            if !images.contains(&asked.body["Image"].as_str().unwrap()) {
                return Reply::refuse(404, "No such image: x");
            }
            let new = format!("{name}{:060}", containers.len());
            let wanted = asked.query.trim_start_matches("name=");
            let mut config: Map<String, Value> = asked.body.as_object().unwrap().clone();
            let host = config.remove("HostConfig");
            containers
                .push(json!({"Id": new, "Name": format!("/{wanted}"), "Config": config, "HostConfig": host,
                                   "State": {"Status": "created"}}));
            Reply::Json(201, json!({"Id": new}))
        }
        [method, "containers", id, ..] => {
            let Some(at) = containers.iter().position(|c| c["Id"] == id) else {
                return Reply::refuse(404, "No such container: x");
            };
            match (method, words.last().copied()) {
                ("GET", Some("logs")) => {
                    let head = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n";
                    return Reply::Raw([&head[..], &[2, 0, 0, 0, 0, 0, 0, 5], b"hello"].concat());
                }
                ("POST", Some("start")) => containers[at]["State"]["Status"] = json!("running"),
                ("POST", Some("stop")) => {
                    return Reply::Raw(b"HTTP/1.1 304 Not Modified\r\nConnection: close\r\n\r\n".to_vec());
                }
                ("DELETE", _) => drop(containers.remove(at)),
                _ => return Reply::ok(containers[at].clone()),
            }
            Reply::Raw(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n".to_vec())
        }
        _ => Reply::refuse(404, "page not found"),
    }
}

pub(crate) fn pool(addrs: &[&str]) -> EnginePool {
    let nodes = StaticNodes::new(&addrs.join(",")).unwrap();
    EnginePool::with_limit(Arc::new(nodes), Scheduler::new(Strategy::Spread), Duration::from_millis(300))
}

#[tokio::test]
async fn concurrent_runs_see_what_is_on_its_way() {
    let (one, two) = (Docker::start("h1", "A", &["web:1"]).await, Docker::start("h2", "B", &["web:1"]).await);
    let pool = pool(&[one.addr(), two.addr()]);
    let web = |n: u32| ContainerSpec::new(format!("web.{n}"), "web:1").publish(80, Some(80));
    // Three at once, for a port that two engines have once each.
    let (a, b, c) = tokio::join!(pool.run(web(1)), pool.run(web(2)), pool.run(web(3)));
    let outcomes = [a, b, c];
    let lost: Vec<&PoolError> = outcomes.iter().filter_map(|run| run.as_ref().err()).collect();
    assert!(matches!(lost[..], [PoolError::Unplaceable(_)]), "{outcomes:?}");
    assert!(lost[0].to_string().contains("80/tcp is taken by web."), "{}", lost[0]);
    assert_eq!((one.names().len(), two.names().len()), (1, 1));
    // One name is one container, wherever it is.
    let (a, b) = tokio::join!(
        pool.run(ContainerSpec::new("same", "web:1")),
        pool.run(ContainerSpec::new("same", "web:1"))
    );
    assert_eq!(u32::from(a.is_ok()) + u32::from(b.is_ok()), 1, "{a:?} {b:?}");
    assert!(matches!(a.and(b), Err(PoolError::NameTaken { .. })));
}

#[tokio::test]
async fn a_missing_image_is_looked_for_on_the_other_engines_once() {
    let (one, two) = (Docker::start("h1", "A", &[]).await, Docker::start("h2", "B", &["web:1"]).await);
    let pool = pool(&[one.addr(), two.addr()]);
    let placed = pool.run(ContainerSpec::new("web", "web:1")).await.unwrap();
    assert_eq!(placed.to_string(), "h2/web");
    // Who names the engine means it; who names an image that nobody has learns what the engine said.
    let error = pool.run(ContainerSpec::new("other", "web:1").constraint("node==h1")).await.unwrap_err();
    assert!(error.is_not_found() && error.to_string().contains("No such image"), "{error}");
    let error = pool.run(ContainerSpec::new("third", "gone:1")).await.unwrap_err();
    assert!(error.to_string().contains("No such image"), "{error}");
}

#[tokio::test]
async fn a_service_is_scaled_up_and_down_and_its_containers_are_found() {
    let (one, two) = (Docker::start("h1", "A", &["web:1"]).await, Docker::start("h2", "B", &["web:1"]).await);
    let pool = pool(&[one.addr(), two.addr()]);
    assert!(pool.scale("web", 2, None).await.unwrap_err().to_string().contains("run the first one"));
    let spec = ContainerSpec::new("web.1", "web:1")
        .service("web")
        .env("INSTANCE", "{{.Instance}}")
        .env("H", "{{.Host}}");
    pool.run(spec).await.unwrap();
    assert_eq!(pool.scale("web", 4, None).await.unwrap().started.len(), 3);
    assert_eq!((one.names().len(), two.names().len()), (2, 2));
    let listed: Vec<String> = pool.list().await.unwrap().iter().map(ToString::to_string).collect();
    assert_eq!(listed.len(), 4);
    let inspected = pool.inspect(&listed[3]).await.unwrap();
    let env = inspected["Config"]["Env"].to_string();
    assert!(env.contains("H=h2") && !env.contains("{{"), "{env}");
    let ids: std::collections::BTreeSet<String> = pool
        .list()
        .await
        .unwrap()
        .iter()
        .map(|there| there.container.swarm_id().unwrap().to_owned())
        .collect();
    assert_eq!(ids.len(), 4, "each replica has an id of its own");

    // Where they are no longer allowed they are replaced, and then go.
    let elsewhere = ContainerSpec::new("web", "web:1").constraint("node!=h1");
    assert_eq!(pool.scale("web", 4, Some(&elsewhere)).await.unwrap().started.len(), 2);
    assert_eq!(pool.scale("web", 4, Some(&elsewhere)).await.unwrap().removed.len(), 2);
    assert_eq!((one.names().len(), two.names().len()), (0, 4));

    assert_eq!(pool.scale("web", 1, None).await.unwrap().removed.len(), 3);
    assert_eq!(pool.scale("web", 1, None).await.unwrap().removed.len(), 0);
    let last = two.names().remove(0);
    pool.remove(&last, None).await.unwrap();
    let error = pool.remove(&last, None).await.unwrap_err();
    assert!(error.is_not_found() && error.to_string().contains("2 engines that answer"), "{error}");
}

#[tokio::test]
async fn nothing_is_placed_on_an_engine_that_answers_garbage_or_never() {
    let good = Docker::start("h1", "A", &["web:1"]).await;
    let garbage =
        Engine::start(|_| Reply::Raw(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n}{]".to_vec())).await;
    let silent = Engine::start(|_| Reply::Silence).await;
    let dead = dead_url().await;
    let pool = pool(&[good.addr(), &garbage.url[6..], &silent.url[6..], &dead[6..]]);
    for n in 0..4 {
        let placed = pool.run(ContainerSpec::new(format!("c{n}"), "web:1")).await.unwrap();
        assert_eq!(placed.host, "h1");
    }
    let reached = pool.refresh().await.unwrap().iter().filter(|engine| engine.reached).count();
    assert_eq!(reached, 1);
    let alone = pool_of_nobody(&garbage.url[6..]).await;
    assert!(alone.contains("health: it does not answer"), "{alone}");
}

#[tokio::test]
async fn events_of_all_engines_are_one_stream_that_goes_on_when_an_engine_ends_its_own() {
    let (one, two) = (Docker::start("h1", "A", &["web:1"]).await, Docker::start("h2", "B", &["web:1"]).await);
    let pool = pool(&[one.addr(), two.addr()]);
    let mut events = pool.events();
    let mut seen: std::collections::BTreeMap<String, u32> = std::collections::BTreeMap::new();
    let twice = |seen: &std::collections::BTreeMap<String, u32>| {
        [one.addr(), two.addr()]
            .iter()
            .all(|addr| seen.get(&format!("{addr}/web.1 start")).is_some_and(|n| *n >= 2))
    };
    while !twice(&seen) {
        let event = tokio::time::timeout(Duration::from_secs(10), events.next()).await.unwrap().unwrap();
        *seen.entry(event.to_string()).or_default() += 1;
    }
    assert!(seen[&format!("{} connected", one.addr())] >= 2, "{seen:?}");
}

#[tokio::test]
async fn a_containers_output_is_read_by_its_name() {
    let one = Docker::start("h1", "A", &["web:1"]).await;
    let pool = pool(&[one.addr()]);
    pool.run(ContainerSpec::new("web", "web:1")).await.unwrap();
    let mut chunks =
        Box::pin(pool.logs("h1/web", LogOptions { tail: Some(1), ..LogOptions::default() }).await.unwrap());
    let chunk = chunks.next().await.unwrap().unwrap();
    assert_eq!((chunk.stderr, &chunk.bytes[..]), (true, &b"hello"[..]));
    assert!(pool.logs("nobody", LogOptions::default()).await.is_err());
}

async fn pool_of_nobody(addr: &str) -> String {
    pool(&[addr]).run(ContainerSpec::new("c", "web:1")).await.unwrap_err().to_string()
}

#[tokio::test]
async fn clones_are_two_engines_and_one_engine_by_two_addresses_is_one() {
    let (one, clone) =
        (Docker::start("h1", "A", &["web:1"]).await, Docker::start("h2", "A", &["web:1"]).await);
    let twice = format!("localhost:{}", one.addr().rsplit(':').next().unwrap());
    let pool = pool(&[one.addr(), clone.addr(), &twice]);
    assert_eq!(pool.refresh().await.unwrap().len(), 2);
    for n in 0..4 {
        pool.run(ContainerSpec::new(format!("c{n}"), "web:1")).await.unwrap();
    }
    assert_eq!((one.names().len(), clone.names().len()), (2, 2));
    assert_eq!(pool.refresh().await.unwrap().len(), 2);
}

#[tokio::test]
async fn a_pool_of_none_says_so() {
    let error = pool(&[]).run(ContainerSpec::new("c", "web:1")).await.unwrap_err();
    assert!(error.to_string().contains("the pool has none"), "{error}");
}
