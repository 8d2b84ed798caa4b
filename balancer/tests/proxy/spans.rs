//! The spans of a request.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use balancer::{Config, RoundRobin};
use http::Request;
use tracing::span::{Attributes, Id, Record};

use crate::support::*;

/// A span: its name, its parent, its fields.
#[derive(Clone, Debug, Default)]
struct Seen {
    name: &'static str,
    parent: Option<u64>,
    fields: HashMap<&'static str, String>,
}

impl tracing::field::Visit for Seen {
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
        self.fields.insert(field.name(), format!("{value:?}"));
    }
}

/// Keeps the spans of one thread.
#[derive(Clone, Default)]
struct Keep {
    spans: Arc<Mutex<HashMap<u64, Seen>>>,
    entered: Arc<Mutex<Vec<u64>>>,
    next: Arc<AtomicU64>,
}

impl tracing::Subscriber for Keep {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.is_span() && metadata.target() == "balancer"
    }
    fn new_span(&self, attributes: &Attributes<'_>) -> Id {
        let id = self.next.fetch_add(1, Ordering::Relaxed) + 1;
        let parent = self.entered.lock().unwrap().last().copied();
        let mut seen = Seen { name: attributes.metadata().name(), parent, ..Seen::default() };
        attributes.record(&mut seen);
        self.spans.lock().unwrap().insert(id, seen);
        Id::from_u64(id)
    }
    fn record(&self, id: &Id, record: &Record<'_>) {
        record.record(self.spans.lock().unwrap().get_mut(&id.into_u64()).unwrap());
    }
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, _: &tracing::Event<'_>) {}
    fn enter(&self, id: &Id) {
        self.entered.lock().unwrap().push(id.into_u64());
    }
    fn exit(&self, id: &Id) {
        self.entered.lock().unwrap().retain(|other| *other != id.into_u64());
    }
}

#[test]
fn a_request_is_a_span_with_one_for_each_endpoint_that_was_asked() {
    let keep = Keep::default();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tracing::subscriber::with_default(keep.clone(), || {
        runtime.block_on(async {
            let good = Backend::named("good").await;
            let dead = Backend::named("dead").await.endpoint("dead");
            // The second one's listener is closed by now, or soon: each is asked until the good one answers.
            let rules = Config::default().policy(RoundRobin::default());
            let front = Front::of(rules, quick(), [good.endpoint("good"), dead]).await;
            for _ in 0..8 {
                let answer = front.send(Request::get("/secret?q=secret").header("cookie", "secret")).await;
                assert_eq!(answer.0, 200);
            }
        });
    });
    let spans = keep.spans.lock().unwrap().clone();
    let requests: Vec<_> = spans.iter().filter(|(_, span)| span.name == "request").collect();
    assert_eq!(requests.len(), 8, "{spans:?}");
    let mut failed = 0;
    for (id, request) in requests {
        let field = |name: &str| request.fields.get(name).map(String::as_str);
        assert_eq!(
            (field("method"), field("status"), field("endpoint")),
            (Some("\"GET\""), Some("200"), Some("\"good\""))
        );
        assert!(field("request_id").is_some_and(|id| id.len() > 10), "{request:?}");
        let attempts: Vec<_> =
            spans.values().filter(|span| span.name == "attempt" && span.parent == Some(*id)).collect();
        assert_eq!(field("attempts"), Some(attempts.len().to_string().as_str()), "{attempts:?}");
        let of = |name: &'static str| {
            attempts.iter().filter(move |span| span.fields.get("status").map(String::as_str) == Some(name))
        };
        assert_eq!(of("200").count(), 1, "{attempts:?}");
        failed += attempts.iter().filter(|span| span.fields.contains_key("failure")).count();
    }
    assert!(failed >= 1, "the dead one was never asked: {spans:?}");
    assert!(!format!("{spans:?}").contains("secret"));
}
