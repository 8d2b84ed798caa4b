//! A replica that fails is left out, with the reason, and is tried again by single requests.
//!
//! `cargo run -p balancer --example ejection`

use std::time::Duration;

use balancer::{Config, Endpoint, Outcome, PickRequest, Pool, RoundRobin, Update};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // The default policy avoids it after its first failure; in turn it gets enough to be called failed.
    let pool = Pool::new(Config::default().policy(RoundRobin::default()), 7)?;
    let mut now = Duration::ZERO;
    let good = Endpoint::new("good", "127.0.0.1:8001".parse()?);
    let bad = Endpoint::new("bad", "127.0.0.1:8002".parse()?);
    pool.apply(Update::reset([good, bad]), now);

    for _ in 0..200 {
        now += Duration::from_millis(10);
        let lease = pool.pick(&PickRequest::default(), now)?;
        let fails = lease.endpoint().id.as_str() == "bad";
        let outcome = if fails { Outcome::ConnectFailed } else { Outcome::Status(200) };
        lease.finish(outcome, now + Duration::from_millis(1));
    }
    for event in pool.drain_events() {
        println!("{event}");
    }
    let left_out = pool.load().ejected;
    println!("{left_out} of 2 left out");
    assert_eq!(left_out, 1);
    Ok(())
}
