//! When a lock may be believed to be held. Pure.
//!
//! The server counts a session's time from when a renewal reached it, which is after it was sent; so counting from the moment of
//! sending errs to the safe side. Counting from the answer, as most clients do, lets a slow answer stretch the lease.

use std::time::Duration;

use super::Lost;

/// A lease on a session. Times are since an arbitrary start, monotonic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lease {
    ttl: Duration,
    deadline: Duration,
    lost: Option<Lost>,
}

impl Lease {
    /// A session with this TTL, asked for at `sent`.
    pub(crate) fn new(ttl: Duration, sent: Duration) -> Self {
        Self { ttl, deadline: sent.saturating_add(useful(ttl)), lost: None }
    }

    pub(crate) fn deadline(&self) -> Duration {
        self.deadline
    }

    /// Why it is no longer held at `now`, if so.
    pub(crate) fn lost(&self, now: Duration) -> Option<Lost> {
        self.lost.or((now >= self.deadline).then_some(Lost::Deadline))
    }

    /// A renewal that was sent at `sent` was confirmed at `now`. Comes too late once the lease is lost: whoever asked in between
    /// was told so.
    pub(crate) fn renewed(&mut self, sent: Duration, now: Duration) {
        self.lost = self.lost(now);
        if self.lost.is_none() {
            self.deadline = self.deadline.max(sent.saturating_add(useful(self.ttl)));
        }
    }

    /// It is over, for this reason unless there was one before.
    pub(crate) fn lose(&mut self, why: Lost, now: Duration) {
        self.lost = self.lost(now).or(Some(why));
    }
}

/// The TTL less a margin for clocks that run at different speeds and for what is still under way: a tenth.
fn useful(ttl: Duration) -> Duration {
    ttl - ttl / 10
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn time_counts_from_sending() {
        let mut lease = Lease::new(s(10), s(100));
        assert_eq!(lease.deadline(), s(109));
        lease.renewed(s(103), s(108));
        assert_eq!(lease.deadline(), s(112));
        assert_eq!((lease.lost(s(111)), lease.lost(s(112))), (None, Some(Lost::Deadline)));
    }

    #[test]
    fn lost_stays_lost() {
        let mut lease = Lease::new(s(10), s(0));
        lease.renewed(s(8), s(9));
        assert_eq!(lease.lost(s(9)), Some(Lost::Deadline));
        let mut lease = Lease::new(s(10), s(0));
        lease.lose(Lost::Taken, s(1));
        lease.lose(Lost::SessionGone, s(2));
        lease.renewed(s(3), s(3));
        assert_eq!(lease.lost(s(3)), Some(Lost::Taken));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]
        #[test]
        fn never_held_beyond_the_ttl_of_the_last_confirmed_sending(
            steps in proptest::collection::vec((0_u64..8000, 0_u64..8000), 0..40),
        ) {
            let ttl = s(10);
            let (mut lease, mut now, mut last_sent, mut over) = (Lease::new(ttl, s(0)), s(0), s(0), false);
            for (pause, travel) in steps {
                let sent = now + Duration::from_millis(pause);
                now = sent + Duration::from_millis(travel);
                lease.renewed(sent, now);
                if lease.lost(now).is_none() {
                    last_sent = sent;
                    prop_assert!(!over, "held again after it was lost");
                    prop_assert!(now < last_sent + ttl);
                } else {
                    over = true;
                }
                prop_assert!(lease.lost(last_sent + ttl).is_some());
            }
        }
    }
}
