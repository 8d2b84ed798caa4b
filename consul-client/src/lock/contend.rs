//! Getting a lock: look at the key, wait while another holds it, then lock it in a transaction that returns the fence.

use std::time::Duration;

use base64::Engine as _;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::{Fence, LOCK_FLAGS, Lock, LockBuilder, keeper::Candidate, session::at_home};
use crate::{
    Error, KvPair, Result,
    backoff::{Backoff, Bucket},
    error::Answer,
    kv,
    request::{Raw, Request},
};

/// `None` only when not waiting.
pub(super) async fn run(wanted: &LockBuilder, wait: bool) -> Result<Option<Lock>> {
    wanted.check()?;
    at_home(&wanted.client, false).await?;
    let began = Instant::now();
    let mut bucket = Bucket::new(Duration::from_millis(100), 2);
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
    let mut candidate = None;
    let mut index = 0;
    loop {
        tokio::time::sleep(bucket.take(began.elapsed())).await;
        let step = match look(wanted, candidate.as_ref(), index).await {
            Ok(Sight::Held(next)) => Ok(Step::Held(next)),
            Ok(Sight::Free) => grab(wanted, &mut candidate).await,
            Err(error) => Err(error),
        };
        match step {
            Ok(Step::Got(fence)) => {
                if let Some(candidate) =
                    candidate.take().filter(|candidate: &Candidate| candidate.shared().is_held())
                {
                    tracing::info!(key = wanted.key, fence = fence.0, "consul lock acquired");
                    let monitor = candidate.monitor()?;
                    return Ok(Some(Lock { candidate, fence, _monitor: monitor }));
                }
                // The lease ran out on the way: what was got is let go, and sought anew.
                index = 0;
            }
            Ok(_) if !wait => return Ok(None),
            Ok(Step::Held(next)) => {
                backoff.reset();
                index = if next < index { 0 } else { next.max(1) };
            }
            Ok(Step::Barred) => {
                index = 0;
                tokio::time::sleep(backoff.next(rand::random())).await;
            }
            Err(error) if wait && error.is_retryable() => {
                tracing::debug!(key = wanted.key, %error, "consul lock: attempt failed");
                index = 0;
                tokio::time::sleep(backoff.next(rand::random())).await;
            }
            Err(error) => return Err(error),
        }
    }
}

enum Sight {
    Free,
    Held(u64),
}

enum Step {
    Got(Fence),
    Held(u64),
    /// Within the lock delay, or another was faster, or the session is gone.
    Barred,
}

/// Reads the key; with an index it waits for a change.
async fn look(wanted: &LockBuilder, candidate: Option<&Candidate>, index: u64) -> Result<Sight> {
    let mut request = kv::get_request(&wanted.key)?;
    if index > 0 {
        request = request.blocking(index, READ_WAIT);
    }
    let pairs = kv::decode_pairs(&request, &wanted.client.call(&request).await?)?;
    sight(&request, pairs.value.first(), candidate.map(Candidate::session), pairs.meta.index.unwrap_or(0))
}

fn sight(request: &Request, pair: Option<&KvPair>, own: Option<&str>, index: u64) -> Result<Sight> {
    let Some(pair) = pair else {
        return Ok(Sight::Free);
    };
    if pair.flags != LOCK_FLAGS {
        let text = format!(
            "the key is not a lock's: its flags are {:#x}, a lock's are {LOCK_FLAGS:#x}; delete it or use another",
            pair.flags
        );
        return Err(Error::Conflict(Answer::new(request.endpoint(), 0, &text, true)));
    }
    match pair.session.as_deref() {
        // Ours: an earlier transaction whose answer was lost. Locking again is allowed and returns the fence.
        Some(session) if Some(session) != own => Ok(Sight::Held(index)),
        _ => Ok(Sight::Free),
    }
}

/// Locks, with the session at hand or a new one.
async fn grab(wanted: &LockBuilder, slot: &mut Option<Candidate>) -> Result<Step> {
    if slot.as_ref().is_some_and(|candidate| !candidate.shared().is_held()) {
        *slot = None;
    }
    let candidate = match slot {
        Some(candidate) => candidate,
        None => {
            let new = Candidate::create(
                &wanted.client,
                &wanted.key,
                wanted.ttl,
                wanted.delay(),
                wanted.value.clone(),
            );
            slot.insert(new.await?)
        }
    };
    candidate.contest();
    let request = lock_request(&wanted.key, &wanted.value, candidate.session())?.within(wanted.ttl / 2);
    let outcome = lock_outcome(&request, &wanted.client.call(&request).await?)?;
    if matches!(outcome, Outcome::SessionGone)
        && let Some(candidate) = slot.take()
    {
        candidate.forget();
    }
    Ok(match outcome {
        Outcome::Locked(fence) => Step::Got(fence),
        Outcome::Refused | Outcome::SessionGone => Step::Barred,
    })
}

#[derive(Debug, PartialEq)]
enum Outcome {
    Locked(Fence),
    Refused,
    SessionGone,
}

/// One transaction, because its answer carries the index of the lock: the plain call says only `true`.
/// Repeatable: a session may lock what it holds.
fn lock_request(key: &str, value: &[u8], session: &str) -> Result<Request> {
    #[derive(Serialize)]
    #[serde(rename_all = "PascalCase")]
    struct Operation<'a> {
        #[serde(rename = "KV")]
        kv: Verb<'a>,
    }
    #[derive(Serialize)]
    #[serde(rename_all = "PascalCase")]
    struct Verb<'a> {
        verb: &'a str,
        key: &'a str,
        value: String,
        flags: u64,
        session: &'a str,
    }
    let value = base64::engine::general_purpose::STANDARD.encode(value);
    let kv = Verb { verb: "lock", key, value, flags: LOCK_FLAGS, session };
    Request::put("/v1/txn").repeatable().also_ok(&[409]).json(&[Operation { kv }])
}

fn lock_outcome(request: &Request, raw: &Raw) -> Result<Outcome> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Done {
        results: Option<Vec<Item>>,
        errors: Option<Vec<Refusal>>,
    }
    #[derive(Deserialize)]
    struct Item {
        #[serde(rename = "KV")]
        kv: Written,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Written {
        modify_index: u64,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Refusal {
        what: String,
    }
    let done = request.decode::<Done>(raw)?.value;
    if let (200, Some(item)) = (raw.status, done.results.as_ref().and_then(|results| results.first())) {
        return Ok(Outcome::Locked(Fence(item.kv.modify_index)));
    }
    match done.errors.unwrap_or_default().first() {
        Some(refusal) if refusal.what.contains("invalid session") => Ok(Outcome::SessionGone),
        Some(refusal) if refusal.what.to_lowercase().contains("permission denied") => {
            Err(Error::Denied(Answer::new(request.endpoint(), raw.status, &refusal.what, true)))
        }
        Some(_) => Ok(Outcome::Refused),
        None => Err(Error::Decode {
            endpoint: request.endpoint(),
            reason: "neither results nor errors".to_owned(),
            write: true,
        }),
    }
}

const READ_WAIT: Duration = Duration::from_secs(15);

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(status: u16, body: &'static str) -> Result<Outcome> {
        let request = lock_request("a", b"", "s").unwrap();
        lock_outcome(&request, &Raw::of(status, body))
    }

    #[test]
    fn the_fence_is_the_modify_index() {
        let body = r#"{"Results":[{"KV":{"LockIndex":1,"Key":"a","Flags":1,"Value":null,"CreateIndex":5,"ModifyIndex":9}}],"Errors":null}"#;
        assert_eq!(outcome(200, body).unwrap(), Outcome::Locked(Fence(9)));
        assert!(outcome(200, "{}").is_err());
        assert!(outcome(200, "<html>").is_err());
    }

    #[test]
    fn refusals_are_told_apart() {
        let refused = r#"{"Results":null,"Errors":[{"OpIndex":0,"What":"failed to lock key \"a\", lock is already held"}]}"#;
        let gone = r#"{"Results":null,"Errors":[{"OpIndex":0,"What":"invalid session \"s\""}]}"#;
        let denied = r#"{"Results":null,"Errors":[{"OpIndex":0,"What":"Permission denied"}]}"#;
        assert_eq!(outcome(409, refused).unwrap(), Outcome::Refused);
        assert_eq!(outcome(409, gone).unwrap(), Outcome::SessionGone);
        assert!(outcome(409, denied).unwrap_err().is_denied());
    }

    #[test]
    fn a_key_of_another_kind_is_a_conflict() {
        let pair = |json: &str| serde_json::from_str::<KvPair>(json).unwrap();
        let plain = pair(r#"{"Key":"a","Flags":0,"CreateIndex":1,"ModifyIndex":2}"#);
        let held =
            pair(r#"{"Key":"a","Flags":3304740253564472344,"CreateIndex":1,"ModifyIndex":2,"Session":"s"}"#);
        let request = kv::get_request("a").unwrap();
        assert!(sight(&request, Some(&plain), None, 5).is_err_and(|error| error.is_conflict()));
        assert!(matches!(sight(&request, Some(&held), Some("other"), 5), Ok(Sight::Held(5))));
        assert!(matches!(sight(&request, Some(&held), Some("s"), 5), Ok(Sight::Free)));
        assert!(matches!(sight(&request, None, None, 5), Ok(Sight::Free)));
    }
}
