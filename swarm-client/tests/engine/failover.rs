//! Several managers.

use super::*;

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
async fn a_read_leaves_a_silent_manager_after_the_request_timeout() {
    let silent = Engine::start(|_| Reply::Silence).await;
    let good = Engine::start(|_| Reply::ok(json!([]))).await;
    let timeout = Duration::from_millis(200);
    let client = silent.builder().endpoint(&good.url).request_timeout(timeout).connect().await.unwrap();
    let started = Instant::now();
    client.nodes().list().await.unwrap();
    let took = started.elapsed();
    assert!(took >= timeout && took < Duration::from_secs(3), "{took:?}");
    assert_eq!(client.endpoint().to_string(), good.url);
}

#[tokio::test]
async fn the_version_is_asked_anew_when_an_engine_refuses_it() {
    // A newer engine in its place refuses the version that was settled before.
    let refused = AtomicUsize::new(0);
    let engine = Engine::start(move |_| match refused.fetch_add(1, Ordering::Relaxed) {
        0 => Reply::refuse(
            400,
            "client version 1.47 is too old. Minimum supported API version is 1.48, please upgrade",
        ),
        _ => Reply::ok(json!([])),
    })
    .await;
    let client = engine.client().await;
    assert!(client.nodes().list().await.unwrap().is_empty());
    assert_eq!(engine.asked().len(), 2);

    let stubborn = Engine::start(|_| {
        Reply::refuse(400, "client version 1.47 is too new. Maximum supported API version is 1.46")
    })
    .await;
    assert!(stubborn.client().await.nodes().list().await.unwrap_err().to_string().contains("too new"));
    assert_eq!(stubborn.asked().len(), 2);
}

#[tokio::test]
async fn impatient_callers_do_not_begin_at_the_same_dead_manager_for_ever() {
    let silent = Engine::start(|_| Reply::Silence).await;
    let mute = Engine::start(|_| Reply::Silence).await;
    let good = Engine::start(|_| Reply::ok(json!([]))).await;
    let client = silent.builder().endpoint(&mute.url).endpoint(&good.url).connect().await.unwrap();
    let nodes = client.nodes();
    let impatient = || tokio::time::timeout(Duration::from_millis(200), nodes.list());
    assert!(impatient().await.is_err());
    assert!(impatient().await.is_err());
    // The third one begins elsewhere.
    nodes.list().await.unwrap();
    assert_eq!(client.endpoint().to_string(), good.url);
    assert_eq!((silent.asked().len(), mute.asked().len()), (1, 1));
}

#[tokio::test]
async fn a_manager_that_was_given_too_little_time_is_asked_first_the_next_time() {
    // The first one uses up the time, and the second one is still at it when the caller gives up.
    let silent = Engine::start(|_| Reply::Silence).await;
    let slow = Engine::with_ping("1.47", Duration::from_millis(300), |_| Reply::ok(json!([]))).await;
    let client = silent
        .builder()
        .endpoint(&slow.url)
        .request_timeout(Duration::from_millis(400))
        .connect()
        .await
        .unwrap();
    let nodes = client.nodes();
    assert!(tokio::time::timeout(Duration::from_millis(500), nodes.list()).await.is_err());
    assert_eq!(client.endpoint().to_string(), slow.url);
    nodes.list().await.unwrap();
}

#[tokio::test]
async fn one_endpoint_takes_no_longer_than_its_timeouts_even_if_the_version_is_asked_anew() {
    // The version is refused late, and the new question for it is answered by nobody.
    let pings = AtomicUsize::new(0);
    let slow = Duration::from_millis(400);
    let engine = Engine::with_ping("none", slow, move |asked| match asked.path.as_str() {
        "/_ping" if pings.fetch_add(1, Ordering::Relaxed) == 0 => Reply::Raw(
            b"HTTP/1.1 200 OK\r\nApi-Version: 1.47\r\nContent-Length: 2\r\nConnection: close\r\n\r\nOK"
                .to_vec(),
        ),
        "/_ping" => Reply::Silence,
        _ => Reply::refuse(
            400,
            "client version 1.47 is too old. Minimum supported API version is 1.48, please upgrade",
        ),
    })
    .await;
    let (connect, request) = (Duration::from_millis(100), Duration::from_millis(600));
    let builder = engine.builder().connect_timeout(connect).request_timeout(request);
    let client = builder.connect().await.unwrap();
    for _ in 0..2 {
        let started = Instant::now();
        let error = client.nodes().list().await.unwrap_err();
        let took = started.elapsed();
        assert!(
            error.is_unreachable() && took < connect + request + Duration::from_millis(250),
            "{took:?}: {error}"
        );
    }
}
