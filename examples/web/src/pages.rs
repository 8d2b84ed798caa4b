//! The router and its handlers.

use crate::{
    html, metrics,
    state::{AppState, Fault, Readiness},
};
use axum::{
    Form, Json, Router,
    body::{Body, HttpBody},
    extract::{DefaultBodyLimit, MatchedPath, Query, Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header},
    middleware::{Next, from_fn, from_fn_with_state},
    response::{Html, IntoResponse, Redirect, Response},
    routing::{get, post},
};
use serde::{Deserialize, Serialize};
use session_store::{Session, SessionError, TypedKey, layer::Commit};
use std::time::{Duration, Instant};
use tracing::Instrument;

/// The site as a service.
pub fn app(state: AppState) -> Router {
    let faults =
        if state.takes_faults() { Router::new().route("/fault", post(fault)) } else { Router::new() };
    Router::new()
        .route("/", get(home))
        .route("/login", post(login))
        .route("/logout", post(logout))
        .route("/views", get(views).post(views))
        .route("/whoami", get(whoami))
        .layer(state.sessions())
        .layer(DefaultBodyLimit::max(MAX_FORM))
        .route("/work", get(work).post(work))
        .layer(from_fn_with_state(state.clone(), worse))
        .merge(faults)
        .route("/healthz", get(healthz))
        .route("/livez", get(async || "alive"))
        .layer(from_fn_with_state(state.clone(), frame))
        .layer(from_fn(span))
        .layer(from_fn_with_state(state.clone(), metrics::count))
        .with_state(state)
}

/// What a client is told about itself and who answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// Who is logged in.
    pub user: Option<String>,
    /// Views counted in this session.
    pub views: i64,
    /// The instance that answered.
    pub instance: String,
    /// The host that it runs on.
    pub host: String,
}

#[derive(Deserialize)]
struct LoginForm {
    #[serde(default)]
    user: String,
}

#[derive(Deserialize)]
struct WorkQuery {
    #[serde(default)]
    ms: u64,
}

async fn home(
    State(state): State<AppState>,
    session: Session,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, SessionError> {
    Ok(match view(&state, &session, &method, &headers).await? {
        Some(answer) => Html(html::counter(&answer)).into_response(),
        None => Html(html::login(&state, None)).into_response(),
    })
}

async fn views(
    State(state): State<AppState>,
    session: Session,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, SessionError> {
    Ok(match view(&state, &session, &method, &headers).await? {
        Some(answer) => Json(answer).into_response(),
        None => (StatusCode::UNAUTHORIZED, Json(nobody(&state))).into_response(),
    })
}

async fn whoami(State(state): State<AppState>, session: Session) -> Result<Json<Answer>, SessionError> {
    let user = session.principal().await?;
    let views = session.get(VIEWS).await?.unwrap_or_default();
    Ok(Json(Answer { user, views, ..nobody(&state) }))
}

async fn login(
    State(state): State<AppState>,
    session: Session,
    Form(form): Form<LoginForm>,
) -> Result<Response, SessionError> {
    let Some(user) = user_name(&form.user) else {
        let page = Html(html::login(&state, Some("Please give a name of 1 to 64 printable characters.")));
        return Ok((StatusCode::UNPROCESSABLE_ENTITY, page).into_response());
    };
    session.login(user).await?;
    Ok(Redirect::to("/").into_response())
}

async fn logout(session: Session) -> Result<Redirect, SessionError> {
    session.logout().await?;
    Ok(Redirect::to("/"))
}

async fn work(State(state): State<AppState>, Query(query): Query<WorkQuery>) -> Response {
    if query.ms > MAX_WORK_MS {
        let text = format!("ms={} is too long; give 0 to {MAX_WORK_MS}\n", query.ms);
        return (StatusCode::BAD_REQUEST, text).into_response();
    }
    tokio::time::sleep(Duration::from_millis(query.ms)).await;
    Json(serde_json::json!({ "ms": query.ms, "instance": state.instance(), "host": state.host() }))
        .into_response()
}

async fn fault(State(state): State<AppState>, Query(fault): Query<Fault>) -> StatusCode {
    state.set_fault(fault);
    StatusCode::NO_CONTENT
}

async fn healthz(State(state): State<AppState>) -> (StatusCode, &'static str) {
    match state.readiness().await {
        Readiness::Ready => (StatusCode::OK, "ready"),
        Readiness::Draining => (StatusCode::SERVICE_UNAVAILABLE, "draining"),
        Readiness::StoreUnreachable => (StatusCode::SERVICE_UNAVAILABLE, "store unreachable"),
    }
}

/// Counts a view, once for each request id, and answers the committed count. `None`: not logged in, or logged out meanwhile.
async fn view(
    state: &AppState,
    session: &Session,
    method: &Method,
    headers: &HeaderMap,
) -> Result<Option<Answer>, SessionError> {
    let Some(user) = session.principal().await? else { return Ok(None) };
    if matches!(*method, Method::GET | Method::POST) {
        if let Some(request) =
            headers.get(REQUEST_ID).and_then(|id| id.to_str().ok()).filter(|id| !id.is_empty())
        {
            session.idempotency(request);
        }
        session.add(VIEWS, 1);
        if let Commit::Gone(_) = session.commit().await? {
            return Ok(None);
        }
    }
    let views = session.get(VIEWS).await?.unwrap_or_default();
    Ok(Some(Answer { user: Some(user), views, ..nobody(state) }))
}

fn nobody(state: &AppState) -> Answer {
    Answer { user: None, views: 0, instance: state.instance().into(), host: state.host().into() }
}

fn user_name(text: &str) -> Option<&str> {
    let name = text.trim();
    let hidden = |c: char| {
        c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
    };
    ((1..=MAX_USER).contains(&name.chars().count()) && !name.contains(hidden)).then_some(name)
}

/// As slow or as broken as a test made this instance.
async fn worse(State(state): State<AppState>, request: Request, next: Next) -> Response {
    let fault = state.fault();
    if let Some(status) = fault.status.and_then(|status| StatusCode::from_u16(status).ok()) {
        return (status, "a fault that was asked for\n").into_response();
    }
    let began = Instant::now();
    let response = next.run(request).await;
    let more = began.elapsed().saturating_mul(fault.slow.saturating_sub(1));
    tokio::time::sleep(more.min(Duration::from_millis(MAX_WORK_MS))).await;
    response
}

/// What every response carries: who answered, and how a browser is to treat it.
async fn frame(State(state): State<AppState>, request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    if response.status() == StatusCode::SERVICE_UNAVAILABLE && response.body().size_hint().exact() == Some(0)
    {
        *response.body_mut() = Body::from(html::unavailable(&state));
        response
            .headers_mut()
            .insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
        response.headers_mut().remove(header::CONTENT_LENGTH);
    }
    let headers = response.headers_mut();
    headers.insert(HeaderName::from_static("x-instance"), AppState::header(state.instance()));
    headers.insert(HeaderName::from_static("x-host"), AppState::header(state.host()));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(html::POLICY));
    if state.is_draining() {
        // Kept connections of gateways end with an answer instead of in the middle of a request.
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// The request as a span, in which those of its store are.
async fn span(request: Request, next: Next) -> Response {
    let span = tracing::debug_span!(
        target: "web",
        "request",
        method = request.method().as_str(),
        route = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str),
        status = tracing::field::Empty,
    );
    #[cfg(feature = "otel")]
    crate::traces::extract(&span, request.headers());
    let response = next.run(request).instrument(span.clone()).await;
    span.record("status", response.status().as_u16());
    response
}

const REQUEST_ID: &str = "x-request-id";
const VIEWS: TypedKey<i64> = TypedKey::new("views");
const MAX_USER: usize = 64;
const MAX_FORM: usize = 4096;
const MAX_WORK_MS: u64 = 10_000;
