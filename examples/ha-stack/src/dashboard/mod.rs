//! What the stack looks like while it runs: one page for a browser, without a build step and without another host.
//!
//! - [`view`]: what is shown at one moment; [`source`]: who looks, a platform or a gateway's own process.
//! - [`history`]: the load curve of the last minutes; [`timeline`]: faults and what became of them. Both are pure.
//! - [`verdict`]: the whole stack in one sentence.
//! - [`sampler`]: looks once a second and keeps both; browsers and [`top`](crate::cli::top) read its frames.
//! - [`server`]: the routes, and the page's files out of this program; [`guard`]: who may read and who may change.
//! - [`actions`]: drain, scale, pause.

use std::net::SocketAddr;
use std::time::Duration;

use axum::{Router, middleware};
use tokio_util::sync::CancellationToken;

pub mod actions;
pub mod guard;
pub mod history;
pub mod sampler;
pub mod server;
pub mod source;
pub mod timeline;
pub mod verdict;
pub mod view;

/// The page of a gateway, which shows and changes nothing; it looks until `stop`.
pub fn of_a_gateway(source: source::GatewaySource, address: SocketAddr, stop: CancellationToken) -> Router {
    let guard = guard::Guard::reading(address);
    let sampler = sampler::Sampler::new(source, GATEWAY_LOOKS);
    tokio::spawn(sampler.clone().run(stop));
    let routes = server::routes(sampler, server::Rights::none(), guard.clone());
    routes.layer(middleware::from_fn(move |request, next| guard::protect(guard.clone(), request, next)))
}

/// Each gateway asks all others, so not as often as a platform.
const GATEWAY_LOOKS: Duration = Duration::from_secs(2);
