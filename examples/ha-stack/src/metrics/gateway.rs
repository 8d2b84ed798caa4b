//! A gateway's figures, made of the report that it gives anyway. Pure.

use balancer::EndpointView;
use balancer::proxy::Load;

use super::text::{Kind, Page};

/// The page of a gateway; `ready` as its health check answers.
pub fn page(load: &Load, ready: bool) -> String {
    let whole = |value: u64| value as f64;
    let per = |page: Page, of: &dyn Fn(&EndpointView) -> Option<f64>| {
        page.samples(&load.endpoints, |page, endpoint| {
            let host = endpoint.host.as_deref().unwrap_or_default();
            page.known(&[("instance_id", endpoint.id.as_str()), ("host", host)], of(endpoint))
        })
    };
    let page = Page::default()
        .family("ha_gateway_ready", Kind::Gauge, "1 while the gateway serves and does not drain.")
        .sample(&[], f64::from(u8::from(ready)))
        .family("ha_gateway_requests_total", Kind::Counter, "Requests that arrived.")
        .sample(&[], whole(load.requests_total))
        .family(
            "ha_gateway_server_errors_total",
            Kind::Counter,
            "Answers of 500 and above, the gateway's own included.",
        )
        .sample(&[], whole(load.responses_5xx_total))
        .family(
            "ha_gateway_rejected_total",
            Kind::Counter,
            "Requests refused: bad ones, and those that found the waiting room full.",
        )
        .sample(&[], whole(load.rejected_total))
        .family(
            "ha_gateway_retries_total",
            Kind::Counter,
            "Requests sent to another replica after a failure.",
        )
        .sample(&[], whole(load.retries_total))
        .family(
            "ha_gateway_requests_in_flight",
            Kind::Gauge,
            "Requests under way, the waiting ones included.",
        )
        .sample(&[], whole(load.in_flight))
        .family("ha_gateway_requests_waiting", Kind::Gauge, "Requests that wait for a replica.")
        .sample(&[], load.waiting as f64)
        .family(
            "ha_gateway_latency_seconds",
            Kind::Gauge,
            "Time to the head of the answer, percentiles over the last ten seconds.",
        )
        .known(&[("percentile", "50")], load.latency_p50)
        .known(&[("percentile", "95")], load.latency_p95)
        .known(&[("percentile", "99")], load.latency_p99);

    let states = ["warming", "ready", "trial", "ejected", "draining"];
    let page = page.family("ha_gateway_endpoints", Kind::Gauge, "Replicas that the gateway knows, by state.");
    let page = page.samples(states, |page, state| {
        let count = load.endpoints.iter().filter(|endpoint| endpoint.state.to_string() == state).count();
        page.sample(&[("state", state)], count as f64)
    });
    let page = page.family(
        "ha_gateway_endpoint_requests_total",
        Kind::Counter,
        "Requests that a replica was picked for.",
    );
    let page = per(page, &|endpoint| Some(whole(endpoint.requests)));
    let page = page.family("ha_gateway_endpoint_failures_total", Kind::Counter, "Those of them that failed.");
    let page = per(page, &|endpoint| Some(whole(endpoint.failures)));
    let page = page.family("ha_gateway_endpoint_in_flight", Kind::Gauge, "Requests that a replica works on.");
    let page = per(page, &|endpoint| Some(whole(endpoint.in_flight)));
    let page = page.family(
        "ha_gateway_endpoint_latency_seconds",
        Kind::Gauge,
        "The gateway's estimate of a replica's latency.",
    );
    per(page, &|endpoint| endpoint.latency_ms.map(|ms| ms / 1000.0)).finish()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use balancer::{Endpoint, Update};

    use super::*;
    use crate::roles::gateway::build;

    #[tokio::test]
    async fn every_endpoint_is_there_and_what_is_unknown_is_not() {
        let gateway = build("/healthz", Duration::from_secs(1), 7).unwrap();
        gateway.apply(Update::Add(Endpoint::new("web.1", "127.0.0.1:9".parse().unwrap()).host("h1")));
        let text = page(&gateway.load(), gateway.ready());
        for line in [
            "ha_gateway_ready 0",
            "ha_gateway_requests_total 0",
            "ha_gateway_endpoints{state=\"warming\"} 1",
            "ha_gateway_endpoints{state=\"ready\"} 0",
            "ha_gateway_endpoint_requests_total{instance_id=\"web.1\",host=\"h1\"} 0",
        ] {
            assert!(text.lines().any(|there| there == line), "{line}\n{text}");
        }
        let samples = |name: &str| text.lines().filter(|line| line.starts_with(name)).count();
        assert_eq!(samples("ha_gateway_latency_seconds{"), 0);
        assert_eq!(samples("ha_gateway_endpoint_latency_seconds{"), 0);
    }
}
