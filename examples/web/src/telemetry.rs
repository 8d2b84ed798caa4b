//! What a program tells of itself while it runs: a log for people, and, with the feature `otel`, spans for a collector.
//!
//! Spans go out by OTLP over HTTP (protobuf) where `OTEL_EXPORTER_OTLP_ENDPOINT` or `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT` says so; the
//! other variables of OpenTelemetry hold as well (`OTEL_SERVICE_NAME`, `OTEL_TRACES_SAMPLER`, `OTEL_BSP_*`). A trace goes from
//! process to process in the header `traceparent` (W3C Trace Context).

use std::io::IsTerminal;

use tracing_subscriber::{EnvFilter, Layer, layer::SubscriberExt, util::SubscriberInitExt};

/// Keeps it going; when it is dropped what has not been sent yet is.
#[must_use]
pub struct Telemetry {
    #[cfg(feature = "otel")]
    traces: Option<opentelemetry_sdk::trace::SdkTracerProvider>,
}

/// Starts the log on standard error, at `level` where `RUST_LOG` says nothing, and the traces of `program`. Once in a process.
///
/// # Errors
/// When traces are wanted and the settings make no exporter.
pub fn start(program: &str, level: &str) -> anyhow::Result<Telemetry> {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    let log = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_filter(filter);
    let all = tracing_subscriber::registry().with(log);
    #[cfg(feature = "otel")]
    {
        let traces = super::traces::provider(program)?;
        all.with(traces.as_ref().map(super::traces::layer)).init();
        Ok(Telemetry { traces })
    }
    #[cfg(not(feature = "otel"))]
    {
        all.init();
        if wanted() {
            tracing::warn!(
                program,
                "traces are wanted (OTEL_EXPORTER_OTLP_ENDPOINT), but this program was built without the feature otel"
            );
        }
        Ok(Telemetry {})
    }
}

/// Whether the environment names a collector.
pub(crate) fn wanted() -> bool {
    ["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"]
        .iter()
        .any(|name| std::env::var_os(name).is_some_and(|value| !value.is_empty()))
}

#[cfg(feature = "otel")]
impl Drop for Telemetry {
    fn drop(&mut self) {
        if let Some(traces) = &self.traces
            && let Err(error) = traces.shutdown()
        {
            eprintln!("the last spans were not sent: {error}");
        }
    }
}
