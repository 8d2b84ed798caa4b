//! Watching an engine that misbehaves.

use std::sync::Mutex;

use futures_util::{StreamExt, pin_mut};
use swarm_client::conditions::{Condition, deleted, node_down, node_ready};
use swarm_client::watch::{WatchConfig, WatchEvent, Watcher, await_condition, reflector, store, watcher};
use swarm_client::{Node, RolloutProgress, Service, Task};

use super::*;

fn task(id: &str, version: u64, state: &str) -> Value {
    json!({"ID": id, "Version": {"Index": version}, "ServiceID": "s", "Status": {"State": state}, "DesiredState": "running"})
}

/// An engine that answers each look at its tasks with the next of these, and the last of them for ever.
async fn looked_at(answers: Vec<Reply>) -> Engine {
    let looks = AtomicUsize::new(0);
    Engine::start(move |asked| match asked.line().as_str() {
        "GET /tasks" => answers[looks.fetch_add(1, Ordering::Relaxed).min(answers.len() - 1)].clone(),
        _ => Reply::refuse(404, "no events here"),
    })
    .await
}

async fn next(watch: &mut Watcher<Task>) -> String {
    let event = tokio::time::timeout(Duration::from_secs(10), watch.next()).await.unwrap().unwrap();
    match event {
        Ok(WatchEvent::Init(all)) => format!("init {}", all.len()),
        Ok(WatchEvent::Apply(task)) => format!("apply {} {}", task.id, task.state()),
        Ok(WatchEvent::Delete(task)) => format!("delete {}", task.id),
        Err(error) => format!("error {error}"),
    }
}

#[tokio::test]
async fn nothing_an_engine_does_ends_a_watch_or_empties_it() {
    let raw = |text: &str| Reply::Raw(text.as_bytes().to_vec());
    let first = Reply::ok(json!([task("a", 1, "new"), task("b", 1, "new")]));
    let engine = looked_at(vec![
        first.clone(),
        raw("HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n[{\"ID\":\"a\""), // closes in the middle
        raw("\0\x01garbage, not HTTP at all\r\n\r\n"),
        Reply::Close,
        Reply::ok(json!({"not": "a list"})),
        Reply::ok(Value::Null),
        Reply::ok(json!([task("a", 1, "new"), 7])),
        Reply::refuse(500, NO_LEADER),
        Reply::Silence,
        first,
        Reply::ok(json!([task("a", 2, "running")])),
    ])
    .await;
    let client = engine.builder().request_timeout(Duration::from_millis(300)).connect().await.unwrap();
    let mut watch = watcher::<Task>(&client, WatchConfig::default().poll_every(Duration::from_millis(20)));
    assert_eq!(next(&mut watch).await, "init 2");
    for failure in [
        "no whole answer",
        "no whole answer",
        "no whole answer",
        "cannot read",
        "cannot read",
        "cannot read",
        "no leader",
        "no answer",
    ] {
        let event = next(&mut watch).await;
        assert!(event.starts_with("error ") && event.contains(failure), "{failure}: {event}");
    }
    assert_eq!(next(&mut watch).await, "apply a running", "what was known was kept all the time");
    assert_eq!(next(&mut watch).await, "delete b");
}

#[tokio::test]
async fn an_event_of_any_kind_is_a_hint_to_look_at_once() {
    // Events come, first one of a type that nobody knows, then garbage; after it the engine ends the stream, and it is opened anew.
    let version = Arc::new(AtomicUsize::new(0));
    let state = version.clone();
    let engine = Engine::start(move |asked| match asked.line().as_str() {
        "GET /services" => {
            let version = state.load(Ordering::Relaxed);
            Reply::ok(json!([{"ID": "s", "Version": {"Index": version}, "Spec": {"Name": "web"}}]))
        }
        "GET /events" => {
            assert!(asked.query.contains("service"), "{}", asked.query);
            state.fetch_add(1, Ordering::Relaxed);
            Reply::Raw(b"HTTP/1.1 200 OK\r\n\r\n{\"Type\":\"novel\",\"Action\":\"x\"}\n<<<not json".to_vec())
        }
        _ => Reply::refuse(500, "unexpected"),
    })
    .await;
    let client = engine.client().await;
    // By the timer alone nothing would come within the test.
    let mut watch = watcher::<Service>(&client, WatchConfig::default().poll_every(Duration::from_secs(3600)));
    assert!(matches!(watch.next().await, Some(Ok(WatchEvent::Init(_)))));
    for _ in 0..2 {
        let event = tokio::time::timeout(Duration::from_secs(10), watch.next()).await.unwrap();
        assert!(matches!(event, Some(Ok(WatchEvent::Apply(_)))), "{event:?}");
    }
}

#[tokio::test]
async fn a_watch_goes_on_with_the_next_manager() {
    let first = looked_at(vec![Reply::ok(json!([task("a", 1, "new")]))]).await;
    let second = looked_at(vec![Reply::ok(json!([task("a", 2, "running")]))]).await;
    let client = first.builder().endpoint(&second.url).connect().await.unwrap();
    let mut watch = watcher::<Task>(&client, WatchConfig::default().poll_every(Duration::from_millis(20)));
    assert_eq!(next(&mut watch).await, "init 1");
    drop(first);
    assert_eq!(next(&mut watch).await, "apply a running");
}

#[tokio::test]
async fn the_tasks_of_a_service_that_is_gone_are_none() {
    let engine =
        looked_at(vec![Reply::ok(json!([task("a", 1, "new")])), Reply::refuse(404, "service web not found")])
            .await;
    let client = engine.client().await;
    let config = WatchConfig::default().service("web").poll_every(Duration::from_millis(20));
    let mut watch = watcher::<Task>(&client, config);
    assert_eq!(next(&mut watch).await, "init 1");
    assert_eq!(next(&mut watch).await, "delete a");
    assert!(engine.asked().iter().any(|asked| asked.query.contains("web")));
}

#[tokio::test]
async fn a_store_holds_what_the_watch_saw() {
    let engine = looked_at(vec![
        Reply::Close,
        Reply::ok(json!([task("a", 1, "new"), task("b", 1, "new")])),
        Reply::ok(json!([task("a", 2, "running"), task("c", 1, "new")])),
    ])
    .await;
    let client = engine.client().await;
    let (tasks, writer) = store::<Task>();
    let reader = tasks.clone();
    let ready = tokio::spawn(async move {
        reader.wait_until_ready().await.unwrap();
        reader.len()
    });
    assert!(!tasks.is_ready() && tasks.is_empty());
    let config = WatchConfig::default().poll_every(Duration::from_millis(20));
    let events = reflector(writer, watcher(&client, config));
    pin_mut!(events);
    assert!(events.next().await.unwrap().is_err());
    events.next().await.unwrap().unwrap();
    assert_eq!(ready.await.unwrap(), 2);
    for _ in 0..3 {
        events.next().await.unwrap().unwrap();
    }
    assert_eq!(tasks.get("a").unwrap().state().as_str(), "running");
    assert!(tasks.get("b").is_none() && tasks.find(|task| task.id.as_str() == "c").is_some());
    let (never, writer) = store::<Task>();
    drop(writer);
    assert!(never.wait_until_ready().await.is_err());
}

#[tokio::test]
async fn a_condition_is_waited_for_through_failures() {
    let node = |id: &str, version: u64, state: &str| json!({"ID": id, "Version": {"Index": version}, "Description": {"Hostname": "h1"}, "Status": {"State": state}});
    let answers = Mutex::new(vec![
        Reply::ok(json!([node("n1", 3, "down")])),
        Reply::refuse(500, NO_LEADER),
        Reply::Close,
        Reply::ok(json!([node("n1", 2, "ready")])),
        Reply::ok(json!([])),
    ]);
    let engine = Engine::start(move |asked| match asked.line().as_str() {
        "GET /nodes" => {
            let mut answers = answers.lock().unwrap();
            if answers.len() > 1 { answers.pop().unwrap() } else { answers[0].clone() }
        }
        _ => Reply::refuse(404, "no events here"),
    })
    .await;
    let client = engine.client().await;
    let limit = Duration::from_secs(20);
    assert!(await_condition::<Node>(&client, "h1", deleted(), limit).await.unwrap().is_none());
    let found = await_condition(&client, "h1", node_ready(), limit).await.unwrap();
    assert_eq!(found.unwrap().version.index, 2);
    let found = await_condition(&client, "h1", node_down().or(deleted()), limit).await.unwrap();
    assert_eq!(found.unwrap().version.index, 3);
    let short = Duration::from_millis(200);
    let error = await_condition(&client, "h1", node_down().not(), short).await.unwrap_err();
    assert!(error.is_timeout(), "{error}");
    assert_eq!(
        error.to_string(),
        "wait for node \"h1\": not within 200ms: it exists, and the condition does not hold"
    );

    let twins =
        Engine::start(move |_| Reply::ok(json!([node("n1", 1, "down"), node("n2", 1, "ready")]))).await;
    let client = twins.client().await;
    let error = await_condition(&client, "h1", node_ready(), limit).await.unwrap_err();
    assert!(error.to_string().contains("2 objects are called so; use the full id"), "{error}");
    assert_eq!(await_condition(&client, "n2", node_ready(), limit).await.unwrap().unwrap().id.as_str(), "n2");
}

#[tokio::test]
async fn a_rollout_is_followed_step_by_step() {
    let looks = AtomicUsize::new(0);
    let engine = Engine::start(move |asked| match asked.line().as_str() {
        "GET /services/web" | "GET /services/sid" => match looks.fetch_add(1, Ordering::Relaxed) {
            1 => Reply::Close,
            _ => Reply::ok(
                json!({"ID": "sid", "Spec": {"Name": "web", "Mode": {"Replicated": {"Replicas": 1}}}}),
            ),
        },
        "GET /tasks" => {
            let state = if looks.load(Ordering::Relaxed) < 5 { "preparing" } else { "running" };
            let mut task = task("a", 1, state);
            task["Slot"] = json!(1);
            task["ServiceID"] = json!("sid");
            Reply::ok(json!([task]))
        }
        _ => Reply::ok(json!([])),
    })
    .await;
    let rollout = engine.client().await.services().rollout("web");
    let rollout = rollout.stable_for(Duration::from_millis(50)).poll_every(Duration::from_millis(20));
    let steps: Vec<RolloutProgress> = rollout.progress().map(Result::unwrap).collect().await;
    let texts: Vec<String> = steps.iter().map(ToString::to_string).collect();
    assert_eq!(texts[0], "0 of 1 running, 1 preparing");
    assert!(texts[1].contains("the last look failed"), "{texts:?}");
    assert_eq!(
        texts[2..],
        ["0 of 1 running, 1 preparing", "1 of 1 running, not yet for long enough", "converged: 1 running"]
    );
}
