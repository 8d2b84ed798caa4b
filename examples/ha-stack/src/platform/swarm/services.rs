//! The stack's services as Swarm specs: pure.

use std::time::Duration;

use swarm_client::ServiceSpec;
use swarm_client::model::UpdateConfig;

use crate::images::Bundle;
use crate::platform::{StackSpec, args};
use crate::roles::coordination::Discovery;
use crate::roles::labels;
use crate::settings::Secret;

/// Every service, in the order of their creation.
pub(super) fn all(
    spec: &StackSpec,
    bundle: &Bundle,
    redis: &Secret,
    consul_token: Option<&Secret>,
    run: &str,
    by: Discovery,
) -> Vec<ServiceSpec> {
    let web = web(spec, bundle, redis);
    let mut roles = vec![registrar(bundle, by), gateway(spec, bundle, by), scaler(spec, bundle, by)];
    if let Some(token) = consul_token {
        roles = roles.into_iter().map(|role| role.env("CONSUL_HTTP_TOKEN", token.expose())).collect();
    }
    std::iter::once(web).chain(roles).map(|service| service.label(labels::STACK, run).build()).collect()
}

fn web(spec: &StackSpec, bundle: &Bundle, redis: &Secret) -> Builder {
    ServiceSpec::builder(&spec.service, bundle.reference("web"))
        .replicas(spec.min.into())
        .args(args::web(spec))
        .env("REDIS_URL", redis.expose())
        .env("INSTANCE", "{{.Task.Name}}")
        .env("HOST_NAME", "{{.Node.Hostname}}")
        // The host's own port: the gateway knows every task, and no mesh stands between.
        .publish_host(args::SITE_PORT, None)
        .dnsrr()
        .label(labels::CHECK, "/healthz")
        .label(labels::LIVE, "/livez")
        .restart_delay(Duration::ZERO)
        // Longer than the drain period, so that Swarm's SIGKILL finds nobody.
        .stop_grace(spec.drain + args::STOP_GRACE)
}

type Builder = swarm_client::ServiceSpecBuilder;

fn registrar(bundle: &Bundle, by: Discovery) -> Builder {
    let role = role(REGISTRAR, bundle.reference("registrar")).global().bind_mount(SOCKET, SOCKET, false);
    role.args(args::registrar(by))
}

fn gateway(spec: &StackSpec, bundle: &Bundle, by: Discovery) -> Builder {
    let role = role(labels::GATEWAYS, bundle.reference("gateway")).global();
    // Two can't have the host's ports at once, which nothing in the spec of a host network says.
    let role = role.update(UpdateConfig::stop_first());
    let role = match by {
        Discovery::Consul => role,
        // It asks its host's own engine, which is a manager, and whose socket is root's.
        Discovery::Swarm => role.bind_mount(SOCKET, SOCKET, false).user("0"),
    };
    // Requests that wait for a replica are waited for too.
    role.stop_grace(spec.wait + args::GATEWAY_DRAIN).args(args::gateway(spec, by))
}

fn scaler(spec: &StackSpec, bundle: &Bundle, by: Discovery) -> Builder {
    let role = role(SCALER, bundle.reference("scaler")).replicas(2).bind_mount(SOCKET, SOCKET, false);
    role.constraint("node.role==manager").args(args::scaler(spec, by))
}

/// What the roles have in common: the host's own network, where a Consul agent listens on loopback.
fn role(name: &str, image: String) -> Builder {
    ServiceSpec::builder(name, image)
        .network_host()
        .env("RUST_LOG", "info")
        .restart_delay(Duration::from_secs(1))
        .stop_grace(args::STOP_GRACE)
}

pub(super) const REGISTRAR: &str = "ha-registrar";
pub(super) const SCALER: &str = "ha-scaler";
const SOCKET: &str = "/var/run/docker.sock";
