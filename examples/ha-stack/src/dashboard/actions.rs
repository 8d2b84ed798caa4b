//! What a person may change by the page: the number of replicas, whether the scaler acts, whether a host is used.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use axum::{Json, Router};
use serde::Deserialize;

use super::guard::{Guard, Refused};
use crate::platform::Platform;

/// The routes of the changes; each asks `guard` first.
pub fn routes(platform: Arc<dyn Platform>, guard: Guard) -> Router {
    Router::new()
        .route("/api/scale", post(scale))
        .route("/api/pause", post(pause))
        .route("/api/resume", post(resume))
        .route("/api/drain", post(drain))
        .with_state(Desk { platform, guard })
}

#[derive(Clone)]
struct Desk {
    platform: Arc<dyn Platform>,
    guard: Guard,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Scale {
    replicas: u32,
    hold_seconds: u64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Pause {
    hold_seconds: u64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Drain {
    host: String,
    on: bool,
}

type Done = Result<StatusCode, Refused>;

async fn scale(State(desk): State<Desk>, headers: HeaderMap, Json(wish): Json<Scale>) -> Done {
    desk.guard.change(&headers)?;
    if wish.replicas > MAX_REPLICAS {
        return Err(wrong(format!("replicas is {}; give 0 to {MAX_REPLICAS}", wish.replicas)));
    }
    tracing::info!(replicas = wish.replicas, hold_seconds = wish.hold_seconds, "scaled by the dashboard");
    done(desk.platform.scale(wish.replicas, hold(wish.hold_seconds)?).await)
}

/// A pause is a scale by hand to the present number.
async fn pause(State(desk): State<Desk>, headers: HeaderMap, Json(wish): Json<Pause>) -> Done {
    desk.guard.change(&headers)?;
    let hold = hold(wish.hold_seconds)?;
    let wanted = desk.platform.status().await.map_err(failed)?.wanted;
    tracing::info!(wanted, hold_seconds = wish.hold_seconds, "scaler paused by the dashboard");
    done(desk.platform.scale(wanted, hold).await)
}

async fn resume(State(desk): State<Desk>, headers: HeaderMap) -> Done {
    desk.guard.change(&headers)?;
    tracing::info!("scaler resumed by the dashboard");
    done(desk.platform.release().await)
}

async fn drain(State(desk): State<Desk>, headers: HeaderMap, Json(wish): Json<Drain>) -> Done {
    desk.guard.change(&headers)?;
    tracing::info!(host = %wish.host, on = wish.on, "host drained or taken into use by the dashboard");
    done(desk.platform.drain(&wish.host, wish.on).await)
}

fn hold(seconds: u64) -> Result<Duration, Refused> {
    if seconds == 0 || seconds > MAX_HOLD {
        return Err(wrong(format!("hold_seconds is {seconds}; give 1 to {MAX_HOLD}")));
    }
    Ok(Duration::from_secs(seconds))
}

fn done(outcome: anyhow::Result<()>) -> Done {
    outcome.map(|()| StatusCode::NO_CONTENT).map_err(failed)
}

fn wrong(why: String) -> Refused {
    (StatusCode::UNPROCESSABLE_ENTITY, why)
}

fn failed(error: anyhow::Error) -> Refused {
    (StatusCode::BAD_GATEWAY, format!("{error:#}"))
}

const MAX_REPLICAS: u32 = 1000;
/// A week, as for the command line.
const MAX_HOLD: u64 = 7 * 24 * 3600;
