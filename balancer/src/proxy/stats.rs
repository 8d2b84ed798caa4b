//! Rates and latencies of the last ten seconds.

use std::time::Duration;

/// Seconds kept, the running one included.
const SECONDS: usize = 11;
/// Sixteen bins per doubling, from 1 us to about 2^28 us: an error of at most 5 percent.
const BINS: usize = 28 * PER_DOUBLING;
const PER_DOUBLING: usize = 16;

/// A ring of one-second slots with a logarithmic histogram each.
#[derive(Debug)]
pub(crate) struct Window {
    slots: Vec<Slot>,
    second: u64,
}

#[derive(Clone, Debug)]
struct Slot {
    count: u64,
    bins: Box<[u32]>,
}

/// Percentiles in seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Percentiles {
    pub(crate) p50: Option<f64>,
    pub(crate) p95: Option<f64>,
    pub(crate) p99: Option<f64>,
}

impl Window {
    pub(crate) fn new() -> Self {
        Self { slots: vec![Slot { count: 0, bins: vec![0; BINS].into() }; SECONDS], second: 0 }
    }

    /// Counts an arrival.
    pub(crate) fn arrived(&mut self, now: Duration) {
        if let Some(slot) = self.slot(now) {
            slot.count += 1;
        }
    }

    /// Counts an answer.
    pub(crate) fn answered(&mut self, latency: Duration, now: Duration) {
        if let Some(bin) = self.slot(now).and_then(|slot| slot.bins.get_mut(bin(latency))) {
            *bin = bin.saturating_add(1);
        }
    }

    /// Arrivals a second over the last ten whole seconds, or over those since the start.
    pub(crate) fn rate(&mut self, now: Duration) -> f64 {
        let running = self.slot(now).map_or(0, |slot| slot.count);
        let total: u64 = self.slots.iter().map(|slot| slot.count).sum();
        let whole = now.as_secs().min(SECONDS as u64 - 1);
        if whole == 0 {
            running as f64 / now.as_secs_f64().max(0.1)
        } else {
            (total - running) as f64 / whole as f64
        }
    }

    pub(crate) fn percentiles(&mut self, now: Duration) -> Percentiles {
        self.slot(now);
        let mut bins = vec![0u64; BINS];
        for slot in &self.slots {
            for (sum, bin) in bins.iter_mut().zip(slot.bins.iter()) {
                *sum += u64::from(*bin);
            }
        }
        let total: u64 = bins.iter().sum();
        let at = |share: f64| {
            let rank = ((total as f64 * share).ceil() as u64).max(1);
            let mut seen = 0;
            let index = bins.iter().position(|count| {
                seen += count;
                seen >= rank
            })?;
            Some(2f64.powf((index as f64 + 0.5) / PER_DOUBLING as f64) / 1e6)
        };
        Percentiles { p50: at(0.5), p95: at(0.95), p99: at(0.99) }
    }

    fn slot(&mut self, now: Duration) -> Option<&mut Slot> {
        let second = now.as_secs();
        let steps = second.saturating_sub(self.second).min(SECONDS as u64);
        self.second = self.second.max(second);
        for back in 0..steps {
            if let Some(slot) = self.slots.get_mut(((self.second - back) % SECONDS as u64) as usize) {
                slot.count = 0;
                slot.bins.fill(0);
            }
        }
        self.slots.get_mut((self.second % SECONDS as u64) as usize)
    }
}

fn bin(latency: Duration) -> usize {
    let micros = (latency.as_secs_f64() * 1e6).max(1.0);
    ((micros.log2() * PER_DOUBLING as f64) as usize).min(BINS - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rate_and_percentiles_follow_the_window() {
        let mut window = Window::new();
        for i in 0..1000u64 {
            let now = Duration::from_millis(i * 10);
            window.arrived(now);
            window.answered(Duration::from_millis(if i % 100 == 0 { 200 } else { 10 }), now);
        }
        let now = Duration::from_secs(10);
        assert_eq!(window.rate(now), 100.0);
        let seen = window.percentiles(now);
        assert!((seen.p50.unwrap() / 0.010 - 1.0).abs() < 0.05, "{seen:?}");
        assert!((seen.p99.unwrap() / 0.010 - 1.0).abs() < 0.05, "{seen:?}");
        let later = Duration::from_secs(100);
        assert_eq!(window.rate(later), 0.0);
        assert_eq!(window.percentiles(later).p50, None);
    }
}
