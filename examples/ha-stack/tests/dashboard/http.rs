//! The dashboard as a program meets it: what is served, and what is refused.

use serde_json::{Value, json};

use crate::scripted::{self, serve};
use crate::up::Up;

const TOKEN: &str = "0123456789abcdef0123";

#[tokio::test]
async fn the_page_is_whole_and_names_no_other_host() {
    let (_told, address) = serve(scripted::well()).await;
    let get = async |path: &str| reqwest::get(format!("http://{address}/{path}")).await.unwrap();
    let page = get("").await;
    let policy = page.headers()["content-security-policy"].to_str().unwrap().to_owned();
    assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    let mut todo = vec![page.text().await.unwrap()];
    let mut seen = std::collections::BTreeSet::new();
    while let Some(text) = todo.pop() {
        let urls = text.matches("://").count();
        // The name of SVG's namespace is not an address that anybody asks.
        let names = text.matches("http://www.w3.org/2000/svg").count();
        let own = text.matches("href: view.site").count();
        assert_eq!(urls, names, "{text}");
        assert!(own <= 1);
        let quoted = text.split(['"', '\'']).filter_map(|part| {
            let file = part.strip_prefix("page/").or_else(|| part.strip_prefix("./"))?;
            (!file.contains(' ') && file.contains('.')).then(|| file.to_owned())
        });
        for file in quoted.collect::<Vec<_>>() {
            if seen.insert(file.clone()) {
                let answer = get(&format!("page/{file}")).await;
                assert!(answer.status().is_success(), "{file}: {}", answer.status());
                todo.push(answer.text().await.unwrap());
            }
        }
    }
    assert!(seen.len() >= 7, "{seen:?}");
}

#[tokio::test]
async fn a_stream_begins_with_everything_and_goes_on_with_frames() {
    let (told, address) = serve(scripted::well()).await;
    let mut stream = reqwest::get(format!("http://{address}/api/live")).await.unwrap();
    let mut text = String::new();
    let mut read = async |until: &str| {
        while !text.contains(until) {
            text.push_str(&String::from_utf8_lossy(&stream.chunk().await.unwrap().unwrap()));
        }
        text.clone()
    };
    let begun = read("\n\n").await;
    let start: Value =
        serde_json::from_str(begun.lines().nth(1).unwrap().strip_prefix("data: ").unwrap()).unwrap();
    assert!(begun.starts_with("event: start"));
    assert_eq!(start["rights"]["controls"], false);
    told.tell(Err("away".into()));
    let later = read("\"error\":\"away\"").await;
    assert!(later.contains("event: frame"));
}

#[tokio::test]
async fn a_change_needs_the_token_and_our_own_page() {
    let up = Up::start(&[], Some(TOKEN));
    let http = reqwest::Client::new();
    let scale = |path: &str, body: Value| http.post(format!("{}{path}", up.url())).json(&body);
    let three = json!({"replicas": 3, "hold_seconds": 60});
    let status = async |request: reqwest::RequestBuilder| request.send().await.unwrap().status().as_u16();

    assert_eq!(status(scale("api/scale", three.clone())).await, 401);
    assert_eq!(status(scale("api/scale", three.clone()).bearer_auth("0123456789abcdef0124")).await, 401);
    let foreign =
        scale("api/scale", three.clone()).bearer_auth(TOKEN).header("origin", "http://evil.example");
    assert_eq!(status(foreign).await, 403);
    // With a token the command line needs it too.
    assert_eq!(status(scale("scale", three.clone()).header("x-ha-stack", "1")).await, 401);
    let rebound = scale("api/scale", three.clone()).bearer_auth(TOKEN).header("host", "evil.example");
    assert_eq!(status(rebound).await, 421);
    assert_eq!(status(http.get(up.url()).header("host", "evil.example")).await, 421);
    let wanted = async || {
        let status: Value =
            http.get(format!("{}status", up.url())).send().await.unwrap().json().await.unwrap();
        status["wanted"].as_u64()
    };
    assert_eq!(wanted().await, Some(2));

    assert_eq!(status(scale("api/scale", three.clone()).bearer_auth(TOKEN)).await, 204);
    assert_eq!(wanted().await, Some(3));
    let endless = json!({"replicas": 3, "hold_seconds": 99_999_999});
    assert_eq!(status(scale("api/scale", endless).bearer_auth(TOKEN)).await, 422);
    let huge = json!({"replicas": 4_000_000, "hold_seconds": 60});
    assert_eq!(status(scale("api/scale", huge).bearer_auth(TOKEN)).await, 422);
    let nowhere =
        scale("api/drain", json!({"host": "h9", "on": true})).bearer_auth(TOKEN).send().await.unwrap();
    assert_eq!(nowhere.status(), 502);
    assert!(nowhere.text().await.unwrap().contains("there is no host h9; there are h1, h2, h3"));
}

#[tokio::test]
async fn a_drained_host_loses_no_request() {
    let up = Up::start(&[], Some(TOKEN));
    let http = reqwest::Client::new();
    let drain = async |host: &str, on: bool| {
        let asked = http.post(format!("{}api/drain", up.url())).bearer_auth(TOKEN);
        asked.json(&json!({"host": host, "on": on})).send().await.unwrap()
    };
    let load = ha_stack::load::Load::start(ha_stack::load::LoadPlan {
        url: format!("{}/work?ms=20", up.site),
        workers: 4,
        pause: std::time::Duration::from_millis(5),
        timeout: std::time::Duration::from_secs(20),
        post: false,
    })
    .unwrap();
    assert_eq!(drain("h1", true).await.status(), 204);
    assert_eq!(drain("h2", true).await.status(), 204);
    let last = drain("h3", true).await;
    assert_eq!(last.status(), 502);
    assert!(last.text().await.unwrap().contains("h3 is the last host"));
    let moved = async || {
        let status: Value =
            http.get(format!("{}status", up.url())).send().await.unwrap().json().await.unwrap();
        let replicas = status["replicas"].as_array().unwrap().clone();
        replicas.len() == 2
            && replicas.iter().all(|replica| replica["host"] == "h3" && replica["usable"] == true)
    };
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while !moved().await {
        assert!(std::time::Instant::now() < deadline);
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    let report = load.stop().await;
    assert!(report.requests > 50, "{report:?}");
    assert_eq!(report.failures(), 0, "{report:?}");
}
