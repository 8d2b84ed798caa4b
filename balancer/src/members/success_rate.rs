//! Outliers by success rate: who answers clearly worse than the others do.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::Members;
use crate::config::SuccessRate;
use crate::endpoint::EndpointId;
use crate::state::Reason;

impl Members {
    /// Compares the rates of the interval that is over, and takes out who falls behind.
    pub(super) fn compare_success_rates(&mut self, now: Duration) {
        let Some(rules) = self.config.health.success_rate.clone() else { return };
        if now < self.compare {
            return;
        }
        self.compare = now.saturating_add(rules.interval);
        let mut rates: Vec<(EndpointId, f64)> = Vec::new();
        for member in self.members.values() {
            let stats = &member.slot.stats;
            let (good, bad) = (stats.good.swap(0, Ordering::Relaxed), stats.bad.swap(0, Ordering::Relaxed));
            let all = good.saturating_add(bad);
            if member.slot.state.is_usable() && all >= rules.min_requests {
                rates.push((member.slot.id().clone(), f64::from(good) / f64::from(all)));
            }
        }
        for (id, percent) in outliers(&rates, &rules) {
            self.eject(&id, Reason::SuccessRate(percent), now);
        }
    }
}

/// Whose rate is below the mean of the others by more than the margin and by more than so many of their standard
/// deviations; the worst first, with the rate in percent.
fn outliers(rates: &[(EndpointId, f64)], rules: &SuccessRate) -> Vec<(EndpointId, u8)> {
    let n = rates.len() as f64;
    if rates.len() < 2 {
        return Vec::new();
    }
    let (sum, squares) = rates.iter().fold((0.0, 0.0), |(sum, sq), (_, rate)| (sum + rate, sq + rate * rate));
    let behind = rates.iter().filter(|(_, rate)| {
        let mean = (sum - rate) / (n - 1.0);
        let deviation = ((squares - rate * rate) / (n - 1.0) - mean * mean).max(0.0).sqrt();
        *rate < mean - rules.margin.max(rules.deviations * deviation)
    });
    let mut behind: Vec<_> = behind.collect();
    behind.sort_by(|(_, a), (_, b)| a.total_cmp(b));
    behind.into_iter().map(|(id, rate)| (id.clone(), (rate * 100.0) as u8)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_of_two_and_one_of_many_but_no_crowd() {
        let rules = SuccessRate::default();
        let of = |rates: &[f64]| -> Vec<String> {
            let named = rates.iter().enumerate().map(|(n, rate)| (EndpointId::from(n.to_string()), *rate));
            let found = outliers(&named.collect::<Vec<_>>(), &rules);
            found.into_iter().map(|(id, percent)| format!("{id}:{percent}")).collect()
        };
        assert_eq!(of(&[0.5]), [""; 0]);
        assert_eq!(of(&[0.5, 0.99]), ["0:50"]);
        assert_eq!(of(&[0.9, 0.99]), [""; 0], "within the margin");
        assert_eq!(of(&[1.0, 1.0, 0.2, 0.99, 0.6]), ["2:20"], "the others spread too much for the second");
        assert_eq!(of(&[0.1; 8]), [""; 0], "all alike: nobody is an outlier");
    }
}
