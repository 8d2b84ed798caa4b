//! What a gateway says of itself: readiness and load, as JSON over HTTP.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use axum::extract::{Query, RawQuery, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use balancer::EventKind;
use balancer::proxy::Gateway;
use serde::Deserialize;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::services::Services;
use crate::dashboard::view::ServiceSeen;
use crate::metrics;
use crate::platform::{GatewayStatus, Happening, Replica};

/// What `/healthz` says: whether the front, such as a virtual address, may send users here.
#[derive(Clone)]
pub struct Standing {
    left: CancellationToken,
}

impl Standing {
    /// Ready until a moment after `stop`: the gateway ends its users' connections first, so that none is left open when the
    /// address that it leads to moves. The next host knows nothing of a connection, and would reset it under a request.
    pub fn until(stop: CancellationToken) -> Self {
        Self::after(stop, HAND_OVER)
    }

    fn after(stop: CancellationToken, hand_over: Duration) -> Self {
        let left = CancellationToken::new();
        let leaving = left.clone();
        tokio::spawn(async move {
            stop.cancelled().await;
            tokio::time::sleep(hand_over).await;
            leaving.cancel();
        });
        Self { left }
    }
}

/// Answers `/healthz`, `/load`, `/events`, `/metrics`, `POST /drain` and what `more` answers, until the listener fails.
/// A drain that names no service means `service`.
///
/// # Errors
/// When the listener fails.
pub async fn serve(
    listener: TcpListener,
    services: Services,
    standing: Standing,
    service: String,
    more: Router,
) -> Result<()> {
    let drain = super::drain::routes(services.clone(), service);
    let figures = services.clone();
    let page = move || metrics::gateway::page(&figures.whole_load(), figures.ready());
    let app = Router::new()
        .route("/load", get(load))
        .route("/events", get(events_of))
        .with_state(services.clone())
        .merge(Router::new().route("/healthz", get(healthz)).with_state((standing, services)))
        .merge(drain)
        .merge(metrics::server::route(Arc::new(page)))
        .merge(more);
    axum::serve(listener, app).await.context("the admin address no longer answers")
}

/// With `?quiesce` the answer that it is not ready comes when no connection is left, for a front that moves users at once when it hears it.
async fn healthz(
    State((standing, services)): State<(Standing, Services)>,
    RawQuery(query): RawQuery,
) -> (StatusCode, &'static str) {
    if standing.left.is_cancelled() {
        if query.as_deref() == Some("quiesce") {
            let open = services.router().quiesce(QUIESCES).await;
            tracing::info!(open, "the front moves");
        }
        (StatusCode::SERVICE_UNAVAILABLE, "draining\n")
    } else {
        (StatusCode::OK, "ready\n")
    }
}

/// Longer than users who click leave a connection idle, and short beside the drain delay, within which the address moves.
const HAND_OVER: Duration = Duration::from_millis(700);

/// Most requests are over by then, and a front's check waits that long.
const QUIESCES: Duration = Duration::from_millis(700);

/// Whose load is asked for; all services' without one.
#[derive(Deserialize)]
struct Whose {
    service: Option<String>,
}

async fn load(State(services): State<Services>, Query(whose): Query<Whose>) -> Response {
    let Some(service) = whose.service else { return Json(services.whole_load()).into_response() };
    match services.load(&service) {
        Some(load) => Json(load).into_response(),
        None => {
            let why = format!(
                "no service {service:?} is routed here; there are: {}\n",
                services.names().join(", ")
            );
            (StatusCode::NOT_FOUND, why).into_response()
        }
    }
}

async fn events_of(State(services): State<Services>) -> Json<Vec<Happening>> {
    Json(happenings_of_all(&services))
}

/// What the gateway in this process saw happen to the replicas of all services, oldest first.
pub fn happenings_of_all(services: &Services) -> Vec<Happening> {
    let gateways = services.names().into_iter().filter_map(|name| services.gateway(&name));
    let mut all: Vec<Happening> = gateways.flat_map(|gateway| happenings(&gateway)).collect();
    all.sort_by(|a, b| a.at.total_cmp(&b.at));
    all
}

/// What a gateway in this process saw happen to its replicas, oldest first.
pub fn happenings(gateway: &Gateway) -> Vec<Happening> {
    let told = gateway.events().into_iter().map(|event| Happening {
        at: event.unix_ms as f64 / 1000.0,
        kind: kind(&event.event.kind).into(),
        text: event.text,
    });
    told.collect()
}

fn kind(event: &EventKind) -> &'static str {
    match event {
        EventKind::Added { .. } => "added",
        EventKind::Ready => "ready",
        EventKind::Ejected { .. } => "ejected",
        EventKind::Trial => "trial",
        EventKind::Recovered { .. } | EventKind::TakenBack { .. } => "recovered",
        EventKind::Draining { .. } => "draining",
        EventKind::Removed => "removed",
        _ => "other",
    }
}

/// The same of a gateway whose admin address is `address`.
///
/// # Errors
/// As [`LoadSeen::fetch`].
pub async fn events(http: &reqwest::Client, address: &str) -> Result<Vec<Happening>> {
    let url = format!("http://{address}/events");
    let answer = http.get(&url).send().await.and_then(reqwest::Response::error_for_status);
    let answer = answer.with_context(|| format!("the gateway at {address} does not say what happened"))?;
    answer.json().await.with_context(|| format!("what answers at {url} is not a gateway"))
}

/// The part of `/load` that this program reads.
#[derive(Clone, Debug, Deserialize)]
pub struct LoadSeen {
    /// The service whose requests these are; `None` where they are those of all services.
    #[serde(default)]
    pub service: Option<String>,
    /// Requests under way, waiting ones included.
    pub in_flight: u64,
    #[serde(default)]
    waiting: u64,
    #[serde(default)]
    requests_total: u64,
    #[serde(default)]
    responses_5xx_total: u64,
    #[serde(default)]
    rejected_total: u64,
    #[serde(default)]
    retries_total: u64,
    rate_per_second: f64,
    #[serde(default)]
    latency_p50: Option<f64>,
    latency_p95: Option<f64>,
    #[serde(default)]
    latency_p99: Option<f64>,
    endpoints: Vec<EndpointSeen>,
    #[serde(default)]
    rules: Vec<String>,
    /// Each service's, where it is that of all.
    #[serde(default)]
    services: Vec<LoadSeen>,
    #[serde(default)]
    unrouted_total: u64,
}

#[derive(Clone, Debug, Deserialize)]
struct EndpointSeen {
    id: String,
    addr: String,
    host: Option<String>,
    state: String,
    why: String,
    #[serde(default)]
    for_seconds: f64,
    #[serde(default)]
    retry_in_seconds: Option<f64>,
    in_flight: u64,
    #[serde(default)]
    latency_ms: Option<f64>,
    #[serde(default)]
    requests: u64,
    #[serde(default)]
    failures: u64,
}

impl LoadSeen {
    /// Of a gateway in this process.
    ///
    /// # Errors
    /// When the gateway's report has another shape than [`LoadSeen`].
    pub fn of(gateway: &Gateway) -> Result<Self> {
        let value = serde_json::to_value(gateway.load())?;
        serde_json::from_value(value).context("the gateway's load has another shape")
    }

    /// Of all services of the gateway in this process.
    ///
    /// # Errors
    /// When the report has another shape than [`LoadSeen`].
    pub fn of_all(services: &Services) -> Result<Self> {
        let value = serde_json::to_value(services.whole_load())?;
        serde_json::from_value(value).context("the gateway's load has another shape")
    }

    /// Of all services of a gateway whose admin address is `address`.
    ///
    /// # Errors
    /// When it does not answer within the time that `http` gives it, or not with a load.
    pub async fn fetch(http: &reqwest::Client, address: &str) -> Result<Self> {
        let seen = Self::get(http, http.get(format!("http://{address}/load"))).await?;
        seen.with_context(|| format!("what answers at {address} is not a gateway: it has no /load"))
    }

    /// Of one service; `None` of a gateway that does not serve it.
    ///
    /// # Errors
    /// As [`fetch`](Self::fetch).
    pub async fn fetch_service(http: &reqwest::Client, address: &str, service: &str) -> Result<Option<Self>> {
        let asked = http.get(format!("http://{address}/load")).query(&[("service", service)]);
        let seen = Self::get(http, asked).await?;
        // One that does not know the question says whose its load is, or has one service alone.
        Ok(seen.filter(|seen| seen.service.as_deref().is_none_or(|of| of == service)))
    }

    /// `None` for what is not there.
    async fn get(http: &reqwest::Client, asked: reqwest::RequestBuilder) -> Result<Option<Self>> {
        let asked = asked.build().context("the address of a gateway is none")?;
        let url = asked.url().clone();
        let answer = http.execute(asked).await;
        let answer = answer.with_context(|| format!("the gateway at {url} does not answer"))?;
        if answer.status() == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        if !answer.status().is_success() {
            bail!("the gateway at {url} answers {}", answer.status());
        }
        let seen = answer.json().await.with_context(|| format!("what answers at {url} is not a gateway"))?;
        Ok(Some(seen))
    }

    /// Requests that no route covered, where it is the load of all.
    pub fn unrouted_total(&self) -> u64 {
        self.unrouted_total
    }

    /// Each service, where it is the load of all.
    pub fn services(&self) -> Vec<ServiceSeen> {
        let each = self.services.iter().map(|load| {
            let replicas = load.replicas();
            ServiceSeen {
                service: load.service.clone().unwrap_or_default(),
                rules: load.rules.clone(),
                rate: load.rate_per_second,
                in_flight: load.in_flight,
                waiting: load.waiting,
                p95_ms: load.latency_p95.map(|seconds| seconds * 1000.0),
                requests_total: load.requests_total,
                errors_total: load.responses_5xx_total,
                replicas: replicas.len(),
                usable: crate::platform::usable(&replicas).count(),
            }
        });
        each.collect()
    }

    /// As a line of the status.
    pub fn status(&self, name: &str, address: &str) -> GatewayStatus {
        GatewayStatus {
            name: name.into(),
            address: address.into(),
            in_flight: self.in_flight,
            rate: self.rate_per_second,
            p95_ms: self.latency_p95.unwrap_or(0.0) * 1000.0,
            error: None,
            waiting: self.waiting,
            p50_ms: self.latency_p50.map(|seconds| seconds * 1000.0),
            p99_ms: self.latency_p99.map(|seconds| seconds * 1000.0),
            requests_total: self.requests_total,
            errors_total: self.responses_5xx_total,
            rejected_total: self.rejected_total,
            retries_total: self.retries_total,
        }
    }

    /// The replicas as this gateway sees them.
    pub fn replicas(&self) -> Vec<Replica> {
        let seen = self.endpoints.iter().map(|endpoint| Replica {
            instance: endpoint.id.clone(),
            host: endpoint.host.clone().unwrap_or_default(),
            address: endpoint.addr.clone(),
            usable: USABLE.contains(&endpoint.state.as_str()),
            // A ready replica needs no reason.
            state: match endpoint.why.as_str() {
                why if endpoint.state != USABLE[0] && !why.is_empty() => format!("{}: {why}", endpoint.state),
                _ => endpoint.state.clone(),
            },
            in_flight: endpoint.in_flight,
            why: endpoint.why.clone(),
            for_seconds: endpoint.for_seconds,
            retry_in_seconds: endpoint.retry_in_seconds,
            latency_ms: endpoint.latency_ms,
            requests: endpoint.requests,
            failures: endpoint.failures,
        });
        seen.collect()
    }
}

/// The states of a replica that takes traffic.
const USABLE: [&str; 2] = ["ready", "ramping"];

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn connections_are_ended_before_the_front_turns_away() {
        let stop = CancellationToken::new();
        let services =
            Services::new(super::super::gateway::config("/healthz", Duration::from_secs(1)), None, None);
        let services = services.unwrap();
        let says = async |standing: &Standing| {
            let query = RawQuery(Some("quiesce".into()));
            healthz(State((standing.clone(), services.clone())), query).await.0
        };
        let (long, short) = (Duration::from_secs(3600), Duration::from_millis(1));
        let [later, soon] = [long, short].map(|hand_over| Standing::after(stop.clone(), hand_over));
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert_eq!([says(&later).await, says(&soon).await], [StatusCode::OK; 2]);
        stop.cancel();
        let left = tokio::time::timeout(Duration::from_secs(20), soon.left.cancelled()).await;
        assert!(left.is_ok(), "its front is never told");
        assert_eq!(says(&soon).await, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(says(&later).await, StatusCode::OK, "what is idle is still being closed");
    }
}
