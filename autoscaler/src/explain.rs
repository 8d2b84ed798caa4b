//! The one sentence of a decision.

use std::fmt;

use crate::decision::{Action, Ballot, Decision, Reason, StageName, Vote};
use crate::policy::Target;
use crate::vote::seconds;

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.action {
            Action::Hold => write!(f, "hold {}: ", self.current)?,
            Action::ScaleTo(replicas) => write!(f, "{} -> {replicas}: ", self.current)?,
            Action::DrainThen(replicas) => {
                write!(f, "drain {} of {}, then {replicas}: ", self.victims.len(), self.current)?;
            }
        }
        match &self.reason {
            Reason::NoSignals => f.write_str("the policy names no signal; only its bounds are kept"),
            Reason::BelowMin => {
                write!(f, "{} is below the minimum of {}", self.current, self.replicas())
            }
            Reason::AboveMax => {
                write!(f, "{} is above the maximum of {}", self.current, self.replicas())
            }
            Reason::Off => f.write_str("the service was turned off; scale it above 0 to turn it on"),
            Reason::Held { reason, until: None } => write!(f, "{reason} (until lifted)"),
            Reason::Held { reason, until: Some(until) } => {
                write!(f, "{reason} (for another {})", seconds(until.saturating_sub(self.at)))
            }
            Reason::Paused if self.stages.is_empty() => f.write_str("scaling is paused by the policy"),
            Reason::Updating if self.stages.is_empty() => f.write_str("an update of the service is running"),
            Reason::ClockSteppedBack(step) => {
                write!(f, "the clock stepped back by {}; the windows begin anew", seconds(*step))
            }
            Reason::InvalidPolicy(first) => write!(f, "the policy can't be used: {first}"),
            Reason::Unknown => self.unknown(f),
            _ => self.load(f),
        }
    }
}

impl Decision {
    /// Nothing is removed (or nothing at all can be done) because signals are unknown.
    fn unknown(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for vote in &self.votes {
            match &vote.ballot {
                Ballot::Unknown { why, elapsed } => {
                    f.write_str(separator)?;
                    write_unknown(f, vote, why, *elapsed)?;
                }
                Ballot::FallsBack { why, replicas } => {
                    write!(f, "{separator}{} unknown ({why}), {replicas} standing in", vote.signal)?;
                }
                _ => continue,
            }
            separator = ", ";
        }
        f.write_str("; nothing is removed while a signal is unknown")
    }

    /// What the leading signal asks for, and what stood in its way.
    fn load(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((vote, value, proposal, within)) = self.leading() {
            let amount = Number(value);
            let name = Name(&vote.signal);
            match vote.target {
                Target::Count => write!(f, "{name} says {amount}")?,
                Target::Fixed(count) => write!(f, "{count} are fixed by {name}")?,
                Target::Threshold(_) => write!(f, "{amount} {name} is in its band")?,
                _ => {}
            }
            if matches!(vote.target, Target::Count | Target::Fixed(_) | Target::Threshold(_)) {
                return self.obstacles(f);
            }
            let target = Aim(vote.target);
            match (within, proposal.cmp(&self.current)) {
                (Some(percent), _) => write!(f, "{amount} {name} is within {percent} % of {target}")?,
                (None, std::cmp::Ordering::Greater) => write!(f, "{amount} {name} over {target}")?,
                (None, std::cmp::Ordering::Less) => write!(f, "{amount} {name} under {target}")?,
                (None, std::cmp::Ordering::Equal) => {
                    write!(f, "{amount} {name} needs all {} at {target}", self.current)?;
                }
            }
        } else {
            f.write_str("no signal asks for a change")?;
        }
        self.obstacles(f)
    }

    /// What stood in the way.
    fn obstacles(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for stage in self.stages.iter().filter(|stage| stage.name != StageName::Combine) {
            let side = if stage.after < stage.before { "below" } else { "above" };
            match stage.name {
                StageName::Forecast => write!(f, "; raised to {} by {}", stage.after, stage.rule)?,
                _ => write!(f, "; held {side} {} by {}", stage.before, stage.rule)?,
            }
        }
        for vote in &self.votes {
            match &vote.ballot {
                Ballot::Unknown { why, elapsed } => {
                    f.write_str("; ")?;
                    write_unknown(f, vote, why, *elapsed)?;
                }
                Ballot::FallsBack { why, replicas } => {
                    write!(f, "; {} unknown ({why}), {replicas} standing in", vote.signal)?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// The signal with the largest proposal; the first of equals.
    fn leading(&self) -> Option<(&Vote, f64, u32, Option<u32>)> {
        let known = self.votes.iter().filter_map(|vote| match vote.ballot {
            Ballot::Proposes { value, replicas, within } => Some((vote, value, replicas, within)),
            _ => None,
        });
        known.reduce(|best, next| if next.2 > best.2 { next } else { best })
    }
}

fn write_unknown(
    f: &mut fmt::Formatter<'_>,
    vote: &Vote,
    why: &str,
    elapsed: Option<std::time::Duration>,
) -> fmt::Result {
    match elapsed {
        Some(elapsed) => write!(f, "{} unknown for {} ({why})", vote.signal, seconds(elapsed)),
        None => write!(f, "{} unknown so far ({why})", vote.signal),
    }
}

/// A signal's name in a sentence.
struct Name<'a>(&'a str);

impl fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.split('_').enumerate().try_for_each(|(index, word)| {
            if index > 0 {
                f.write_str(" ")?;
            }
            f.write_str(word)
        })
    }
}

/// A target in a sentence.
struct Aim(Target);

impl fmt::Display for Aim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Target::AveragePerInstance(target) => write!(f, "a target of {} each", Number(target)),
            Target::Total(target) => write!(f, "a target of {} in all", Number(target)),
            Target::Utilization(percent) => write!(f, "a target of {percent} % of what is asked for"),
            other => Number(other.value()).fmt(f),
        }
    }
}

/// A number in a sentence: whole if it is, else with two digits.
struct Number(f64);

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = self.0;
        if number.fract() == 0.0 && number.abs() < 1e15 {
            write!(f, "{number:.0}")
        } else if (0.01..1e15).contains(&number.abs()) {
            write!(f, "{number:.2}")
        } else {
            write!(f, "{number:e}")
        }
    }
}
