//! A gateway's figures, made of the report that it gives anyway. Pure.

use balancer::EndpointView;
use balancer::proxy::Load;

use super::text::{Kind, Page};
use crate::roles::services::WholeLoad;

/// The page of a gateway, each figure by service; `ready` as its health check answers.
pub fn page(load: &WholeLoad, ready: bool) -> String {
    let page = Page::default()
        .family("ha_gateway_ready", Kind::Gauge, "1 while the gateway serves and does not drain.")
        .sample(&[], f64::from(u8::from(ready)))
        .family(
            "ha_gateway_unrouted_total",
            Kind::Counter,
            "Requests that no route covered, each answered 404.",
        )
        .sample(&[], load.unrouted_total as f64);
    let counts: [Figure<Load, f64>; 7] = [
        ("requests_total", Kind::Counter, "Requests that arrived.", |load| load.requests_total as f64),
        (
            "server_errors_total",
            Kind::Counter,
            "Answers of 500 and above, the gateway's own included.",
            |load| load.responses_5xx_total as f64,
        ),
        (
            "rejected_total",
            Kind::Counter,
            "Requests refused: bad ones, and those that found the waiting room full.",
            |load| load.rejected_total as f64,
        ),
        ("retries_total", Kind::Counter, "Requests sent to another replica after a failure.", |load| {
            load.retries_total as f64
        }),
        (
            "hedges_total",
            Kind::Counter,
            "Requests sent to a second replica because the first took long.",
            |load| load.hedges_total as f64,
        ),
        ("requests_in_flight", Kind::Gauge, "Requests under way, the waiting ones included.", |load| {
            load.in_flight as f64
        }),
        ("requests_waiting", Kind::Gauge, "Requests that wait for a replica.", |load| load.waiting as f64),
    ];
    let page = page.samples(counts, |page, (name, kind, help, of)| {
        page.family(&format!("ha_gateway_{name}"), kind, help)
            .samples(&load.services, |page, one| page.sample(&[("service", &one.service)], of(&one.load)))
    });
    let page = page.family(
        "ha_gateway_latency_seconds",
        Kind::Gauge,
        "Time to the head of the answer, percentiles over the last ten seconds.",
    );
    let page = page.samples(&load.services, |page, one| {
        let known = |page: Page, percentile, value| {
            page.known(&[("service", &one.service), ("percentile", percentile)], value)
        };
        let page = known(page, "50", one.load.latency_p50);
        let page = known(page, "95", one.load.latency_p95);
        known(page, "99", one.load.latency_p99)
    });
    endpoints(page, load).finish()
}

fn endpoints(page: Page, load: &WholeLoad) -> Page {
    let page = page.family("ha_gateway_endpoints", Kind::Gauge, "Replicas that the gateway knows, by state.");
    let page = page.samples(&load.services, |page, one| {
        page.samples(STATES, |page, state| {
            let there = one.load.endpoints.iter().filter(|endpoint| endpoint.state.to_string() == state);
            page.sample(&[("service", &one.service), ("state", state)], there.count() as f64)
        })
    });
    let figures: [Figure<EndpointView, Option<f64>>; 4] = [
        ("requests_total", Kind::Counter, "Requests that a replica was picked for.", |endpoint| {
            Some(endpoint.requests as f64)
        }),
        ("failures_total", Kind::Counter, "Those of them that failed.", |endpoint| {
            Some(endpoint.failures as f64)
        }),
        ("in_flight", Kind::Gauge, "Requests that a replica works on.", |endpoint| {
            Some(endpoint.in_flight as f64)
        }),
        ("latency_seconds", Kind::Gauge, "The gateway's estimate of a replica's latency.", |endpoint| {
            endpoint.latency_ms.map(|ms| ms / 1000.0)
        }),
    ];
    page.samples(figures, |page, (name, kind, help, of)| {
        let page = page.family(&format!("ha_gateway_endpoint_{name}"), kind, help);
        page.samples(&load.services, |page, one| {
            page.samples(&one.load.endpoints, |page, endpoint| {
                let host = endpoint.host.as_deref().unwrap_or_default();
                let labels = [
                    ("service", one.service.as_str()),
                    ("instance_id", endpoint.id.as_str()),
                    ("host", host),
                ];
                page.known(&labels, of(endpoint))
            })
        })
    })
}

/// A figure's name, its kind, what it says, and where it is read.
type Figure<T, V> = (&'static str, Kind, &'static str, fn(&T) -> V);

const STATES: [&str; 6] = ["warming", "ramping", "ready", "trial", "ejected", "draining"];

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use balancer::{Endpoint, Update};

    use super::*;
    use crate::roles::gateway::config;
    use crate::roles::services::Services;

    #[tokio::test]
    async fn every_endpoint_is_there_by_service_and_what_is_unknown_is_not() {
        let services = Services::new(config("/healthz", Duration::from_secs(1)), Some("web"), None).unwrap();
        let labels = BTreeMap::from([("balancer.host".to_owned(), "shop.example".to_owned())]);
        services.set("shop", &labels).unwrap();
        let endpoint = |id: &str| Endpoint::new(id, "127.0.0.1:9".parse().unwrap()).host("h1");
        services.apply("web", Update::Add(endpoint("web.1")));
        services.apply("shop", Update::Add(endpoint("shop.1")));
        let text = page(&services.whole_load(), services.ready());
        for line in [
            "ha_gateway_ready 0",
            "ha_gateway_unrouted_total 0",
            "ha_gateway_requests_total{service=\"web\"} 0",
            "ha_gateway_requests_total{service=\"shop\"} 0",
            "ha_gateway_endpoints{service=\"web\",state=\"warming\"} 1",
            "ha_gateway_endpoints{service=\"web\",state=\"ready\"} 0",
            "ha_gateway_endpoint_requests_total{service=\"shop\",instance_id=\"shop.1\",host=\"h1\"} 0",
        ] {
            assert!(text.lines().any(|there| there == line), "{line}\n{text}");
        }
        let samples = |name: &str| text.lines().filter(|line| line.starts_with(name)).count();
        assert_eq!(samples("ha_gateway_latency_seconds{"), 0);
        assert_eq!(samples("ha_gateway_endpoint_latency_seconds{"), 0);
        assert_eq!(samples("# TYPE ha_gateway_requests_total"), 1, "a family is begun once");
    }
}
