//! How `status` and `scale` reach a stack that `up` runs on the local platform: JSON over HTTP on loopback.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;

use crate::load;
use crate::platform::{Platform, Status};

#[derive(Debug, Serialize, Deserialize)]
struct Scale {
    replicas: u32,
    hold_seconds: u64,
}

type Shared = Arc<dyn Platform>;
type Refused = (StatusCode, String);

/// Binds the control address.
///
/// # Errors
/// When the port is taken, with what to do about it.
pub async fn bind(address: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| {
        format!("--control is {address}: it can't be bound; is the stack running already? Choose another with --control")
    })
}

/// Answers until the listener fails.
///
/// # Errors
/// When the listener fails.
pub async fn serve(listener: TcpListener, platform: Shared) -> Result<()> {
    let app = Router::new()
        .route("/status", get(status))
        .route("/scale", post(scale))
        .route("/release", post(release))
        .with_state(platform);
    axum::serve(listener, app).await.context("the control address no longer answers")
}

async fn status(State(platform): State<Shared>) -> Result<Json<Status>, Refused> {
    platform.status().await.map(Json).map_err(refused)
}

async fn scale(
    State(platform): State<Shared>,
    headers: HeaderMap,
    Json(wish): Json<Scale>,
) -> Result<StatusCode, Refused> {
    ours(&headers)?;
    platform.scale(wish.replicas, Duration::from_secs(wish.hold_seconds)).await.map_err(refused)?;
    Ok(StatusCode::NO_CONTENT)
}

async fn release(State(platform): State<Shared>, headers: HeaderMap) -> Result<StatusCode, Refused> {
    ours(&headers)?;
    platform.release().await.map_err(refused)?;
    Ok(StatusCode::NO_CONTENT)
}

/// A page in a browser can't set this header on a request to another origin without asking first.
fn ours(headers: &HeaderMap) -> Result<(), Refused> {
    let sent = headers.contains_key(HEADER);
    if sent { Ok(()) } else { Err((StatusCode::FORBIDDEN, format!("the header {HEADER} is missing"))) }
}

fn refused(error: anyhow::Error) -> Refused {
    (StatusCode::INTERNAL_SERVER_ERROR, format!("{error:#}"))
}

/// The other end.
pub struct Client {
    address: SocketAddr,
    http: reqwest::Client,
}

impl Client {
    /// A client of the stack whose `--control` is `address`.
    ///
    /// # Errors
    /// When the HTTP client can't be built.
    pub fn new(address: SocketAddr) -> Result<Self> {
        Ok(Self { address, http: load::client(Duration::from_secs(10))? })
    }

    /// The stack at this moment.
    ///
    /// # Errors
    /// When no stack answers.
    pub async fn status(&self) -> Result<Status> {
        let answer = self.send(self.http.get(self.url("status"))).await?;
        answer.json().await.with_context(|| format!("what answers at {} is not ha-stack", self.address))
    }

    /// Scales by hand.
    ///
    /// # Errors
    /// When no stack answers, or it refuses.
    pub async fn scale(&self, replicas: u32, hold: Duration) -> Result<()> {
        let wish = Scale { replicas, hold_seconds: hold.as_secs() };
        self.send(self.http.post(self.url("scale")).json(&wish)).await.map(drop)
    }

    /// Hands the number of replicas back to the scaler.
    ///
    /// # Errors
    /// As [`Client::scale`].
    pub async fn release(&self) -> Result<()> {
        self.send(self.http.post(self.url("release"))).await.map(drop)
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}/{path}", self.address)
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Result<reqwest::Response> {
        let answer = request.header(HEADER, "1").send().await.with_context(|| {
            format!("no stack answers at {} (--control): start one with `ha-stack up`", self.address)
        })?;
        if !answer.status().is_success() {
            bail!("the stack at {} refused: {}", self.address, answer.text().await.unwrap_or_default());
        }
        Ok(answer)
    }
}

const HEADER: &str = "x-ha-stack";
