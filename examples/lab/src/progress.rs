//! Telling of each step: at debug level when it begins, at info level with its time when it has succeeded. Goes out as `tracing`
//! events; without a subscriber it is silent.

use std::fmt::Display;
use std::future::Future;

use tokio::time::Instant;
use tracing::{debug, info};

use crate::error::Result;

/// Runs a step and tells of it when it has succeeded.
pub(crate) async fn step<T>(what: impl Display, work: impl Future<Output = Result<T>>) -> Result<T> {
    debug!("{what}");
    let start = Instant::now();
    let value = work.await?;
    info!("{:>6.1} s {what}", start.elapsed().as_secs_f64());
    Ok(value)
}

/// How many steps come now.
pub(crate) fn steps(count: usize) {
    debug!(steps = u64::try_from(count).unwrap_or(u64::MAX), "steps");
}

/// Something to know that took no time.
pub(crate) fn note(what: impl Display) {
    info!("         {what}");
}
