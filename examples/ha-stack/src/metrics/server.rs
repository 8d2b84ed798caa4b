//! An address for the roles that have no other.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio_util::sync::CancellationToken;

use crate::roles::gateway::bind;

/// What makes the page anew for each request.
pub type Make = Arc<dyn Fn() -> String + Send + Sync>;

/// The route `/metrics`.
pub fn route(make: Make) -> Router {
    Router::new().route("/metrics", get(move || async move { answer(make()) }))
}

/// Serves `/metrics` at an address until `stop`; nothing without an address.
///
/// An address that is taken is tried again and again: two scalers may share a host, and one without figures is better
/// than none.
pub fn serve(address: Option<SocketAddr>, make: Make, stop: CancellationToken) {
    serve_with(address, make, Router::new(), stop);
}

/// The same, with more routes at that address.
pub fn serve_with(address: Option<SocketAddr>, make: Make, more: Router, stop: CancellationToken) {
    let Some(address) = address else { return };
    tokio::spawn(async move {
        tokio::select! {
            () = listen(address, make, more) => {}
            () = stop.cancelled() => {}
        }
    });
}

async fn listen(address: SocketAddr, make: Make, more: Router) {
    loop {
        match bind("--metrics", address).await {
            Ok(listener) => {
                let served = axum::serve(listener, route(Arc::clone(&make)).merge(more.clone())).await;
                tracing::error!(?served, "the metrics are no longer served");
            }
            Err(error) => tracing::warn!(error = format!("{error:#}"), "no metrics yet"),
        }
        tokio::time::sleep(AGAIN).await;
    }
}

fn answer(page: String) -> Response {
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], page).into_response()
}

const AGAIN: Duration = Duration::from_secs(10);
