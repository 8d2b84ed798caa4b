//! Figures for Prometheus, at an address of their own: the site's is open to its users.

use crate::state::{AppState, Readiness};
use anyhow::Context;
use axum::{
    Router,
    extract::{MatchedPath, Request, State},
    http::{StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
    routing::get,
};
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};
use std::{
    fmt,
    net::SocketAddr,
    time::{Duration, Instant},
};
use tokio::net::TcpListener;

/// What an instance counts. Labels are few and bounded: no path, no user, no session.
pub(crate) struct Figures {
    registry: Registry,
    requests: Family<Answered, Counter>,
    seconds: Family<Route, Histogram, fn() -> Histogram>,
    in_flight: Gauge,
    ready: Gauge,
    sessions: Gauge,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Answered {
    route: String,
    code: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Route {
    route: String,
}

impl Default for Figures {
    fn default() -> Self {
        let (requests, sessions) = (Family::default(), Gauge::default());
        let (in_flight, ready) = (Gauge::default(), Gauge::default());
        let seconds = Family::new_with_constructor((|| Histogram::new(BUCKETS)) as fn() -> Histogram);
        let mut registry = Registry::with_prefix("ha_web");
        registry.register("requests", "Requests answered, by route and status", requests.clone());
        registry.register_with_unit("request", "Time to an answer's head", Unit::Seconds, seconds.clone());
        registry.register("in_flight", "Requests that are worked on", in_flight.clone());
        registry.register("ready", "1 while the instance wants requests", ready.clone());
        let about = "Sessions in the store that all instances share, about; -1 while it does not say";
        registry.register("sessions", about, sessions.clone());
        Self { registry, requests, seconds, in_flight, ready, sessions }
    }
}

impl fmt::Debug for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Figures").finish_non_exhaustive()
    }
}

/// One request fewer, also where its client left before the answer.
struct InFlight<'a>(&'a Gauge);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Counts a request and its answer.
pub(crate) async fn count(State(state): State<AppState>, request: Request, next: Next) -> Response {
    let figures = state.figures();
    let route = request.extensions().get::<MatchedPath>().map_or("none", MatchedPath::as_str).to_owned();
    figures.in_flight.inc();
    let _in_flight = InFlight(&figures.in_flight);
    let began = Instant::now();
    let response = next.run(request).await;
    figures.seconds.get_or_create(&Route { route: route.clone() }).observe(began.elapsed().as_secs_f64());
    figures.requests.get_or_create(&Answered { route, code: response.status().as_u16() }).inc();
    response
}

/// `GET /metrics`, in the text format of OpenMetrics 1.0.
pub fn page(state: AppState) -> Router {
    Router::new().route("/metrics", get(metrics)).with_state(state)
}

async fn metrics(State(state): State<AppState>) -> Response {
    let figures = state.figures();
    figures.ready.set(i64::from(state.readiness().await == Readiness::Ready));
    let counted = state.store().within(COUNTED).about_how_many().await.ok().flatten();
    figures.sessions.set(counted.map_or(-1, |count| i64::try_from(count).unwrap_or(i64::MAX)));
    let mut text = String::new();
    match encode(&mut text, &figures.registry) {
        Ok(()) => ([(header::CONTENT_TYPE, FORMAT)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

/// The address of the page.
pub(crate) async fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    let listener = TcpListener::bind(address).await;
    listener
        .with_context(|| format!("cannot listen on --metrics {address}; choose a free port of this machine"))
}

/// Serves the page until the future is dropped.
pub(crate) async fn serve(listener: TcpListener, state: AppState) {
    let served = axum::serve(listener, page(state)).await;
    tracing::error!(?served, "the metrics are no longer served");
}

/// A scrape waits no longer than this for the store.
const COUNTED: Duration = Duration::from_secs(1);
const FORMAT: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// Seconds; the longest page takes ten.
const BUCKETS: [f64; 11] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 2.5, 10.0];
