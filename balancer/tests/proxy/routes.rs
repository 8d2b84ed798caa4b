//! Several services behind one listener, changed while serving.

use std::sync::Arc;
use std::time::Duration;

use balancer::proxy::{self, Gateway, Route, Router};
use balancer::routing::labels;
use balancer::{Config, Pool, Update};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::support::*;

fn service(config: proxy::Config, backend: &Backend) -> Gateway {
    let gateway = Gateway::new(Arc::new(Pool::new(Config::default(), 7).unwrap()), config).unwrap();
    gateway.apply(Update::reset([backend.endpoint("a")]));
    gateway
}

async fn ask(addr: std::net::SocketAddr, host: &str, path: &str) -> String {
    let answer =
        raw(addr, &format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")).await;
    let status = answer.split(' ').nth(1).unwrap_or_default().to_owned();
    format!("{status} {}", answer.rsplit("\r\n").next().unwrap_or_default())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_go_by_host_and_path_and_routes_change_live() {
    let (shop, api) = (Backend::named("shop").await, Backend::named("api").await);
    let (to_shop, to_api) = (service(quick().probe("/healthz"), &shop), service(quick(), &api));
    let router = Router::new(quick()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let serving = router.clone();
    let task = tokio::spawn(async move { serving.serve(listener, async { drop(stopped.await) }).await });

    assert!(
        ask(addr, "shop.example", "/")
            .await
            .starts_with("404 no service is here by this host and path (request ")
    );
    // As labels of a stack file say it.
    let rules = [
        ("traefik.http.routers.shop.rule", "Host(`shop.example`)", &to_shop),
        ("balancer.rule", "Host(`shop.example`) && PathPrefix(`/api`)", &to_api),
    ];
    let routes = rules.into_iter().flat_map(|(label, rule, gateway)| {
        let read = labels::read("x", [(label, rule)]).unwrap();
        read.into_iter().map(|route| Route::new(route.rule, gateway.clone()).priority(route.priority))
    });
    router.set(routes);
    // The probes of a service run while it has a route.
    for _ in 0..200 {
        if to_shop.pool().snapshot().is_usable() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(to_shop.ready() && router.ready());
    assert_eq!(ask(addr, "shop.example:80", "/").await, "200 shop");
    assert_eq!(ask(addr, "SHOP.example", "/api/x").await, "200 api");
    assert_eq!(ask(addr, "other.example", "/api").await.split(' ').next(), Some("404"));
    assert_eq!(to_api.load().requests_total, 1);

    router.set([Route::new("PathPrefix(`/`)".parse().unwrap(), to_api.clone())]);
    assert_eq!(ask(addr, "shop.example", "/").await, "200 api");
    assert_eq!(router.routes().len(), 1);
    for _ in 0..200 {
        if !to_shop.ready() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(!to_shop.ready(), "a service without a route is not served");
    drop(stop);
    assert_eq!(timeout(Duration::from_secs(5), task).await.unwrap().unwrap().unwrap().cut, 0);
    assert!(!router.ready() && !to_api.ready());
}

/// Services come and go, and change places, while requests for one that stays go on: none is lost, none goes astray.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_stays_does_not_notice_what_comes_and_goes() {
    let (shop, api) = (Backend::named("shop").await, Backend::named("api").await);
    let (to_shop, to_api) = (service(quick(), &shop), service(quick(), &api));
    let router = Router::new(quick()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let serving = router.clone();
    let task = tokio::spawn(async move { serving.serve(listener, std::future::pending()).await });
    let of_shop = || Route::new("Host(`shop.example`)".parse().unwrap(), to_shop.clone());
    let of_api = || Route::new("PathPrefix(`/`)".parse().unwrap(), to_api.clone());
    router.set([of_shop()]);

    let asking = tokio::spawn(async move {
        for n in 0..300 {
            assert_eq!(ask(addr, "shop.example", "/").await, "200 shop", "request {n}");
        }
    });
    let mut changes = 0;
    while !asking.is_finished() {
        match changes % 3 {
            0 => router.set([of_api(), of_shop()]),
            1 => router.set([of_shop()]),
            _ => router.set([of_shop(), of_api().priority(Some(1))]),
        }
        changes += 1;
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    asking.await.unwrap();
    assert!(changes > 3, "{changes}");
    assert_eq!(to_shop.load().requests_total, 300);

    // Nobody's requests are counted apart, with none of the services.
    router.set([of_shop()]);
    assert!(ask(addr, "nobody.example", "/").await.starts_with("404 no service is here"));
    assert_eq!((router.load().requests_total, to_shop.load().requests_total), (1, 300));
    task.abort();
}
