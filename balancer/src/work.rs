//! Requests begun and requests in flight, in one word: a pick has one counter less to touch.

use std::sync::atomic::{AtomicU64, Ordering};

/// The lower 24 bits count requests in flight, the upper 40 those that were ever begun.
#[derive(Debug, Default)]
pub(crate) struct Work(AtomicU64);

const ONE: u64 = (1 << BITS) | 1;
const BITS: u32 = 24;
const IN_FLIGHT: u64 = (1 << BITS) - 1;

impl Work {
    pub(crate) fn begin(&self) {
        self.0.fetch_add(ONE, Ordering::SeqCst);
    }

    /// Begins one, unless so many are in flight already.
    pub(crate) fn begin_below(&self, limit: u64) -> bool {
        let more = |word: u64| (word & IN_FLIGHT < limit).then_some(word.wrapping_add(ONE));
        self.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, more).is_ok()
    }

    /// Ends one; whether it was the last.
    pub(crate) fn end(&self) -> bool {
        self.0.fetch_sub(1, Ordering::SeqCst) & IN_FLIGHT == 1
    }

    pub(crate) fn in_flight(&self) -> u64 {
        self.0.load(Ordering::Relaxed) & IN_FLIGHT
    }

    /// As [`in_flight`](Self::in_flight), in order with what other threads did before.
    pub(crate) fn is_idle(&self) -> bool {
        self.0.load(Ordering::SeqCst) & IN_FLIGHT == 0
    }

    pub(crate) fn begun(&self) -> u64 {
        self.0.load(Ordering::Relaxed) >> BITS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_counts_in_one_word() {
        let work = Work::default();
        (0..3).for_each(|_| work.begin());
        assert!(work.begin_below(4) && !work.begin_below(4));
        assert_eq!((work.in_flight(), work.begun()), (4, 4));
        assert_eq!([work.end(), work.end(), work.end(), work.end()], [false, false, false, true]);
        assert!(work.is_idle());
        assert_eq!(work.begun(), 4);
    }
}
