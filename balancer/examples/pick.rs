//! Two replicas, one pick, and why it went there.
//!
//! `cargo run -p balancer --example pick`

use std::time::Duration;

use balancer::{Config, Endpoint, Outcome, PickRequest, Pool, Update};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let pool = Pool::new(Config::default(), 42)?;
    let now = Duration::ZERO; // since any fixed moment
    let replicas = [("web.1", "127.0.0.1:8001"), ("web.2", "127.0.0.1:8002")];
    let endpoints: Result<Vec<Endpoint>, std::net::AddrParseError> =
        replicas.into_iter().map(|(id, addr)| Ok(Endpoint::new(id, addr.parse()?))).collect();
    pool.apply(Update::reset(endpoints?), now);

    let (lease, explanation) = pool.pick_explained(&PickRequest::default(), now);
    println!("{explanation}");
    // What became of it is what the next picks go by; a lease that is dropped counts as cancelled.
    lease?.finish(Outcome::Status(200), now + Duration::from_millis(3));
    println!("{} requests in flight", pool.load().in_flight);
    Ok(())
}
