//! swarm-client: keys, roles, secrets, configs, networks, logs, and the errors on the way.

use std::time::{Duration, Instant};

use futures_util::StreamExt;
use lab::Lab;
use swarm_client::conditions::{is_manager, is_worker};
use swarm_client::watch::await_condition;
use swarm_client::{ConfigSpec, LogOptions, NetworkSpec, Node, Role, SecretSpec};

use crate::registry::{self, Registry};
use crate::swarm::{client, converge, redis};
use crate::{a_follower, pause, told};

pub(crate) async fn tokens_roles_secrets_networks_logs(lab: &Lab) {
    let start = Instant::now();
    let swarm = client(lab.hosts()).await;
    let before = swarm.swarm().join_token(Role::Worker).await.unwrap();
    let manager = swarm.swarm().join_token(Role::Manager).await.unwrap();
    let after = swarm.swarm().rotate_join_token(Role::Worker).await.unwrap();
    assert!(after != before && after.expose().starts_with("SWMTKN-1-"));
    assert_eq!(swarm.swarm().join_token(Role::Manager).await.unwrap(), manager);
    assert_eq!(swarm.swarm().quorum().await.unwrap().tolerance(), 1);

    // A secret and a config, rotated under a service that uses them; and an overlay network that it is on.
    let limit = Duration::from_secs(40);
    swarm.secrets().create(&SecretSpec::new("pw", "one")).await.unwrap();
    assert!(swarm.secrets().create(&SecretSpec::new("pw", "two")).await.unwrap_err().is_already_exists());
    swarm.configs().create(&ConfigSpec::new("page", "one")).await.unwrap();
    let page = swarm.configs().get("page").await.unwrap();
    assert_eq!(page.spec.content().unwrap(), b"one");
    swarm
        .networks()
        .create(&NetworkSpec::overlay("back").attachable().label("made-by", "test"))
        .await
        .unwrap();
    assert!(swarm.networks().create(&NetworkSpec::overlay("back")).await.unwrap_err().is_already_exists());
    let spec = redis("keeper")
        .secret(&swarm.secrets().get("pw").await.unwrap(), "pw")
        .config(&page, "/page")
        .network("back")
        .dnsrr()
        .build();
    swarm.services().create(&spec).await.unwrap();
    assert!(converge(&swarm, "keeper").await.is_success());
    assert!(swarm.secrets().remove("pw").await.unwrap_err().is_in_use());
    assert!(swarm.networks().remove("back").await.unwrap_err().is_in_use());
    let rotation = swarm.secrets().rotate("pw", "two", limit).await.unwrap();
    assert_eq!((rotation.services.len(), &rotation.removed[..]), (1, &["pw".to_owned()][..]), "{rotation:?}");
    let rotation = swarm.configs().rotate("page", "two", limit).await.unwrap();
    assert_eq!((rotation.services.len(), rotation.removed.len()), (1, 1), "{rotation:?}");
    let keeper = swarm.services().get("keeper").await.unwrap();
    let container = keeper.spec.task_template.container_spec.unwrap();
    let secret = swarm.secrets().get(container.secrets[0].id.as_str()).await.unwrap();
    assert!(secret.name().starts_with("pw-") && container.secrets[0].file.as_ref().unwrap().name == "pw");

    let mut logs = swarm.services().logs("keeper", &LogOptions::default()).await.unwrap();
    let mut lines = Vec::new();
    while let Ok(Some(line)) = tokio::time::timeout(Duration::from_secs(5), logs.next()).await {
        lines.push(line.unwrap());
    }
    let line = lines.iter().find(|line| line.text().contains("Ready to accept connections"));
    let line = line.unwrap_or_else(|| panic!("{lines:?}"));
    assert!(line.task_id.is_some() && line.node_id.is_some() && line.time.starts_with("20"), "{line:?}");
    let listed = swarm.services().list().await.unwrap();
    let status = listed.iter().find(|service| service.name() == "keeper").unwrap();
    let status = status.service_status.unwrap();
    assert_eq!((status.running_tasks, status.desired_tasks), (1, 1), "a list counts the tasks");

    swarm.services().remove("keeper").await.unwrap();
    swarm.secrets().remove(secret.name()).await.unwrap();
    swarm.configs().remove(swarm.configs().list().await.unwrap()[0].name()).await.unwrap();
    let gone = Instant::now();
    while let Err(error) = swarm.networks().remove("back").await {
        assert!(error.is_in_use() && gone.elapsed() < limit, "{error}");
        pause().await;
    }
    assert!(swarm.networks().get_opt("back").await.unwrap().is_none());
    told("keys, secrets, configs, networks and logs", start);

    // A manager becomes a worker and a manager again; what a worker says to a question for managers.
    let start = Instant::now();
    let host = a_follower(lab, |leaders| &leaders.swarm).await;
    swarm.nodes().set_label(&host.name, "zone", "a").await.unwrap();
    assert_eq!(swarm.nodes().get(&host.name).await.unwrap().spec.labels["zone"], "a");
    swarm.nodes().remove_label(&host.name, "zone").await.unwrap();
    swarm.nodes().demote(&host.name).await.unwrap();
    await_condition::<Node>(&swarm, &host.name, is_worker(), limit).await.unwrap();
    let alone = client(std::slice::from_ref(host)).await;
    let begun = Instant::now();
    loop {
        match alone.nodes().list().await {
            Err(error) if error.is_not_manager() => break,
            other => assert!(begun.elapsed() < limit, "{other:?}"),
        }
        pause().await;
    }
    assert!(
        alone.networks().list().await.unwrap_err().is_not_manager(),
        "a worker's list of networks is no list"
    );
    // A client that begins at the worker goes on to a manager.
    let mut hosts = lab.hosts().to_vec();
    hosts.sort_by_key(|other| other.name != host.name);
    client(&hosts).await.services().list().await.unwrap();
    swarm.nodes().promote(&host.name).await.unwrap();
    await_condition::<Node>(&swarm, &host.name, is_manager(), limit).await.unwrap();
    told(&format!("{} demoted and promoted", host.name), start);
}

pub(crate) async fn an_image_is_pinned_to_the_digest_of_its_tag(lab: &Lab) {
    let start = Instant::now();
    let host = &lab.hosts()[0];
    let registry = Registry::start(lab, host).await;
    // The engine that is asked is the one that asks the registry.
    let swarm = client(std::slice::from_ref(host)).await;
    let tag = format!("{}/web:1", registry::ADDR);
    let image = swarm.pin_image(&tag, None).await.unwrap();
    assert_eq!(image.reference, format!("{tag}@{}", registry::digest()));
    let platforms =
        [("linux", "amd64"), ("linux", "arm64")].map(|(os, arch)| (os.to_owned(), arch.to_owned()));
    assert_eq!(image.platforms, platforms);
    assert_eq!(swarm.pin_image(&image.reference, None).await.unwrap().reference, image.reference);
    swarm.pin_image(&format!("{}/web:none", registry::ADDR), None).await.unwrap_err();

    swarm.services().create(&redis("pinned").replicas(0).build()).await.unwrap();
    assert!(swarm.services().set_pinned_image("pinned", &image, None).await.unwrap().written);
    let task = swarm.services().get("pinned").await.unwrap().spec.task_template;
    assert_eq!(task.container_spec.unwrap().image, image.reference);
    let platforms = &task.placement.unwrap().rest["Platforms"];
    assert_eq!(platforms.as_array().map(Vec::len), Some(2), "{platforms}");
    registry.stop(lab, host).await;
    swarm.pin_image(&tag, None).await.unwrap_err();
    swarm.services().remove("pinned").await.unwrap();
    told("an image pinned to its digest", start);
}

pub(crate) async fn a_locked_manager_is_unlocked(lab: &Lab) {
    let start = Instant::now();
    let swarm = client(lab.hosts()).await;
    assert!(swarm.swarm().unlock_key().await.unwrap().is_none());
    swarm.swarm().set_autolock(true).await.unwrap();
    let first = swarm.swarm().unlock_key().await.unwrap().unwrap();
    let key = swarm.swarm().rotate_unlock_key().await.unwrap();
    assert!(key != first && key.expose().starts_with("SWMKEY-1-"));
    let host = a_follower(lab, |leaders| &leaders.swarm).await;
    // The managers hand the key around.
    tokio::time::sleep(Duration::from_secs(2)).await;
    lab.exec(&host.name, &["pkill", "-x", "dockerd"]).await.unwrap();
    let limit = Duration::from_secs(40);
    let begun = Instant::now();
    let alone = loop {
        let builder = swarm_client::Client::builder().endpoint(host.docker_endpoint());
        let asked = match builder.connect().await {
            Ok(alone) => alone.nodes().list().await.map(|_| alone),
            Err(error) => Err(error),
        };
        match asked {
            Err(error) if error.is_locked() => {
                break swarm_client::Client::builder()
                    .endpoint(host.docker_endpoint())
                    .connect()
                    .await
                    .unwrap();
            }
            other => assert!(begun.elapsed() < limit, "{other:?}"),
        }
        pause().await;
    };
    let wrong = alone.swarm().unlock(&"SWMKEY-1-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA".into()).await;
    let wrong = wrong.unwrap_err().to_string();
    assert!(!wrong.contains("SWMKEY"), "{wrong}");
    alone.swarm().unlock(&key).await.unwrap();
    await_condition::<Node>(&swarm, &host.name, is_manager(), limit).await.unwrap();
    swarm.swarm().set_autolock(false).await.unwrap();
    assert!(swarm.swarm().unlock_key().await.unwrap().is_none());
    told(&format!("{} locked and unlocked", host.name), start);
}
