//! What a service should have: bounds, signals with their targets, and how fast to move.
//!
//! A policy is plain, comparable data. It is checked by [`Policy::validate`]; [`decide`](crate::decide) holds on one
//! that does not pass, and the controller refuses it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::seconds;

mod behavior;
mod burst;
mod cron;
#[cfg(feature = "toml")]
mod file;
mod forecast;
mod guards;
mod presets;
mod schedule;
mod signal;
mod validate;
mod zero;

pub use behavior::{Behavior, Direction, RateLimit, Select};
pub use burst::{Burst, BurstOf};
pub use cron::{Cron, CronError};
#[cfg(feature = "toml")]
pub use file::{PolicyFileError, PolicyMistake};
pub use forecast::{Forecast, ForecastMode, Model};
pub use guards::{Calm, Drain, DuringUpdate, Fallback, FallbackReplicas, FlapBudget, Pause, Surge};
pub use schedule::ScheduleWindow;
pub use signal::{Readiness, SignalPolicy, Step, Target, Threshold, Tolerance};
pub use validate::{PolicyError, PolicyErrors};
pub use zero::Zero;

/// How one service is scaled.
///
/// [`Policy::balanced`] is the place to start. The [`Default`] has no signal: it keeps the bounds and nothing else.
///
/// ```
/// use autoscaler::Policy;
/// use std::time::Duration;
///
/// let policy = Policy::balanced("in_flight", 70.0).bounds(2, 12).down_window(Duration::from_secs(120));
/// assert!(policy.validate().is_ok());
/// assert!(policy.bounds(5, 4).validate().is_err());
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Policy {
    /// Never fewer instances than this. Zero allows scaling to zero.
    pub min: u32,
    /// Never more instances than this.
    pub max: u32,
    /// What is looked at. Each signal proposes a count and the largest proposal wins.
    pub signals: Vec<SignalPolicy>,
    /// How fast to move each way.
    pub behavior: Behavior,
    /// When to stop being calm; `None` for never.
    pub burst: Option<Burst>,
    /// What may be done while an update or rollback of the service runs.
    pub during_update: DuringUpdate,
    /// The longest time between two complete observations for which the windows count as watched. After a longer
    /// gap (an outage of the signals, a change of leader, a sleeping machine) the stabilisation windows begin anew
    /// from the present count, so that nothing is removed on the first look. Must be longer than the time between
    /// two decisions. In serialised form: seconds.
    #[serde(with = "seconds")]
    pub max_gap: Duration,
    /// Whose arithmetic is used where an original has a flaw.
    pub compat: Compat,
    /// How an idle service goes below its minimum; `None` never.
    pub zero: Option<Zero>,
    /// What stands in for a signal that stays unknown.
    pub fallback: Option<Fallback>,
    /// What is expected of the load to come.
    pub forecast: Option<Forecast>,
    /// A window of the way down that follows how restless the load is.
    pub calm: Option<Calm>,
    /// How often the count may turn.
    pub flap_budget: Option<FlapBudget>,
    /// When growth is stopped because nothing new becomes ready.
    pub surge: Option<Surge>,
    /// Remove instances only when nothing is in flight on them.
    pub drain: Option<Drain>,
    /// Hours with other bounds.
    pub schedule: Vec<ScheduleWindow>,
    /// Do not scale, or in one direction only.
    pub pause: Option<Pause>,
    /// Load that the ready instances should be able to take on top of what they have, in the unit of the first signal;
    /// when they can't, the decision says to keep the buffer in the path
    /// ([`Decision::spare`](crate::Decision::spare)). Knative's target burst capacity.
    pub burst_capacity: Option<f64>,
}

/// Whose arithmetic is used where an original has a flaw, or another idea.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Compat {
    /// The right one: percentages are exact integers, and a total above its target never removes instances.
    #[default]
    Own,
    /// The Horizontal Pod Autoscaler's: percentages of rate limits in floating point (50 and 10 % make 56, 5 less
    /// 80 % is 0), a total times the ready instances, which removes some when few are ready, ratios and means cut
    /// as the original cuts them.
    Hpa,
    /// The Nomad autoscaler's: a total times the present count, ready or not.
    Nomad,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            min: 1,
            max: 10,
            signals: Vec::new(),
            behavior: Behavior::default(),
            burst: None,
            during_update: DuringUpdate::default(),
            max_gap: MAX_GAP,
            compat: Compat::Own,
            zero: None,
            fallback: None,
            forecast: None,
            calm: None,
            flap_budget: None,
            surge: None,
            drain: None,
            schedule: Vec::new(),
            pause: None,
            burst_capacity: None,
        }
    }
}

impl Policy {
    /// Sets both bounds, inclusive.
    #[must_use]
    pub fn bounds(mut self, min: u32, max: u32) -> Self {
        (self.min, self.max) = (min, max);
        self
    }

    /// Adds a signal.
    #[must_use]
    pub fn signal(mut self, signal: SignalPolicy) -> Self {
        self.signals.push(signal);
        self
    }

    /// Sets the rules for adding instances.
    #[must_use]
    pub fn up(mut self, direction: Direction) -> Self {
        self.behavior.up = direction;
        self
    }

    /// Sets the rules for removing instances.
    #[must_use]
    pub fn down(mut self, direction: Direction) -> Self {
        self.behavior.down = direction;
        self
    }

    /// Sets how long every proposal must agree before instances are removed.
    #[must_use]
    pub fn down_window(mut self, window: Duration) -> Self {
        self.behavior.down.stabilization = window;
        self
    }

    /// Sets or removes burst mode.
    #[must_use]
    pub fn burst(mut self, burst: Option<Burst>) -> Self {
        self.burst = burst;
        self
    }

    /// Sets what may be done while an update runs.
    #[must_use]
    pub fn during_update(mut self, during_update: DuringUpdate) -> Self {
        self.during_update = during_update;
        self
    }

    /// Sets the longest gap between two complete observations.
    #[must_use]
    pub fn max_gap(mut self, max_gap: Duration) -> Self {
        self.max_gap = max_gap;
        self
    }

    /// Sets whose arithmetic is used.
    #[must_use]
    pub fn compat(mut self, compat: Compat) -> Self {
        self.compat = compat;
        self
    }

    /// Adds a guard: nothing is removed while this signal is above `limit`.
    #[must_use]
    pub fn guard(self, signal: impl Into<String>, limit: f64) -> Self {
        self.signal(SignalPolicy::new(signal, Target::Guard(limit)))
    }

    /// Sets or removes the way to zero and back.
    #[must_use]
    pub fn zero(mut self, zero: Option<Zero>) -> Self {
        self.zero = zero;
        self
    }

    /// Sets or removes what stands in for unknown signals.
    #[must_use]
    pub fn fallback(mut self, fallback: Option<Fallback>) -> Self {
        self.fallback = fallback;
        self
    }

    /// Sets or removes the forecast.
    #[must_use]
    pub fn forecast(mut self, forecast: Option<Forecast>) -> Self {
        self.forecast = forecast;
        self
    }

    /// Sets or removes the window that follows the load.
    #[must_use]
    pub fn calm(mut self, calm: Option<Calm>) -> Self {
        self.calm = calm;
        self
    }

    /// Sets or removes the flap budget.
    #[must_use]
    pub fn flap_budget(mut self, budget: Option<FlapBudget>) -> Self {
        self.flap_budget = budget;
        self
    }

    /// Sets or removes the stop of growth that nothing comes of.
    #[must_use]
    pub fn surge(mut self, surge: Option<Surge>) -> Self {
        self.surge = surge;
        self
    }

    /// Sets or removes the drain before a removal.
    #[must_use]
    pub fn drain(mut self, drain: Option<Drain>) -> Self {
        self.drain = drain;
        self
    }

    /// Adds hours with other bounds.
    #[must_use]
    pub fn window(mut self, window: ScheduleWindow) -> Self {
        self.schedule.push(window);
        self
    }

    /// Sets or removes a pause.
    #[must_use]
    pub fn pause(mut self, pause: Option<Pause>) -> Self {
        self.pause = pause;
        self
    }

    /// Sets or removes the load to be able to take at once.
    #[must_use]
    pub fn burst_capacity(mut self, capacity: Option<f64>) -> Self {
        self.burst_capacity = capacity;
        self
    }

    /// The bounds at this time.
    pub(crate) fn bounds_at(&self, now: Duration) -> (u32, u32) {
        let open = self.schedule.iter().filter(|window| window.is_open(now));
        let (min, max) = open.fold((self.min, self.max), |(min, max), window| {
            (min.max(window.min.unwrap_or(0)), max.min(window.max.unwrap_or(u32::MAX)))
        });
        (min.min(max), max)
    }

    /// Whether an open window of the schedule wants at least one instance: then an idle service counts as active.
    pub(crate) fn is_wanted_at(&self, now: Duration) -> bool {
        self.schedule.iter().any(|window| window.min.is_some_and(|min| min > 0) && window.is_open(now))
    }

    /// The longest that the window of the way down can be.
    pub(crate) fn longest_down_window(&self) -> Duration {
        let window = self.behavior.down.stabilization;
        self.calm.map_or(window, |calm| window.max(calm.longest))
    }

    /// How long a turn has to be remembered.
    pub(crate) fn longest_turn_period(&self) -> Duration {
        let budget = self.flap_budget.map_or(Duration::ZERO, |budget| budget.period);
        self.calm.map_or(budget, |calm| budget.max(calm.period))
    }

    /// How long a change has to be remembered: the longest period of all rate limits and cool-downs.
    pub(crate) fn longest_period(&self) -> Duration {
        let limits = self.behavior.up.limits.iter().chain(&self.behavior.down.limits);
        let cooldowns = [self.behavior.up.cooldown, self.behavior.down.cooldown];
        limits.map(RateLimit::period).chain(cooldowns).max().unwrap_or_default()
    }
}

/// A dozen five-second ticks.
const MAX_GAP: Duration = Duration::from_secs(60);
