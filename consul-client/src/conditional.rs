//! Conditional writes whose answer was lost. They are tried again, which does no harm, because a condition on an index holds for one
//! write at most: `true` is then the truth, while `false` says only that there was a change, by the lost attempt or by another.

use std::{future::Future, time::Duration};

use tokio::time::Instant;

use crate::{Error, Result};

/// What a conditional write came to.
#[derive(Debug)]
pub(crate) enum Told {
    Done,
    Refused,
    /// Refused, after an attempt whose answer was lost: it may have been carried out before. The lost attempt's error.
    RefusedAfterLoss(Error),
}

impl Told {
    /// Where nothing tells the lost attempt from another's write, that is what the caller hears.
    pub(crate) fn or_unknown(self) -> Result<bool> {
        match self {
            Self::Done => Ok(true),
            Self::Refused => Ok(false),
            Self::RefusedAfterLoss(lost) => Err(unknown(lost)),
        }
    }
}

/// Tries `once`, given the time that is left, until an answer comes or `limit` is over.
pub(crate) async fn until_told<F>(limit: Duration, mut once: impl FnMut(Duration) -> F) -> Result<Told>
where
    F: Future<Output = Result<bool>>,
{
    let ends = Instant::now() + limit;
    let mut lost: Option<Error> = None;
    loop {
        let left = ends.saturating_duration_since(Instant::now());
        let error = match (once(left).await, lost.take()) {
            (Ok(true), _) => return Ok(Told::Done),
            (Ok(false), None) => return Ok(Told::Refused),
            (Ok(false), Some(lost)) => return Ok(Told::RefusedAfterLoss(lost)),
            // What a later attempt says does not settle the first.
            (Err(later), earlier) => earlier.unwrap_or(later),
        };
        if !matches!(error, Error::Ambiguous { .. }) || left <= PAUSE {
            return Err(error);
        }
        tracing::debug!(%error, "consul conditional write: the answer was lost, trying again");
        lost = Some(error);
        tokio::time::sleep(PAUSE).await;
    }
}

/// The lost attempt's error, with what is known since.
fn unknown(lost: Error) -> Error {
    let Error::Ambiguous { endpoint, reason, status, source } = lost else { return lost };
    let reason = format!("{reason}; it was changed since, by this write or by another");
    Error::Ambiguous { endpoint, reason, status, source }
}

/// Between attempts.
const PAUSE: Duration = Duration::from_millis(100);
