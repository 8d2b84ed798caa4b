//! Any JSON as a stored state and an observation: a decision within bounds, no panic.
#![no_main]

use autoscaler::{Action, Observation, Policy, State, decide};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|texts: (&str, &str)| {
    let (Ok(state), Ok(seen)) =
        (serde_json::from_str::<State>(texts.0), serde_json::from_str::<Observation>(texts.1))
    else {
        return;
    };
    let policy = Policy::balanced("in_flight", 70.0).guard("p95", 0.5).bounds(2, 60);
    let (decision, _) = decide(&policy, &state, &seen);
    if let Action::ScaleTo(to) = decision.action {
        assert!((2..=60).contains(&to));
    }
});
