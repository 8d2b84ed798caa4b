//! What came of the faults: a table for people, one JSON object for programs, a page for a browser.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

use serde::Serialize;

/// What came of one fault.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Row {
    /// The fault's name.
    pub name: String,
    /// What was hit.
    pub victim: String,
    /// Requests sent.
    pub requests: u64,
    /// GETs without a good answer.
    pub failed_gets: u64,
    /// POSTs without a good answer; whether each was done is not known.
    pub failed_posts: u64,
    /// Users that the site forgot.
    pub lost_sessions: u64,
    /// Views that were acknowledged and are not counted.
    pub lost_views: u64,
    /// Views that were counted more than once.
    pub doubled_views: u64,
    /// The longest time in which nobody got a good answer, in milliseconds.
    pub longest_gap_ms: u64,
    /// Seconds from the strike until as many replicas as wanted took traffic again; 0 if always; absent if not before
    /// the fault was taken back.
    pub redundancy_seconds: Option<f64>,
    /// Of that, until the Swarm had a leader again, where its leader was hit: no setting of Docker's makes that shorter.
    pub swarm_leader_seconds: Option<f64>,
    /// Seconds from the strike until the users' address was on another host, where its host was hit.
    pub address_seconds: Option<f64>,
    /// Why it was left out, if it was.
    pub skipped: Option<String>,
    /// Failures by kind.
    pub failed_by_kind: BTreeMap<String, u64>,
    /// What the gateways said of the replicas that they did not use.
    pub said: Vec<String>,
    /// Promises that were broken.
    pub broken: Vec<String>,
}

impl Row {
    /// A fault that was left out.
    pub fn skipped(name: &str, why: String) -> Self {
        Self { name: name.into(), skipped: Some(why), ..Self::default() }
    }

    /// Writes down what was broken: so many GETs may fail, and within so many seconds the stack must be whole.
    pub fn judge(&mut self, may_fail: u64, within: Option<f64>) {
        let mut broken = Vec::new();
        if self.failed_gets > may_fail {
            broken.push(format!("{} GETs failed where {may_fail} may", self.failed_gets));
        }
        for (count, what) in [
            (self.lost_sessions, "sessions were lost"),
            (self.lost_views, "views were lost"),
            (self.doubled_views, "views were counted twice"),
        ] {
            if count > 0 {
                broken.push(format!("{count} {what}"));
            }
        }
        match (within, self.redundancy_seconds) {
            (Some(within), Some(seconds)) if seconds > within => {
                broken.push(format!("whole again after {seconds:.1} s, promised within {within:.0} s"));
            }
            (Some(within), None) => broken.push(format!("not whole again within {within:.0} s, nor later")),
            _ => {}
        }
        self.broken.extend(broken);
    }

    /// Writes down if the users' address, whose host was lost, was not elsewhere within so many seconds.
    pub fn judge_address(&mut self, within: f64) {
        match self.address_seconds {
            Some(seconds) if seconds <= within => {}
            Some(seconds) => self.broken.push(format!(
                "the users' address was on another host after {seconds:.1} s, promised within {within:.0} s"
            )),
            None => self.broken.push("the users' address was on no other host".into()),
        }
    }
}

/// The whole run.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// Where the stack ran.
    pub platform: String,
    /// The seed, where the faults were drawn at random.
    pub seed: Option<u64>,
    /// One row for each fault.
    pub faults: Vec<Row>,
    /// Whether none was left out and no promise was broken.
    pub ok: bool,
}

impl Report {
    /// Closes the books.
    pub fn close(&mut self) {
        let kept = |row: &Row| row.skipped.is_none() && row.broken.is_empty();
        self.ok = !self.faults.is_empty() && self.faults.iter().all(kept);
    }

    /// The report as one line of JSON.
    pub fn json(&self) -> String {
        serde_json::to_string(self).unwrap_or_else(|error| format!("{{\"ok\":false,\"error\":\"{error}\"}}"))
    }

    /// The report as a page that needs nothing from elsewhere.
    pub fn html(&self) -> String {
        let mut rows = String::new();
        for row in &self.faults {
            let class = if row.skipped.is_some() {
                "left"
            } else if row.broken.is_empty() {
                "kept"
            } else {
                "broken"
            };
            // Writing to a string can't fail.
            let _ = write!(rows, "<tr class=\"{class}\">");
            for cell in cells(row) {
                let _ = write!(rows, "<td>{}</td>", escape(&cell));
            }
            let said = row.skipped.iter().chain(&row.broken).chain(&row.said).map(|s| escape(s));
            let _ = write!(rows, "<td>{}</td></tr>", said.collect::<Vec<_>>().join("<br>"));
        }
        let head: String = HEAD.iter().map(|(name, _)| format!("<th>{}</th>", name.to_lowercase())).collect();
        let verdict = if self.ok { "every promise kept" } else { "promises were broken" };
        format!(
            "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
             <title>The stack under faults</title><style>{STYLE}</style><h1>The stack under faults</h1>\
             <p>Platform {}: {verdict}.</p><div><table><thead><tr>{head}<th>what was said</th></tr></thead><tbody>{rows}</tbody></table></div>",
            escape(&self.platform)
        )
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, width) in HEAD {
            write!(f, "{name:<width$}")?;
        }
        writeln!(f)?;
        for row in &self.faults {
            if let Some(why) = &row.skipped {
                writeln!(f, "{:<22}left out: {why}", row.name)?;
                continue;
            }
            for (cell, (_, width)) in cells(row).iter().zip(HEAD) {
                write!(f, "{cell:<width$}")?;
            }
            writeln!(f)?;
            for broken in &row.broken {
                writeln!(f, "    BROKEN: {broken}")?;
            }
            for (kind, count) in &row.failed_by_kind {
                writeln!(f, "    failed: {kind}: {count}")?;
            }
            for said in &row.said {
                writeln!(f, "    said: {said}")?;
            }
        }
        write!(f, "{}", if self.ok { "every promise kept" } else { "promises were broken" })
    }
}

fn cells(row: &Row) -> [String; 11] {
    let seconds =
        |seconds: Option<f64>| seconds.map_or_else(|| "-".into(), |seconds| format!("{seconds:.1} s"));
    [
        row.name.clone(),
        row.requests.to_string(),
        row.failed_gets.to_string(),
        row.failed_posts.to_string(),
        row.lost_sessions.to_string(),
        format!("{}/{}", row.lost_views, row.doubled_views),
        format!("{:.1} s", row.longest_gap_ms as f64 / 1000.0),
        seconds(row.redundancy_seconds),
        seconds(row.swarm_leader_seconds),
        seconds(row.address_seconds),
        // The beginning of a task's name says enough.
        row.victim.chars().take(30).collect(),
    ]
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

const HEAD: [(&str, usize); 11] = [
    ("FAULT", 22),
    ("REQUESTS", 10),
    ("GETS", 6),
    ("POSTS", 7),
    ("SESSIONS", 10),
    ("VIEWS", 7),
    ("GAP", 9),
    ("WHOLE", 9),
    ("ELECTED", 9),
    ("MOVED", 8),
    ("HIT", 32),
];
const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:78rem;padding:0 1rem;color:#1c2024;background:#fff}\
    div{overflow-x:auto}table{border-collapse:collapse;width:100%}th,td{text-align:left;padding:.4rem .7rem;border-bottom:1px solid #d8dde3;vertical-align:top}\
    td:first-child{white-space:nowrap;border-left:4px solid #2f9e5b;font-weight:600}.broken td:first-child{border-color:#d13b3b}.left td:first-child{border-color:#c9a227}\
    @media(prefers-color-scheme:dark){body{color:#e6e9ec;background:#14171a}th,td{border-bottom-color:#31373d}}";

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Row {
        Row { name: "worker-off".into(), requests: 9000, redundancy_seconds: Some(3.2), ..Row::default() }
    }

    #[test]
    fn each_broken_promise_is_named() {
        let mut row = good();
        row.judge(0, Some(5.0));
        assert_eq!(row.broken, Vec::<String>::new());
        type Breaks = fn(&mut Row);
        let breaks: [(&str, Breaks); 6] = [
            ("1 GETs failed where 0 may", |r| r.failed_gets = 1),
            ("2 sessions were lost", |r| r.lost_sessions = 2),
            ("views were lost", |r| r.lost_views = 1),
            ("counted twice", |r| r.doubled_views = 1),
            ("after 6.0 s", |r| r.redundancy_seconds = Some(6.0)),
            ("nor later", |r| r.redundancy_seconds = None),
        ];
        for (sentence, breaks) in breaks {
            let mut row = good();
            breaks(&mut row);
            row.judge(0, Some(5.0));
            assert!(row.broken.iter().any(|b| b.contains(sentence)), "{sentence}: {:?}", row.broken);
        }
    }

    #[test]
    fn an_address_that_moves_late_or_never_is_a_broken_promise() {
        for (moved, sentence) in
            [(Some(0.7), None), (Some(2.3), Some("after 2.3 s")), (None, Some("on no other host"))]
        {
            let mut row = Row { address_seconds: moved, ..good() };
            row.judge_address(2.0);
            assert_eq!(row.broken.len(), usize::from(sentence.is_some()), "{:?}", row.broken);
            assert!(sentence.is_none_or(|sentence| row.broken[0].contains(sentence)), "{:?}", row.broken);
        }
    }

    #[test]
    fn a_fault_that_was_left_out_is_no_success() {
        let mut report = Report { faults: vec![good()], ..Report::default() };
        report.close();
        assert!(report.ok);
        report.faults.push(Row::skipped("rain", "no <clouds>".into()));
        report.close();
        assert!(!report.ok);
        assert!(report.to_string().contains("rain                  left out: no <clouds>"), "{report}");
        assert!(report.html().contains("no &lt;clouds&gt;"));
        let value: serde_json::Value = serde_json::from_str(&report.json()).unwrap();
        for key in [
            "name",
            "requests",
            "failed_gets",
            "failed_posts",
            "lost_sessions",
            "lost_views",
            "doubled_views",
            "longest_gap_ms",
            "redundancy_seconds",
            "skipped",
        ] {
            assert!(value["faults"][0].get(key).is_some(), "{key}");
        }
        assert_eq!(value["ok"], false);
    }

    #[test]
    fn nothing_done_is_nothing_kept() {
        let mut report = Report::default();
        report.close();
        assert!(!report.ok);
    }
}
