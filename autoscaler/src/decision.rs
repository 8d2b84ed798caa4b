//! What was decided, and everything that led to it. The sentence is made in `explain`.

use std::borrow::Cow;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::policy::Target;

/// The outcome of one [`decide`](crate::decide): as data here, as one sentence by [`Display`](std::fmt::Display).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Decision {
    /// When it was made, on the clock of the observation.
    pub at: Duration,
    /// What to do.
    pub action: Action,
    /// How many instances were wanted when it was made. A writer must refuse when that has changed since.
    pub current: u32,
    /// The rule that had the last word.
    pub reason: Reason,
    /// What each signal of the policy said.
    pub votes: Vec<Vote>,
    /// The way from the present count to the result, in order. Empty when a rule settled the matter before the
    /// signals did.
    pub stages: Vec<Stage>,
    /// The instances to keep from new requests, for [`Action::DrainThen`]: those that the orchestrator is expected to
    /// remove.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub victims: Vec<String>,
    /// What the forecast expects within its horizon, whether it counts or not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected: Option<Expected>,
    /// What the ready instances could take on top of their load and the policy's
    /// [`burst_capacity`](crate::Policy::burst_capacity), in the unit of the first signal. Below zero, keep what holds
    /// requests back in the path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spare: Option<f64>,
    /// When it stops being good, on the clock of the observation: don't act on it from then on.
    pub valid_until: Duration,
}

impl Decision {
    /// The count that results now: the new one, or the present one of a hold or a drain.
    pub fn replicas(&self) -> u32 {
        match self.action {
            Action::Hold | Action::DrainThen(_) => self.current,
            Action::ScaleTo(replicas) => replicas,
        }
    }
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Action {
    /// Nothing.
    Hold,
    /// Want this many instances; never the present count.
    ScaleTo(u32),
    /// Keep new requests from [`Decision::victims`], so that this many instances can be wanted once nothing is in
    /// flight on them. It is decided again until then.
    DrainThen(u32),
}

/// What a forecast expects.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Expected {
    /// The highest load within the horizon.
    pub load: f64,
    /// How many instances that asks for.
    pub replicas: u32,
    /// How many instances a change should at least lead to, so that it lasts for the forecast's batch.
    #[serde(default)]
    pub lasting: u32,
    /// Whether the load recurs: otherwise `lasting` is what a steady rise leads to, and all else is the present load.
    #[serde(default)]
    pub recurs: bool,
}

/// The rule that had the last word in a decision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Reason {
    /// The signals decided, and nothing stood in the way (also when they ask for the present count).
    Load,
    /// The policy names no signal; the bounds hold.
    NoSignals,
    /// At least one signal is unknown, so nothing is removed. If all are, nothing is added either.
    Unknown,
    /// The window of the way up has not agreed yet.
    UpStabilized,
    /// The window of the way down has not agreed yet.
    DownStabilized,
    /// A burst is on: nothing is removed.
    Burst,
    /// The forecast expects a load that asks for more.
    Forecast,
    /// A guard is above its limit: nothing is removed.
    Guarded,
    /// The service is active after it was idle.
    Activated,
    /// The service is idle, but not for long enough yet.
    Idling,
    /// The service is idle, but nothing stands ready to hold requests (for long enough).
    NoBuffer,
    /// The service is idle.
    Idle,
    /// The flap budget is spent: nothing is removed.
    FlapBudget,
    /// Nothing new became ready for too long: nothing is added.
    Stuck,
    /// The count changed too short a time ago.
    Cooldown,
    /// Those that will go are being drained.
    Draining,
    /// The policy is paused, wholly or in the direction that the load asks for.
    Paused,
    /// The policy closed the way up.
    UpDisabled,
    /// The policy closed the way down.
    DownDisabled,
    /// A rate limit of the way up.
    UpLimited,
    /// A rate limit of the way down.
    DownLimited,
    /// The maximum.
    AtMax,
    /// The minimum.
    AtMin,
    /// More instances were wanted than the maximum: bounded at once, whatever the load.
    AboveMax,
    /// Fewer instances were wanted than the minimum: bounded at once, whatever the load.
    BelowMin,
    /// Zero instances are wanted and it was not this policy that said so: somebody turned the service off.
    Off,
    /// Somebody asked that the count be left alone.
    Held {
        /// Who and why.
        reason: String,
        /// When it lapses.
        until: Option<Duration>,
    },
    /// An update or rollback is running.
    Updating,
    /// The clock stepped back by this much since the last observation; the windows begin anew.
    ClockSteppedBack(Duration),
    /// The policy breaks its own rules; the text names the first one.
    InvalidPolicy(String),
}

/// What one signal said.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Vote {
    /// The signal's name.
    pub signal: String,
    /// Its target.
    pub target: Target,
    /// Its proposal, or why it has none.
    pub ballot: Ballot,
}

/// A signal's proposal, or why it has none.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Ballot {
    /// The signal is known.
    Proposes {
        /// Its value: finite, not negative.
        value: f64,
        /// How many instances it asks for, before any limit.
        replicas: u32,
        /// Percent of tolerance that kept the present count, if that is what did.
        within: Option<u32>,
    },
    /// The signal is known and has no opinion: its value lies outside of the band of its threshold.
    Abstains {
        /// Its value.
        value: f64,
    },
    /// The signal is a guard.
    Guards {
        /// Its value.
        value: f64,
        /// Whether that is above the limit.
        over: bool,
    },
    /// The signal is unknown for so long that the policy's fallback stands in.
    FallsBack {
        /// Why it is unknown.
        why: String,
        /// How many instances stand in for its proposal.
        replicas: u32,
    },
    /// The signal is unknown.
    Unknown {
        /// Why.
        why: String,
        /// How long since it was last known, if it ever was.
        elapsed: Option<Duration>,
    },
}

/// One step from the present count to the result.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Stage {
    /// Which step.
    pub name: StageName,
    /// The count before it.
    pub before: u32,
    /// The count after it.
    pub after: u32,
    /// The rule that was applied, in words.
    pub rule: String,
    /// The numbers it rests on, by name.
    pub inputs: Vec<(Cow<'static, str>, f64)>,
}

/// The steps, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum StageName {
    /// The largest proposal of the signals.
    Combine,
    /// What the forecast expects.
    Forecast,
    /// To zero and back.
    Zero,
    /// Nothing is removed while a signal is unknown.
    Unknown,
    /// Nothing is removed while a guard is above its limit.
    Guard,
    /// A direction is paused.
    Pause,
    /// Nothing is removed in a burst.
    Burst,
    /// The stabilisation windows.
    Stabilize,
    /// Nothing is removed while an update runs.
    Update,
    /// How often the count may turn.
    Flap,
    /// Growth that nothing comes of.
    Surge,
    /// The time since the last change.
    Cooldown,
    /// The rate limits.
    Rate,
    /// The bounds.
    Bound,
    /// What is in flight on those that will go.
    Drain,
}
