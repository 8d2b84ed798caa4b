//! Finding an engine, and reading what it says.

use super::*;

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
