//! The way from the proposal to the result: one rule after another, each noted as a stage.

use std::borrow::Cow;
use std::time::Duration;

use crate::decision::{Action, Ballot, Decision, Reason, Stage, StageName};
use crate::limits;
use crate::observation::Observation;
use crate::policy::{Forecast, ForecastMode, Pause, Policy};
use crate::state::{MAX_VICTIMS, State};
use crate::victims::victims;
use crate::vote::seconds;

/// The bounds that hold now, and where an idle service stands.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scene {
    pub(crate) min: u32,
    pub(crate) max: u32,
    idleness: Idleness,
}

/// How far an idle service is on its way below its minimum.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Idleness {
    /// The policy has no such way, or nothing is known.
    None,
    /// It is active.
    Active,
    /// It is idle, but not for long enough.
    Waiting { still: Duration },
    /// It is idle for long enough, but nothing stands ready to hold requests.
    NoBuffer { still: Option<Duration> },
    /// It may go, or stays, below its minimum.
    Idle,
}

impl Scene {
    pub(crate) fn of(
        policy: &Policy,
        state: &State,
        observation: &Observation,
        active: Option<bool>,
        idle: Option<Duration>,
    ) -> Self {
        let (min, max) = policy.bounds_at(observation.now);
        let Some(zero) = policy.zero else { return Self { min, max, idleness: Idleness::None } };
        let current = observation.current;
        let idleness = match (active, idle) {
            (Some(true), _) => Idleness::Active,
            (_, Some(_)) if current <= zero.idle_replicas => Idleness::Idle,
            (_, Some(idle)) if idle < zero.idle_for => Idleness::Waiting { still: zero.idle_for - idle },
            (_, Some(_)) if zero.needs_buffer && zero.idle_replicas == 0 => {
                match state.buffered(observation.now) {
                    Some(ready) if ready >= zero.grace => Idleness::Idle,
                    Some(ready) => Idleness::NoBuffer { still: Some(zero.grace - ready) },
                    None => Idleness::NoBuffer { still: None },
                }
            }
            (_, Some(_)) => Idleness::Idle,
            (_, None) => Idleness::None,
        };
        let min = match idleness {
            Idleness::Active => min,
            Idleness::Idle => zero.idle_replicas,
            // One that is idle already is not woken by not knowing, but by an hour that wants it.
            _ if current < min && !policy.is_wanted_at(observation.now) => current,
            _ => min,
        };
        Self { min, max, idleness }
    }

    /// Whether an idle service has become active: then its load says how many come back, not the minimum alone.
    pub(crate) fn is_waking(&self, policy: &Policy, current: u32) -> bool {
        self.idleness == Idleness::Active && policy.zero.is_some_and(|zero| current <= zero.idle_replicas)
    }
}

/// The way from the proposal to the result.
pub(crate) struct Path<'a> {
    pub(crate) decision: &'a mut Decision,
    pub(crate) policy: &'a Policy,
    pub(crate) state: &'a mut State,
    pub(crate) observation: &'a Observation,
    pub(crate) scene: Scene,
}

impl Path<'_> {
    pub(crate) fn walk(mut self, proposal: u32, unknown: bool) {
        let current = self.observation.current;
        self.decision.reason = Reason::Load;
        self.decision.stages.push(Stage {
            name: StageName::Combine,
            before: current,
            after: proposal,
            rule: "the largest proposal".to_owned(),
            inputs: Vec::new(),
        });
        let mut count = self.forecast(proposal);
        count = self.zero(count);
        let may_remove = self.policy.fallback.is_some_and(|fallback| fallback.may_remove)
            && !self.decision.votes.iter().any(|vote| matches!(vote.ballot, Ballot::Unknown { .. }));
        if unknown && count < current && !may_remove {
            let rule = "a signal being unknown".to_owned();
            count = self.step(StageName::Unknown, count, current, rule, Vec::new(), Reason::Unknown);
        }
        count = self.guard(count);
        count = self.pause(count);
        count = self.stabilize(count);
        if self.observation.update_in_progress && count < current {
            let rule = "the running update".to_owned();
            count = self.step(StageName::Update, count, current, rule, Vec::new(), Reason::Updating);
        }
        count = self.flap(count);
        count = self.surge(count);
        count = self.cooldown(count);
        count = self.limit(count);
        count = self.bound(count);
        if count < current && self.policy.drain.is_some() {
            self.drain(count);
        } else if count != current {
            self.decision.action = Action::ScaleTo(count);
        }
    }

    /// What is expected raises the proposal, never lowers it.
    fn forecast(&mut self, count: u32) -> u32 {
        let (Some(forecast), Some(expected)) = (&self.policy.forecast, self.decision.expected) else {
            return count;
        };
        if forecast.mode != ForecastMode::Active {
            return count;
        }
        let current = self.observation.current;
        let (horizon, batch) = (forecast.horizon, forecast.batch.max(forecast.horizon));
        let inputs = vec![("expected".into(), expected.load)];
        if !expected.recurs {
            if count <= current || expected.lasting <= count {
                return count;
            }
            // It was proposed, so it stays for a window: else the next decision would take it back.
            self.state.remember(self.observation.now, expected.lasting);
            let trusted = self.policy.behavior.down.stabilization.min(batch).max(horizon);
            let rule = format!("a steady rise, for the next {}", seconds(trusted));
            return self.step(StageName::Forecast, count, expected.lasting, rule, inputs, Reason::Forecast);
        }
        let mut raised = count.max(expected.replicas);
        let mut ahead = horizon;
        if raised != current && expected.lasting > raised {
            // A change of the count: as far as it has to go anyway. What stays costs less than to go and come back.
            raised = if raised < current { expected.lasting.min(current) } else { expected.lasting };
            ahead = batch;
        }
        if raised == count {
            return count;
        }
        let rule = format!("the forecast for the next {}", seconds(ahead));
        self.step(StageName::Forecast, count, raised, rule, inputs, Reason::Forecast)
    }

    /// To zero and back.
    fn zero(&mut self, count: u32) -> u32 {
        let Some(zero) = self.policy.zero else { return count };
        let current = self.observation.current;
        match self.scene.idleness {
            Idleness::Active
                if self.scene.is_waking(self.policy, current) && count < zero.activation_replicas =>
            {
                let rule = "the activation".to_owned();
                let to = zero.activation_replicas;
                self.step(StageName::Zero, count, to, rule, Vec::new(), Reason::Activated)
            }
            Idleness::Idle if count != zero.idle_replicas => {
                let rule = format!("being idle for {}", seconds(zero.idle_for));
                self.step(StageName::Zero, count, zero.idle_replicas, rule, Vec::new(), Reason::Idle)
            }
            Idleness::Waiting { still } if count < self.scene.min => {
                let rule = format!("the idle time, for another {}", seconds(still));
                self.step(StageName::Zero, count, self.scene.min, rule, Vec::new(), Reason::Idling)
            }
            Idleness::NoBuffer { still } if count < self.scene.min => {
                let rule = match still {
                    Some(still) => {
                        format!("the grace of what holds requests, for another {}", seconds(still))
                    }
                    None => "nothing standing ready to hold requests".to_owned(),
                };
                self.step(StageName::Zero, count, self.scene.min, rule, Vec::new(), Reason::NoBuffer)
            }
            _ => count,
        }
    }

    fn guard(&mut self, count: u32) -> u32 {
        let current = self.observation.current;
        if count >= current {
            return count;
        }
        let over = self.decision.votes.iter().find_map(|vote| match vote.ballot {
            Ballot::Guards { value, over: true } => Some((vote.signal.clone(), value, vote.target.value())),
            _ => None,
        });
        let Some((signal, value, limit)) = over else { return count };
        let rule = format!("{} above its limit", signal.replace('_', " "));
        let inputs = vec![("value".into(), value), ("limit".into(), limit)];
        self.step(StageName::Guard, count, current, rule, inputs, Reason::Guarded)
    }

    fn pause(&mut self, count: u32) -> u32 {
        let current = self.observation.current;
        let rule = match self.policy.pause {
            Some(Pause::ScaleIn) if count < current => "the pause of removing",
            Some(Pause::ScaleOut) if count > current => "the pause of adding",
            _ => return count,
        };
        self.step(StageName::Pause, count, current, rule.to_owned(), Vec::new(), Reason::Paused)
    }

    /// Starts from the present count and moves only as far as both windows agree.
    fn stabilize(&mut self, count: u32) -> u32 {
        let (now, current) = (self.observation.now, self.observation.current);
        let burst = self.policy.burst.filter(|burst| self.state.in_burst(now, burst.window));
        if count > current && burst.is_none() && self.decision.reason != Reason::Activated {
            let window = self.policy.behavior.up.stabilization;
            let lowest = self.state.lowest(now, window, count).max(current);
            if lowest < count {
                let rule = format!("the lowest proposal of the last {}", seconds(window));
                let inputs = vec![("window_seconds".into(), window.as_secs_f64())];
                return self.step(StageName::Stabilize, count, lowest, rule, inputs, Reason::UpStabilized);
            }
        } else if count < current {
            if let Some(burst) = burst {
                let rule = format!("a burst less than {} ago", seconds(burst.window));
                let inputs = vec![("window_seconds".into(), burst.window.as_secs_f64())];
                return self.step(StageName::Burst, count, current, rule, inputs, Reason::Burst);
            }
            let window = self.down_window();
            let highest = self.state.highest(now, window, count).min(current);
            if highest > count && self.decision.reason != Reason::Idle {
                let rule = format!("the highest proposal of the last {}", seconds(window));
                let inputs = vec![("window_seconds".into(), window.as_secs_f64())];
                return self.step(StageName::Stabilize, count, highest, rule, inputs, Reason::DownStabilized);
            }
        }
        count
    }

    /// The window of the way down: that of the policy, or what the load makes of it.
    fn down_window(&self) -> Duration {
        let window = self.policy.behavior.down.stabilization;
        let Some(calm) = self.policy.calm else { return window };
        let counts = |forecast: &Forecast| forecast.mode == ForecastMode::Active;
        if self.decision.expected.is_some_and(|expected| expected.recurs)
            && self.policy.forecast.as_ref().is_some_and(counts)
        {
            return calm.known.min(window);
        }
        let regrets = self.state.regrets(self.observation.now, calm.period);
        window.saturating_mul(regrets.saturating_mul(2).saturating_add(1)).min(calm.longest.max(window))
    }

    fn flap(&mut self, count: u32) -> u32 {
        let (now, current) = (self.observation.now, self.observation.current);
        let Some(budget) = self.policy.flap_budget.filter(|_| count < current) else { return count };
        let (turns, is_turn) = self.state.turns(now, budget.period);
        if !is_turn || turns < budget.turns as usize {
            return count;
        }
        let rule = format!("{turns} turns within {}, which is the budget", seconds(budget.period));
        let inputs = vec![("turns".into(), turns as f64)];
        self.step(StageName::Flap, count, current, rule, inputs, Reason::FlapBudget)
    }

    fn surge(&mut self, count: u32) -> u32 {
        let (now, current) = (self.observation.now, self.observation.current);
        let Some(surge) = self.policy.surge.filter(|_| count > current) else { return count };
        let stuck = self.state.stuck_for(now);
        if self.observation.ready >= current || stuck < surge.patience {
            return count;
        }
        let ready = self.observation.ready;
        let rule = format!("{ready} of {current} serving, and none more for {}", seconds(stuck));
        let inputs = vec![("ready".into(), ready.into())];
        self.step(StageName::Surge, count, current, rule, inputs, Reason::Stuck)
    }

    fn cooldown(&mut self, count: u32) -> u32 {
        let (now, current) = (self.observation.now, self.observation.current);
        let cooldown = if count > current {
            self.policy.behavior.up.cooldown
        } else {
            self.policy.behavior.down.cooldown
        };
        let since = self.state.last_change().map(|at| now.saturating_sub(at));
        let Some(since) = since.filter(|since| count != current && *since < cooldown) else { return count };
        let rule = format!("a change {} ago", seconds(since));
        self.step(StageName::Cooldown, count, current, rule, Vec::new(), Reason::Cooldown)
    }

    fn limit(&mut self, count: u32) -> u32 {
        let (now, current) = (self.observation.now, self.observation.current);
        let compat = self.policy.compat;
        let (limit, closed, limited) = if count > current {
            let limit = limits::up(&self.policy.behavior.up, self.state, now, current, compat);
            (limit.filter(|limit| limit.count < count), Reason::UpDisabled, Reason::UpLimited)
        } else if count < current {
            let limit = limits::down(&self.policy.behavior.down, self.state, now, current, compat);
            (limit.filter(|limit| limit.count > count), Reason::DownDisabled, Reason::DownLimited)
        } else {
            return count;
        };
        match limit {
            None => count,
            Some(limit) => {
                let reason = if limit.closed { closed } else { limited };
                let inputs = limit.start.map(|start| ("start_of_period".into(), f64::from(start)));
                let inputs = inputs.into_iter().collect();
                self.step(StageName::Rate, count, limit.count, limit.rule, inputs, reason)
            }
        }
    }

    fn bound(&mut self, count: u32) -> u32 {
        let Scene { min, max, .. } = self.scene;
        if count > max {
            let rule = format!("the maximum of {max}");
            self.step(StageName::Bound, count, max, rule, Vec::new(), Reason::AtMax)
        } else if count < min {
            let rule = format!("the minimum of {min}");
            self.step(StageName::Bound, count, min, rule, Vec::new(), Reason::AtMin)
        } else {
            count
        }
    }

    /// First away from the requests, then away.
    fn drain(&mut self, count: u32) {
        let (now, current) = (self.observation.now, self.observation.current);
        let Some(drain) = self.policy.drain else { return };
        let count = count.max(current.saturating_sub(MAX_VICTIMS as u32));
        let going = victims(&self.observation.instances, current, count);
        let since = self.state.drain(&going, now);
        let waited = now.saturating_sub(since);
        let in_flight = |id: &String| {
            let instance = self.observation.instances.iter().find(|instance| instance.id == *id);
            instance.and_then(|instance| instance.in_flight)
        };
        // What is not known counts as not done, and what was seen before new requests were kept away does not count.
        let done = !going.is_empty() && !waited.is_zero() && going.iter().all(|id| in_flight(id) == Some(0));
        if going.is_empty() && !self.observation.instances.is_empty() {
            // Those that go are not there yet.
            self.decision.action = Action::ScaleTo(count);
            return;
        }
        if going.is_empty() && !drain.deadline.is_zero() {
            // Without a name nothing can be kept away from it: there is no drain to wait for, and no removal.
            let rule = "nobody knowing which instances would go".to_owned();
            self.step(StageName::Drain, count, current, rule, Vec::new(), Reason::Draining);
            return;
        }
        if done || waited >= drain.deadline {
            self.decision.action = Action::ScaleTo(count);
            return;
        }
        let sum: u64 = going.iter().filter_map(in_flight).sum();
        let rule = format!("the drain of {}", going.join(", "));
        let inputs = vec![("in_flight".into(), sum as f64), ("seconds".into(), waited.as_secs_f64())];
        self.step(StageName::Drain, count, current, rule, inputs, Reason::Draining);
        self.decision.action = Action::DrainThen(count);
        self.decision.victims = going;
    }

    fn step(
        &mut self,
        name: StageName,
        before: u32,
        after: u32,
        rule: String,
        inputs: Vec<(Cow<'static, str>, f64)>,
        reason: Reason,
    ) -> u32 {
        self.decision.stages.push(Stage { name, before, after, rule, inputs });
        self.decision.reason = reason;
        after
    }
}
