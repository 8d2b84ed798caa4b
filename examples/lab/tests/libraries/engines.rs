//! swarm-client's pool of plain engines, on real ones that a file lists.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::TryStreamExt;
use lab::{Host, Lab};
use swarm_client::engines::{
    Alone, ContainerSpec, Discovery, DiscoveryUrl, EnginePool, LogOptions, MemoryRoster, PoolError,
    Scheduler, Strategy, Watchdog,
};

use crate::{pause, signal_engine, told};

const LIMIT: Duration = Duration::from_secs(60);

pub(crate) async fn plain_engines_of_a_file_are_filled_watched_and_healed(lab: &Lab) {
    let start = Instant::now();
    let file = std::env::temp_dir().join(format!("lab-engines-{}", std::process::id()));
    let addr = |host: &Host| host.docker_endpoint().trim_start_matches("tcp://").to_owned();
    let hosts = lab.hosts();
    let list = |hosts: &[Host]| hosts.iter().map(|host| addr(host) + "\n").collect::<String>();
    let url: DiscoveryUrl = format!("file://{}", file.display()).parse().unwrap();
    let DiscoveryUrl::File(nodes) = url else { panic!("{url:?}") };
    let nodes: Arc<dyn Discovery> = Arc::new(nodes);
    // Half of the usual patience, since a silent engine costs it at each look.
    let pool = EnginePool::with_limit(nodes, Scheduler::new(Strategy::Spread), Duration::from_millis(500));
    let missing = pool.run(redis("early", 7400)).await.unwrap_err().to_string();
    assert!(missing.contains(&file.display().to_string()), "{missing}");
    std::fs::write(&file, format!("# the first two\n{}", list(&hosts[..2]))).unwrap();

    reached(&pool, 2).await;

    // A hard condition, a wish that can't be fulfilled, and a port that each host has once.
    let there =
        pool.run(redis("keeper", 7400).constraint(&format!("node!={}", hosts[0].name))).await.unwrap();
    assert_eq!((there.host.as_str(), there.relaxed), (hosts[1].name.as_str(), false));
    let wish = pool.run(redis("near", 7401).affinity("container==~nobody")).await.unwrap();
    assert!(wish.relaxed);
    let web = redis("web", 7000).publish(7000, Some(17400)).service("web").reschedule();
    assert_eq!(pool.scale("web", 2, Some(&web)).await.unwrap().started.len(), 2);
    assert_eq!(of(&pool, "web").await, names(&hosts[..2]));
    let full = pool.scale("web", 3, None).await.unwrap_err();
    assert!(matches!(full, PoolError::Unplaceable(_)) && full.to_string().contains("17400"), "{full}");

    // The file is read anew at each look.
    std::fs::write(&file, list(hosts)).unwrap();
    reached(&pool, 3).await;
    assert_eq!(pool.scale("web", 3, None).await.unwrap().started.len(), 1);
    assert_eq!(of(&pool, "web").await, names(hosts));
    let options = LogOptions { tail: Some(5), ..LogOptions::default() };
    let text: Vec<_> = pool.logs("keeper", options).await.unwrap().try_collect().await.unwrap();
    let text: String = text.iter().map(|chunk| String::from_utf8_lossy(&chunk.bytes)).collect();
    assert!(text.contains("Ready to accept connections"), "{text}");
    assert_eq!(pool.inspect("keeper").await.unwrap()["State"]["Running"], true);
    told("three engines of a file, filled by filters", start);

    // An engine answers no more, although what it runs goes on: its movable container is started elsewhere, once, and when it is
    // back, one of the two is removed.
    let start = Instant::now();
    let movable = pool.run(redis("movable", 7402).reschedule()).await.unwrap();
    let host = lab.host(&movable.host).unwrap();
    let mut watchdog = Watchdog::new(pool.clone(), Arc::new(Alone), Arc::new(MemoryRoster::default()));
    let learned = watchdog.round().await;
    assert!(learned.done.is_empty() && learned.held.is_empty(), "{learned}");
    signal_engine(lab, host, "-STOP").await;
    let moved = until(&mut watchdog, "movable is started elsewhere", async || {
        copies(&pool, "movable").await.iter().any(|at| *at != movable.host)
    })
    .await;
    for _ in 0..2 {
        let round = watchdog.round().await;
        assert!(!round.done.iter().any(|line| line.contains("movable")), "once: {round}");
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    signal_engine(lab, host, "-CONT").await;
    let healed = until(&mut watchdog, "one copy is left", async || {
        let engines = pool.refresh().await.unwrap();
        engines.iter().all(|engine| engine.reached) && copies(&pool, "movable").await.len() == 1
    })
    .await;
    told(&format!("{} silent: {moved}; back: {healed}", host.name), start);

    let web = pool.scale("web", 0, None).await.unwrap();
    assert_eq!(web.removed.len(), 3, "{web:?}");
    for name in ["keeper", "near", "movable"] {
        pool.remove(name, Some(Duration::ZERO)).await.unwrap();
    }
    // A file that is gone is no empty pool.
    std::fs::remove_file(&file).unwrap();
    assert_eq!(pool.refresh().await.unwrap().len(), 3);
}

/// Waits until so many engines answer: on a busy machine a look may take longer than is granted to it.
async fn reached(pool: &EnginePool, count: usize) {
    let start = Instant::now();
    loop {
        let engines = pool.refresh().await.unwrap();
        if engines.iter().filter(|engine| engine.reached).count() == count {
            return;
        }
        assert!(start.elapsed() < LIMIT, "not {count} engines answer: {engines:?}");
        pause().await;
    }
}

fn redis(name: &str, port: u16) -> ContainerSpec {
    let command = ["redis-server", "--port", &port.to_string(), "--save", ""].map(str::to_owned);
    ContainerSpec::new(name, "lab-test:1").args(command)
}

/// The hosts of a service's containers.
async fn of(pool: &EnginePool, service: &str) -> HashSet<String> {
    let all = pool.list().await.unwrap();
    let of = |name: &str| name.rsplit_once('.').is_some_and(|(of, _)| of == service);
    all.into_iter().filter(|there| of(&there.container.name)).map(|there| there.host).collect()
}

/// The hosts that have a container of this name.
async fn copies(pool: &EnginePool, name: &str) -> Vec<String> {
    let all = pool.list().await.unwrap();
    all.into_iter().filter(|there| there.container.name == name).map(|there| there.host).collect()
}

fn names(hosts: &[Host]) -> HashSet<String> {
    hosts.iter().map(|host| host.name.clone()).collect()
}

/// Lets the watchdog play until it is so; what the last round of note said.
async fn until(watchdog: &mut Watchdog, what: &str, mut is_so: impl AsyncFnMut() -> bool) -> String {
    let start = Instant::now();
    let mut last = String::new();
    while !is_so().await {
        let round = watchdog.round().await;
        if !round.done.is_empty() || !round.held.is_empty() {
            last = round.to_string();
        }
        assert!(start.elapsed() < LIMIT, "not so: {what}; {round}");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    last
}
