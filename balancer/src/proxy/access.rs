//! The access log: one structured event for each request that is told of.

use std::net::IpAddr;
use std::time::Duration;

use http::{HeaderValue, Method, StatusCode, Version};
use tokio::time::Instant;

use super::config::AccessLog;
use crate::endpoint::EndpointId;

/// What is told of a request when its answer is over. Values of users (queries, cookies, bodies) are not among it.
#[derive(Debug)]
pub(crate) struct Entry {
    rules: AccessLog,
    pub(crate) began: Instant,
    pub(crate) client: IpAddr,
    pub(crate) method: Method,
    pub(crate) host: Option<HeaderValue>,
    pub(crate) path: String,
    pub(crate) version: Version,
    pub(crate) id: HeaderValue,
    pub(crate) status: StatusCode,
    pub(crate) endpoint: Option<EndpointId>,
    pub(crate) attempts: u32,
    pub(crate) head_after: Duration,
    pub(crate) bytes: u64,
}

impl Entry {
    pub(crate) fn new(
        rules: &AccessLog,
        began: Instant,
        method: &Method,
        path: &str,
        id: &HeaderValue,
    ) -> Self {
        Self {
            rules: rules.clone(),
            began,
            client: IpAddr::from([0, 0, 0, 0]),
            method: method.clone(),
            host: None,
            path: path.to_owned(),
            version: Version::HTTP_11,
            id: id.clone(),
            status: StatusCode::OK,
            endpoint: None,
            attempts: 0,
            head_after: Duration::ZERO,
            bytes: 0,
        }
    }

    /// Tells of it, if the rules say so; `dice` is in 0..1.
    pub(crate) fn tell(&self, dice: f64) {
        let took = self.began.elapsed();
        let noteworthy = self.status.is_server_error() || took >= self.rules.slow;
        if !noteworthy && dice >= self.rules.sample {
            return;
        }
        tracing::info!(
            target: "balancer::access",
            client = %self.client,
            method = %self.method,
            host = self.host.as_ref().and_then(|host| host.to_str().ok()),
            path = self.path,
            version = ?self.version,
            status = self.status.as_u16(),
            endpoint = self.endpoint.as_ref().map(EndpointId::as_str),
            attempts = self.attempts,
            bytes = self.bytes,
            head_ms = self.head_after.as_secs_f64() * 1000.0,
            total_ms = took.as_secs_f64() * 1000.0,
            request_id = self.id.to_str().ok(),
        );
    }
}
