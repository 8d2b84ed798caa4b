//! How long to wait before the next attempt, and how often to attempt at all. Pure: randomness and time are arguments.

use std::time::Duration;

/// Doubling delays with jitter: half of each is fixed, half is random, so that many clients neither march in step nor storm.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Backoff {
    first: Duration,
    most: Duration,
    attempt: u32,
}

impl Backoff {
    pub(crate) const fn new(first: Duration, most: Duration) -> Self {
        Self { first, most, attempt: 0 }
    }

    /// The next delay; `unit` is random in `[0, 1)`.
    pub(crate) fn next(&mut self, unit: f64) -> Duration {
        let factor = 1_u32 << self.attempt.min(16);
        let full = self.first.saturating_mul(factor).min(self.most);
        self.attempt = self.attempt.saturating_add(1);
        (full / 2).saturating_add((full / 2).mul_f64(unit.clamp(0.0, 1.0)))
    }

    /// After a success the next failure starts small again.
    pub(crate) fn reset(&mut self) {
        self.attempt = 0;
    }
}

/// A token bucket: `burst` at once, then one per `spacing`.
///
/// An index can advance for reasons that are not ours (an absent key has the index of its whole table), and without a limit
/// the watch of such a key turns into a hot loop.
#[derive(Debug, Clone)]
pub(crate) struct Bucket {
    spacing: Duration,
    burst: u32,
    /// When the bucket will be full again; the classic one-number form of a token bucket (GCRA).
    full_at: Duration,
}

impl Bucket {
    pub(crate) fn new(spacing: Duration, burst: u32) -> Self {
        Self { spacing, burst, full_at: Duration::ZERO }
    }

    /// Takes a token; says how long to wait before using it. `now` is monotonic.
    pub(crate) fn take(&mut self, now: Duration) -> Duration {
        self.full_at = self.full_at.max(now).saturating_add(self.spacing);
        self.full_at.saturating_sub(self.spacing.saturating_mul(self.burst)).saturating_sub(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn delays_double_up_to_the_most() {
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(2));
        let delays: Vec<_> = (0..8).map(|_| backoff.next(1.0).as_millis()).collect();
        assert_eq!(delays, [50, 100, 200, 400, 800, 1600, 2000, 2000]);
        backoff.reset();
        assert_eq!(backoff.next(0.0), Duration::from_millis(25));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn a_bucket_never_exceeds_its_rate(idle in proptest::collection::vec(0_u64..400, 1..60)) {
            let spacing = Duration::from_millis(100);
            let mut bucket = Bucket::new(spacing, 2);
            let (mut now, mut used) = (Duration::from_secs(5), Vec::new());
            for pause in idle {
                now += Duration::from_millis(pause);
                now += bucket.take(now);
                used.push(now);
            }
            // In any stretch of time: at most the burst, and one per spacing.
            for (i, start) in used.iter().enumerate() {
                for (n, end) in used.iter().skip(i).enumerate() {
                    let allowed = 2 + (end.abs_diff(*start).as_millis() / spacing.as_millis()) as usize;
                    prop_assert!(n < allowed, "{} uses within {:?}", n + 1, end.abs_diff(*start));
                }
            }
        }
    }
}
