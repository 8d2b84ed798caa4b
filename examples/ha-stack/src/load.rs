//! A bounded load generator: so many workers, each with one request under way, until told to stop.
//!
//! The workers form a closed loop: a slow answer slows its worker down, so the number of requests in flight is
//! never above the number of workers.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde::Serialize;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// What to send, and how much of it.
#[derive(Clone, Debug)]
pub struct LoadPlan {
    /// The address that each request goes to.
    pub url: String,
    /// Requests under way at once, at most.
    pub workers: usize,
    /// The pause of a worker between an answer and its next request.
    pub pause: Duration,
    /// How long a request may take before it counts as failed.
    pub timeout: Duration,
    /// Send POST in place of GET: what a gateway may not send a second time, so that a request that is cut shows.
    pub post: bool,
}

/// What came of the requests.
#[derive(Clone, Debug, Default, Serialize)]
pub struct LoadReport {
    /// Requests that were answered or failed; those cut off by the stop are not in it.
    pub requests: u64,
    /// Requests without a 2xx answer, by kind.
    pub failed: BTreeMap<String, u64>,
    /// Good answers by the instance that gave them.
    pub instances: BTreeMap<String, u64>,
    /// When each instance was first heard of, in seconds from the start.
    pub first_seen_seconds: BTreeMap<String, f64>,
    /// Seconds that the run took.
    pub seconds: f64,
    /// Median, 95th and 99th percentile of the time to an answer's head, in milliseconds.
    pub latency_ms: [f64; 3],
    #[serde(skip)]
    latencies: Vec<Duration>,
}

impl LoadReport {
    /// Requests without a good answer.
    pub fn failures(&self) -> u64 {
        self.failed.values().sum()
    }

    /// `since` is the time from the start of the load to the answer.
    fn note(&mut self, since: Duration, took: Duration, answer: Result<String, String>) {
        self.requests += 1;
        match answer {
            Ok(instance) => {
                self.first_seen_seconds.entry(instance.clone()).or_insert(since.as_secs_f64());
                *self.instances.entry(instance).or_default() += 1;
                if self.latencies.len() < LATENCIES_KEPT {
                    self.latencies.push(took);
                }
            }
            Err(kind) => *self.failed.entry(kind).or_default() += 1,
        }
    }

    fn close(mut self, took: Duration) -> Self {
        self.seconds = took.as_secs_f64();
        self.latencies.sort_unstable();
        let last = self.latencies.len().saturating_sub(1);
        for (slot, share) in self.latency_ms.iter_mut().zip([0.50, 0.95, 0.99]) {
            let at = (last as f64 * share).round() as usize;
            *slot = self.latencies.get(at).map_or(0.0, |d| d.as_secs_f64() * 1000.0);
        }
        self
    }
}

/// A load under way.
pub struct Load {
    began: Instant,
    stop: CancellationToken,
    workers: JoinSet<()>,
    report: Arc<Mutex<LoadReport>>,
}

impl Load {
    /// Starts the workers.
    ///
    /// # Errors
    /// When the HTTP client can't be built.
    pub fn start(plan: LoadPlan) -> Result<Self> {
        let http = client(plan.timeout)?;
        let began = Instant::now();
        let stop = CancellationToken::new();
        let report = Arc::new(Mutex::new(LoadReport::default()));
        let mut workers = JoinSet::new();
        for _ in 0..plan.workers {
            let (http, plan, stop, report) = (http.clone(), plan.clone(), stop.clone(), Arc::clone(&report));
            workers.spawn(async move {
                while !stop.is_cancelled() {
                    let sent = Instant::now();
                    let answer = ask(&http, &plan).await;
                    let (since, took) = (began.elapsed(), sent.elapsed());
                    report.lock().unwrap_or_else(PoisonError::into_inner).note(since, took, answer);
                    tokio::select! {
                        () = tokio::time::sleep(plan.pause) => {}
                        () = stop.cancelled() => {}
                    }
                }
            });
        }
        Ok(Self { began, stop, workers, report })
    }

    /// What came of the requests until now.
    pub fn so_far(&self) -> LoadReport {
        self.report.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Drops what is under way, and reports.
    pub fn abandon(self) -> LoadReport {
        self.so_far().close(self.began.elapsed())
    }

    /// Sends no more, waits for what is under way, and reports.
    pub async fn stop(mut self) -> LoadReport {
        self.stop.cancel();
        while self.workers.join_next().await.is_some() {}
        let report = std::mem::take(&mut *self.report.lock().unwrap_or_else(PoisonError::into_inner));
        report.close(self.began.elapsed())
    }
}

/// An HTTP client that follows no redirects, keeps no proxy, and gives up after `timeout`.
///
/// # Errors
/// When the client can't be built.
pub fn client(timeout: Duration) -> Result<reqwest::Client> {
    builder(timeout).build().context("the HTTP client can't be built")
}

/// What every client of this program has in common.
pub fn builder(timeout: Duration) -> reqwest::ClientBuilder {
    reqwest::Client::builder()
        .timeout(timeout)
        .connect_timeout(Duration::from_secs(2))
        .no_proxy()
        // What fails, fails: the stack is what must lose nothing, not its users' patience.
        .retry(reqwest::retry::never())
        .redirect(reqwest::redirect::Policy::none())
}

/// In one word or two, how a request failed.
pub fn failure_kind(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        "no answer in time".into()
    } else if error.is_connect() {
        "connection refused".into()
    } else {
        "connection closed".into()
    }
}

async fn ask(http: &reqwest::Client, plan: &LoadPlan) -> Result<String, String> {
    let request = if plan.post { http.post(&plan.url) } else { http.get(&plan.url) };
    let answer = request.send().await.map_err(|e| failure_kind(&e))?;
    let status = answer.status();
    let instance =
        answer.headers().get("x-instance").and_then(|v| v.to_str().ok()).unwrap_or("unknown").to_owned();
    // An answer counts when its body arrived too.
    answer.bytes().await.map_err(|e| failure_kind(&e))?;
    if status.is_success() { Ok(instance) } else { Err(format!("status {}", status.as_u16())) }
}

/// Enough for percentiles, and a bound on memory in long runs.
const LATENCIES_KEPT: usize = 200_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_come_from_good_answers_alone() {
        let mut report = LoadReport::default();
        for ms in 1..=100 {
            report.note(Duration::ZERO, Duration::from_millis(ms), Ok("web.1".into()));
        }
        report.note(Duration::ZERO, Duration::from_secs(9), Err("status 502".into()));
        let report = report.close(Duration::from_secs(1));
        assert_eq!(report.requests, 101);
        assert_eq!(report.failures(), 1);
        assert_eq!(report.latency_ms.map(f64::round), [51.0, 95.0, 99.0]);
    }
}
