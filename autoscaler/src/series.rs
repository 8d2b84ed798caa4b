//! Values of the recent past for the mean over a window, bounded in number.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The newest value of each bucket, oldest bucket first.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Series {
    /// Of which signal.
    pub(crate) signal: String,
    /// Milliseconds of a bucket.
    width: u64,
    /// The number of the last bucket, counted from the clock's beginning.
    last: u64,
    /// In half the precision, which is plenty, and is the same after it was written and read.
    values: Vec<Option<f32>>,
}

impl Series {
    /// An empty one for this signal and window.
    pub(crate) fn new(signal: &str, window: Duration) -> Self {
        Self { signal: signal.to_owned(), width: width(window), last: 0, values: Vec::new() }
    }

    /// Whether it was made for this window.
    pub(crate) fn fits(&self, window: Duration) -> bool {
        self.width == width(window) && self.values.len() <= BUCKETS
    }

    /// Takes in a value. One that is older than the last bucket is left out.
    pub(crate) fn push(&mut self, at: Duration, value: f64) {
        let bucket = self.bucket(at);
        let value = (value as f32).min(f32::MAX);
        if self.values.is_empty() {
            (self.last, self.values) = (bucket, vec![Some(value)]);
            return;
        }
        let Some(ahead) = bucket.checked_sub(self.last) else { return };
        let ahead = usize::try_from(ahead).unwrap_or(usize::MAX);
        if ahead >= BUCKETS {
            self.values.clear();
        } else {
            self.values.extend(std::iter::repeat_n(None, ahead));
            let surplus = self.values.len().saturating_sub(BUCKETS);
            self.values.drain(..surplus);
            self.values.pop();
        }
        self.values.push(Some(value));
        self.last = bucket;
    }

    /// The mean of the values younger than `window`; `None` without any. Buckets without a value are left out.
    pub(crate) fn mean(&self, now: Duration, window: Duration) -> Option<f64> {
        let buckets = millis(window).div_ceil(self.width.max(1)).max(1);
        let behind = self.bucket(now).saturating_sub(self.last);
        let take = usize::try_from(buckets.saturating_sub(behind)).unwrap_or(usize::MAX);
        let recent = self.values.iter().rev().take(take).flatten();
        let (sum, count) =
            recent.fold((0.0, 0u32), |(sum, count), value| (sum + f64::from(*value), count + 1));
        (count > 0).then(|| sum / f64::from(count))
    }

    /// Nothing is known any more.
    pub(crate) fn clear(&mut self) {
        self.values.clear();
    }

    fn bucket(&self, at: Duration) -> u64 {
        millis(at) / self.width.max(1)
    }
}

fn width(window: Duration) -> u64 {
    millis(window).div_ceil(BUCKETS as u64).max(1)
}

pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// One a second for the stable window of the Knative pod autoscaler.
const BUCKETS: usize = 60;

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_mean_is_over_what_was_read_within_the_window() {
        let mut series = Series::new("rate", at(60));
        assert_eq!(series.mean(at(100), at(60)), None);
        for (second, value) in [(100, 10.0), (102, 20.0), (130, 60.0)] {
            series.push(at(second), value);
        }
        assert_eq!(series.mean(at(130), at(60)), Some(30.0), "gaps are not zeros");
        assert_eq!(series.mean(at(130), at(6)), Some(60.0));
        assert_eq!(series.mean(at(160), at(60)), Some(40.0), "at 100 lies a whole window back");
        assert_eq!(series.mean(at(300), at(60)), None);
        series.push(at(130), 90.0);
        assert_eq!(series.mean(at(130), at(6)), Some(90.0), "the newest value of a bucket counts");
        series.push(at(1), 5.0);
        assert_eq!(series.mean(at(130), at(6)), Some(90.0), "what is old is left out");
    }

    #[test]
    fn it_keeps_its_bound_over_any_gap() {
        let mut series = Series::new("rate", at(60));
        for second in [1, 2, 500, 501, 559, u64::MAX / 2000] {
            series.push(at(second), 1.0);
            assert!(series.values.len() <= BUCKETS);
        }
    }
}
