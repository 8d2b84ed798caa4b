//! pingora's and tower's pickers.

use std::collections::BTreeSet;
use std::future::{Ready, ready};
use std::hint::black_box;
use std::task::{Context, Poll};
use std::time::Duration;

use anyhow::{Context as _, Result};
use futures_util::FutureExt;
use pingora_load_balancing::selection::{Consistent, Random, RoundRobin};
use pingora_load_balancing::{Backend, Backends, LoadBalancer, discovery};
use tower::Service;
use tower::balance::p2c::Balance;
use tower::discover::ServiceList;
use tower::load::{CompleteOnResponse, PeakEwmaDiscover, PendingRequestsDiscover};

use crate::{Batch, timed};

pub fn cases(n: usize) -> Result<Vec<(String, Batch)>> {
    let backends: BTreeSet<Backend> = (0..n)
        .map(|n| Backend::new(&format!("127.0.0.1:{}", n + 1)))
        .collect::<Result<_, _>>()
        .ok()
        .context("pingora refuses an address")?;
    let mut cases: Vec<(String, Batch)> = Vec::new();
    macro_rules! pingora {
        ($name:literal, $kind:ty) => {
            let discovery = discovery::Static::new(backends.clone());
            let balancer = LoadBalancer::<$kind>::from_backends(Backends::new(discovery));
            balancer
                .update()
                .now_or_never()
                .context("pingora's discovery waits")?
                .ok()
                .context("it fails")?;
            let batch: Batch = Box::new(move |rounds| {
                timed(rounds, |round| {
                    black_box(balancer.select(&round.to_le_bytes(), 8));
                })
            });
            cases.push((concat!("pingora_", $name).to_owned(), batch));
        };
    }
    pingora!("round_robin", RoundRobin);
    pingora!("random", Random);
    pingora!("ketama", Consistent);
    let services = || (0..n).map(|_| Answer).collect::<Vec<_>>();
    let ewma = PeakEwmaDiscover::new(
        ServiceList::new::<u32>(services()),
        Duration::from_millis(30),
        Duration::from_secs(10),
        CompleteOnResponse::default(),
    );
    cases.push(("tower_peak_ewma".to_owned(), tower(Balance::new(ewma))));
    let pending =
        PendingRequestsDiscover::new(ServiceList::new::<u32>(services()), CompleteOnResponse::default());
    cases.push(("tower_pending".to_owned(), tower(Balance::new(pending))));
    Ok(cases)
}

fn tower<S>(mut balance: S) -> Batch
where
    S: Service<u32> + 'static,
    S::Future: Unpin,
{
    Box::new(move |rounds| {
        let mut context = Context::from_waker(std::task::Waker::noop());
        timed(rounds, |round| {
            if let Poll::Ready(Ok(())) = balance.poll_ready(&mut context) {
                let mut answer = Box::pin(balance.call(round));
                black_box(answer.poll_unpin(&mut context).is_ready());
            }
        })
    })
}

/// A service that answers at once.
struct Answer;

impl Service<u32> for Answer {
    type Response = u32;
    type Error = std::convert::Infallible;
    type Future = Ready<Result<u32, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: u32) -> Self::Future {
        ready(Ok(request))
    }
}
