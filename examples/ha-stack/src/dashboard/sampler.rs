//! Looks once a second, and keeps what was seen for everybody who asks.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::history::History;
use super::source::Source;
use super::timeline::Timeline;
use super::verdict::judge;
use super::view::{Frame, Sample, View};

/// What a page needs to begin with.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Start {
    /// The curves so far.
    pub history: Vec<Sample>,
    /// The newest frame; `None` before the first look.
    pub frame: Option<Frame>,
}

/// Frames of a stack; a clone is another handle on the same.
#[derive(Clone)]
pub struct Sampler {
    inner: Arc<Inner>,
}

struct Inner {
    source: Box<dyn Source>,
    every: Duration,
    kept: Mutex<Kept>,
    newest: watch::Sender<Option<Arc<Frame>>>,
}

#[derive(Default)]
struct Kept {
    history: History,
    timeline: Timeline,
    /// The newest view that could be had.
    view: View,
}

impl Sampler {
    /// Looks through `source`, so often.
    pub fn new(source: impl Source + 'static, every: Duration) -> Self {
        let inner = Inner {
            source: Box::new(source),
            every,
            kept: Mutex::default(),
            newest: watch::Sender::new(None),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Looks until `stop`; run it as one task.
    pub async fn run(self, stop: CancellationToken) {
        let mut beat = tokio::time::interval(self.inner.every);
        beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = beat.tick() => {}
                () = stop.cancelled() => return,
            }
            let looked = tokio::time::timeout(LOOK_DEADLINE, self.inner.source.look()).await;
            let looked = match looked {
                Ok(Ok(view)) => Ok(view),
                Ok(Err(error)) => Err(format!("{error:#}")),
                Err(_) => Err(format!("no answer within {} s", LOOK_DEADLINE.as_secs())),
            };
            self.observe(seconds(), looked);
        }
    }

    /// The curves and the newest frame, which belong together.
    pub fn start(&self) -> Start {
        let kept = self.inner.kept.lock().unwrap_or_else(PoisonError::into_inner);
        Start {
            history: kept.history.samples().copied().collect(),
            frame: self.inner.newest.borrow().as_deref().cloned(),
        }
    }

    /// Each new frame; a slow reader misses some.
    pub fn frames(&self) -> watch::Receiver<Option<Arc<Frame>>> {
        self.inner.newest.subscribe()
    }

    fn observe(&self, at: f64, looked: Result<View, String>) {
        let mut kept = self.inner.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let frame = kept.observe(at, looked);
        // Still under the lock: whoever reads the curves finds the frame that ends them.
        self.inner.newest.send_replace(Some(Arc::new(frame)));
    }
}

impl Kept {
    fn observe(&mut self, at: f64, looked: Result<View, String>) -> Frame {
        let error = match looked {
            Ok(mut view) => {
                // In the same place at each look, whatever order the source has.
                view.hosts.sort_by(|a, b| a.name.cmp(&b.name));
                view.gateways.sort_by(|a, b| a.name.cmp(&b.name));
                self.timeline.observe(at, &view);
                self.view = view;
                None
            }
            Err(error) => Some(error),
        };
        let seen = if error.is_none() { Some(&self.view) } else { None };
        let (sample, work) = self.history.observe(at, seen);
        Frame {
            verdict: judge(&self.view, &sample, error.as_deref()),
            view: self.view.clone(),
            error,
            sample,
            work,
            timeline: self.timeline.entries(),
            outages: self.timeline.outages(),
        }
    }
}

fn seconds() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

/// Longer than a manager that has just lost its leader usually takes.
const LOOK_DEADLINE: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_stay_in_their_place() {
        let host = |name: &str| crate::platform::Host { name: name.into(), up: true, ..Default::default() };
        let mut kept = Kept::default();
        let frame = kept.observe(1.0, Ok(View { hosts: vec![host("h2"), host("h1")], ..View::default() }));
        assert_eq!(frame.view.hosts[0].name, "h1");
    }

    #[test]
    fn a_look_that_failed_shows_the_last_view_and_says_why() {
        let mut kept = Kept::default();
        let seen = View { service: "web".into(), wanted: Some(3), ..View::default() };
        kept.observe(1.0, Ok(seen.clone()));
        let frame = kept.observe(2.0, Err("no manager answers".into()));
        assert_eq!((frame.view, frame.error.as_deref()), (seen, Some("no manager answers")));
        assert_eq!(frame.sample.wanted, None);
    }
}
