//! When a watch looks next. Pure.

use std::time::Duration;

/// When to look next.
#[derive(Debug, Clone)]
pub(crate) struct Pace {
    poll_every: Duration,
    /// How long after the last look the next one is due without any hint: short after a hint, since one change follows another.
    interval: Duration,
    /// How long the last look took.
    took: Duration,
    failures: u32,
}

impl Pace {
    pub(crate) fn new(poll_every: Duration) -> Self {
        let poll_every = poll_every.max(SHORTEST);
        Self { poll_every, interval: poll_every, took: Duration::ZERO, failures: 0 }
    }

    /// A look succeeded and took this long. Gives how long to wait before the next.
    pub(crate) fn looked(&mut self, took: Duration) -> Duration {
        self.took = took;
        self.failures = 0;
        // From start to start: what took long is not waited for twice.
        let wait = self.interval.saturating_sub(took);
        self.interval = self.interval.saturating_mul(2).min(self.poll_every);
        wait.max(self.rest())
    }

    /// A hint came. Gives how long after the end of the last look the next one may come.
    pub(crate) fn hinted(&mut self) -> Duration {
        self.interval = SHORTEST.min(self.poll_every);
        self.rest()
    }

    /// A look failed. Gives how long to wait; `dice` is uniform in 0.0..1.0.
    pub(crate) fn failed(&mut self, dice: f64) -> Duration {
        let bound = FIRST_BACKOFF.saturating_mul(1 << self.failures.min(8)).min(LONGEST_BACKOFF);
        self.failures = self.failures.saturating_add(1);
        // Half of it at least: a watch has all the time, and a swarm in trouble needs some.
        bound.mul_f64(0.5 + dice.clamp(0.0, 1.0) / 2.0)
    }

    /// Looking takes at most half of the time. So a change is seen within three times what a look takes, and a manager that is slow
    /// under its load is asked the less for it.
    fn rest(&self) -> Duration {
        self.took.max(SHORTEST)
    }
}

/// Several hints in a row are one.
const SHORTEST: Duration = Duration::from_millis(50);
const FIRST_BACKOFF: Duration = Duration::from_millis(200);
/// An election takes some seconds.
const LONGEST_BACKOFF: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_hint_makes_it_quick_for_a_while() {
        let mut pace = Pace::new(500 * MS);
        assert_eq!(pace.looked(2 * MS), 498 * MS);
        assert_eq!(pace.hinted(), 50 * MS);
        let waits: Vec<Duration> = (0..5).map(|_| pace.looked(2 * MS)).collect();
        assert_eq!(waits, [50 * MS, 98 * MS, 198 * MS, 398 * MS, 498 * MS]);
    }

    #[test]
    fn slow_looks_come_seldom() {
        let mut pace = Pace::new(500 * MS);
        assert_eq!(pace.looked(100 * MS), 400 * MS);
        assert_eq!(pace.hinted(), 100 * MS);
        assert_eq!(pace.looked(2000 * MS), 2000 * MS);
        assert_eq!(pace.hinted(), 2000 * MS);
    }

    /// A change that a look just missed is seen by the next: what is left of that look, the wait, and the next look.
    #[test]
    fn a_look_of_a_quarter_of_a_second_still_shows_a_change_within_a_second() {
        let mut pace = Pace::new(500 * MS);
        let took = 250 * MS;
        assert!(took + pace.looked(took) + took <= 1000 * MS);
    }

    #[test]
    fn failures_back_off_and_a_success_forgets_them() {
        let mut pace = Pace::new(500 * MS);
        let waits: Vec<Duration> = (0..7).map(|_| pace.failed(1.0)).collect();
        assert_eq!(waits, [200 * MS, 400 * MS, 800 * MS, 1600 * MS, 3200 * MS, 5000 * MS, 5000 * MS]);
        pace.looked(MS);
        assert_eq!(pace.failed(0.0), 100 * MS);
    }
}
