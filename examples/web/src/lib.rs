//! The demo site: log in, count views, see which instance answers.
//!
//! Any number of instances over one session store are one site. Every view is counted once: the gateway names each request in
//! `x-request-id`, and a request that is sent again under the same name changes nothing.
//!
//! ```no_run
//! # use clap::Parser;
//! #[derive(clap::Parser)]
//! struct Cli { #[command(flatten)] web: web::Settings }
//! # #[tokio::main] async fn main() -> anyhow::Result<()> {
//! web::run(Cli::parse().web).await
//! # }
//! ```
//!
//! | Path | Answer |
//! |---|---|
//! | `GET /` | login form, or the counter page, which counts a view |
//! | `POST /login` (form field `user`), `POST /logout` | back to `/` |
//! | `GET /views`, `POST /views` | counts a view; JSON `{user, views, instance, host}`; 401 when not logged in |
//! | `GET /whoami` | the same without counting; 200 with `user: null` when not logged in |
//! | `GET /work?ms=N` | sleeps up to 10 s, then JSON `{ms, instance, host}` |
//! | `GET /healthz` | 200 `ready`; 503 `draining` or `store unreachable` |
//! | `GET /livez` | 200 as long as the instance answers at all |
//! | `POST /fault?slow=N&status=S` | with `--faults`: N times as slow, or answers S at once; without parameters, well again |
//!
//! With `--metrics ADDR`, `GET /metrics` there says how it goes, for Prometheus.
//!
//! Modules: [`settings`], [`state`], [`pages`] (the router), [`metrics`], [`server`] (serve and drain).
#![forbid(unsafe_code)]

mod html;
pub mod metrics;
pub mod pages;
pub mod server;
pub mod settings;
pub mod state;
pub mod telemetry;
#[cfg(feature = "otel")]
pub mod traces;

pub use pages::app;
pub use server::{run, serve};
pub use settings::Settings;
pub use state::AppState;
