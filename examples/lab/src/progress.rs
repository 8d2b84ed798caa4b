//! Telling of each step, with its time. Goes out as a `tracing` event at info level; without a subscriber it is silent.

use std::fmt::Display;
use std::future::Future;

use tokio::time::Instant;
use tracing::info;

use crate::error::Result;

/// Runs a step and tells of it when it has succeeded.
pub(crate) async fn step<T>(what: impl Display, work: impl Future<Output = Result<T>>) -> Result<T> {
    let start = Instant::now();
    let value = work.await?;
    info!("{:>6.1} s {what}", start.elapsed().as_secs_f64());
    Ok(value)
}

/// Something to know that took no time.
pub(crate) fn note(what: impl Display) {
    info!("         {what}");
}
