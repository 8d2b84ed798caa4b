//! Services: lossless, without conflicts, by exact names.

use super::*;

#[tokio::test]
async fn scaling_changes_the_replicas_and_nothing_else() {
    let service = OneService::new(rich_spec());
    let state = service.clone();
    let engine = Engine::start(move |asked| state.answer(asked)).await;
    let done = engine.client().await.services().scale("web", 5).await.unwrap();
    assert!(done.written && done.attempts == 1 && done.spec.replicas() == Some(5));
    let mut expected = rich_spec();
    expected["Mode"]["Replicated"]["Replicas"] = json!(5);
    assert_eq!(service.spec(), expected);
    assert_eq!(engine.posted()[0].query, "version=10&registryAuthFrom=spec");

    let again = engine.client().await.services().scale("web", 5).await.unwrap();
    assert!(!again.written, "a change that changes nothing writes nothing");
    assert_eq!(engine.posted().len(), 1);
}

#[tokio::test]
async fn a_global_service_is_not_scaled() {
    let service = OneService::new(json!({"Name": "web", "Mode": {"Global": {}}}));
    let engine = Engine::start(move |asked| service.answer(asked)).await;
    let error = engine.client().await.services().scale("web", 3).await.unwrap_err();
    assert!(
        matches!(error, Error::Invalid { .. }) && error.to_string().contains("not replicated"),
        "{error}"
    );
    assert!(engine.posted().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn eight_writers_lose_none_of_two_hundred_changes() {
    let service = OneService::new(rich_spec());
    let state = service.clone();
    let engine = Engine::with_ping("1.47", Duration::from_millis(1), move |asked| state.answer(asked)).await;
    let client = engine.client().await;
    let writers: Vec<_> = (0..8)
        .map(|writer| {
            let services = client.services();
            tokio::spawn(async move {
                for change in 0..25 {
                    let label = format!("w{writer}-{change}");
                    let result = services
                        .modify("web", |spec| {
                            spec.labels.insert(label.clone(), String::new());
                            assert!(spec.set_replicas(spec.replicas().unwrap() + 1));
                        })
                        .await;
                    assert!(result.unwrap().written);
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    let spec = service.spec();
    assert_eq!(spec["Mode"]["Replicated"]["Replicas"], json!(202));
    assert_eq!(spec["Labels"].as_object().unwrap().len(), 201);
    assert!(service.conflicts.load(Ordering::Relaxed) > 0, "the writers never met, so nothing was tested");
}

#[tokio::test]
async fn conflicts_without_end_have_an_end() {
    let engine = Engine::start(|asked| match asked.method.as_str() {
        "GET" => Reply::ok(json!({"ID": "sid", "Version": {"Index": 1}, "Spec": rich_spec()})),
        _ => Reply::refuse(500, CONFLICT),
    })
    .await;
    let client = engine.builder().max_conflict_retries(3).connect().await.unwrap();
    let error = client.services().scale("web", 9).await.unwrap_err();
    assert!(error.is_conflict() && error.is_retryable() && !error.is_outcome_unknown(), "{error}");
    assert_eq!(engine.posted().len(), 4);
}

#[tokio::test]
async fn a_refused_change_is_not_written() {
    #[derive(Debug, PartialEq)]
    struct StaleTerm(u64);
    let mut spec = rich_spec();
    spec["Labels"]["term"] = json!("7");
    let service = OneService::new(spec);
    let engine = Engine::start(move |asked| service.answer(asked)).await;
    let services = engine.client().await.services();
    let set = async |term: u64| {
        services
            .try_modify("web", |service, spec| {
                let held: u64 = service.label("term").and_then(|t| t.parse().ok()).unwrap_or(0);
                if held > term {
                    return Err(StaleTerm(held));
                }
                spec.labels.insert("term".into(), term.to_string());
                Ok(())
            })
            .await
    };
    assert_eq!(set(6).await.unwrap_err().refusal(), Some(&StaleTerm(7)));
    assert!(engine.posted().is_empty());
    assert!(set(8).await.unwrap().written);
    assert_eq!(set(7).await.unwrap_err().refusal(), Some(&StaleTerm(8)));
    assert_eq!(engine.posted().len(), 1);
}

#[tokio::test]
async fn names_are_exact_and_absence_is_certain() {
    let engine = Engine::start(|asked| match asked.line().as_str() {
        // The engine takes a part of an id for a name.
        "GET /services/si" | "GET /services/sid" | "GET /services/web" => {
            Reply::ok(json!({"ID": "sid", "Spec": {"Name": "web"}}))
        }
        "GET /services/gone" => Reply::refuse(404, "service gone not found"),
        "DELETE /services/sid" => Reply::Raw(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_vec()),
        "GET /services" => Reply::ok(json!([
            {"ID": "1", "Spec": {"Name": "a", "Labels": {"k": "v"}}},
            {"ID": "2", "Spec": {"Name": "b", "Labels": {"k": "vv"}}},
            {"ID": "3", "Spec": {"Name": "c", "Labels": null}},
        ])),
        _ => Reply::refuse(500, "disk on fire"),
    })
    .await;
    let services = engine.client().await.services();
    assert_eq!(services.get("web").await.unwrap().name(), "web");
    assert_eq!(services.get("sid").await.unwrap().name(), "web");
    assert!(services.get("si").await.unwrap_err().is_not_found());
    assert!(services.get("").await.unwrap_err().is_not_found());
    assert!(services.get_opt("gone").await.unwrap().is_none());
    assert!(services.get_opt("fire").await.unwrap_err().to_string().contains("disk on fire"));

    assert!(services.remove("si").await.unwrap_err().is_not_found());
    services.remove("web").await.unwrap();
    assert_eq!(engine.lines().iter().filter(|line| line.starts_with("DELETE")).count(), 1);

    let names = async |label| {
        let found = services.list_labelled(label).await.unwrap();
        found.iter().map(|s| s.name().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names("k").await, ["a", "b"]);
    assert_eq!(names("k=v").await, ["a"]);
}

#[tokio::test]
async fn creating_sends_the_spec_and_tells_a_taken_name() {
    let engine = Engine::start(|asked| {
        if asked.body["Name"] == "web" {
            Reply::Json(201, json!({"ID": "new", "Warnings": null}))
        } else {
            Reply::refuse(409, "rpc error: code = AlreadyExists desc = name conflicts with an existing object: service x already exists")
        }
    })
    .await;
    let services = engine.client().await.services();
    let spec = ServiceSpec::builder("web", "web:1").replicas(2).build();
    assert_eq!(services.create(&spec).await.unwrap().as_str(), "new");
    assert_eq!(engine.posted()[0].body, serde_json::to_value(&spec).unwrap());
    assert!(services.create(&ServiceSpec::builder("x", "x").build()).await.unwrap_err().is_already_exists());
}

#[tokio::test]
async fn a_refusal_is_told_from_a_failure() {
    let service = OneService::new(rich_spec());
    let engine = Engine::start(move |asked| service.answer(asked)).await;
    let services = engine.client().await.services();
    let refused = services.try_modify("web", |_, _| Err("no")).await.unwrap_err();
    assert!(matches!(refused, ModifyError::Refused("no")));
    let missing = services.try_modify("other", |_, _| Err("no")).await.unwrap_err();
    assert!(matches!(missing, ModifyError::Swarm(ref error) if error.is_not_found()), "{missing:?}");
}

#[tokio::test]
async fn a_placement_is_never_taken_away_since_that_ends_the_leader() {
    let mut spec = rich_spec();
    spec["TaskTemplate"]["Placement"] = json!({"Constraints": ["node.role==worker"]});
    let service = OneService::new(spec.clone());
    let state = service.clone();
    let engine = Engine::start(move |asked| state.answer(asked)).await;
    let services = engine.client().await.services();
    let taken = services.modify("web", |spec| spec.task_template.placement = None).await.unwrap();
    assert!(taken.written);
    spec["TaskTemplate"]["Placement"] = json!({});
    assert_eq!(service.spec(), spec, "an empty one means the same");
    let again = services.modify("web", |spec| spec.task_template.placement = None).await.unwrap();
    assert_eq!((again.written, engine.posted().len()), (false, 1));

    // A first one comes after an empty one, so that Swarm's own way back is not without.
    spec["TaskTemplate"].as_object_mut().unwrap().remove("Placement");
    let service = OneService::new(spec.clone());
    let state = service.clone();
    let engine = Engine::start(move |asked| state.answer(asked)).await;
    let services = engine.client().await.services();
    services.scale("web", 3).await.unwrap();
    assert!(engine.posted()[0].body["TaskTemplate"]["Placement"].is_null(), "nobody asked for one");
    let constrained = services
        .modify("web", |spec| {
            spec.task_template.placement.get_or_insert_default().constraints = vec!["a==b".to_owned()];
        })
        .await
        .unwrap();
    assert_eq!(constrained.attempts, 2);
    let placements: Vec<_> =
        engine.posted()[1..].iter().map(|post| post.body["TaskTemplate"]["Placement"].clone()).collect();
    assert_eq!(placements, [json!({}), json!({"Constraints": ["a==b"]})]);
}
