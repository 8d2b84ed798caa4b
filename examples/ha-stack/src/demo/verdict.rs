//! What the demo found, as a table for people and as one JSON object for scripts.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

/// The verdict on a run of the story.
///
/// Times are seconds; `None` means that the step was left out, as `skipped` says, or not reached, as `broken` says.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Verdict {
    /// `local` or `swarm`.
    pub platform: String,
    /// Requests that users sent.
    pub requests: u64,
    /// Requests without a good answer.
    pub failed_requests: u64,
    /// The same by kind.
    pub failed_by_kind: BTreeMap<String, u64>,
    /// Users that the site forgot.
    pub lost_sessions: u64,
    /// Views acknowledged and not counted.
    pub lost_views: u64,
    /// Views counted more than once.
    pub doubled_views: u64,
    /// From power-off until the gateway stopped using the host.
    pub eject_seconds: Option<f64>,
    /// From power-off until the wanted number of replicas took traffic again.
    pub replace_seconds: Option<f64>,
    /// How long the site gave no answer when the host of its only replica was powered off.
    pub outage_seconds_single_replica: Option<f64>,
    /// From the rise of the load until an added replica answered.
    pub scale_out_seconds: Option<f64>,
    /// Most replicas that took traffic during the load.
    pub max_replicas: u32,
    /// Replicas after the load had ended.
    pub final_replicas: u32,
    /// POSTs of two seconds that were sent while the scaler removed replicas.
    pub long_requests: u64,
    /// Those of them that got no good answer.
    pub long_requests_cut: u64,
    /// Those of them that replicas answered which were removed meanwhile.
    pub long_requests_on_removed: u64,
    /// How long the first requests waited that came to a site of zero replicas.
    pub from_zero_seconds: Option<f64>,
    /// Each change that the scaler decided, a sentence each.
    pub decisions: Vec<String>,
    /// Steps that were left out, and why.
    pub skipped: Vec<String>,
    /// What the reader must know to judge the figures.
    pub notes: Vec<String>,
    /// Promises that were broken, a sentence each.
    pub broken: Vec<String>,
    /// Whether every promise that was put to the test was kept.
    pub ok: bool,
}

/// What is promised, in seconds.
#[derive(Clone, Copy, Debug)]
pub struct Promises {
    /// With one replica, the site is back within this time.
    pub outage: f64,
    /// Added capacity is in use within this time.
    pub scale_out: f64,
    /// The wanted number of replicas, within the story.
    pub floor: u32,
    /// What stands in front when it is not our gateways: failed requests are then told and not judged.
    pub front: Option<&'static str>,
}

impl Verdict {
    /// Compares the figures with what is promised, and notes each broken promise.
    pub fn judge(&mut self, promises: Promises) {
        let mut broken = std::mem::take(&mut self.broken);
        if let Some(front) = promises.front {
            self.notes.push(format!(
                "{front} lost {} of {} requests, which is not judged here: behind our gateways none may fail",
                self.failed_requests, self.requests
            ));
        }
        let ours = promises.front.is_none();
        let mut none = |count: u64, what: &str| {
            if count > 0 {
                broken.push(format!("{count} {what}"));
            }
        };
        none(if ours { self.failed_requests } else { 0 }, "requests failed");
        none(self.lost_sessions, "sessions were lost");
        none(self.lost_views, "acknowledged views were not counted");
        none(self.doubled_views, "views were counted more than once");
        if self.requests == 0 {
            broken.push("no request was sent, so nothing was shown".into());
        }
        let times = [
            self.eject_seconds,
            self.replace_seconds,
            self.outage_seconds_single_replica,
            self.scale_out_seconds,
        ];
        if times.iter().any(Option::is_none) && self.skipped.is_empty() && broken.is_empty() {
            broken.push("a step was not reached, and nothing says why".into());
        }
        let mut within = |seconds: Option<f64>, limit: f64, what: &str| {
            if let Some(seconds) = seconds.filter(|s| *s > limit) {
                broken.push(format!("{what} took {seconds:.1} s, more than {limit:.0} s"));
            }
        };
        within(
            self.outage_seconds_single_replica,
            promises.outage,
            "the return of the site with one replica",
        );
        within(self.scale_out_seconds, promises.scale_out, "load to added capacity");
        if self.scale_out_seconds.is_some() && self.max_replicas <= promises.floor {
            broken.push(format!("the load added no replica to the {} that were there", promises.floor));
        }
        if self.scale_out_seconds.is_some() && self.final_replicas != promises.floor {
            broken.push(format!(
                "{} replicas were left after the load, not {}",
                self.final_replicas, promises.floor
            ));
        }
        if self.scale_out_seconds.is_some() && self.long_requests_on_removed == 0 {
            broken
                .push("no long request met a replica that was removed, so nothing was shown of that".into());
        }
        self.broken = broken;
        self.ok = self.broken.is_empty();
    }

    /// The verdict as one line of JSON.
    pub fn json(&self) -> String {
        serde_json::to_string(self).unwrap_or_else(|e| format!("{{\"ok\":false,\"error\":\"{e}\"}}"))
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let missing = if self.skipped.is_empty() { "never" } else { "left out" };
        let seconds = |s: Option<f64>| s.map_or(missing.into(), |s| format!("{s:.1} s"));
        let rows: [(&str, String); 14] = [
            ("requests sent", self.requests.to_string()),
            ("requests failed", self.failed_requests.to_string()),
            ("sessions lost", self.lost_sessions.to_string()),
            ("views lost", self.lost_views.to_string()),
            ("views counted twice", self.doubled_views.to_string()),
            ("dead host out of use after", seconds(self.eject_seconds)),
            ("replica replaced after", seconds(self.replace_seconds)),
            ("site away, one replica", seconds(self.outage_seconds_single_replica)),
            ("load to added capacity", seconds(self.scale_out_seconds)),
            ("most replicas under load", self.max_replicas.to_string()),
            ("replicas after the load", self.final_replicas.to_string()),
            ("2 s requests, replicas removed", self.long_requests.to_string()),
            ("of these cut", self.long_requests_cut.to_string()),
            (
                "from zero to an answer",
                self.from_zero_seconds.map_or("left out".into(), |s| format!("{s:.1} s")),
            ),
        ];
        writeln!(f, "\nVerdict, platform {}", self.platform)?;
        writeln!(f, "{}", "-".repeat(44))?;
        for (what, value) in rows {
            writeln!(f, "{what:<30} {value:>13}")?;
        }
        writeln!(f, "{}", "-".repeat(44))?;
        for (kind, count) in &self.failed_by_kind {
            writeln!(f, "  failed: {kind}: {count}")?;
        }
        for sentence in &self.decisions {
            writeln!(f, "  scaler: {sentence}")?;
        }
        for skipped in &self.skipped {
            writeln!(f, "  left out: {skipped}")?;
        }
        for note in &self.notes {
            writeln!(f, "  note: {note}")?;
        }
        for broken in &self.broken {
            writeln!(f, "  BROKEN: {broken}")?;
        }
        let word = match (self.ok, self.skipped.is_empty()) {
            (true, true) => "every promise kept",
            (true, false) => "every promise kept that was put to the test",
            (false, _) => "promises were broken",
        };
        write!(f, "{word}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROMISES: Promises = Promises { outage: 10.0, scale_out: 15.0, floor: 2, front: None };

    fn good() -> Verdict {
        Verdict {
            requests: 10,
            eject_seconds: Some(1.0),
            replace_seconds: Some(3.0),
            scale_out_seconds: Some(4.0),
            outage_seconds_single_replica: Some(2.0),
            max_replicas: 4,
            final_replicas: 2,
            long_requests: 40,
            long_requests_on_removed: 9,
            ..Verdict::default()
        }
    }

    #[test]
    fn a_good_run_is_ok_and_each_broken_promise_is_named() {
        let mut verdict = good();
        verdict.judge(PROMISES);
        assert!(verdict.ok, "{:?}", verdict.broken);
        type Breaks = fn(&mut Verdict);
        let breaks: [(&str, Breaks); 8] = [
            ("not reached", |v| v.replace_seconds = None),
            ("requests failed", |v| v.failed_requests = 1),
            ("sessions were lost", |v| v.lost_sessions = 1),
            ("took 11.0 s", |v| v.outage_seconds_single_replica = Some(11.0)),
            ("took 16.0 s", |v| v.scale_out_seconds = Some(16.0)),
            ("added no replica", |v| v.max_replicas = 2),
            ("left after the load", |v| v.final_replicas = 3),
            ("no long request met", |v| v.long_requests_on_removed = 0),
        ];
        for (sentence, breaks) in breaks {
            let mut verdict = good();
            breaks(&mut verdict);
            verdict.judge(PROMISES);
            assert!(!verdict.ok);
            assert!(verdict.broken.iter().any(|b| b.contains(sentence)), "{sentence}: {:?}", verdict.broken);
        }
    }

    #[test]
    fn what_another_proxy_loses_is_told_and_not_judged() {
        let mut verdict = Verdict { failed_requests: 3, ..good() };
        verdict.judge(Promises { front: Some("nginx"), ..PROMISES });
        assert!(verdict.ok, "{:?}", verdict.broken);
        assert!(verdict.notes.iter().any(|note| note.contains("nginx lost 3 of ")), "{:?}", verdict.notes);
        let mut verdict = Verdict { lost_sessions: 1, ..good() };
        verdict.judge(Promises { front: Some("nginx"), ..PROMISES });
        assert!(!verdict.ok, "whoever stands in front, sessions are ours");
    }

    #[test]
    fn the_json_has_every_promised_key() {
        let value: serde_json::Value = serde_json::from_str(&good().json()).unwrap();
        for key in [
            "platform",
            "requests",
            "failed_requests",
            "lost_sessions",
            "lost_views",
            "doubled_views",
            "eject_seconds",
            "replace_seconds",
            "outage_seconds_single_replica",
            "scale_out_seconds",
            "max_replicas",
            "final_replicas",
            "long_requests",
            "long_requests_cut",
            "long_requests_on_removed",
            "from_zero_seconds",
            "ok",
        ] {
            assert!(value.get(key).is_some(), "{key}");
        }
    }
}
