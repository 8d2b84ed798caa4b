//! A small seeded generator that many threads may share.

use std::sync::atomic::{AtomicU64, Ordering};

/// SplitMix64 (Steele, Lea, Flood 2014): the state is a counter, so that drawing is one atomic add.
#[derive(Debug)]
pub(crate) struct Draw(AtomicU64);

impl Draw {
    pub(crate) fn new(seed: u64) -> Self {
        Self(AtomicU64::new(seed))
    }

    pub(crate) fn next(&self) -> u64 {
        const GAMMA: u64 = 0x9E37_79B9_7F4A_7C15;
        let mut z = self.0.fetch_add(GAMMA, Ordering::Relaxed).wrapping_add(GAMMA);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `n` (0 for 0), by multiplication: the bias is below n / 2^32.
    pub(crate) fn below(&self, n: usize) -> usize {
        (((self.next() >> 32) * n as u64) >> 32) as usize
    }

    /// Two numbers, below `n` and below `m`, of one draw.
    pub(crate) fn two_below(&self, n: usize, m: usize) -> (usize, usize) {
        let drawn = self.next();
        let below = |half: u64, n: usize| ((half * n as u64) >> 32) as usize;
        (below(drawn >> 32, n), below(drawn & 0xFFFF_FFFF, m))
    }

    /// A number in 0..1.
    pub(crate) fn unit(&self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn same_seed_same_numbers_and_bounds_hold() {
        let (a, b) = (Draw::new(7), Draw::new(7));
        for n in 1..500usize {
            let x = a.below(n);
            assert_eq!(x, b.below(n));
            assert!(x < n);
            assert!((0.0..1.0).contains(&a.unit()));
            b.unit();
        }
    }
}
