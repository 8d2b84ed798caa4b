//! The client against an engine that misbehaves on purpose.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::{CONFLICT, Engine, NO_LEADER, NO_SWARM, OneService, Reply, WORKER};
use swarm_client::{
    Availability, Client, Error, InitOptions, JoinOptions, JoinToken, ModifyError, Outcome, Role, ServiceSpec,
};

/// A spec with what other clients lose: the health check under the daemon's own spelling, and fields unknown to us.
fn rich_spec() -> Value {
    json!({
        "Name": "web",
        "Labels": {"a": "b"},
        "TaskTemplate": {
            "ContainerSpec": {
                "Image": "web:1@sha256:00", "Init": false, "Env": ["A=b"], "CapabilityAdd": ["CAP_NET_ADMIN"],
                "Ulimits": [{"Name": "nofile", "Soft": 1024, "Hard": 2048}],
                "Healthcheck": {"Test": ["CMD", "x"], "Interval": 1_000_000_000_i64, "Novel": {"x": [1, 2.5, null]}},
                "Privileges": {"Seccomp": {"Mode": "default"}}, "Isolation": "default",
                "Mounts": [{"Type": "bind", "Source": "/a", "Target": "/b", "BindOptions": {"Propagation": "rslave"}}],
            },
            "Resources": {"Limits": {"Pids": 7}, "Reservations": {"GenericResources": [{"DiscreteResourceSpec": {"Kind": "gpu", "Value": 2}}]}},
            "RestartPolicy": {"Condition": "never-heard-of", "MaxAttempts": 0},
            "Placement": {"Preferences": [{"Spread": {"SpreadDescriptor": "node.labels.zone"}}],
                          "Platforms": [{"Architecture": "amd64", "OS": "linux"}]},
            "Networks": [{"Target": "n", "Aliases": ["w"], "DriverOpts": {"k": "v"}}],
            "ForceUpdate": 3, "Runtime": "container", "LogDriver": {"Name": "local"},
        },
        "Mode": {"Replicated": {"Replicas": 2}},
        "UpdateConfig": {"Parallelism": 0, "FailureAction": "pause", "Monitor": 1, "MaxFailureRatio": 0.25, "Order": "start-first"},
        "EndpointSpec": {"Mode": "dnsrr", "Ports": [{"Protocol": "tcp", "TargetPort": 80, "PublishMode": "host", "Name": "x"}]},
        "FromTheFuture": {"deep": [{"x": 18_446_744_073_709_551_615_u64}]},
    })
}

#[tokio::test]
async fn the_api_version_is_negotiated_and_sent() {
    for (api, sent) in [("1.47", "/v1.47/nodes"), ("1.41", "/v1.41/nodes"), ("1.99", "/v1.56/nodes")] {
        let engine = Engine::with_ping(api, Duration::ZERO, |_| Reply::ok(json!([]))).await;
        assert!(engine.client().await.nodes().list().await.unwrap().is_empty());
        assert_eq!(engine.asked()[0].path, sent);
    }
    let old = Engine::with_ping("1.24", Duration::ZERO, |_| Reply::Close).await;
    let error = old.builder().connect().await.unwrap_err().to_string();
    assert!(error.contains("1.24") && error.contains("1.41") && error.contains(&old.url), "{error}");
}

#[tokio::test]
async fn what_is_no_engine_is_told_at_once() {
    let plain = Engine::with_ping("none", Duration::ZERO, |_| Reply::ok(json!("hello"))).await;
    let error = plain.builder().connect().await.unwrap_err();
    assert!(error.to_string().contains("names no API version"), "{error}");

    let garbage = Engine::with_ping("none", Duration::ZERO, |_| Reply::Raw(b"SSH-2.0-x\r\n".to_vec())).await;
    assert!(garbage.builder().connect().await.unwrap_err().is_unreachable());

    let silent = Engine::with_ping("none", Duration::ZERO, |_| Reply::Silence).await;
    let started = Instant::now();
    let error = silent.builder().request_timeout(Duration::from_millis(100)).connect().await.unwrap_err();
    assert!(error.is_unreachable() && started.elapsed() < Duration::from_secs(3), "{error}");

    let url = dead_url().await;
    let error = Client::builder().endpoint(&url).connect().await.unwrap_err();
    assert!(error.is_unreachable() && error.is_retryable() && error.to_string().contains(&url), "{error}");

    assert!(matches!(Client::builder().connect().await, Err(Error::Config { .. })));
    let error = Client::builder().endpoint("nonsense").connect().await.unwrap_err();
    assert!(error.to_string().starts_with("endpoint is \"nonsense\""), "{error}");
    let zero = Client::builder().endpoint(&url).request_timeout(Duration::ZERO).connect().await.unwrap_err();
    assert!(zero.to_string().starts_with("request_timeout is "), "{zero}");
}

/// An address where nothing listens.
async fn dead_url() -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    format!("tcp://{}", listener.local_addr().unwrap())
}

#[tokio::test]
async fn a_bad_answer_is_an_error_and_never_an_empty_list() {
    let head = |length: usize| format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
    let bad: Vec<(&str, Reply)> = vec![
        ("garbage", Reply::Raw(b"\x00\xff\x13garbage\r\n\r\n".to_vec())),
        ("nothing", Reply::Close),
        ("half a head", Reply::Raw(b"HTTP/1.1 200 OK\r\nConte".to_vec())),
        ("half a body", Reply::Raw(format!("{}[{{\"ID\":\"a\"", head(4000)).into_bytes())),
        ("half a JSON", Reply::Raw(format!("{}[{{\"I", head(4)).into_bytes())),
        ("no body", Reply::Raw(head(0).into_bytes())),
        ("another shape", Reply::ok(json!({"nodes": []}))),
        ("null", Reply::ok(Value::Null)),
        ("an object without id", Reply::ok(json!([{"Spec": {}}]))),
        ("a redirect", Reply::Json(302, json!({}))),
        ("a wrong type", Reply::ok(json!([{"ID": 7}]))),
        ("a long text", Reply::Raw([head(90_000).into_bytes(), vec![b'x'; 90_000]].concat())),
        ("silence", Reply::Silence),
    ];
    for (name, reply) in bad {
        let engine = Engine::start(move |_| reply.clone()).await;
        let client = engine
            .builder()
            .max_body(10_000)
            .request_timeout(Duration::from_millis(300))
            .connect()
            .await
            .unwrap();
        let error = client.nodes().list().await.expect_err(name);
        assert!(!error.is_not_found() && error.to_string().contains(&engine.url), "{name}: {error}");
    }
}

#[tokio::test]
async fn errors_repeat_no_secret() {
    let engine = Engine::start(|asked| match asked.line().as_str() {
        "GET /services" => Reply::ok(json!([{"ID": "s", "Spec": {"Name": "hunter2"}, "Version": "hunter2"}])),
        _ => Reply::refuse(400, "bad token SWMTKN-1-hunter2-x given"),
    })
    .await;
    let client = engine.client().await;
    let decode = client.services().list().await.unwrap_err();
    let refused = client.nodes().list().await.unwrap_err();
    for error in [decode, refused] {
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
    }
    let spec: ServiceSpec = serde_json::from_value(json!({"TaskTemplate": {"ContainerSpec": {
        "Image": "i", "Env": ["PASSWORD=hunter2"], "Args": ["hunter2"], "Healthcheck": {"Test": ["CMD", "hunter2"]},
        "Novel": "hunter2"}}}))
    .unwrap();
    let shown = format!("{spec:?}");
    assert!(shown.contains("PASSWORD") && shown.contains("Novel") && !shown.contains("hunter2"), "{shown}");
}

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
async fn reads_move_on_to_a_manager_that_can_answer_and_stay_there() {
    let dead = dead_url().await;
    let worker = Engine::start(|_| Reply::refuse(503, WORKER)).await;
    let lonely = Engine::start(|_| Reply::refuse(500, NO_LEADER)).await;
    let broken = Engine::start(|_| Reply::Close).await;
    let good = Engine::start(|_| Reply::ok(json!([]))).await;
    let client = Client::builder()
        .endpoint(&dead)
        .endpoint(&worker.url)
        .endpoint(&lonely.url)
        .endpoint(&broken.url)
        .endpoint(&good.url)
        .connect()
        .await
        .unwrap();
    for _ in 0..3 {
        client.nodes().list().await.unwrap();
    }
    assert_eq!(client.endpoint().to_string(), good.url);
    let asked: Vec<usize> = [&worker, &lonely, &broken, &good].iter().map(|e| e.asked().len()).collect();
    assert_eq!(asked, [1, 1, 1, 3]);
}

#[tokio::test]
async fn a_write_moves_on_only_when_nothing_was_done() {
    let create = ServiceSpec::builder("web", "web:1").build();
    for (first, moves) in [
        (Reply::refuse(503, WORKER), true),
        (Reply::refuse(500, NO_LEADER), true),
        (Reply::refuse(500, "rpc error: code = DeadlineExceeded desc = context deadline exceeded"), false),
        (Reply::refuse(500, "raft: failed to process the request: node lost leader status"), false),
        (Reply::Close, false),
        (Reply::Silence, false),
    ] {
        let reply = first.clone();
        let bad = Engine::start(move |_| reply.clone()).await;
        let good = Engine::start(|_| Reply::Json(201, json!({"ID": "x"}))).await;
        let client = bad
            .builder()
            .endpoint(&good.url)
            .request_timeout(Duration::from_millis(300))
            .connect()
            .await
            .unwrap();
        let result = client.services().create(&create).await;
        assert_eq!(good.posted().len(), usize::from(moves), "{first:?}");
        match result {
            Ok(_) => assert!(moves),
            Err(error) => {
                assert!(!moves && error.is_outcome_unknown() && error.is_retryable(), "{first:?}: {error}");
            }
        }
    }
    // Nothing was sent to a dead one.
    let good = Engine::start(|_| Reply::Json(201, json!({"ID": "x"}))).await;
    let client = Client::builder().endpoint(dead_url().await).endpoint(&good.url).connect().await.unwrap();
    client.services().create(&create).await.unwrap();
}

#[tokio::test]
async fn a_scale_survives_a_manager_that_dies_after_doing_it() {
    let service = OneService::new(rich_spec());
    let (dying, next) = (service.clone(), service.clone());
    // The first manager does the write and dies before it says so.
    let first = Engine::start(move |asked| match dying.answer(asked) {
        _ if asked.method == "POST" => Reply::Close,
        reply => reply,
    })
    .await;
    let second = Engine::start(move |asked| next.answer(asked)).await;
    let client = first.builder().endpoint(&second.url).connect().await.unwrap();
    client.services().scale("web", 4).await.unwrap();
    assert_eq!(service.spec()["Mode"]["Replicated"]["Replicas"], json!(4));
    assert_eq!(service.conflicts.load(Ordering::Relaxed), 1, "the second manager saw that it was done");

    // A change that may not be done twice is left to the caller.
    let client = first.builder().endpoint(&second.url).connect().await.unwrap();
    let error = client
        .services()
        .modify("web", |spec| assert!(spec.set_replicas(spec.replicas().unwrap() + 1)))
        .await;
    assert!(error.unwrap_err().is_outcome_unknown());
    assert_eq!(service.spec()["Mode"]["Replicated"]["Replicas"], json!(5), "it was done once");
}

#[tokio::test]
async fn each_endpoint_s_failure_is_told() {
    let worker = Engine::start(|_| Reply::refuse(503, WORKER)).await;
    let outside = Engine::start(|_| Reply::refuse(503, NO_SWARM)).await;
    let client = worker.builder().endpoint(&outside.url).connect().await.unwrap();
    let error = client.nodes().list().await.unwrap_err();
    let text = error.to_string();
    assert!(text.contains(&worker.url) && text.contains(&outside.url), "{text}");
    assert!(error.is_not_manager() && !error.is_not_in_swarm() && !error.is_unreachable());
}

#[tokio::test]
async fn no_swarm_is_certain_only_if_each_engine_says_so() {
    let (a, b) = (
        Engine::start(|_| Reply::refuse(503, NO_SWARM)).await,
        Engine::start(|_| Reply::refuse(503, NO_SWARM)).await,
    );
    let both = a.builder().endpoint(&b.url).connect().await.unwrap();
    assert!(both.swarm().get_opt().await.unwrap().is_none());
    let one = a.builder().endpoint(dead_url().await).connect().await.unwrap();
    assert!(one.swarm().get_opt().await.is_err());
}

#[tokio::test]
async fn what_acts_on_one_machine_wants_one_endpoint() {
    let a = Engine::start(|_| Reply::ok(json!("node-1"))).await;
    let several = a.builder().endpoint(dead_url().await).connect().await.unwrap();
    assert!(matches!(several.swarm().leave(true).await, Err(Error::Invalid { .. })));
    assert!(a.asked().is_empty());
    let options = InitOptions {
        advertise_addr: "198.18.0.11".into(),
        heartbeat_period: Some(Duration::from_secs(1)),
        ..InitOptions::default()
    };
    assert_eq!(a.client().await.swarm().init(options).await.unwrap().as_str(), "node-1");
    assert_eq!(
        a.posted()[0].body,
        json!({"ListenAddr": "0.0.0.0:2377", "AdvertiseAddr": "198.18.0.11", "ForceNewCluster": false,
               "Spec": {"Dispatcher": {"HeartbeatPeriod": 1_000_000_000}}})
    );
}

#[tokio::test]
async fn joining_tries_each_manager_and_waits_in_the_background() {
    let looks = Arc::new(AtomicUsize::new(0));
    let engine = Engine::start(move |asked| match (asked.line().as_str(), asked.body["RemoteAddrs"][0].as_str()) {
        ("POST /swarm/join", Some("m1:2377")) => Reply::refuse(500, "could not connect to m1"),
        ("POST /swarm/join", _) => Reply::refuse(503, "Timeout was reached before node joined. The attempt to join the swarm will continue in the background."),
        _ => {
            let state = ["pending", "pending", "active"][looks.fetch_add(1, Ordering::Relaxed).min(2)];
            Reply::ok(json!({"Name": "h", "Swarm": {"LocalNodeState": state, "NodeID": ""}}))
        }
    })
    .await;
    let options = JoinOptions::new(["m1:2377", "m2:2377", "m3:2377"], JoinToken::from("SWMTKN-1-x"));
    assert!(!format!("{options:?}").contains("SWMTKN"));
    engine.client().await.swarm().join(options).await.unwrap();
    let posted = engine.posted();
    let addrs: Vec<&Value> = posted.iter().map(|asked| &asked.body["RemoteAddrs"]).collect();
    assert_eq!(addrs, [&json!(["m1:2377"]), &json!(["m2:2377"])]);
    assert_eq!(posted[0].body["JoinToken"], "SWMTKN-1-x");
}

#[tokio::test]
async fn a_join_that_fails_says_why() {
    let failing = |state: &'static str| {
        Engine::start(move |asked| match asked.method.as_str() {
            "POST" => Reply::ok(json!("")),
            _ => Reply::ok(json!({"Swarm": {"LocalNodeState": state, "Error": "remote CA does not match"}})),
        })
    };
    for (state, deadline) in [("error", Duration::from_secs(60)), ("pending", Duration::from_millis(300))] {
        let engine = failing(state).await;
        let mut options = JoinOptions::new(["m1:2377"], JoinToken::from("SWMTKN-1-x"));
        options.deadline = deadline;
        let error = engine.client().await.swarm().join(options).await.unwrap_err().to_string();
        assert!(error.contains(state) && error.contains("remote CA does not match"), "{error}");
    }
    let engine = failing("active").await;
    let none = JoinOptions::new([] as [String; 0], JoinToken::from("x"));
    assert!(matches!(engine.client().await.swarm().join(none).await, Err(Error::Invalid { .. })));
}

#[tokio::test]
async fn swarm_and_node_settings_keep_the_rest() {
    let engine = Engine::start(|asked| match asked.line().as_str() {
        "GET /swarm" => Reply::ok(json!({"ID": "s", "Version": {"Index": 4}, "JoinTokens": {"Worker": "SWMTKN-1-w", "Manager": ""},
            "Spec": {"Name": "default", "Raft": {"X": 1}, "Dispatcher": {"HeartbeatPeriod": 5_000_000_000_i64, "Y": 2}}})),
        "GET /nodes/h1" => Reply::ok(json!({"ID": "n1", "Version": {"Index": 9}, "Description": {"Hostname": "h1"},
            "Spec": {"Labels": {"zone": "a"}, "Role": "manager", "Availability": "active", "Z": 3}})),
        _ => Reply::ok(Value::Null),
    })
    .await;
    let client = engine.client().await;
    client.swarm().set_heartbeat_period(Duration::from_secs(1)).await.unwrap();
    client.nodes().set_availability("h1", Availability::Drain).await.unwrap();
    let posted = engine.posted();
    assert_eq!((posted[0].line().as_str(), posted[0].query.as_str()), ("POST /swarm/update", "version=4"));
    assert_eq!(
        posted[0].body,
        json!({"Name": "default", "Raft": {"X": 1}, "Dispatcher": {"HeartbeatPeriod": 1_000_000_000, "Y": 2}})
    );
    assert_eq!((posted[1].line().as_str(), posted[1].query.as_str()), ("POST /nodes/n1/update", "version=9"));
    assert_eq!(
        posted[1].body,
        json!({"Labels": {"zone": "a"}, "Role": "manager", "Availability": "drain", "Z": 3})
    );
    assert_eq!(client.swarm().join_token(Role::Worker).await.unwrap().expose(), "SWMTKN-1-w");
    assert!(client.swarm().join_token(Role::Manager).await.unwrap_err().is_not_found());
}

fn running(id: &str, slot: u64, node: &str) -> Value {
    json!({"ID": id, "ServiceID": "sid", "Slot": slot, "NodeID": node, "DesiredState": "running",
           "Status": {"State": "running", "PortStatus": {"Ports": [{"Protocol": "tcp", "TargetPort": 80, "PublishedPort": 32000 + slot, "PublishMode": "host"}]}}})
}

#[tokio::test]
async fn endpoints_are_where_live_tasks_listen() {
    let engine = Engine::start(|asked| match asked.line().as_str() {
        "GET /services/web" => Reply::ok(json!({"ID": "sid", "Spec": {"Name": "web"}})),
        "GET /tasks" => {
            let mut stranger = running("t9", 9, "n1");
            stranger["ServiceID"] = json!("other");
            Reply::ok(json!([running("t1", 1, "n1"), running("t2", 2, "n2"), stranger]))
        }
        "GET /nodes" => Reply::ok(json!([
            {"ID": "n1", "Description": {"Hostname": "h1"}, "Status": {"State": "ready", "Addr": "0.0.0.0"},
             "ManagerStatus": {"Leader": true, "Addr": "198.18.0.11:2377"}},
            {"ID": "n2", "Description": {"Hostname": "h2"}, "Status": {"State": "down", "Addr": "198.18.0.12"}},
        ])),
        _ => Reply::refuse(500, "unexpected"),
    })
    .await;
    let found = engine.client().await.services().endpoints("web").await.unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(
        (found[0].addr.to_string().as_str(), found[0].node_name.as_str()),
        ("198.18.0.11:32001", "h1")
    );
    assert!(engine.asked().iter().any(|a| a.query == "filters=%7B%22service%22%3A%5B%22sid%22%5D%7D"));
}

/// An engine whose service converges after some looks; `service` makes the answer to look number n.
async fn rolling(service: impl Fn(usize) -> Reply + Send + Sync + 'static) -> Engine {
    let looks = AtomicUsize::new(0);
    Engine::start(move |asked| match asked.line().as_str() {
        "GET /services/web" | "GET /services/sid" => service(looks.fetch_add(1, Ordering::Relaxed)),
        "GET /tasks" => {
            assert!(asked.query.contains("_up-to-date"), "{}", asked.query);
            Reply::ok(json!([running("t1", 1, "n1")]))
        }
        _ => Reply::ok(json!([{"ID": "n1", "Status": {"State": "ready"}}])),
    })
    .await
}

fn wanted(replicas: u64) -> Reply {
    Reply::ok(json!({"ID": "sid", "Spec": {"Name": "web", "Mode": {"Replicated": {"Replicas": replicas}}}}))
}

async fn wait(engine: &Engine, deadline: Duration) -> Result<Outcome, Error> {
    let client = engine.builder().request_timeout(Duration::from_millis(500)).connect().await.unwrap();
    let poll = Duration::from_millis(20);
    client
        .services()
        .rollout("web")
        .stable_for(Duration::from_millis(50))
        .poll_every(poll)
        .wait(deadline)
        .await
}

#[tokio::test]
async fn a_rollout_is_waited_for_through_an_election() {
    let engine = rolling(|look| match look {
        0 => wanted(2),
        1..=3 => Reply::refuse(500, NO_LEADER),
        4 => Reply::Close,
        _ => wanted(1),
    })
    .await;
    assert_eq!(wait(&engine, Duration::from_secs(20)).await.unwrap().to_string(), "converged: 1 running");
}

#[tokio::test]
async fn a_rollout_that_takes_too_long_is_diagnosed() {
    let engine = rolling(|_| wanted(3)).await;
    let started = Instant::now();
    let outcome = wait(&engine, Duration::from_millis(300)).await.unwrap();
    assert!(started.elapsed() < Duration::from_secs(3));
    assert!(!outcome.is_success());
    assert_eq!(outcome.to_string(), "timed out: 1 of 3 running");
}

#[tokio::test]
async fn a_rollout_ends_when_its_service_goes() {
    let engine =
        rolling(|look| if look < 2 { wanted(2) } else { Reply::refuse(404, "service sid not found") }).await;
    assert_eq!(wait(&engine, Duration::from_secs(20)).await.unwrap(), Outcome::Removed);
    let never = rolling(|_| Reply::refuse(404, "service web not found")).await;
    assert!(wait(&never, Duration::from_secs(20)).await.unwrap_err().is_not_found());
    let silent = rolling(|_| Reply::Silence).await;
    assert!(wait(&silent, Duration::from_millis(200)).await.unwrap_err().is_timeout());
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

#[cfg(unix)]
#[tokio::test]
async fn a_local_socket_works() {
    let socket = std::env::temp_dir().join(format!("swarm-client-{}.sock", std::process::id()));
    let _ = std::fs::remove_file(&socket);
    let listener = tokio::net::UnixListener::bind(&socket).unwrap();
    let server = tokio::spawn(async move {
        let log = std::sync::Mutex::new(Vec::new());
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let info = json!({"Name": "h1", "NCPU": 2, "Swarm": {"LocalNodeState": "active", "NodeID": "n1", "ControlAvailable": true}});
            support::serve(
                stream,
                "1.47",
                Duration::ZERO,
                &|_: &support::Asked| Reply::ok(info.clone()),
                &log,
            )
            .await;
        }
    });
    let url = format!("unix://{}", socket.display());
    let info = Client::builder().endpoint(&url).connect().await.unwrap().info().await.unwrap();
    assert_eq!((info.name.as_str(), info.ncpu, info.swarm.node_id.as_str()), ("h1", 2, "n1"));
    server.abort();
    std::fs::remove_file(&socket).unwrap();
}
