//! The service that wraps a handler: cookie in, commit, cookie out.

use super::{
    SessionLayer,
    outcome::{Commit, SessionError},
    session::{CookieOut, Session},
};
use crate::error::StoreError;
use http::{
    HeaderValue, Request, Response, StatusCode,
    header::{CACHE_CONTROL, RETRY_AFTER, SET_COOKIE, VARY},
};
use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};
use tower_service::Service;

/// What [`SessionLayer`] makes of a service. Its responses need an empty body of their own, for the answers that the layer gives.
#[derive(Clone, Debug)]
pub struct SessionService<S> {
    inner: S,
    layer: SessionLayer,
}

impl<S> SessionService<S> {
    pub(super) const fn new(inner: S, layer: SessionLayer) -> Self {
        Self { inner, layer }
    }
}

impl<S, B, R> Service<Request<B>> for SessionService<S>
where
    S: Service<Request<B>, Response = Response<R>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    B: Send + 'static,
    R: Default + Send + 'static,
{
    type Response = Response<R>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        // The service that was polled ready is the one to call; its clone waits for the next request.
        let clone = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, clone);
        let layer = self.layer.clone();
        Box::pin(async move {
            let session = Session::new(layer.clone(), layer.cookie.read(request.headers()));
            request.extensions_mut().insert(session.clone());
            let response = inner.call(request).await?;
            if !session.is_used() {
                return Ok(response);
            }
            Ok(settle(&layer, &session, response).await)
        })
    }
}

/// Commits what the handler left to commit and completes the response.
async fn settle<R: Default>(
    layer: &SessionLayer,
    session: &Session,
    mut response: Response<R>,
) -> Response<R> {
    if session.failure().is_none() && !response.status().is_server_error() {
        match session.commit().await {
            Ok(Commit::Unchanged) => session.touch_if_due().await,
            Ok(Commit::Conflict { .. }) => response = answer(StatusCode::CONFLICT),
            Ok(Commit::Gone(gone)) => {
                // What the handler's page says was done was not stored.
                tracing::debug!(?gone, "session ended before its last change");
                response = answer(StatusCode::UNAUTHORIZED);
            }
            Ok(Commit::Saved { .. } | Commit::Merged { .. }) => {}
            Err(SessionError::Store(_)) => {} // told below
            Err(error) => {
                tracing::error!(%error, "session not saved");
                response = answer(StatusCode::INTERNAL_SERVER_ERROR);
            }
        }
    }
    if let Some(SessionError::Store(error)) = session.failure() {
        response = refuse(&error);
    }
    let headers = response.headers_mut();
    headers.append(VARY, HeaderValue::from_static("cookie"));
    let cookie = match session.take_cookie().await {
        Some(CookieOut::Set(id)) => layer.cookie.set(&id),
        Some(CookieOut::Clear) => layer.cookie.clear(),
        None => None,
    };
    if let Some(cookie) = cookie {
        headers.append(SET_COOKIE, cookie);
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    response
}

/// The answer to a failed store: come again if it may come back, else a plain error. Either way nothing of the handler's page leaves.
fn refuse<R: Default>(error: &StoreError) -> Response<R> {
    if error.is_retryable() {
        tracing::warn!(%error, "request refused");
        let mut response = answer(StatusCode::SERVICE_UNAVAILABLE);
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static(RETRY_SECONDS));
        return response;
    }
    tracing::error!(%error, "session not usable");
    answer(StatusCode::INTERNAL_SERVER_ERROR)
}

fn answer<R: Default>(status: StatusCode) -> Response<R> {
    let mut response = Response::new(R::default());
    *response.status_mut() = status;
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// A failover takes a few seconds, most of which the store's own deadline has already waited.
const RETRY_SECONDS: &str = "1";
