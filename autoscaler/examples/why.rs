//! Why two decisions differ.
//!
//! `cargo run -p autoscaler --example why`

use std::time::Duration;

use autoscaler::{Observation, Policy, Reading, State, decide};

fn main() {
    let now = Duration::from_secs(1_000);
    let decided = |most: u32| {
        let policy = Policy::balanced("in_flight", 70.0).bounds(2, most);
        let seen = Observation::new(now, 4).reading("in_flight", Reading::value(900.0, now));
        decide(&policy, &State::seeded(4, now), &seen).0
    };
    let (small, large) = (decided(6), decided(40));
    println!("{small}\n{large}\n{}", small.diff(&large));
    assert_ne!(small.to_string(), large.to_string());
}
