//! Any text as a list of engines: bounded, and each engine in it is an entry by itself.
#![no_main]

use libfuzzer_sys::fuzz_target;
use swarm_client::engines::DiscoveryUrl;
use swarm_client::engines::discovery::list::{MAX_ENGINES, comma_separated, entry, lines};

fuzz_target!(|text: &str| {
    if let Ok(DiscoveryUrl::Consul { host, prefix }) = text.parse() {
        assert!(!host.is_empty() && !host.contains(['@', '/']) && !prefix.ends_with('/'), "{text:?}");
    }
    for engines in [lines(text), comma_separated(text)].into_iter().flatten() {
        assert!(engines.len() <= MAX_ENGINES);
        for engine in engines {
            assert_eq!(entry(&engine).ok(), Some(vec![engine]), "{text:?}");
        }
    }
});
