//! A pick, and all that the end of its request costs, takes no memory from the heap, whatever the policy.

use std::time::Duration;

use allocation_counter::measure;
use balancer::{Config, EndpointId, Outcome, PickRequest};

use crate::support::*;

#[test]
fn a_pick_allocates_nothing() {
    for policy in policies() {
        let name = policy.name();
        let pool = pool(Config::default().policy(policy), 1000);
        let excluded: [EndpointId; 2] = [id(1), id(2)];
        let mut at = Duration::from_millis(1);
        let mut round = |rounds: u64| {
            for n in 0..rounds {
                at += Duration::from_micros(10);
                let mut request = PickRequest::excluding(&excluded);
                request.key = Some(n.wrapping_mul(0x9E37_79B9_7F4A_7C15));
                let lease = pool.pick(&request, at).unwrap();
                lease.finish(Outcome::Status(200), at + Duration::from_micros(5));
            }
        };
        // What is made once for all, such as a table, may be.
        round(100);
        let seen = measure(|| round(1000));
        assert_eq!(
            seen.count_total, 0,
            "{name} took {} bytes in {} pieces",
            seen.bytes_total, seen.count_total
        );
    }
}

/// The counter counts: without this the test above could say anything.
#[test]
fn what_is_taken_is_seen() {
    let seen = measure(|| drop(std::hint::black_box(vec![1_u8; 100])));
    assert_eq!(seen.count_total, 1);
}
