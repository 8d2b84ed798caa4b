//! The routes of the dashboard: the page's files out of this program, the newest frame, and a stream of frames.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use futures_util::Stream;
use futures_util::stream;
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::guard::{Guard, Refused};
use super::sampler::{Sampler, Start};
use super::view::Frame;

/// What the page may do here.
#[derive(Clone, Debug, Serialize)]
pub struct Rights {
    /// Whether the page can change anything, given the token.
    pub controls: bool,
    /// Why it can't, where it can't.
    pub read_only: Option<&'static str>,
    /// Of this program.
    pub version: &'static str,
}

impl Rights {
    /// A page over a platform.
    pub fn of(guard: &Guard) -> Self {
        let read_only = (!guard.has_token()).then_some("Started without a token (--token, HA_STACK_TOKEN).");
        Self { controls: guard.has_token(), read_only, version: env!("CARGO_PKG_VERSION") }
    }

    /// A page over something that can't be changed from there.
    pub fn none() -> Self {
        let why = "A gateway has no access to the cluster's managers: use `ha-stack dashboard --token` or `ha-stack scale` on a manager.";
        Self { controls: false, read_only: Some(why), version: env!("CARGO_PKG_VERSION") }
    }
}

/// The page and its data; [`actions`](super::actions) are merged in where something can be changed.
pub fn routes(sampler: Sampler, rights: Rights, guard: Guard) -> Router {
    let desk = Desk { sampler, rights, guard, viewers: Arc::new(Semaphore::new(VIEWERS)) };
    Router::new()
        .route("/", get(|| async { file("text/html; charset=utf-8", include_str!("page/index.html")) }))
        .route("/page/style.css", get(|| async { file("text/css", include_str!("page/style.css")) }))
        .route("/page/icon.svg", get(|| async { file("image/svg+xml", include_str!("page/icon.svg")) }))
        .route("/page/main.js", get(|| async { script(include_str!("page/main.js")) }))
        .route("/page/dom.js", get(|| async { script(include_str!("page/dom.js")) }))
        .route("/page/curve.js", get(|| async { script(include_str!("page/curve.js")) }))
        .route("/page/panels.js", get(|| async { script(include_str!("page/panels.js")) }))
        .route("/page/controls.js", get(|| async { script(include_str!("page/controls.js")) }))
        .route("/api/start", get(start))
        .route("/api/live", get(live))
        .route("/api/unlock", get(unlock))
        .with_state(desk)
}

#[derive(Clone)]
struct Desk {
    sampler: Sampler,
    rights: Rights,
    guard: Guard,
    viewers: Arc<Semaphore>,
}

#[derive(Serialize)]
struct Begin {
    rights: Rights,
    #[serde(flatten)]
    start: Start,
}

impl Desk {
    fn begin(&self) -> Begin {
        Begin { rights: self.rights.clone(), start: self.sampler.start() }
    }
}

async fn start(State(desk): State<Desk>) -> Response {
    Json(desk.begin()).into_response()
}

/// Whether the token that was sent is the right one.
async fn unlock(State(desk): State<Desk>, headers: HeaderMap) -> Result<StatusCode, Refused> {
    if !desk.rights.controls {
        return Err((StatusCode::FORBIDDEN, desk.rights.read_only.unwrap_or("read only").into()));
    }
    let checked = desk.guard.change(&headers);
    if checked.is_err() {
        // A person does not notice; somebody who tries out tokens does.
        tokio::time::sleep(WRONG_TOKEN).await;
    }
    checked.map(|()| StatusCode::NO_CONTENT)
}

/// First everything that a page needs to begin with, then each frame.
async fn live(State(desk): State<Desk>) -> Response {
    let Ok(place) = Arc::clone(&desk.viewers).try_acquire_owned() else {
        return (StatusCode::SERVICE_UNAVAILABLE, "too many pages watch already\n").into_response();
    };
    Sse::new(events(&desk, place)).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response()
}

fn events(desk: &Desk, place: OwnedSemaphorePermit) -> impl Stream<Item = Result<Event, Infallible>> + use<> {
    let mut frames = desk.sampler.frames();
    // What is seen from here on comes as a frame; what was there before is in the beginning.
    frames.mark_unchanged();
    let begin = event("start", &desk.begin());
    stream::unfold((Some(begin), frames, place), |(begin, mut frames, place)| async move {
        if let Some(begin) = begin {
            return Some((Ok(begin), (None, frames, place)));
        }
        loop {
            frames.changed().await.ok()?;
            let frame: Option<Arc<Frame>> = frames.borrow_and_update().clone();
            if let Some(frame) = frame {
                return Some((Ok(event("frame", &*frame)), (None, frames, place)));
            }
        }
    })
}

fn event(name: &str, data: &impl Serialize) -> Event {
    let event = Event::default().event(name);
    // Plain data can't fail to be written; a page that got a comment waits for the next frame.
    event.json_data(data).unwrap_or_else(|_| Event::default().comment("not written"))
}

fn script(text: &'static str) -> Response {
    file("text/javascript", text)
}

fn file(kind: &'static str, text: &'static str) -> Response {
    ([(header::CONTENT_TYPE, kind)], text).into_response()
}

/// Each holds a connection and gets a frame a second.
const VIEWERS: usize = 64;
const KEEP_ALIVE: Duration = Duration::from_secs(15);
const WRONG_TOKEN: Duration = Duration::from_millis(500);
