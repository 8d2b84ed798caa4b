//! Two services behind one gateway, with a real Consul and real programs.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use consul_client::{Check, ServiceRegistration};
use serde_json::Value;

use crate::gateway::{consul, eventually, start};
use crate::ports::free_address;

/// Who answers a request for this host: the instance, or the status and the reason.
async fn who(listen: SocketAddr, host: &str) -> String {
    let asked = reqwest::Client::new().get(format!("http://{listen}/")).header("host", host).send().await;
    let Ok(answer) = asked else { return "nobody".into() };
    let instance = answer.headers().get("x-instance").and_then(|name| name.to_str().ok().map(str::to_owned));
    match instance {
        Some(instance) => instance,
        None => format!("{} {}", answer.status().as_u16(), answer.text().await.unwrap()),
    }
}

async fn load(admin: SocketAddr, service: &str) -> Option<Value> {
    let url = format!("http://{admin}/load?service={service}");
    reqwest::get(url).await.ok()?.error_for_status().ok()?.json().await.ok()
}

#[tokio::test]
#[ignore = "needs consul: ./test.sh runs it"]
async fn two_services_share_a_gateway_and_change_while_it_serves() {
    let folder = tempfile::tempdir().unwrap();
    let (_agent, address, client) = consul(folder.path()).await;
    let program = env!("CARGO_BIN_EXE_ha-stack");
    let [web, shop] = [free_address(), free_address()];
    let replica = |name: &str, site: SocketAddr| {
        let mut command = Command::new(program);
        command.args(["web", "--session", "memory:", "--listen", &site.to_string()]).env("INSTANCE", name);
        start(&mut command)
    };
    let _web = replica("web.1", web);
    let _shop = replica("shop.1", shop);
    let register = async |service: &str, id: &str, site: SocketAddr, tags: &[&str]| {
        let check = Check::http(format!("http://{site}/healthz")).interval(Duration::from_secs(1));
        let one = ServiceRegistration::new(service, id).address("127.0.0.1").port(site.port()).check(check);
        client.agent().register(&tags.iter().fold(one, |one, tag| one.tag(*tag))).await.unwrap();
    };
    register("web", "web.1", web, &["balancer.host=web.example"]).await;

    let [listen, admin] = [free_address(), free_address()];
    let mut gateway = Command::new(program);
    gateway.args(["gateway", "--routes", "labels", "--consul", &address]);
    let _gateway =
        start(gateway.args(["--register", "--listen", &listen.to_string(), "--admin", &admin.to_string()]));
    let answers = async |host: &str, wanted: &str| {
        let what = format!("{host} is answered by {wanted}");
        eventually(&what, async || who(listen, host).await.starts_with(wanted)).await;
    };
    answers("web.example", "web.1").await;
    answers("shop.example", "404 no service is here by this host and path").await;

    // Another one comes, while the first is asked all the time.
    let asking = tokio::spawn(async move {
        for n in 0..200 {
            assert_eq!(who(listen, "web.example").await, "web.1", "request {n}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    register(
        "shop",
        "shop.1",
        shop,
        &["traefik.enable=true", "traefik.http.routers.s.rule=Host(`shop.example`)"],
    )
    .await;
    answers("shop.example", "shop.1").await;
    assert_eq!(load(admin, "shop").await.unwrap()["endpoints"].as_array().unwrap().len(), 1);
    assert!(load(admin, "nobody").await.is_none());
    let metrics = reqwest::get(format!("http://{admin}/metrics")).await.unwrap().text().await.unwrap();
    for line in
        ["ha_gateway_requests_total{service=\"shop\"} ", "ha_gateway_requests_total{service=\"web\"} "]
    {
        assert!(metrics.contains(line), "{line} is not in {metrics}");
    }
    eventually("the dashboard shows both", async || {
        let Ok(answer) = reqwest::get(format!("http://{admin}/api/start")).await else { return false };
        let Ok(page) = answer.json::<Value>().await else { return false };
        let services = page["frame"]["view"]["services"].as_array().cloned().unwrap_or_default();
        let names: Vec<_> = services.iter().filter_map(|one| one["service"].as_str()).collect();
        names == ["shop", "web"] && services[0]["usable"] == 1
    })
    .await;
    // It moves.
    register("shop", "shop.1", shop, &["balancer.host=new.example"]).await;
    answers("new.example", "shop.1").await;
    answers("shop.example", "404").await;
    asking.await.unwrap();
}
