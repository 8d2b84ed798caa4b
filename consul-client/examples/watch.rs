//! Who serves `web`, each time that changes: two instances come, and one goes.
//!
//! `cargo run -p consul-client --example watch` asks the agent of `CONSUL_HTTP_ADDR`, or that on 127.0.0.1:8500.

use std::time::Duration;

use consul_client::{Check, Client, ServiceRegistration};

#[tokio::main(flavor = "current_thread")]
async fn main() -> consul_client::Result<()> {
    let consul = Client::from_env()?;
    let mut web = consul.health().service("web").passing().watch();

    // Reported as alive by itself, and registered again should the agent forget it.
    let instance = |id: &str, port| {
        let check = Check::ttl(Duration::from_secs(10));
        ServiceRegistration::new("web", id).address("127.0.0.1").port(port).check(check)
    };
    let first = consul.agent().keep_registered(instance("web-1", 8001)).await?;
    let second = consul.agent().keep_registered(instance("web-2", 8002)).await?;

    let mut second = Some(second);
    // Never ends by itself, and an outage of Consul leaves the last good set.
    while let Some(snapshot) = web.next().await {
        let there: Vec<_> = snapshot.items.iter().map(|one| one.service.id.as_str()).collect();
        println!("web is {there:?}");
        if there == ["web-1", "web-2"]
            && let Some(leaving) = second.take()
        {
            leaving.deregister().await?;
        } else if there == ["web-1"] && second.is_none() {
            break;
        }
    }
    first.deregister().await
}
