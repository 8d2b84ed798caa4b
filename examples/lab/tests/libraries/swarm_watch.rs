//! swarm-client: watches and addresses.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures_util::{StreamExt, pin_mut};
use lab::Lab;
use swarm_client::conditions::node_down;
use swarm_client::watch::{WatchConfig, WatchEvent, await_condition, reflector, store, watcher};
use swarm_client::{NetworkSpec, Node, Service, Task, TaskState};

use crate::swarm::{client, converge, redis, running};
use crate::{pause, power_on, told};

pub(crate) async fn a_change_of_a_task_is_seen_within_a_second(lab: &Lab) {
    let start = Instant::now();
    let swarm = client(lab.hosts()).await;
    swarm.services().create(&redis("seen").replicas(0).build()).await.unwrap();
    let (tasks, writer) = store::<Task>();
    let watching = swarm.clone();
    let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
    let watch = tokio::spawn(async move {
        let events = reflector(writer, watcher::<Task>(&watching, WatchConfig::default()));
        pin_mut!(events);
        while let Some(event) = events.next().await {
            if let WatchEvent::Apply(task) = event.unwrap() {
                let _ = sender.send((task, now()));
            }
        }
    });
    tasks.wait_until_ready().await.unwrap();
    for replicas in [2, 4, 6, 3, 6] {
        swarm.services().scale("seen", replicas).await.unwrap();
        assert!(converge(&swarm, "seen").await.is_success());
    }
    // What a node reports carries its time, by the clock of this same machine.
    let mut delays: Vec<f64> = Vec::new();
    let mut states: HashMap<String, TaskState> = HashMap::new();
    while let Ok((task, at)) = receiver.try_recv() {
        let before = states.insert(task.id.to_string(), task.state().clone());
        if *task.state() == TaskState::Running && before != Some(TaskState::Running) {
            let reported = task.status.rest["Timestamp"].as_str().unwrap();
            delays.push(at - seconds(reported));
        }
    }
    delays.sort_by(f64::total_cmp);
    assert!(delays.len() >= 9, "{delays:?}");
    let worst = *delays.last().unwrap();
    assert!(worst < 1.0, "{delays:?}");
    let here: HashSet<String> =
        tasks.state().iter().filter(|t| t.is_running()).map(|t| t.id.to_string()).collect();
    assert!(running(&swarm, "seen").await.is_subset(&here));
    watch.abort();
    swarm.services().remove("seen").await.unwrap();
    told(&format!("{} tasks seen running, the slowest {worst:.2} s after it ran", delays.len()), start);
}

pub(crate) async fn a_service_is_seen_from_its_first_to_its_last(lab: &Lab) {
    let start = Instant::now();
    let swarm = client(lab.hosts()).await;
    // Nothing would come by the timer within the test.
    let mut watch = watcher::<Service>(&swarm, WatchConfig::default().poll_every(Duration::from_secs(3600)));
    let mut next = async || {
        let event = tokio::time::timeout(Duration::from_secs(10), watch.next()).await.expect("in time");
        event.expect("endless").unwrap()
    };
    assert!(matches!(next().await, WatchEvent::Init(_)));
    let spec = redis("flow").replicas(0).build();
    swarm.services().create(&spec).await.unwrap();
    for replicas in [0, 1] {
        swarm.services().scale("flow", replicas).await.unwrap();
        // What the managers write to it is a change too.
        while !matches!(next().await, WatchEvent::Apply(one) if one.name() == "flow" && one.replicas() == Some(replicas))
        {
        }
    }
    swarm.services().remove("flow").await.unwrap();
    while !matches!(next().await, WatchEvent::Delete(one) if one.name() == "flow") {}
    told("a service seen from its first to its last", start);
}

/// Told to stop, a task runs until its grace is over, and is offered no more.
pub(crate) async fn a_task_that_goes_down_is_not_offered(lab: &Lab) {
    let start = Instant::now();
    let swarm = client(lab.hosts()).await;
    let services = swarm.services();
    // Redis takes no notice of this signal.
    let stubborn = redis("slow").replicas(2).publish_host(7000, Some(17001)).dnsrr().stop_signal("SIGWINCH");
    services.create(&stubborn.stop_grace(Duration::from_secs(6)).build()).await.unwrap();
    assert!(converge(&swarm, "slow").await.is_success());
    assert_eq!(services.endpoints("slow").await.unwrap().len(), 2);
    services.scale("slow", 1).await.unwrap();
    let mut seen = 0;
    loop {
        let going = |task: &&Task| *task.state() == TaskState::Running && !task.is_running();
        let tasks = services.tasks("slow").await.unwrap();
        let going: Vec<_> = tasks.iter().filter(going).map(|task| task.id.clone()).collect();
        let offered = services.endpoints("slow").await.unwrap();
        if !going.is_empty() {
            seen += 1;
            assert_eq!((going.len(), offered.len()), (1, 1), "{offered:?}");
            assert!(!going.contains(&offered[0].task_id), "{offered:?}");
        } else if seen > 0 {
            break;
        }
        assert!(start.elapsed() < Duration::from_secs(60), "no task was seen going down");
        pause().await;
    }
    services.remove("slow").await.unwrap();
    told(&format!("a task that went down, {seen} looks long, was not offered"), start);
}

pub(crate) async fn endpoints_of_all_kinds(lab: &Lab) {
    let start = Instant::now();
    let swarm = client(lab.hosts()).await;
    let services = swarm.services();
    swarm.networks().create(&NetworkSpec::overlay("mesh")).await.unwrap();
    services
        .create(&redis("vip").replicas(2).network("mesh").publish_ingress(7000, Some(17000)).build())
        .await
        .unwrap();
    services.create(&redis("rr").replicas(2).network("mesh").dnsrr().build()).await.unwrap();
    assert!(converge(&swarm, "rr").await.is_success());
    let virtual_ips = services.virtual_addresses("vip").await.unwrap();
    let mesh = swarm.networks().get("mesh").await.unwrap();
    assert_eq!((virtual_ips.len(), &virtual_ips[0].network_id), (1, &mesh.id), "{virtual_ips:?}");
    assert!(services.virtual_addresses("rr").await.unwrap().is_empty());
    let addresses = services.task_addresses("rr", Some("mesh")).await.unwrap();
    let ips: HashSet<_> = addresses.iter().map(|address| address.ip).collect();
    assert_eq!(ips.len(), 2, "{addresses:?}");
    assert_eq!(services.task_addresses("rr", None).await.unwrap(), addresses);
    assert!(!ips.contains(&virtual_ips[0].ip));
    let rollout = services.rollout("vip").stable_for(Duration::from_secs(1));
    let outcome = rollout.wait(Duration::from_secs(8)).await.unwrap();
    let ingress = services.ingress_endpoints("vip").await.unwrap();
    if outcome.is_success() {
        let nodes: HashSet<_> = ingress.iter().map(|endpoint| endpoint.node_name.clone()).collect();
        assert_eq!((ingress.len(), nodes.len()), (3, 3), "{ingress:?}");
        assert!(ingress.iter().all(|endpoint| endpoint.addr.port() == 17000 && endpoint.target_port == 7000));
    } else {
        // Where the kernel has no IPVS no task with a virtual address comes up, and then none is offered.
        assert!(ingress.is_empty(), "{outcome}: {ingress:?}");
    }
    services.remove("vip").await.unwrap();
    services.remove("rr").await.unwrap();
    while let Err(error) = swarm.networks().remove("mesh").await {
        assert!(error.is_in_use() && start.elapsed() < Duration::from_secs(60), "{error}");
        pause().await;
    }
    told(&format!("addresses: virtual, of tasks, of the mesh ({outcome})"), start);
}

pub(crate) async fn a_watch_outlives_the_leader(lab: &Lab) {
    let leader = loop {
        match lab.leaders().await {
            Ok(leaders) if leaders.swarm.is_some() => break leaders.swarm.unwrap(),
            _ => pause().await,
        }
    };
    let host = lab.host(&leader).unwrap();
    let mut hosts = lab.hosts().to_vec();
    hosts.sort_by_key(|other| other.name != leader);
    let swarm = client(&hosts).await;
    let (nodes, writer) = store::<Node>();
    let watching = swarm.clone();
    let watch = tokio::spawn(async move {
        let mut errors = 0;
        let events = reflector(
            writer,
            watcher::<Node>(&watching, WatchConfig::default().poll_every(Duration::from_secs(1))),
        );
        pin_mut!(events);
        while let Some(event) = events.next().await {
            match event {
                Ok(WatchEvent::Apply(node)) if node.is_down() => return errors,
                Ok(_) => {}
                Err(_) => errors += 1,
            }
        }
        errors
    });
    nodes.wait_until_ready().await.unwrap();
    assert_eq!(nodes.len(), 3);
    let start = Instant::now();
    lab.power_off(&leader).await.unwrap();
    let limit = Duration::from_secs(90);
    let down = await_condition::<Node>(&swarm, &leader, node_down(), limit).await.unwrap();
    assert_eq!(down.unwrap().hostname(), leader);
    let waited = start.elapsed();
    let errors = tokio::time::timeout(limit, watch).await.unwrap().unwrap();
    swarm.services().create(&redis("after").replicas(0).build()).await.unwrap();
    swarm.services().remove("after").await.unwrap();
    told(
        &format!("leader {leader} lost, called down after {waited:.1?}, {errors} looks failed meanwhile"),
        start,
    );
    power_on(lab, host).await;
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64()
}

/// `2026-11-25T23:07:20.283861312Z`: seconds since 1970, good for differences within days.
fn seconds(text: &str) -> f64 {
    let number = |range: std::ops::Range<usize>| text[range].parse::<i64>().unwrap();
    let (year, month, day) = (number(0..4), number(5..7), number(8..10));
    // Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", days_from_civil.
    let y = if month <= 2 { year - 1 } else { year };
    let (era, yoe) = (y.div_euclid(400), y.rem_euclid(400));
    let doy = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let days = era * 146_097 + yoe * 365 + yoe / 4 - yoe / 100 + doy - 719_468;
    let clock = (number(11..13) * 60 + number(14..16)) * 60;
    (days * 86_400 + clock) as f64 + text[17..].trim_end_matches('Z').parse::<f64>().unwrap()
}
