//! Labels and tags: any lines are routes or an error.
#![no_main]

use balancer::routing::labels;

libfuzzer_sys::fuzz_target!(|text: &str| {
    let _ = labels::read("service", labels::of_tags(text.lines()));
    let _ = labels::ignored(text.lines());
});
