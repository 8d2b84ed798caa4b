//! Our policies.

use std::hint::black_box;
use std::time::Duration;

use anyhow::Result;
use balancer::{
    Config, Endpoint, Ketama, Lease, LeastPending, Maglev, Outcome, P2cLeastPending, P2cPeakEwma,
    PickRequest, Policy, Pool, Random, RoundRobin, Update, hash,
};

use crate::{Batch, timed};

pub fn cases(n: usize) -> Result<Vec<(String, Batch)>> {
    let policies: [Policy; 7] = [
        RoundRobin::default().into(),
        Random::default().into(),
        P2cLeastPending::default().into(),
        P2cPeakEwma::default().into(),
        Maglev::default().into(),
        Ketama::default().into(),
        LeastPending::default().into(),
    ];
    let mut cases = Vec::new();
    for policy in policies {
        let name = policy.name();
        let keyed = matches!(policy, Policy::Maglev(_) | Policy::Ketama(_));
        let pool = Pool::new(Config::default().policy(policy), 1)?;
        pool.apply(
            Update::reset(
                (0..n).map(|n| Endpoint::new(format!("web.{n}"), ([127, 0, 0, 1], n as u16 + 1).into())),
            ),
            Duration::ZERO,
        );
        // As it is in use: every endpoint has answered something.
        for at in 0..n as u64 * 20 {
            let now = Duration::from_micros(at * 50);
            pool.pick(&PickRequest::default().key(hash(at.to_le_bytes())), now)?
                .finish(Outcome::Success, now + Duration::from_millis(5));
        }
        let now = Duration::from_secs(10);
        let alone = pool.clone();
        let pick: Batch = Box::new(move |rounds| {
            // Ended in batches outside of the measured time, so that no more than 256 are in flight.
            let mut held: Vec<Lease> = Vec::with_capacity(256);
            let mut took = Duration::ZERO;
            for part in 0..rounds.div_ceil(256) {
                took += timed(256.min(rounds - part * 256), |round| {
                    let request = request(keyed, round + part);
                    if let Ok(lease) = alone.pick(black_box(&request), now) {
                        held.push(lease);
                    }
                });
                held.drain(..).for_each(|lease| lease.finish(Outcome::Success, now));
            }
            took
        });
        cases.push((format!("{name}_pick"), pick));
        let whole: Batch = Box::new(move |rounds| {
            timed(rounds, |round| {
                let request = request(keyed, round);
                if let Ok(lease) = pool.pick(black_box(&request), now) {
                    lease.finish(Outcome::Success, now + Duration::from_millis(5));
                }
            })
        });
        cases.push((format!("{name}_pick_finish"), whole));
    }
    Ok(cases)
}

/// With a key where the policy asks for one: hashing it is part of the price.
fn request(keyed: bool, round: u32) -> PickRequest<'static> {
    let request = PickRequest::default();
    if keyed { request.key(hash(round.to_le_bytes())) } else { request }
}
