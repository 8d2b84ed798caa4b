//! A retry budget: retries may add a share of the traffic, never multiply it.

use std::time::Duration;

/// Retries allowed as a share of recent requests plus a small constant rate.
///
/// A ring of slots over the last [`RetryBudget::TTL`], as in Finagle and tower; in thousandths, so that a share
/// such as 0.6 means 0.6. Pure: `now` is an argument.
#[derive(Clone, Debug)]
pub struct RetryBudget {
    share_milli: u64,
    reserve_milli: u64,
    slots: [Slot; SLOTS],
    current: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    deposits: u64,
    withdrawals: u64,
}

const SLOTS: usize = 10;

impl RetryBudget {
    /// How long a request pays for retries.
    pub const TTL: Duration = Duration::from_secs(10);

    /// Retries up to `share` (0.2 is one for five requests, at most 10.0) of the requests of the last ten
    /// seconds, plus `per_second` a second whatever the traffic is.
    pub fn new(share: f64, per_second: u32) -> Self {
        let share = if share.is_finite() { share.clamp(0.0, 10.0) } else { 0.0 };
        Self {
            share_milli: (share * 1000.0).round() as u64,
            reserve_milli: u64::from(per_second) * 1000 * RetryBudget::TTL.as_secs(),
            slots: [Slot::default(); SLOTS],
            current: 0,
        }
    }

    /// Notes a first attempt.
    pub fn deposit(&mut self, now: Duration) {
        self.roll(now);
        let index = self.index();
        if let Some(slot) = self.slots.get_mut(index) {
            slot.deposits += 1;
        }
    }

    /// Takes one retry out of the budget; `false` when there is none.
    pub fn withdraw(&mut self, now: Duration) -> bool {
        self.roll(now);
        if self.available() == 0 {
            return false;
        }
        let index = self.index();
        if let Some(slot) = self.slots.get_mut(index) {
            slot.withdrawals += 1;
        }
        true
    }

    /// Retries that could be made now.
    pub fn available(&self) -> u64 {
        let deposits: u64 = self.slots.iter().map(|slot| slot.deposits).sum();
        let withdrawals: u64 = self.slots.iter().map(|slot| slot.withdrawals).sum();
        (deposits * self.share_milli + self.reserve_milli).saturating_sub(withdrawals * 1000) / 1000
    }

    fn index(&self) -> usize {
        (self.current % SLOTS as u64) as usize
    }

    fn roll(&mut self, now: Duration) {
        let target = now.as_millis() as u64 / (Self::TTL.as_millis() as u64 / SLOTS as u64);
        // Time never goes back here, and after a long pause each slot is cleared once, not once a tick.
        let steps = target.saturating_sub(self.current).min(SLOTS as u64);
        self.current = self.current.max(target);
        for back in 0..steps {
            let index = ((self.current - back) % SLOTS as u64) as usize;
            if let Some(slot) = self.slots.get_mut(index) {
                *slot = Slot::default();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn share_and_reserve() {
        let mut budget = RetryBudget::new(0.2, 0);
        for _ in 0..10 {
            budget.deposit(Duration::ZERO);
        }
        assert!(budget.withdraw(Duration::ZERO));
        assert!(budget.withdraw(Duration::from_secs(1)));
        assert!(!budget.withdraw(Duration::from_secs(2)));
        let mut reserve = RetryBudget::new(0.0, 1);
        assert_eq!((0..20).filter(|_| reserve.withdraw(Duration::from_secs(5))).count(), 10);
        assert!(reserve.withdraw(Duration::from_secs(15)));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn never_exceeded(steps in prop::collection::vec((0u64..700, any::<bool>()), 1..300)) {
            let mut budget = RetryBudget::new(0.3, 1);
            let (mut at, mut requests, mut retries) = (0u64, Vec::new(), Vec::new());
            for (pause, request) in steps {
                at += pause;
                let now = Duration::from_millis(at);
                if request {
                    budget.deposit(now);
                    requests.push(at);
                } else if budget.withdraw(now) {
                    retries.push(at);
                    // The ring covers nine to ten seconds: nine are surely in it, and no more than ten.
                    let recent = |all: &Vec<u64>, ms: u64| all.iter().filter(|t| **t + ms > at).count() as f64;
                    prop_assert!(recent(&retries, 9_000) <= 0.3 * recent(&requests, 10_001) + 10.0 + 1e-6);
                }
            }
        }
    }
}
