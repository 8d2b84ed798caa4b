//! The gateway's spans as part of traces (feature `otel`).

use axum::http::HeaderMap;
use balancer::proxy::TraceContext;
use tracing::Span;

/// W3C Trace Context.
pub(super) struct W3c;

impl TraceContext for W3c {
    fn extract(&self, span: &Span, headers: &HeaderMap) {
        web::traces::extract(span, headers);
    }

    fn inject(&self, span: &Span, headers: &mut HeaderMap) {
        web::traces::inject(span, headers);
    }
}
