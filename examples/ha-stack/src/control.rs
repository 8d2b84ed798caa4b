//! How `status`, `scale` and `top` reach a stack that `up` runs: JSON over HTTP, beside the dashboard.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::{get, post};
use axum::{Json, Router, middleware};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;

use crate::dashboard::actions;
use crate::dashboard::guard::{COMMAND_HEADER, Guard, protect};
use crate::dashboard::sampler::{Sampler, Start};
use crate::dashboard::server::{self, Rights};
use crate::load;
use crate::metrics;
use crate::platform::{Platform, Status};
use crate::settings::Secret;

#[derive(Debug, Serialize, Deserialize)]
struct Scale {
    replicas: u32,
    hold_seconds: u64,
}

type Refused = (StatusCode, String);

#[derive(Clone)]
struct Shared {
    platform: Arc<dyn Platform>,
    guard: Guard,
}

/// Binds the control address that `flag` named, and says who may change the stack there.
///
/// # Errors
/// When the port is taken, when others reach the address and no token is set, or when the token can be guessed.
pub async fn bind(flag: &str, address: SocketAddr, token: Option<&Secret>) -> Result<(TcpListener, Guard)> {
    let guard = Guard::new(address, token)?;
    ensure!(
        guard.is_loopback() || guard.has_token(),
        "{flag} is {address}, which other machines reach: set --token (HA_STACK_TOKEN), or keep it on loopback"
    );
    let listener = TcpListener::bind(address).await.with_context(|| {
        format!(
            "{flag} is {address}: it can't be bound; is the stack running already? Choose another with {flag}"
        )
    })?;
    Ok((listener, guard))
}

/// The routes of the command line and of the dashboard, for a stack that runs.
pub fn routes(platform: Arc<dyn Platform>, sampler: Sampler, guard: Guard) -> Router {
    let commands = Router::new()
        .route("/status", get(status))
        .route("/scale", post(scale))
        .route("/release", post(release))
        .with_state(Shared { platform: Arc::clone(&platform), guard: guard.clone() });
    let seen = sampler.clone();
    let page = move || metrics::stack::page(seen.frames().borrow().as_deref());
    commands
        .merge(metrics::server::route(Arc::new(page)))
        .merge(server::routes(sampler, Rights::of(&guard), guard.clone()))
        .merge(actions::routes(platform, guard.clone()))
        .layer(middleware::from_fn(move |request, next| protect(guard.clone(), request, next)))
}

/// Answers until the listener fails.
///
/// # Errors
/// When the listener fails.
pub async fn serve(listener: TcpListener, routes: Router) -> Result<()> {
    axum::serve(listener, routes).await.context("the control address no longer answers")
}

async fn status(State(shared): State<Shared>) -> Result<Json<Status>, Refused> {
    shared.platform.status().await.map(Json).map_err(refused)
}

async fn scale(
    State(shared): State<Shared>,
    headers: HeaderMap,
    Json(wish): Json<Scale>,
) -> Result<StatusCode, Refused> {
    shared.guard.command(&headers)?;
    shared.platform.scale(wish.replicas, Duration::from_secs(wish.hold_seconds)).await.map_err(refused)?;
    Ok(StatusCode::NO_CONTENT)
}

async fn release(State(shared): State<Shared>, headers: HeaderMap) -> Result<StatusCode, Refused> {
    shared.guard.command(&headers)?;
    shared.platform.release().await.map_err(refused)?;
    Ok(StatusCode::NO_CONTENT)
}

fn refused(error: anyhow::Error) -> Refused {
    (StatusCode::INTERNAL_SERVER_ERROR, format!("{error:#}"))
}

/// The other end.
pub struct Client {
    address: SocketAddr,
    token: Option<Secret>,
    http: reqwest::Client,
}

impl Client {
    /// A client of the stack whose `--control` is `address`.
    ///
    /// # Errors
    /// When the HTTP client can't be built.
    pub fn new(address: SocketAddr, token: Option<&Secret>) -> Result<Self> {
        Ok(Self { address, token: token.cloned(), http: load::client(Duration::from_secs(10))? })
    }

    /// The stack at this moment.
    ///
    /// # Errors
    /// When no stack answers.
    pub async fn status(&self) -> Result<Status> {
        let answer = self.send(self.http.get(self.url("status"))).await?;
        answer.json().await.with_context(|| format!("what answers at {} is not ha-stack", self.address))
    }

    /// What the dashboard shows.
    ///
    /// # Errors
    /// As [`Client::status`].
    pub async fn dashboard(&self) -> Result<Start> {
        let answer = self.send(self.http.get(self.url("api/start"))).await?;
        answer.json().await.with_context(|| format!("what answers at {} has no dashboard", self.address))
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
        let mut request = request.header(COMMAND_HEADER, "1");
        if let Some(token) = &self.token {
            request = request.bearer_auth(token.expose().trim());
        }
        let answer = request.send().await.with_context(|| {
            format!("no stack answers at {} (--control): start one with `ha-stack up`", self.address)
        })?;
        if !answer.status().is_success() {
            bail!("the stack at {} refused: {}", self.address, answer.text().await.unwrap_or_default());
        }
        Ok(answer)
    }
}
