//! Any text as a compose file.
#![no_main]

use libfuzzer_sys::fuzz_target;
use swarm_client::stack::Stack;
use swarm_client::stack::compose::Context;

fuzz_target!(|text: &str| {
    let variable = |name: &str| (name.len() % 2 == 0).then(|| name.to_owned());
    let file = |path: &str| Ok(path.as_bytes().to_vec());
    let _ = Stack::from_compose("fuzz", text, &Context { variable: &variable, file: &file });
});
