//! Figures of a gateway in the text format that Prometheus reads.

use std::fmt::{self, Write};

use super::gateway::{Gateway, Load};
use crate::snapshot::EndpointView;
use crate::state::State;

impl Gateway {
    /// All figures, each line labelled with `service`; for a `/metrics` page. Content type
    /// `text/plain; version=0.0.4`.
    pub fn metrics(&self, service: &str) -> String {
        let mut text = String::new();
        // Writing into a string does not fail.
        let _ = render(&mut text, service, &self.load());
        text
    }
}

fn render(text: &mut String, service: &str, load: &Load) -> fmt::Result {
    let service = Quoted(service);
    let mut one = |name: &str, kind: &str, help: &str, value: f64| {
        writeln!(text, "# HELP balancer_{name} {help}\n# TYPE balancer_{name} {kind}")?;
        writeln!(text, "balancer_{name}{{service={service}}} {value}")
    };
    one("requests_in_flight", "gauge", "Requests here, waiting ones included.", load.in_flight as f64)?;
    one("requests_waiting", "gauge", "Requests that wait for an endpoint.", load.waiting as f64)?;
    one("requests_total", "counter", "Requests.", load.requests_total as f64)?;
    one("responses_5xx_total", "counter", "Answers of 500 and above.", load.responses_5xx_total as f64)?;
    one("rejected_total", "counter", "Requests refused.", load.rejected_total as f64)?;
    one("retries_total", "counter", "Retries.", load.retries_total as f64)?;
    one("hedges_total", "counter", "Requests sent to a second endpoint as well.", load.hedges_total as f64)?;
    one("requests_per_second", "gauge", "Arrivals a second over ten seconds.", load.rate_per_second)?;
    writeln!(text, "# HELP balancer_latency_seconds Time to the head of the answer over ten seconds.")?;
    writeln!(text, "# TYPE balancer_latency_seconds gauge")?;
    for (quantile, value) in
        [("0.5", load.latency_p50), ("0.95", load.latency_p95), ("0.99", load.latency_p99)]
    {
        if let Some(value) = value {
            writeln!(text, "balancer_latency_seconds{{service={service},quantile=\"{quantile}\"}} {value}")?;
        }
    }
    let mut each = |name: &str, kind: &str, help: &str, value: fn(&EndpointView) -> Option<f64>| {
        writeln!(text, "# HELP balancer_endpoint_{name} {help}\n# TYPE balancer_endpoint_{name} {kind}")?;
        for view in &load.endpoints {
            if let Some(value) = value(view) {
                let id = Quoted(view.id.as_str());
                writeln!(text, "balancer_endpoint_{name}{{service={service},endpoint={id}}} {value}")?;
            }
        }
        Ok(())
    };
    each("in_flight", "gauge", "Requests on it.", |view| Some(view.in_flight as f64))?;
    each("requests_total", "counter", "Requests it was picked for.", |view| Some(view.requests as f64))?;
    each("failures_total", "counter", "Those of them that failed.", |view| Some(view.failures as f64))?;
    each("latency_seconds", "gauge", "Its latency estimate.", |view| view.latency_ms.map(|ms| ms / 1000.0))?;
    each("usable", "gauge", "Whether requests go to it.", |view| {
        Some(f64::from(u8::from(view.state.is_usable())))
    })?;
    each("draining", "gauge", "Whether it drains.", |view| {
        Some(f64::from(u8::from(view.state == State::Draining)))
    })
}

/// A label's value.
struct Quoted<'a>(&'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('"')?;
        for c in self.0.chars() {
            match c {
                '\\' => f.write_str("\\\\")?,
                '"' => f.write_str("\\\"")?,
                '\n' => f.write_str("\\n")?,
                c => f.write_char(c)?,
            }
        }
        f.write_char('"')
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{Endpoint, Pool, Update, proxy};

    #[tokio::test]
    async fn labels_are_quoted_and_each_figure_has_a_type() {
        let pool = Arc::new(Pool::new(crate::Config::default(), 7).unwrap());
        let gateway = Gateway::new(pool, proxy::Config::default()).unwrap();
        gateway.apply(Update::reset([Endpoint::new("a\"\n", ([127, 0, 0, 1], 1).into())]));
        let text = gateway.metrics("web");
        assert!(text.contains("balancer_requests_in_flight{service=\"web\"} 0\n"), "{text}");
        assert!(
            text.contains("balancer_endpoint_usable{service=\"web\",endpoint=\"a\\\"\\n\"} 1\n"),
            "{text}"
        );
        let types = text.lines().filter(|line| line.starts_with("# TYPE")).count();
        let helps = text.lines().filter(|line| line.starts_with("# HELP")).count();
        assert!(types == helps && types >= 14, "{text}");
    }
}
