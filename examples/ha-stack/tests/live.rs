//! The dashboard, the metrics and what scalers agree on: over HTTP, and, with real programs, in a browser and in a Prometheus; the renderers
//! with the real nginx and HAProxy.

#![allow(clippy::unwrap_used)] // A test stops at the first surprise.

#[path = "dashboard/browser.rs"]
mod browser;
#[path = "coordination/swarm.rs"]
mod coordination;
#[path = "dashboard/gateway.rs"]
mod gateway;
#[path = "guide/mod.rs"]
mod guide;
#[path = "dashboard/http.rs"]
mod http;
#[path = "metrics/names.rs"]
mod names;
#[path = "dashboard/page.rs"]
mod page;
#[path = "support/ports.rs"]
mod ports;
#[path = "metrics/prometheus.rs"]
mod prometheus;
#[path = "render/proxies.rs"]
mod proxies;
#[path = "deploy/rights.rs"]
mod rights;
#[path = "dashboard/scripted.rs"]
mod scripted;
#[path = "gateway/services.rs"]
mod services;
#[cfg(feature = "otel")]
#[path = "gateway/traces.rs"]
mod traces;
#[path = "support/up.rs"]
mod up;
