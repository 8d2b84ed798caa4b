//! Why two decisions differ.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::decision::{Action, Decision, Stage, StageName, Vote};

/// One point in which two decisions differ.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Difference {
    /// What differs: `current`, a signal's name, a stage, `action`.
    pub what: String,
    /// What this decision says.
    pub this: String,
    /// What the other one says.
    pub other: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} and {}", self.what, self.this, self.other)
    }
}

/// All points in which two decisions differ, in the order in which a decision is made: the first is where they part.
/// As text, one sentence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Differences(Vec<Difference>);

impl Differences {
    /// The points.
    pub fn iter(&self) -> std::slice::Iter<'_, Difference> {
        self.0.iter()
    }

    /// Whether the decisions say the same.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for Differences {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("no difference");
        }
        for (index, difference) in self.0.iter().enumerate() {
            write!(f, "{}{difference}", if index == 0 { "" } else { "; " })?;
        }
        Ok(())
    }
}

impl Decision {
    /// In what this decision differs from another one: what was seen, what the signals said, what each rule made of it,
    /// what is done. Times are not compared.
    ///
    /// ```
    /// # use autoscaler::{Observation, Policy, Reading, State, decide};
    /// # use std::time::Duration;
    /// let now = Duration::from_secs(1_000);
    /// let seen = Observation::new(now, 4).reading("in_flight", Reading::value(600.0, now));
    /// let policy = Policy::balanced("in_flight", 70.0).bounds(2, 10);
    /// let (wide, _) = decide(&policy, &State::seeded(4, now), &seen);
    /// let (narrow, _) = decide(&policy.bounds(2, 6), &State::seeded(4, now), &seen);
    /// let why = wide.diff(&narrow).to_string();
    /// assert_eq!(why, "bound: no rule and 9 -> 6 by the maximum of 6; action: 4 -> 9 and 4 -> 6");
    /// ```
    pub fn diff(&self, other: &Self) -> Differences {
        let mut points = Vec::new();
        let mut point = |what: &str, this: String, other: String| {
            if this != other {
                points.push(Difference { what: what.to_owned(), this, other });
            }
        };
        point("current", self.current.to_string(), other.current.to_string());
        let names = self.votes.iter().chain(&other.votes).map(|vote| vote.signal.as_str());
        let mut names: Vec<&str> = names.collect();
        let mut seen = std::collections::HashSet::new();
        names.retain(|name| seen.insert(*name));
        for name in names {
            let of = |decision: &Self| {
                let vote = decision.votes.iter().find(|vote| vote.signal == name);
                vote.map_or_else(|| "no such signal".to_owned(), ballot)
            };
            point(name, of(self), of(other));
        }
        for name in StageName::ALL {
            let of = |decision: &Self| {
                let found = decision.stages.iter().find(|stage| stage.name == name);
                found.map_or_else(|| "no rule".to_owned(), stage)
            };
            if name != StageName::Combine {
                point(&format!("{name:?}").to_lowercase(), of(self), of(other));
            }
        }
        point("action", action(self), action(other));
        Differences(points)
    }
}

fn ballot(vote: &Vote) -> String {
    format!("{:?} at {:?}", vote.ballot, vote.target)
}

fn stage(stage: &Stage) -> String {
    format!("{} -> {} by {}", stage.before, stage.after, stage.rule)
}

fn action(decision: &Decision) -> String {
    match decision.action {
        Action::Hold => format!("hold {} ({:?})", decision.current, decision.reason),
        Action::ScaleTo(count) => format!("{} -> {count}", decision.current),
        Action::DrainThen(count) => format!("drain {}, then {count}", decision.victims.join(", ")),
    }
}

impl StageName {
    /// All of them, in their order.
    const ALL: [Self; 15] = [
        Self::Combine,
        Self::Forecast,
        Self::Zero,
        Self::Unknown,
        Self::Guard,
        Self::Pause,
        Self::Burst,
        Self::Stabilize,
        Self::Update,
        Self::Flap,
        Self::Surge,
        Self::Cooldown,
        Self::Rate,
        Self::Bound,
        Self::Drain,
    ];
}
