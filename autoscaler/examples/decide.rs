//! One decision, as a sentence.
//!
//! `cargo run -p autoscaler --example decide`

use std::time::Duration;

use autoscaler::{Observation, Policy, Reading, State, decide};

fn main() {
    let policy = Policy::balanced("in_flight", 70.0).bounds(2, 10);
    let now = Duration::from_secs(1_000);
    let seen = Observation::new(now, 4).reading("in_flight", Reading::value(412.0, now));
    let (decision, state) = decide(&policy, &State::seeded(4, now), &seen);
    println!("{decision}");

    // A signal that can't be read is not zero: nothing is removed.
    let later = now + Duration::from_secs(5);
    let blind = Observation::new(later, 6).reading("in_flight", Reading::error("gateway h2 did not answer"));
    let (hold, _) = decide(&policy, &state, &blind);
    println!("{hold}");
}
