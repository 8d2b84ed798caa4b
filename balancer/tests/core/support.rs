//! Names and shorthands.

use std::time::Duration;

use balancer::{
    Config, Endpoint, EndpointId, Ketama, LeastPending, Maglev, Outcome, P2cLeastPending, P2cPeakEwma,
    PickRequest, Policy, Pool, Prequal, Random, Reason, RoundRobin, State, Update,
};

pub(crate) fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

pub(crate) fn endpoint(n: usize) -> Endpoint {
    Endpoint::new(format!("web.{n}"), ([127, 0, 0, 1], 8000 + n as u16).into())
}

pub(crate) fn id(n: usize) -> EndpointId {
    EndpointId::from(format!("web.{n}"))
}

pub(crate) fn pool(config: Config, n: usize) -> Pool {
    let pool = Pool::new(config, 1).unwrap();
    pool.apply(Update::reset((0..n).map(endpoint)), ms(0));
    pool
}

pub(crate) fn state(pool: &Pool, n: usize) -> Option<(State, Reason)> {
    pool.snapshot().endpoints().find(|(e, ..)| e.id == id(n)).map(|(_, state, reason)| (state, reason))
}

pub(crate) fn fail(pool: &Pool, target: usize, times: usize, outcome: Outcome, now: Duration) {
    let others: Vec<_> = (0..10).filter(|n| *n != target).map(id).collect();
    for _ in 0..times {
        pool.pick(&PickRequest::excluding(&others), now).unwrap().finish(outcome, now);
    }
}

/// All of them.
pub(crate) fn policies() -> Vec<Policy> {
    vec![
        P2cPeakEwma::default().into(),
        P2cLeastPending::default().into(),
        LeastPending::default().into(),
        RoundRobin::default().into(),
        Random::default().into(),
        Maglev::default().into(),
        Ketama::default().into(),
        Prequal::default().into(),
    ]
}
