//! A latency estimate that rises at once and falls slowly, without a lock.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Peak-EWMA (Finagle, tower): a sample above the estimate replaces it, one below it pulls it down with weight
/// 1 - e^(-d/tau), and between samples it decays toward zero.
///
/// Estimate (f32, milliseconds) and time stamp (u32, milliseconds, wrapping) share one word, so that a reader
/// never sees one without the other. Zero is "no sample yet".
#[derive(Debug, Default)]
pub(crate) struct PeakEwma(AtomicU64);

impl PeakEwma {
    /// Takes a sample in.
    pub(crate) fn record(&self, sample: Duration, now: Duration, tau: Duration) {
        let sample = sample.as_secs_f32() * 1000.0;
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |word| {
            let old = decayed(word, now, tau);
            let new = if old <= 0.0 || sample >= old { sample } else { blend(word, sample, now, tau) };
            // The smallest sample is still a sample.
            Some(pack(new.max(0.001), stamp(now)))
        });
    }

    /// The estimate at `now` in milliseconds; `None` before the first sample. Does not change it.
    pub(crate) fn at(&self, now: Duration, tau: Duration) -> Option<f32> {
        let value = decayed(self.0.load(Ordering::Relaxed), now, tau);
        (value > 0.0).then_some(value)
    }

    /// Forgets all samples.
    pub(crate) fn clear(&self) {
        self.0.store(0, Ordering::Relaxed);
    }
}

fn pack(value: f32, stamp: u32) -> u64 {
    (u64::from(value.to_bits()) << 32) | u64::from(stamp)
}

fn stamp(now: Duration) -> u32 {
    (now.as_secs() as u32).wrapping_mul(1000).wrapping_add(now.subsec_millis())
}

fn keep(word: u64, now: Duration, tau: Duration) -> f32 {
    let age = stamp(now).wrapping_sub(word as u32);
    // A reader that is a little behind a writer sees a huge age by wrapping; it is none.
    let age = if age > u32::MAX / 2 { 0 } else { age };
    if age == 0 { 1.0 } else { (-(age as f32) / (tau.as_secs_f32() * 1000.0)).exp() }
}

fn decayed(word: u64, now: Duration, tau: Duration) -> f32 {
    let value = f32::from_bits((word >> 32) as u32);
    if value > 0.0 { (value * keep(word, now, tau)).max(f32::MIN_POSITIVE) } else { 0.0 }
}

fn blend(word: u64, sample: f32, now: Duration, tau: Duration) -> f32 {
    let value = f32::from_bits((word >> 32) as u32);
    let keep = keep(word, now, tau);
    value * keep + sample * (1.0 - keep)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TAU: Duration = Duration::from_secs(10);

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn rises_at_once_and_falls_slowly() {
        let ewma = PeakEwma::default();
        assert_eq!(ewma.at(ms(0), TAU), None);
        ewma.record(ms(20), ms(0), TAU);
        ewma.record(ms(200), ms(1), TAU);
        assert_eq!(ewma.at(ms(1), TAU), Some(200.0));
        ewma.record(ms(20), ms(1001), TAU);
        let after = ewma.at(ms(1001), TAU).unwrap();
        assert!((180.0..185.0).contains(&after), "{after}");
        let later = ewma.at(ms(11_001), TAU).unwrap();
        assert!((later / after - 0.3679).abs() < 0.001, "{later}");
    }

    #[test]
    fn a_reader_behind_the_writer_sees_no_decay() {
        let ewma = PeakEwma::default();
        ewma.record(ms(20), ms(500), TAU);
        assert_eq!(ewma.at(ms(400), TAU), Some(20.0));
    }
}
