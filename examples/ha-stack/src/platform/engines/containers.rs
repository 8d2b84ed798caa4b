//! The stack's containers on plain engines: pure.

use std::net::IpAddr;
use std::time::Duration;

use swarm_client::engines::ContainerSpec;
use swarm_client::engines::labels::SERVICE;

use super::discovery::PREFIX;
use crate::images::Bundle;
use crate::platform::{StackSpec, args};
use crate::roles::coordination::Discovery;
use crate::roles::labels;
use crate::settings::Secret;

/// A host of the pool.
#[derive(Clone, Debug)]
pub(super) struct PoolHost {
    pub(super) name: String,
    pub(super) ip: IpAddr,
    /// `IP:PORT` of its engine.
    pub(super) engine: String,
}

/// What the containers of a run have in common.
pub(super) struct Run<'a> {
    pub(super) spec: &'a StackSpec,
    pub(super) bundle: &'a Bundle,
    pub(super) consul_token: Option<&'a Secret>,
    /// The value of our containers' label: what another run started is not ours to end.
    pub(super) id: &'a str,
}

impl Run<'_> {
    /// A replica of the site. Its host name is what the gateways route by.
    pub(super) fn web(&self, redis: &Secret) -> ContainerSpec {
        ContainerSpec::new(&self.spec.service, self.bundle.reference("web"))
            .args(args::web(self.spec))
            .hostname(&self.spec.service)
            .env("REDIS_URL", redis.expose())
            .env("INSTANCE", "{{.Instance}}")
            .env("HOST_NAME", "{{.Host}}")
            .publish(args::SITE_PORT, None)
            .label(labels::CHECK, "/healthz")
            .label(labels::LIVE, "/livez")
            .label(labels::STACK, self.id)
            // One that ends by itself is started again where it is; one whose host is lost, elsewhere.
            .restart("on-failure")
            .service(&self.spec.service)
            // On a host that has none of them yet, if there is one: spread alone looks at how many containers a host has.
            .affinity(&format!("{SERVICE}!=~{}", self.spec.service))
            .reschedule()
            // Longer than the drain period, so that the engine's SIGKILL finds nobody.
            .stop_grace(self.spec.drain + args::STOP_GRACE)
    }

    /// What each host runs: it joins the pool, registers its containers, takes users' requests.
    pub(super) fn of_host(&self, host: &PoolHost) -> Vec<ContainerSpec> {
        let join = ["join", "--advertise", &host.engine, "--discovery", &discovery()].map(str::to_owned);
        let ip = host.ip.to_string();
        let mut register = args::registrar(Discovery::Consul);
        let plain = ["--plain", "--address", &ip, "--docker-host", &format!("tcp://{}", host.engine)];
        register.extend(plain.map(str::to_owned));
        let gateway_grace = self.spec.wait + args::GATEWAY_DRAIN;
        [
            self.role("ha-join", host, "engines", join.into(), args::STOP_GRACE),
            self.role("ha-registrar", host, "registrar", register, args::STOP_GRACE),
            self.role(
                labels::GATEWAYS,
                host,
                "gateway",
                args::gateway(self.spec, Discovery::Consul),
                gateway_grace,
            ),
        ]
        .into_iter()
        .map(|role| role.constraint(&format!("node=={}", host.name)))
        .collect()
    }

    /// Two watchdogs and two scalers, of each of which one leads: the first ones on `first`, whose loss is another story.
    pub(super) fn leaders(&self, first: &PoolHost, second: &PoolHost) -> Vec<ContainerSpec> {
        let mut scaler = args::scaler(self.spec, Discovery::Consul);
        scaler.push("--plain".to_owned());
        let mut all = Vec::new();
        for host in [first, second] {
            let watch = ["watch", "--discovery", &discovery(), "--name", &host.name].map(str::to_owned);
            all.push(self.role("ha-watchdog", host, "engines", watch.into(), args::STOP_GRACE));
            all.push(self.role("ha-scaler", host, "scaler", scaler.clone(), args::STOP_GRACE));
        }
        all.into_iter()
            .zip([first, first, second, second])
            .map(|(role, host)| role.constraint(&format!("node=={}", host.name)))
            .collect()
    }

    /// What the roles have in common: the host's own network, where a Consul agent listens on loopback, and a host that starts
    /// them again with itself.
    fn role(
        &self,
        name: &str,
        host: &PoolHost,
        image: &str,
        args: Vec<String>,
        grace: Duration,
    ) -> ContainerSpec {
        let role = ContainerSpec::new(format!("{name}.{}", host.name), self.bundle.reference(image))
            .args(args)
            .network_host()
            .env("RUST_LOG", "info")
            .label(labels::STACK, self.id)
            .restart("always")
            .stop_grace(grace);
        match self.consul_token {
            Some(token) => role.env("CONSUL_HTTP_TOKEN", token.expose()),
            None => role,
        }
    }
}

/// Where the containers find the engines: by the Consul agent of their own host.
fn discovery() -> String {
    format!("consul://127.0.0.1:8500/{PREFIX}")
}
