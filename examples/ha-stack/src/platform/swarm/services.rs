//! The stack's services as Swarm specs: pure.

use std::time::Duration;

use swarm_client::ServiceSpec;
use swarm_client::model::UpdateConfig;

use crate::images::Bundle;
use crate::platform::StackSpec;
use crate::roles::labels;
use crate::settings::Secret;

/// Where each host's gateway takes users' requests.
pub(super) const GATEWAY_PORT: u16 = 8080;
/// Where each host's gateway says how busy it is: for the scalers, not for users.
pub(super) const ADMIN_PORT: u16 = 8081;

/// Where each host's registrar says how its rounds go, and its scaler, if it has one, what it decided: for Prometheus.
const REGISTRAR_METRICS_PORT: u16 = 8082;
const SCALER_METRICS_PORT: u16 = 8083;

/// Every service, in the order of their creation.
pub(super) fn all(
    spec: &StackSpec,
    bundle: &Bundle,
    redis: &Secret,
    consul_token: Option<&Secret>,
    run: &str,
) -> Vec<ServiceSpec> {
    let web = web(spec, bundle, redis);
    let mut roles = vec![registrar(bundle), gateway(spec, bundle), scaler(spec, bundle)];
    if let Some(token) = consul_token {
        roles = roles.into_iter().map(|role| role.env("CONSUL_HTTP_TOKEN", token.expose())).collect();
    }
    std::iter::once(web).chain(roles).map(|service| service.label(labels::STACK, run).build()).collect()
}

fn web(spec: &StackSpec, bundle: &Bundle, redis: &Secret) -> Builder {
    let mut args = vec![
        "--listen".to_owned(),
        format!("0.0.0.0:{SITE_PORT}"),
        "--session-lifetime".to_owned(),
        spec.session_lifetime.as_secs().to_string(),
        "--drain".to_owned(),
        spec.drain.as_secs().to_string(),
    ];
    args.extend(spec.faults.then(|| "--faults".to_owned()));
    ServiceSpec::builder(&spec.service, bundle.reference("web"))
        .replicas(spec.min.into())
        .args(args)
        .env("REDIS_URL", redis.expose())
        .env("INSTANCE", "{{.Task.Name}}")
        .env("HOST_NAME", "{{.Node.Hostname}}")
        // The host's own port: the gateway knows every task, and no mesh stands between.
        .publish_host(SITE_PORT, None)
        .dnsrr()
        .label(labels::CHECK, "/healthz")
        .label(labels::LIVE, "/livez")
        .restart_delay(Duration::ZERO)
        // Longer than the drain period, so that Swarm's SIGKILL finds nobody.
        .stop_grace(spec.drain + STOP_GRACE)
}

type Builder = swarm_client::ServiceSpecBuilder;

fn registrar(bundle: &Bundle) -> Builder {
    let role = role(REGISTRAR, bundle.reference("registrar")).global().bind_mount(SOCKET, SOCKET, false);
    role.args(["--metrics".to_owned(), format!("0.0.0.0:{REGISTRAR_METRICS_PORT}")])
}

fn gateway(spec: &StackSpec, bundle: &Bundle) -> Builder {
    let role = role(labels::GATEWAYS, bundle.reference("gateway")).global();
    // Two can't have the host's ports at once, which nothing in the spec of a host network says.
    let role = role.update(UpdateConfig::stop_first());
    // Requests that wait for a replica are waited for too.
    role.stop_grace(spec.wait + GATEWAY_DRAIN).args([
        "--service".to_owned(),
        spec.service.clone(),
        "--listen".to_owned(),
        format!("0.0.0.0:{GATEWAY_PORT}"),
        "--admin".to_owned(),
        format!("0.0.0.0:{ADMIN_PORT}"),
        "--wait".to_owned(),
        spec.wait.as_secs().to_string(),
        "--register".to_owned(),
    ])
}

fn scaler(spec: &StackSpec, bundle: &Bundle) -> Builder {
    let role = role(SCALER, bundle.reference("scaler")).replicas(2).bind_mount(SOCKET, SOCKET, false);
    role.constraint("node.role==manager").args([
        "--service".to_owned(),
        spec.service.clone(),
        "--min".to_owned(),
        spec.min.to_string(),
        "--max".to_owned(),
        spec.max.to_string(),
        "--target".to_owned(),
        spec.target_in_flight.to_string(),
        "--calm".to_owned(),
        spec.calm.as_secs().to_string(),
        "--down-percent".to_owned(),
        spec.down_percent_a_minute.to_string(),
        "--metrics".to_owned(),
        format!("0.0.0.0:{SCALER_METRICS_PORT}"),
    ])
}

/// What the roles have in common: the host's own network, where a Consul agent listens on loopback.
fn role(name: &str, image: String) -> Builder {
    ServiceSpec::builder(name, image)
        .network_host()
        .env("RUST_LOG", "info")
        .restart_delay(Duration::from_secs(1))
        .stop_grace(STOP_GRACE)
}

pub(super) const REGISTRAR: &str = "ha-registrar";
pub(super) const SCALER: &str = "ha-scaler";
const SOCKET: &str = "/var/run/docker.sock";
const SITE_PORT: u16 = 8080;
const STOP_GRACE: Duration = Duration::from_secs(15);
/// The gateway serves on for 2 s, then gives what is in flight 20 s.
const GATEWAY_DRAIN: Duration = Duration::from_secs(25);
