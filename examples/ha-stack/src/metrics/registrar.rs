//! A registrar's figures.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use super::text::{Kind, Page};

/// How the rounds go.
#[derive(Debug, Default)]
pub struct Figures {
    done: AtomicU64,
    failed: AtomicU64,
    last_done: AtomicU64,
}

impl Figures {
    /// Counts a round.
    pub fn round<T, E>(&self, outcome: &Result<T, E>) {
        if outcome.is_err() {
            self.failed.fetch_add(1, Ordering::Relaxed);
            return;
        }
        self.done.fetch_add(1, Ordering::Relaxed);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.last_done.store(now.as_secs(), Ordering::Relaxed);
    }

    /// The page of a registrar.
    pub fn page(&self) -> String {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed) as f64;
        let last = Some(count(&self.last_done)).filter(|seconds| *seconds > 0.0);
        Page::default()
            .family(
                "ha_registrar_rounds_total",
                Kind::Counter,
                "Comparisons of Swarm's tasks with Consul's services.",
            )
            .sample(&[("outcome", "done")], count(&self.done))
            .sample(&[("outcome", "failed")], count(&self.failed))
            .family(
                "ha_registrar_last_done_timestamp_seconds",
                Kind::Gauge,
                "When a comparison was finished last.",
            )
            .known(&[], last)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_round_is_no_news_of_success() {
        let figures = Figures::default();
        figures.round(&Err::<(), _>("no manager"));
        let text = figures.page();
        assert!(
            text.contains("outcome=\"failed\"} 1") && !text.contains("\nha_registrar_last_done"),
            "{text}"
        );
        figures.round(&Ok::<_, &str>(()));
        assert!(
            figures.page().contains("\nha_registrar_last_done_timestamp_seconds 1"),
            "{}",
            figures.page()
        );
    }
}
