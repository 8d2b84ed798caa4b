//! One trace from the gateway through the site to its store: real programs, and a collector that keeps what it gets.

use std::collections::HashMap;
use std::process::Command;
use std::sync::{Arc, Mutex};

use axum::{Router, body::Bytes, routing::post};
use consul_client::ServiceRegistration;
use consul_client::testing::FakeConsul;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};
use prost::Message;

use crate::gateway::{eventually, start};
use crate::ports::free_address;

#[derive(Clone, Debug)]
struct Seen {
    program: String,
    name: String,
    trace: Vec<u8>,
    parent: Vec<u8>,
    fields: HashMap<String, String>,
}

type Spans = Arc<Mutex<HashMap<Vec<u8>, Seen>>>;

fn text(value: Option<&AnyValue>) -> String {
    match value.and_then(|value| value.value.as_ref()) {
        Some(Value::StringValue(text)) => text.clone(),
        Some(Value::IntValue(number)) => number.to_string(),
        _ => String::new(),
    }
}

fn fields(all: &[KeyValue]) -> HashMap<String, String> {
    all.iter().map(|field| (field.key.clone(), text(field.value.as_ref()))).collect()
}

/// Its address, and what has come.
async fn collector() -> (String, Spans) {
    let (listener, spans) = (tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap(), Spans::default());
    let (address, kept) = (listener.local_addr().unwrap(), spans.clone());
    let take = move |body: Bytes| async move {
        for resource in ExportTraceServiceRequest::decode(body).unwrap().resource_spans {
            let of = fields(&resource.resource.unwrap().attributes);
            for span in resource.scope_spans.into_iter().flat_map(|scope| scope.spans) {
                let seen = Seen {
                    program: of["service.name"].clone(),
                    name: span.name,
                    trace: span.trace_id,
                    parent: span.parent_span_id,
                    fields: fields(&span.attributes),
                };
                kept.lock().unwrap().insert(span.span_id, seen);
            }
        }
    };
    let app = Router::new().route("/v1/traces", post(take));
    tokio::spawn(async move { axum::serve(listener, app).await });
    (format!("http://{address}"), spans)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_is_one_trace_from_the_gateway_to_the_store() {
    let (collector, spans) = collector().await;
    let consul = FakeConsul::start().await;
    let [site, listen, admin] = [free_address(), free_address(), free_address()];
    let program = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ha-stack"));
        command.env_remove("OTEL_SERVICE_NAME").env("OTEL_EXPORTER_OTLP_ENDPOINT", &collector);
        command.env("OTEL_BSP_SCHEDULE_DELAY", "200").args(arguments);
        start(&mut command)
    };
    let _web = program(&["web", "--session", "memory:", "--listen", &site.to_string()]);
    let [front, side] = [listen, admin].map(|address| address.to_string());
    let _gateway = program(&["gateway", "--consul", &consul.address(), "--listen", &front, "--admin", &side]);
    let one = ServiceRegistration::new("web", "web.1").address("127.0.0.1").port(site.port());
    consul.client().agent().register(&one).await.unwrap();

    // A stranger's trace is not taken up.
    let strange = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let http = reqwest::Client::builder().cookie_store(true).no_proxy().build().unwrap();
    let log_in = || {
        let form = [("user", "zoe")];
        http.post(format!("http://{listen}/login")).header("traceparent", strange).form(&form).send()
    };
    eventually("zoe is logged in", async || log_in().await.is_ok_and(|answer| answer.status().is_success()))
        .await;

    // From a write in the store up to the gateway: spans come when they end, in any order and from two programs.
    let mut path = Vec::new();
    eventually("the whole trace has come", async || {
        let all = spans.lock().unwrap();
        let is_write = |seen: &&Seen| seen.fields.get("action").is_some_and(|action| action == "write");
        for write in all.values().filter(is_write) {
            path = vec![write.clone()];
            while let Some(above) = path.last().and_then(|seen| all.get(&seen.parent)) {
                path.push(above.clone());
            }
            // The page that the log-in leads to counts a view: another request, another trace.
            let is_login =
                path.iter().any(|seen| seen.fields.get("route").is_some_and(|route| route == "/login"));
            if is_login && path.last().is_some_and(|first| first.parent.is_empty()) {
                return true;
            }
        }
        false
    })
    .await;
    let names: Vec<_> = path.iter().map(|seen| (seen.program.as_str(), seen.name.as_str())).collect();
    assert_eq!(
        names,
        [("web", "session"), ("web", "request"), ("gateway", "attempt"), ("gateway", "request")],
        "{path:?}"
    );
    assert!(path.iter().all(|seen| seen.trace == path[0].trace && !strange.contains(&hex(&seen.trace))));
    assert_eq!(path[3].fields["method"], "POST");
    assert!(!format!("{path:?}").contains("zoe"), "no value of a user leaves with a trace: {path:?}");
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
