//! swarm-client: how rollouts end.

use std::time::{Duration, Instant};

use futures_util::StreamExt;
use lab::Lab;
use swarm_client::model::RestartCondition;
use swarm_client::{
    Clause, Outcome, RollbackOptions, RollbackSource, RolloutProgress, ServiceSpec, UpdateConfig,
};

use crate::swarm::{client, converge, redis};
use crate::told;

const LIMIT: Duration = Duration::from_secs(40);

pub(crate) async fn each_end_of_a_rollout_is_a_value(lab: &Lab) {
    let start = Instant::now();
    let swarm = client(lab.hosts()).await;
    let services = swarm.services();

    let spec = redis("nowhere").replicas(2).constraint("node.labels.zone==moon").build();
    services.create(&spec).await.unwrap();
    let outcome = services
        .rollout("nowhere")
        .unschedulable_after(Some(Duration::from_secs(2)))
        .wait(LIMIT)
        .await
        .unwrap();
    let text = outcome.to_string();
    let Outcome::Unschedulable { diagnosis } = outcome else { panic!("{text}") };
    assert_eq!((diagnosis.running, diagnosis.wanted), (0, Some(2)), "{text}");
    assert_eq!(
        (diagnosis.pending[0].clause.clone(), diagnosis.pending[0].nodes),
        (Clause::Constraints, 3),
        "{text}"
    );
    let patient =
        services.rollout("nowhere").unschedulable_after(None).wait(Duration::from_secs(1)).await.unwrap();
    assert!(matches!(patient, Outcome::TimedOut { .. }), "{patient}");
    // It is removed while it is waited for.
    let rollout = services.rollout("nowhere").unschedulable_after(None);
    let waiting = tokio::spawn(async move { rollout.wait(LIMIT).await });
    tokio::time::sleep(Duration::from_millis(700)).await;
    services.remove("nowhere").await.unwrap();
    assert_eq!(waiting.await.unwrap().unwrap(), Outcome::Removed);
    assert!(services.rollout("nowhere").wait(LIMIT).await.unwrap_err().is_not_found());

    // A global service that fits nowhere, and jobs.
    let everywhere = redis("everywhere").global().constraint("node.labels.zone==moon").build();
    services.create(&everywhere).await.unwrap();
    let outcome =
        services.rollout("everywhere").unschedulable_after(Some(Duration::from_secs(1))).wait(LIMIT).await;
    assert!(matches!(outcome, Ok(Outcome::Unschedulable { .. })), "{outcome:?}");
    services.remove("everywhere").await.unwrap();
    let version = ["redis-cli", "--version"];
    let job = ServiceSpec::builder("job", "lab-test:1").command(version).replicated_job(3, 2).build();
    services.create(&job).await.unwrap();
    let outcome = services.rollout("job").wait(LIMIT).await.unwrap();
    assert_eq!(outcome, Outcome::TasksCompleted { completed: 3 }, "{outcome}");
    services.remove("job").await.unwrap();
    let job = ServiceSpec::builder("jobs", "lab-test:1").command(version).global_job().build();
    services.create(&job).await.unwrap();
    let outcome = services.rollout("jobs").wait(LIMIT).await.unwrap();
    assert_eq!(outcome, Outcome::TasksCompleted { completed: 3 }, "{outcome}");
    services.remove("jobs").await.unwrap();
    let once = ServiceSpec::builder("once", "lab-test:1")
        .command(version)
        .restart(RestartCondition::None, 0)
        .build();
    services.create(&once).await.unwrap();
    let outcome = services.rollout("once").wait(LIMIT).await.unwrap();
    assert_eq!(outcome, Outcome::TasksCompleted { completed: 1 }, "{outcome}");
    services.remove("once").await.unwrap();
    told(&format!("nowhere: {text}; jobs completed"), start);

    // An update that fails: Swarm goes back, or stops.
    let start = Instant::now();
    let monitor = UpdateConfig { monitor: Some(Duration::from_secs(2).into()), ..UpdateConfig::default() };
    let pausing = monitor.clone().pausing();
    let web = redis("web").restart_delay(Duration::ZERO).update(monitor).rollback(pausing.clone()).build();
    services.create(&web).await.unwrap();
    let steps: Vec<_> = services.rollout("web").stable_for(Duration::from_secs(1)).progress().collect().await;
    let last = steps.last().unwrap().as_ref().unwrap();
    assert_eq!(*last, RolloutProgress::Ended(Outcome::Converged { running: 1 }), "{steps:?}");
    assert!(steps.len() > 1, "{steps:?}");
    let broken = ["redis-server", "--port", "no-number"].map(str::to_owned);
    let break_it = |spec: &mut ServiceSpec| {
        spec.task_template.container_spec.as_mut().unwrap().command = broken.to_vec();
    };
    services.modify("web", break_it).await.unwrap();
    let outcome = services.rollout("web").wait(LIMIT).await.unwrap();
    assert!(matches!(outcome, Outcome::RolledBack { .. }), "{outcome}");
    services
        .modify("web", |spec| {
            break_it(spec);
            spec.update_config = Some(pausing.clone());
        })
        .await
        .unwrap();
    let outcome = services.rollout("web").wait(LIMIT).await.unwrap();
    assert!(matches!(outcome, Outcome::Paused { .. }), "{outcome}");
    told(&format!("a broken update rolled back, and another one {outcome}"), start);

    // Somebody else rolls out another spec meanwhile.
    let good = redis("web").build();
    services.modify("web", |spec| spec.task_template = good.task_template.clone()).await.unwrap();
    let rollout = services.rollout("web").stable_for(Duration::from_secs(30));
    let waiting = tokio::spawn(async move { rollout.wait(LIMIT).await });
    tokio::time::sleep(Duration::from_millis(700)).await;
    services
        .modify("web", |spec| spec.task_template.container_spec.as_mut().unwrap().hostname = Some("x".into()))
        .await
        .unwrap();
    assert_eq!(waiting.await.unwrap().unwrap(), Outcome::Superseded);
    services.remove("web").await.unwrap();
}

/// Swarm goes back to a spec that mounts a folder, which is gone from the host meanwhile.
pub(crate) async fn a_rollback_that_fails_too_ends_there(lab: &Lab) {
    let start = Instant::now();
    let swarm = client(lab.hosts()).await;
    let (services, host) = (swarm.services(), &lab.hosts()[0].name);
    let on_host = async |command: &[&str]| {
        let done = lab.exec(host, command).await.unwrap();
        assert!(done.status.success(), "{command:?} on {host}: {}", String::from_utf8_lossy(&done.stderr));
    };
    on_host(&["mkdir", "-p", MOUNTED]).await;
    let monitor = UpdateConfig { monitor: Some(Duration::from_secs(2).into()), ..UpdateConfig::stop_first() };
    let spec = redis("first").bind_mount(MOUNTED, "/mnt", true).restart_delay(Duration::ZERO);
    let spec = spec.constraint(format!("node.hostname=={host}")).update(monitor.clone());
    services.create(&spec.rollback(monitor.pausing()).build()).await.unwrap();
    assert!(converge(&swarm, "first").await.is_success());
    on_host(&["rmdir", MOUNTED]).await;
    services
        .modify("first", |spec| {
            let container = spec.task_template.container_spec.as_mut().unwrap();
            container.command = ["redis-server", "--port", "no-number"].map(str::to_owned).to_vec();
            container.mounts.clear();
        })
        .await
        .unwrap();
    let outcome = services.rollout("first").wait(LIMIT).await.unwrap();
    assert!(matches!(outcome, Outcome::RollbackPaused { .. }), "{outcome}");
    services.remove("first").await.unwrap();
    told(&format!("a rollback that failed too: {outcome}"), start);
}

/// A folder of the host that a task mounts.
const MOUNTED: &str = "/run/lab-rollback";

pub(crate) async fn a_rollback_goes_past_a_scale(lab: &Lab) {
    let start = Instant::now();
    let swarm = client(lab.hosts()).await;
    let services = swarm.services();
    services.create(&redis("past").label("term", "1").build()).await.unwrap();
    assert!(converge(&swarm, "past").await.is_success());
    let first = services.get("past").await.unwrap().spec;
    let hostname = |spec: &mut ServiceSpec, name: &str| {
        spec.task_template.container_spec.as_mut().unwrap().hostname = Some(name.to_owned());
    };
    services.modify("past", |spec| hostname(spec, "second")).await.unwrap();
    assert!(converge(&swarm, "past").await.is_success());
    services.scale("past", 2).await.unwrap();
    services
        .modify("past", |spec| drop(spec.labels.insert("term".to_owned(), "2".to_owned())))
        .await
        .unwrap();
    let done = services.rollback("past", &RollbackOptions::default().keep_label("term")).await.unwrap();
    assert_eq!(done.source, RollbackSource::Label);
    let outcome = converge(&swarm, "past").await;
    assert_eq!(outcome, Outcome::Converged { running: 2 }, "{outcome}");
    let mut expected = first;
    assert!(expected.set_replicas(2));
    expected.labels.insert("term".to_owned(), "2".to_owned());
    assert_eq!(services.get("past").await.unwrap().spec, expected);
    services.remove("past").await.unwrap();
    told("a rollback past a scale and a term", start);
}
