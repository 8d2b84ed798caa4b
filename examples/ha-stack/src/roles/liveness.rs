//! Replicas that hang. Swarm replaces a container that ends, not one that stays and answers nothing; so the registrar of
//! its host ends it, and Swarm replaces it then. On a plain engine it is started again where it is: what somebody killed an
//! engine's own restart policy leaves alone.
//!
//! Careful on purpose: an instance that is merely slow would be slower still with one instance less. It must have been
//! silent for ten seconds, not just unready, and a host ends one replica in half a minute at most.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::labels;
use super::registrar::Registrar;
use crate::load;

/// Who has been silent since when.
#[derive(Debug, Default)]
pub struct Liveness {
    silent: BTreeMap<String, Duration>,
    ended: Option<Duration>,
}

impl Liveness {
    /// Takes what one round found (who is there, and whether it answered), and says who must be ended now.
    pub fn judge(&mut self, round: &[(String, bool)], now: Duration) -> Option<String> {
        self.silent.retain(|id, _| round.iter().any(|(seen, answered)| seen == id && !answered));
        for (id, answered) in round {
            if !answered {
                self.silent.entry(id.clone()).or_insert(now);
            }
        }
        if self.ended.is_some_and(|ended| now.saturating_sub(ended) < PAUSE) {
            return None;
        }
        let long = |since: Duration| now.saturating_sub(since) >= SILENT;
        let (id, _) =
            self.silent.iter().filter(|(_, since)| long(**since)).min_by_key(|(_, since)| **since)?;
        let id = id.clone();
        self.silent.remove(&id);
        self.ended = Some(now);
        Some(id)
    }
}

/// Watches over the replicas of this host; never ends by itself.
pub(super) async fn watch(registrar: &Registrar) {
    let began = Instant::now();
    let mut liveness = Liveness::default();
    loop {
        if let Err(error) = round(registrar, &mut liveness, began).await {
            tracing::warn!(error = format!("{error:#}"), "nobody's liveness is known this time");
        }
        tokio::time::sleep(EVERY).await;
    }
}

async fn round(registrar: &Registrar, liveness: &mut Liveness, began: Instant) -> Result<()> {
    let http = load::client(ANSWER)?;
    let serving = registrar.serving(labels::LIVE).await?;
    let asked = serving.iter().map(|(container, serving)| {
        let request = http.get(serving.check_url()).send();
        // Whatever it answers, it answers.
        async move { (container.clone(), request.await.is_ok()) }
    });
    let answers = futures_util::future::join_all(asked).await;
    let Some(container) = liveness.judge(&answers, began.elapsed()) else { return Ok(()) };
    let name = serving.iter().find(|(id, _)| *id == container).map_or("", |(_, s)| s.id());
    let seconds = SILENT.as_secs();
    tracing::warn!(
        replica = name,
        "silent for {seconds} s although it runs: ended, so that another one takes its place"
    );
    registrar.replace(&container).await.with_context(|| format!("{name} could not be ended"))
}

const EVERY: Duration = Duration::from_secs(1);
/// How long a replica has for an answer.
const ANSWER: Duration = Duration::from_secs(2);
/// How long a replica may be silent: longer than an election, a full disk's hiccup or a stopped clock usually last.
const SILENT: Duration = Duration::from_secs(10);
/// Between two ends: if the first did not help, more of the same won't.
const PAUSE: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    fn round(seen: &[(&str, bool)]) -> Vec<(String, bool)> {
        seen.iter().map(|(id, answered)| ((*id).to_owned(), *answered)).collect()
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn only_who_is_silent_without_a_break_is_ended() {
        let mut liveness = Liveness::default();
        for second in 0..9 {
            assert_eq!(liveness.judge(&round(&[("a", false), ("b", second != 5)]), at(second)), None);
        }
        // One answer begins the count anew.
        assert_eq!(liveness.judge(&round(&[("a", true), ("b", true)]), at(9)), None);
        assert_eq!(liveness.judge(&round(&[("a", false)]), at(10)), None);
        assert_eq!(liveness.judge(&round(&[("a", false)]), at(19)), None);
        assert_eq!(liveness.judge(&round(&[("a", false)]), at(20)), Some("a".into()));
    }

    #[test]
    fn a_host_ends_one_replica_at_a_time() {
        let mut liveness = Liveness::default();
        let both = round(&[("a", false), ("b", false)]);
        liveness.judge(&both, at(0));
        assert_eq!(liveness.judge(&both, at(10)), Some("a".into()));
        assert_eq!(liveness.judge(&round(&[("b", false)]), at(11)), None);
        assert_eq!(liveness.judge(&round(&[("b", false)]), at(39)), None);
        assert_eq!(liveness.judge(&round(&[("b", false)]), at(40)), Some("b".into()));
    }

    #[test]
    fn who_is_gone_is_forgotten() {
        let mut liveness = Liveness::default();
        liveness.judge(&round(&[("a", false)]), at(0));
        liveness.judge(&round(&[]), at(5));
        assert_eq!(liveness.judge(&round(&[("a", false)]), at(11)), None);
    }
}
