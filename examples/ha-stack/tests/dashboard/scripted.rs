//! A dashboard over a stack that is only told, for situations that a real one can't be asked for.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use ha_stack::dashboard::guard::{Guard, protect};
use ha_stack::dashboard::sampler::Sampler;
use ha_stack::dashboard::server::{self, Rights};
use ha_stack::dashboard::source::Source;
use ha_stack::dashboard::view::View;
use ha_stack::platform::{Backend, Decided, GatewayStatus, Happening, Host, Replica};
use tokio_util::sync::CancellationToken;

/// What the dashboard sees next.
#[derive(Clone)]
pub(crate) struct Told(Arc<Mutex<Result<View, String>>>);

impl Told {
    pub(crate) fn tell(&self, told: Result<View, String>) {
        *self.0.lock().unwrap() = told;
    }
}

#[async_trait]
impl Source for Told {
    async fn look(&self) -> anyhow::Result<View> {
        self.0.lock().unwrap().clone().map_err(anyhow::Error::msg)
    }
}

/// Serves a dashboard on loopback; it ends with the test's runtime.
pub(crate) async fn serve(view: View) -> (Told, SocketAddr) {
    let told = Told(Arc::new(Mutex::new(Ok(view))));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let guard = Guard::reading(address);
    let sampler = Sampler::new(told.clone(), Duration::from_millis(200));
    tokio::spawn(sampler.clone().run(CancellationToken::new()));
    let routes = server::routes(sampler, Rights::of(&guard), guard.clone());
    let protected =
        routes.layer(axum::middleware::from_fn(move |request, next| protect(guard.clone(), request, next)));
    tokio::spawn(async move { axum::serve(listener, protected).await });
    (told, address)
}

/// Three hosts of a Swarm with names as long as real ones, all well.
pub(crate) fn well() -> View {
    let host = |name: &str, last: u8, leads: &[&str]| Host {
        name: name.into(),
        address: format!("198.18.0.{last}"),
        up: true,
        leads: leads.iter().map(|what| (*what).into()).collect(),
        drained: false,
    };
    let hosts = vec![
        host("h1", 11, &["swarm", "consul"]),
        host("h2", 12, &[]),
        host("host-with-a-long-name-3", 13, &["redis"]),
    ];
    let replica = |slot: u32, host: &str| Replica {
        instance: format!("web.{slot}.q7ldk3m2nb8x0s9a7wq2e1r5t"),
        host: host.into(),
        address: format!("198.18.0.1{slot}:32768"),
        usable: true,
        state: "ready".into(),
        in_flight: 7,
        for_seconds: 412.0,
        latency_ms: Some(12.4),
        requests: 48_211,
        failures: 3,
        ..Replica::default()
    };
    let gateway = |name: &str, last: u8| GatewayStatus {
        name: name.into(),
        address: format!("http://198.18.0.{last}:8080"),
        in_flight: 7,
        rate: 181.5,
        p95_ms: 118.2,
        p50_ms: Some(101.0),
        p99_ms: Some(153.0),
        requests_total: 150_211,
        errors_total: 2,
        retries_total: 41,
        ..GatewayStatus::default()
    };
    let backend = |name: &str, detail: &str| Backend { name: name.into(), ok: true, detail: detail.into() };
    View {
        platform: "swarm".into(),
        service: "web".into(),
        seen_from: "this program".into(),
        site: Some("http://198.18.0.11:8080".into()),
        wanted: Some(3),
        target: Some(10.0),
        replicas: hosts.iter().zip(1..).map(|(host, slot)| replica(slot, &host.name)).collect(),
        gateways: vec![gateway("h1", 11), gateway("h2", 12), gateway("host-with-a-long-name-3", 13)],
        hosts,
        backends: vec![
            backend("swarm", "h1 leads, 3 of 3 managers are there"),
            backend("consul", "198.18.0.11:8300 leads 3 servers"),
            backend("sessions", "Redis answers and takes writes"),
            backend("scaler", "the one on h2 leads"),
        ],
        ..View::default()
    }
}

/// The same with `h2` cut off at `at`, in seconds since 1970.
pub(crate) fn without_h2(at: f64) -> View {
    let mut view = well();
    view.hosts[1].up = false;
    let lost = &mut view.replicas[1];
    lost.usable = false;
    lost.why = "2 failed probes in a row".into();
    lost.state = format!("ejected: {}", lost.why);
    lost.for_seconds = 1.2;
    lost.retry_in_seconds = Some(3.4);
    view.gateways[1].error = Some("the gateway at http://198.18.0.12:8081/load does not answer".into());
    let text =
        format!("{} ejected until a probe passes: 2 failed probes in a row", view.replicas[1].instance);
    view.events = vec![Happening { at, kind: "ejected".into(), text }];
    view.decisions = vec![
        Decided { at: at - 40.0, from: 2, to: 3, sentence: "2 -> 3: 24 in flight over a target of 10 each".into() },
        Decided { at: at - 2.0, from: 3, to: 3, sentence: "hold 3: in_flight_unseen unknown so far (no answer from the gateways on h2); nothing is removed while a signal is unknown".into() },
    ];
    view
}
