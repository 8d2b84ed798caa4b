//! OpenTelemetry: where spans go, and how a trace is taken up and handed on.

use anyhow::Context;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::{
    propagation::{Extractor, Injector, TextMapPropagator},
    trace::TracerProvider,
};
use opentelemetry_sdk::{Resource, propagation::TraceContextPropagator, trace::SdkTracerProvider};
use tracing::{Span, Subscriber, level_filters::LevelFilter};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::{Layer, filter::Targets, registry::LookupSpan};

/// The exporter that the environment asks for, if it does.
pub(crate) fn provider(program: &str) -> anyhow::Result<Option<SdkTracerProvider>> {
    if !crate::telemetry::wanted() {
        return Ok(None);
    }
    let exporter = opentelemetry_otlp::SpanExporter::builder().with_http().build();
    let exporter = exporter.context("OTEL_EXPORTER_OTLP_ENDPOINT and its kind can't be used")?;
    let mut resource = Resource::builder();
    if std::env::var_os("OTEL_SERVICE_NAME").is_none() {
        resource = resource.with_service_name(program.to_owned());
    }
    let provider = SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource.build());
    Ok(Some(provider.build()))
}

/// The spans that say where a request's time went: of the gateway, the site and its store.
pub(crate) fn layer<S>(provider: &SdkTracerProvider) -> impl Layer<S> + use<S>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let ours = ["balancer", "web", "session_store"].map(|target| (target, LevelFilter::DEBUG));
    tracing_opentelemetry::layer()
        .with_tracer(provider.tracer("ha-stack"))
        .with_filter(Targets::new().with_targets(ours))
}

/// Makes the trace that the headers name the parent of `span`.
pub fn extract(span: &Span, headers: &HeaderMap) {
    // Of a span that is not recorded there is nothing to tell.
    let _ = span.set_parent(TraceContextPropagator::new().extract(&Headers(headers)));
}

/// Writes `span` into the headers.
pub fn inject(span: &Span, headers: &mut HeaderMap) {
    TraceContextPropagator::new().inject_context(&span.context(), &mut HeadersMut(headers));
}

struct Headers<'a>(&'a HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(HeaderName::as_str).collect()
    }
}

struct HeadersMut<'a>(&'a mut HeaderMap);

impl Injector for HeadersMut<'_> {
    fn set(&mut self, key: &str, value: String) {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(key), HeaderValue::try_from(value)) {
            self.0.insert(name, value);
        }
    }
}
