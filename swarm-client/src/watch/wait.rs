//! Waiting until something holds of one object.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use tokio::time::{Instant, timeout_at};

use super::kind::Watched;
use super::{WatchConfig, WatchEvent, watcher};
use crate::client::Client;
use crate::conditions::Condition;
use crate::error::{Error, Result};

/// Waits until the condition holds of the object with this name (a task: this id), for at most `deadline`. Returns the object as
/// it was then, or `None` if it does not exist and the condition is content with that.
///
/// ```no_run
/// # async fn run(swarm: swarm_client::Client) -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
/// use swarm_client::conditions::{Condition, deleted, node_down};
/// use swarm_client::watch::await_condition;
///
/// await_condition(&swarm, "h1", node_down().or(deleted()), Duration::from_secs(60)).await?;
/// # Ok(()) }
/// ```
///
/// # Errors
/// [`Error::Deadline`], with the last failure if looks failed; an error that no repeat can mend; [`Error::Invalid`] if several
/// objects have the name.
pub async fn await_condition<K: Watched>(
    client: &Client,
    name: &str,
    condition: impl Condition<K>,
    deadline: Duration,
) -> Result<Option<Arc<K>>> {
    let what = format!("wait for {} {name:?}", K::WHAT);
    let start = Instant::now();
    let end = start.checked_add(deadline).unwrap_or(start + Duration::from_secs(365 * 24 * 3600));
    let mut events = watcher::<K>(client, WatchConfig::default().poll_every(POLL_EVERY));
    let mut called: Vec<Arc<K>> = Vec::new();
    let mut last = "nothing was seen of it".to_owned();
    loop {
        let event = match timeout_at(end, events.next()).await {
            Ok(Some(Ok(event))) => event,
            Ok(Some(Err(error))) if error.is_retryable() || matches!(error, Error::Decode { .. }) => {
                last = format!("the last look failed: {error}");
                continue;
            }
            Ok(Some(Err(error))) => return Err(error),
            // The stream never ends by itself.
            Ok(None) | Err(_) => return Err(Error::Deadline { what, after: deadline, last }),
        };
        let is_called = |object: &Arc<K>| object.id() == name || object.name() == name;
        match event {
            WatchEvent::Init(all) => called = all.into_iter().filter(is_called).collect(),
            WatchEvent::Apply(object) if is_called(&object) => {
                called.retain(|other| other.id() != object.id());
                called.push(object);
            }
            WatchEvent::Delete(object) => called.retain(|other| other.id() != object.id()),
            WatchEvent::Apply(_) => continue,
        }
        let found = match (called.iter().find(|object| object.id() == name), &called[..]) {
            (Some(exact), _) => Some(exact),
            (None, []) => None,
            (None, [only]) => Some(only),
            (None, several) => {
                let problem = format!("{} objects are called so; use the full id", several.len());
                return Err(Error::Invalid { what, problem });
            }
        };
        if condition.holds(found.map(Arc::as_ref)) {
            return Ok(found.cloned());
        }
        last = match found {
            Some(_) => "it exists, and the condition does not hold".to_owned(),
            None => "it does not exist".to_owned(),
        };
    }
}

/// One waits here: a little more often than a watch that goes on for ever.
const POLL_EVERY: Duration = Duration::from_millis(500);
