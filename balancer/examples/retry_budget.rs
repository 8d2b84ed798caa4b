//! Retries that can't become a storm: a share of the requests, and a few a second.
//!
//! `cargo run -p balancer --example retry_budget`

use std::time::Duration;

use balancer::RetryBudget;

fn main() {
    // One retry for five requests, and one a second however little there is to do.
    let mut budget = RetryBudget::new(0.2, 1);
    let mut now = Duration::ZERO;
    let (mut asked, mut paid) = (0, 0);
    for _ in 0..1_000 {
        now += Duration::from_millis(10);
        budget.deposit(now);
        // Everything fails: without a budget the load would double.
        asked += 1;
        paid += u32::from(budget.withdraw(now));
    }
    println!("{paid} of {asked} retries were paid for");
    assert!(paid < asked / 3);
}
