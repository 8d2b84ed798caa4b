//! Keys, secrets, configs, networks, images, logs, rollback.

use futures_util::StreamExt;
use swarm_client::{
    ConfigSpec, HOLD_LABEL, LogOptions, LogStream, NetworkSpec, ROLLBACK_LABEL, RegistryAuth,
    RollbackOptions, RollbackSource, SecretSpec, UnlockKey,
};

use super::*;

#[tokio::test]
async fn tokens_and_keys_are_rotated_by_an_update_that_changes_nothing_else() {
    let rotations = AtomicUsize::new(0);
    let engine = Engine::start(move |asked| match asked.line().as_str() {
        "GET /swarm" => {
            let n = rotations.load(Ordering::Relaxed);
            Reply::ok(json!({"ID": "s", "Version": {"Index": 4 + n}, "JoinTokens": {"Worker": format!("SWMTKN-1-w{n}"), "Manager": "SWMTKN-1-m"},
                "Spec": {"Name": "default", "Raft": {"X": 1}, "EncryptionConfig": {"AutoLockManagers": true, "Y": 2}}}))
        }
        "POST /swarm/update" => match rotations.fetch_add(1, Ordering::Relaxed) {
            0 => Reply::refuse(500, CONFLICT),
            _ => Reply::ok(Value::Null),
        },
        "GET /swarm/unlockkey" => {
            Reply::ok(json!({"UnlockKey": format!("SWMKEY-1-k{}", rotations.load(Ordering::Relaxed))}))
        }
        "POST /swarm/unlock" => Reply::refuse(401, "swarm could not be unlocked: invalid key provided SWMKEY-1-wrong"),
        _ => Reply::refuse(500, "unexpected"),
    })
    .await;
    let swarm = engine.client().await.swarm();
    assert_eq!(swarm.rotate_join_token(Role::Worker).await.unwrap().expose(), "SWMTKN-1-w2");
    let posted = engine.posted();
    assert_eq!(posted.len(), 2, "the conflict was read anew");
    assert_eq!(posted[1].query, "version=5&rotateWorkerToken=true");
    assert_eq!(posted[1].body["Raft"], json!({"X": 1}));
    assert_eq!(swarm.rotate_unlock_key().await.unwrap().expose(), "SWMKEY-1-k3");
    assert_eq!(engine.posted()[2].query, "version=6&rotateManagerUnlockKey=true");
    assert!(!swarm.set_autolock(true).await.unwrap().written);
    assert!(swarm.set_autolock(false).await.unwrap().written);
    assert_eq!(engine.posted()[3].body["EncryptionConfig"], json!({"AutoLockManagers": false, "Y": 2}));

    let error = swarm.unlock(&UnlockKey::from("SWMKEY-1-wrong")).await.unwrap_err();
    assert_eq!(engine.posted()[4].body, json!({"UnlockKey": "SWMKEY-1-wrong"}));
    assert!(!format!("{error} {error:?}").contains("SWMKEY"), "{error}");
}

/// Services and secrets behind the managers' rules, as far as a rotation needs them.
fn rotating(outcome: &'static str) -> impl Fn(&support::Asked) -> Reply + Send + Sync {
    let secrets = std::sync::Mutex::new(vec![
        json!({"ID": "s0", "Spec": {"Name": "pw"}}),
        json!({"ID": "s1", "Spec": {"Name": "pw-other", "Labels": {}}}),
    ]);
    let reference = |id: &str, name: &str| json!({"File": {"Name": "pw", "UID": "0", "GID": "0", "Mode": 292}, "SecretID": id, "SecretName": name});
    let mut spec = rich_spec();
    spec["TaskTemplate"]["ContainerSpec"]["Secrets"] =
        json!([reference("s0", "pw"), reference("s1", "pw-other")]);
    let service = OneService::new(spec);
    move |asked| {
        let mut secrets = secrets.lock().unwrap();
        match asked.line().as_str() {
            "GET /secrets" => Reply::ok(json!(*secrets)),
            "POST /secrets/create" => {
                let id = format!("s{}", secrets.len());
                let mut spec = asked.body.clone();
                spec.as_object_mut().unwrap().remove("Data");
                secrets.push(json!({"ID": id, "Spec": spec}));
                Reply::Json(201, json!({"ID": id}))
            }
            "GET /secrets/s0" => Reply::ok(secrets[0].clone()),
            "DELETE /secrets/s0" => {
                secrets.remove(0);
                Reply::ok(Value::Null)
            }
            "GET /services" => Reply::ok(json!([{"ID": "sid", "Spec": service.spec()}])),
            "GET /services/sid" | "GET /services/web" => {
                let mut web =
                    json!({"ID": "sid", "Version": {"Index": service.version()}, "Spec": service.spec()});
                if outcome != "fine" {
                    web["UpdateStatus"] = json!({"State": outcome, "Message": "task failed"});
                }
                Reply::ok(web)
            }
            "GET /tasks" => {
                let task = |id: &str, slot: u64| json!({"ID": id, "ServiceID": "sid", "Slot": slot, "NodeID": "n", "DesiredState": "running", "Status": {"State": "running"}});
                Reply::ok(json!([task("a", 1), task("b", 2)]))
            }
            "GET /nodes" => Reply::ok(json!([{"ID": "n", "Status": {"State": "ready"}}])),
            _ => service.answer(asked),
        }
    }
}

#[tokio::test]
async fn a_rotation_swaps_references_waits_and_collects() {
    let engine = Engine::start(rotating("fine")).await;
    let secrets = engine.client().await.secrets();
    let rotation = secrets.rotate("pw", "new", Duration::from_secs(20)).await.unwrap();
    // sha256("new")
    assert_eq!(rotation.name, "pw-11507a0e2f5e");
    assert!(rotation.created);
    assert_eq!(
        (rotation.services, rotation.removed, rotation.kept),
        (vec!["web".to_owned()], vec!["pw".to_owned()], vec![])
    );
    let posted = engine.posted();
    assert_eq!(posted[0].body["Data"], "bmV3");
    let references = &posted[1].body["TaskTemplate"]["ContainerSpec"]["Secrets"];
    assert_eq!(
        (&references[0]["SecretID"], &references[0]["SecretName"]),
        (&json!("s2"), &json!("pw-11507a0e2f5e"))
    );
    assert_eq!(references[0]["File"]["Mode"], 292);
    assert_eq!(references[1]["SecretID"], "s1", "another secret whose name begins alike stays");

    let again = secrets.rotate("pw", "new", Duration::from_secs(20)).await.unwrap();
    assert!(!again.created && again.services.is_empty() && again.removed.is_empty());
    assert_eq!(engine.posted().len(), 2);
}

#[tokio::test]
async fn a_rotation_that_fails_keeps_what_was_before() {
    let engine = Engine::start(rotating("paused")).await;
    let error =
        engine.client().await.secrets().rotate("pw", "new", Duration::from_secs(20)).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "rotate secret \"pw\" in service \"web\": paused by failures: task failed; look at the service, then repeat it"
    );
    assert!(!engine.lines().iter().any(|line| line.starts_with("DELETE")));
}

#[tokio::test]
async fn secrets_configs_and_networks_are_made_and_removed_by_exact_names() {
    // A network that was removed is listed for a while.
    let lists_after_removal = AtomicUsize::new(usize::MAX);
    let engine = Engine::start(move |asked| match asked.line().as_str() {
        "POST /secrets/create" | "POST /configs/create" => Reply::Json(201, json!({"ID": "new"})),
        "GET /configs/c" => Reply::ok(json!({"ID": "c1", "Version": {"Index": 3}, "Spec": {"Name": "c", "Labels": {}, "Data": "aGk="}})),
        "GET /configs/c1" => Reply::ok(json!({"ID": "c1xx", "Spec": {"Name": "c"}})),
        "POST /configs/c1/update" => Reply::ok(Value::Null),
        "DELETE /configs/c1" => Reply::refuse(400, "rpc error: code = InvalidArgument desc = config 'c' is in use by the following service: web"),
        "POST /networks/create" => Reply::Json(201, json!({"Id": "net", "Warning": ""})),
        "GET /swarm" => Reply::ok(json!({"ID": "s"})),
        "GET /networks" => {
            let left = lists_after_removal.load(Ordering::Relaxed);
            let mut networks = vec![json!({"Id": "n0", "Name": "back", "Scope": "local", "Driver": "bridge", "Labels": {}})];
            if left > 0 {
                networks.push(json!({"Id": "n1", "Name": "back", "Scope": "swarm", "Driver": "overlay", "Labels": {"a": "b"}}));
            }
            if left != usize::MAX {
                lists_after_removal.store(left.saturating_sub(1), Ordering::Relaxed);
            }
            Reply::ok(json!(networks))
        }
        "DELETE /networks/n1" => {
            lists_after_removal.store(2, Ordering::Relaxed);
            Reply::Raw(b"HTTP/1.1 204 No Content\r\n\r\n".to_vec())
        }
        line => Reply::refuse(404, line),
    })
    .await;
    let client = engine.client().await;
    assert_eq!(client.secrets().create(&SecretSpec::new("s", "x")).await.unwrap().as_str(), "new");
    client.configs().create(&ConfigSpec::new("c", "hi")).await.unwrap();
    assert!(client.configs().get("c1").await.unwrap_err().is_not_found(), "a part of an id is no name");
    let configs = client.configs();
    let set = configs.modify("c", |spec| {
        spec.labels.insert("a".into(), "b".into());
    });
    assert!(set.await.unwrap().written);
    let refused = configs.try_modify("c", |config, _| Err::<(), u64>(config.version.index)).await;
    assert!(matches!(refused, Err(ModifyError::Refused(3))), "it saw the version, and nothing was written");
    assert_eq!(engine.posted()[2].body, json!({"Name": "c", "Labels": {"a": "b"}, "Data": "aGk="}));
    assert!(client.configs().remove("c").await.unwrap_err().is_in_use());

    let spec = NetworkSpec::overlay("back").attachable().encrypted().subnet("10.20.0.0/24").label("a", "b");
    client.networks().create(&spec).await.unwrap();
    assert_eq!(
        engine.posted()[3].body,
        json!({"Name": "back", "Driver": "overlay", "Attachable": true, "Internal": false,
        "Options": {"encrypted": ""}, "Labels": {"a": "b"}, "IPAM": {"Config": [{"Subnet": "10.20.0.0/24"}]}, "CheckDuplicate": true})
    );
    assert_eq!(client.networks().get("back").await.unwrap().id.as_str(), "n1");
    assert!(client.networks().get_opt("n0").await.unwrap().is_none());
    client.networks().remove("back").await.unwrap();
    assert!(client.networks().get_opt("back").await.unwrap().is_none(), "it waited");
}

#[tokio::test]
async fn networks_are_never_asked_of_a_worker() {
    let worker = Engine::start(|asked| match asked.line().as_str() {
        // What a real one does: it answers the list with what it happens to know.
        "GET /networks" => Reply::ok(json!([])),
        _ => Reply::refuse(503, WORKER),
    })
    .await;
    let manager = Engine::start(|asked| match asked.line().as_str() {
        "GET /networks" => Reply::ok(json!([{"Id": "n1", "Name": "back", "Scope": "swarm"}])),
        _ => Reply::ok(json!({"ID": "s"})),
    })
    .await;
    let client = worker.builder().endpoint(&manager.url).connect().await.unwrap();
    assert_eq!(client.networks().list().await.unwrap().len(), 1);
}

#[tokio::test]
async fn an_image_is_pinned_with_the_registry_s_digest() {
    let engine = Engine::start(|asked| match asked.line().as_str() {
        "GET /distribution/r.example:5000/a/web:1/json" | "GET /distribution/r.example%3A5000/a/web%3A1/json" => Reply::ok(json!({
            "Descriptor": {"mediaType": "x", "digest": "sha256:ab", "size": 1}, "Platforms": [{"architecture": "amd64", "os": "linux"}]})),
        _ => Reply::refuse(401, "unauthorized"),
    })
    .await;
    let client = engine.client().await;
    let auth = RegistryAuth::new("r.example:5000", "me", "hunter2");
    let image = client.pin_image("r.example:5000/a/web:1", Some(&auth)).await.unwrap();
    assert_eq!(image.reference, "r.example:5000/a/web:1@sha256:ab");
    let error = client.pin_image("x/../../services", None).await.unwrap_err();
    assert!(!engine.lines().iter().any(|line| line.contains("..")), "{error}");
}

#[tokio::test]
async fn logs_are_told_apart() {
    let mut body = b"HTTP/1.1 200 OK\r\nContent-Type: application/vnd.docker.raw-stream\r\n\r\n".to_vec();
    for (stream, task, text) in [(1_u8, "t1", "one\n"), (2, "t2", "two\n")] {
        let line = format!(
            "2026-11-25T22:00:00.000000000Z com.docker.swarm.node.id=n,com.docker.swarm.service.id=sid,com.docker.swarm.task.id={task} {text}"
        );
        body.extend([stream, 0, 0, 0]);
        body.extend(u32::try_from(line.len()).unwrap().to_be_bytes());
        body.extend(line.as_bytes());
    }
    let engine = Engine::start(move |asked| match asked.line().as_str() {
        "GET /services/web" => Reply::ok(json!({"ID": "sid", "Spec": {"Name": "web"}})),
        "GET /services/sid/logs" if asked.query.contains("tail=7") => Reply::Raw(body.clone()),
        "GET /services/sid/logs" => Reply::Raw([&body[..], &[1, 0, 0, 0, 0]].concat()),
        _ => Reply::refuse(500, "unexpected"),
    })
    .await;
    let services = engine.client().await.services();
    let lines: Vec<_> = services.logs("web", &LogOptions::default().tail(7)).await.unwrap().collect().await;
    let lines: Vec<_> = lines.into_iter().map(Result::unwrap).collect();
    assert_eq!(lines.len(), 2);
    assert_eq!((lines[1].stream, lines[1].text().as_ref()), (LogStream::Stderr, "two"));
    assert_eq!(lines[1].task_id.as_ref().unwrap().as_str(), "t2");
    // An end in the middle of a line is no end.
    let lines: Vec<_> = services.logs("web", &LogOptions::default()).await.unwrap().collect().await;
    assert_eq!(lines.len(), 3);
    assert!(lines[2].as_ref().unwrap_err().to_string().contains("middle of a line"));
}

#[tokio::test]
async fn a_rollback_goes_past_scales_to_the_spec_before() {
    let service = OneService::new(rich_spec());
    let state = service.clone();
    let engine = Engine::start(move |asked| match asked.line().as_str() {
        "GET /tasks" => Reply::ok(json!([])),
        _ => state.answer(asked),
    })
    .await;
    let services = engine.client().await.services();
    let nothing = services.rollback("web", &RollbackOptions::default()).await.unwrap_err();
    assert!(nothing.is_not_found(), "{nothing}");
    services.set_image("web", "web:2").await.unwrap();
    services.scale("web", 5).await.unwrap();
    services.scale("web", 6).await.unwrap();
    assert!(service.spec()["Labels"][ROLLBACK_LABEL].as_str().unwrap().contains("web:1@sha256:00"));
    let done = services.rollback("web", &RollbackOptions::default()).await.unwrap();
    assert_eq!(done.source, RollbackSource::Label);
    let mut expected = rich_spec();
    expected["Mode"]["Replicated"]["Replicas"] = json!(6);
    assert_eq!(service.spec(), expected, "all is as it was, but for the replicas of today");
    let forth = services.rollback("web", &RollbackOptions::default()).await.unwrap();
    assert_eq!(forth.source, RollbackSource::PreviousSpec);
    assert_eq!(service.spec()["TaskTemplate"]["ContainerSpec"]["Image"], "web:2");
}

#[tokio::test]
async fn a_hold_keeps_scales_off_until_it_ends() {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let mut spec = rich_spec();
    spec["Labels"][HOLD_LABEL] = json!(format!("{} drain of h1", now + 600));
    let service = OneService::new(spec.clone());
    let engine = Engine::start(move |asked| service.answer(asked)).await;
    let error = engine.client().await.services().scale("web", 3).await.unwrap_err();
    assert!(error.is_held() && error.to_string().contains("held by drain of h1"), "{error}");
    assert!(engine.posted().is_empty());
    spec["Labels"][HOLD_LABEL] = json!(format!("{} drain of h1", now - 1));
    let service = OneService::new(spec);
    let engine = Engine::start(move |asked| service.answer(asked)).await;
    assert!(engine.client().await.services().scale("web", 3).await.unwrap().written);
}

/// The managers know the host's own network under an id that no list has.
#[tokio::test]
async fn a_stack_on_the_host_s_network_is_unchanged_the_second_time() {
    use swarm_client::stack::{PlanOptions, Stack};
    let spec = ServiceSpec::builder("front", "front:1").network("outside").build();
    let mut written = serde_json::to_value(&spec).unwrap();
    written["Name"] = "shop_front".into();
    written["Labels"] = json!({"com.docker.stack.namespace": "shop", "com.docker.stack.image": "front:1"});
    written["TaskTemplate"]["ContainerSpec"]["Labels"] = json!({"com.docker.stack.namespace": "shop"});
    written["TaskTemplate"]["Networks"] = json!([{"Target": "vpsq"}]);
    let there = json!([{"ID": "s1", "Version": {"Index": 7}, "Spec": written}]);
    let none = [] as [&str; 0];
    let stack = Stack::new("shop").external_network("outside", "host").service(spec, none, none);
    let host = json!({"Name": "host", "Id": "vpsq", "Scope": "swarm", "Driver": "host"});
    let engine = Engine::start(move |asked| match asked.line().as_str() {
        "GET /services" => Reply::ok(there.clone()),
        "GET /networks/vpsq" => Reply::ok(host.clone()),
        "GET /networks" | "GET /secrets" | "GET /configs" => Reply::ok(json!([])),
        _ => Reply::ok(json!({"ID": "swarm"})),
    })
    .await;
    let plan = stack.plan(&engine.client().await, &PlanOptions::default()).await.unwrap();
    assert!(plan.is_empty(), "{plan}");
}
