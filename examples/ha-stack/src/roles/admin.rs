//! What a gateway says of itself: readiness and load, as JSON over HTTP.

use std::sync::Arc;

use anyhow::{Context, Result, bail};
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use balancer::proxy::Gateway;
use serde::Deserialize;
use tokio::net::TcpListener;

use crate::platform::{GatewayStatus, Replica};

/// Answers `GET /healthz`, `GET /load` and `POST /drain` until the listener fails.
///
/// # Errors
/// When the listener fails.
pub async fn serve(listener: TcpListener, gateway: Gateway) -> Result<()> {
    let drain = super::drain::routes(gateway.clone());
    let app =
        Router::new().route("/healthz", get(healthz)).route("/load", get(load)).with_state(Arc::new(gateway));
    let app = app.merge(drain);
    axum::serve(listener, app).await.context("the admin address no longer answers")
}

async fn healthz(State(gateway): State<Arc<Gateway>>) -> (StatusCode, &'static str) {
    if gateway.ready() {
        (StatusCode::OK, "ready\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "draining\n")
    }
}

async fn load(State(gateway): State<Arc<Gateway>>) -> Json<balancer::proxy::Load> {
    Json(gateway.load())
}

/// The part of `/load` that this program reads.
#[derive(Clone, Debug, Deserialize)]
pub struct LoadSeen {
    /// Requests under way, waiting ones included.
    pub in_flight: u64,
    rate_per_second: f64,
    latency_p95: Option<f64>,
    endpoints: Vec<EndpointSeen>,
}

#[derive(Clone, Debug, Deserialize)]
struct EndpointSeen {
    id: String,
    addr: String,
    host: Option<String>,
    state: String,
    why: String,
    in_flight: u64,
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

    /// Of a gateway whose admin address is `address`.
    ///
    /// # Errors
    /// When it does not answer within the time that `http` gives it, or not with a load.
    pub async fn fetch(http: &reqwest::Client, address: &str) -> Result<Self> {
        let url = format!("http://{address}/load");
        let answer = http.get(&url).send().await;
        let answer = answer.with_context(|| format!("the gateway at {url} does not answer"))?;
        if !answer.status().is_success() {
            bail!("the gateway at {url} answers {}", answer.status());
        }
        answer.json().await.with_context(|| format!("what answers at {url} is not a gateway"))
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
        });
        seen.collect()
    }
}

/// The states of a replica that takes traffic.
const USABLE: [&str; 2] = ["ready", "ramping"];
