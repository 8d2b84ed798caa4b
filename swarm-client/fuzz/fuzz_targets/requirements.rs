//! Any JSON as a container's configuration, and as an engine's inspection of one: what it asks for, read again, is the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use swarm_client::engines::{ContainerSpec, Requirements};

fuzz_target!(|bytes: &[u8]| {
    let Ok(value) = serde_json::from_slice::<Value>(bytes) else { return };
    for spec in [ContainerSpec::from_body("web", value.clone()), ContainerSpec::from_inspect(&value)].into_iter().flatten()
    {
        let asked = Requirements::of(&spec);
        let again = ContainerSpec::from_body(spec.name(), spec.body().clone()).unwrap();
        assert_eq!(again, spec, "conditions move to the labels once");
        assert_eq!(Requirements::of(&again).ok(), asked.ok());
    }
});
