//! How long to wait before another attempt.

use std::time::Duration;

/// Exponential back-off with full jitter: a random part of `base * 2^attempt`, at most of `cap`.
///
/// Full jitter spreads contenders best; see Marc Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Backoff {
    pub(crate) base: Duration,
    pub(crate) cap: Duration,
}

impl Backoff {
    /// The wait after failed attempt number `attempt` (from 0); `dice` is uniform in 0.0..1.0.
    pub(crate) fn wait(self, attempt: u32, dice: f64) -> Duration {
        let bound =
            self.base.saturating_mul(1_u32.checked_shl(attempt.min(31)).unwrap_or(u32::MAX)).min(self.cap);
        bound.mul_f64(dice.clamp(0.0, 1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]
        #[test]
        fn it_never_exceeds_its_cap(attempt in 0_u32..=u32::MAX, dice in -1.0_f64..2.0) {
            let backoff = Backoff { base: Duration::from_millis(10), cap: Duration::from_millis(400) };
            let wait = backoff.wait(attempt, dice);
            proptest::prop_assert!(wait <= backoff.cap);
            if attempt < 5 {
                proptest::prop_assert!(wait <= backoff.base * (1 << attempt));
            }
        }
    }
}
