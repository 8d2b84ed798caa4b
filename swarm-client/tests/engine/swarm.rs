//! The swarm and its nodes.

use super::*;

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
    for (subnet_size, sent) in [(None, 24), (Some(26), 26)] {
        let pool = vec!["10.77.0.0/16".to_owned()];
        let options = InitOptions { default_addr_pool: pool, subnet_size, ..InitOptions::default() };
        a.client().await.swarm().init(options).await.unwrap();
        let body = a.posted().pop().unwrap().body;
        assert_eq!((&body["DefaultAddrPool"], &body["SubnetSize"]), (&json!(["10.77.0.0/16"]), &json!(sent)));
    }
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
async fn a_join_through_a_manager_that_is_silent_is_given_up_for_the_next() {
    // Behind the first address is nobody: the engine goes on trying for ever, or until it says that it failed.
    for stuck in ["pending", "error"] {
        let tried = Arc::new(std::sync::Mutex::new(Vec::new()));
        let seen = tried.clone();
        let engine = Engine::start(move |asked| {
            let mut tried = tried.lock().unwrap();
            match (asked.line().as_str(), asked.body["RemoteAddrs"][0].as_str()) {
                ("POST /swarm/join", Some("gone:2377")) => {
                    tried.push("join gone");
                    Reply::refuse(503, "Timeout was reached before node joined. The attempt to join the swarm will continue in the background.")
                }
                ("POST /swarm/join", _) if tried.last() == Some(&"leave") => {
                    tried.push("join m2");
                    Reply::ok(json!(""))
                }
                ("POST /swarm/join", _) => Reply::refuse(503, "This node is already part of a swarm. Use \"docker swarm leave\" to leave this swarm and join another one."),
                ("POST /swarm/leave", _) => {
                    tried.push("leave");
                    Reply::ok(json!(""))
                }
                _ => {
                    let state = if tried.last() == Some(&"join m2") { "active" } else { stuck };
                    Reply::ok(json!({"Name": "h", "Swarm": {"LocalNodeState": state, "NodeID": ""}}))
                }
            }
        })
        .await;
        let options = JoinOptions::new(["gone:2377", "m2:2377"], JoinToken::from("SWMTKN-1-x"));
        engine.client().await.swarm().join_within(options, Duration::from_secs(8)).await.unwrap();
        assert_eq!(*seen.lock().unwrap(), ["join gone", "leave", "join m2"]);
    }
    // One that has become a manager at the last moment stays one.
    let left = std::sync::atomic::AtomicBool::new(false);
    let engine = Engine::start(move |asked| match asked.line().as_str() {
        "POST /swarm/join" => Reply::refuse(503, "Timeout was reached before node joined. The attempt to join the swarm will continue in the background."),
        "POST /swarm/leave" => {
            left.store(true, Ordering::Relaxed);
            Reply::refuse(503, "You are attempting to leave the swarm on a node that is participating as a manager. Doing so may lose the consensus of your cluster. Use `--force` to suppress this message.")
        }
        _ => {
            let state = if left.load(Ordering::Relaxed) { "active" } else { "error" };
            Reply::ok(json!({"Name": "h", "Swarm": {"LocalNodeState": state, "Error": "slow"}}))
        }
    })
    .await;
    let options = JoinOptions::new(["m1:2377", "m2:2377"], JoinToken::from("SWMTKN-1-x"));
    engine.client().await.swarm().join_within(options, Duration::from_secs(8)).await.unwrap();
    assert_eq!(engine.posted().len(), 2);
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
        let options = JoinOptions::new(["m1:2377"], JoinToken::from("SWMTKN-1-x"));
        let error =
            engine.client().await.swarm().join_within(options, deadline).await.unwrap_err().to_string();
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
