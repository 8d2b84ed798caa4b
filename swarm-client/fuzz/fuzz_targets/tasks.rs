//! Any bytes as two lists of tasks, one after the other.
#![no_main]

use libfuzzer_sys::fuzz_target;
use swarm_client::Task;
use swarm_client::watch::Known;

fuzz_target!(|lists: (&[u8], &[u8])| {
    let mut known = Known::<Task>::default();
    let _ = known.take(lists.0);
    let _ = known.take(lists.1);
});
